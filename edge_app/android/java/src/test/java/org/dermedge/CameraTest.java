package org.dermedge;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;

import android.content.Context;
import android.graphics.ImageFormat;
import android.hardware.camera2.CameraAccessException;
import android.hardware.camera2.CameraCharacteristics;
import android.hardware.camera2.CameraDevice;
import android.hardware.camera2.CameraManager;
import android.os.Looper;
import java.nio.ByteBuffer;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.annotation.Config;
import org.robolectric.shadow.api.Shadow;
import org.robolectric.shadows.ShadowCameraCharacteristics;
import org.robolectric.shadows.ShadowCameraManager;
import org.robolectric.shadows.StreamConfigurationMapBuilder;

@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
public class CameraTest {
    private final Context context = RuntimeEnvironment.getApplication();

    private ShadowCameraManager manager() {
        return Shadow.extract(context.getSystemService(CameraManager.class));
    }

    private void add(String id, int facing) {
        CameraCharacteristics about = ShadowCameraCharacteristics.newCameraCharacteristics();
        ShadowCameraCharacteristics shadow = Shadow.extract(about);
        shadow.set(CameraCharacteristics.LENS_FACING, facing);
        shadow.set(CameraCharacteristics.SENSOR_ORIENTATION, 90);
        shadow.set(
                CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP,
                StreamConfigurationMapBuilder.newBuilder()
                        .addOutputSize(ImageFormat.YUV_420_888, new android.util.Size(640, 480))
                        .addOutputSize(ImageFormat.YUV_420_888, new android.util.Size(1280, 720))
                        .build());
        manager().addCamera(id, about);
    }

    private Camera open() {
        Camera camera = new Camera(context, 1280, 720);
        org.robolectric.Shadows.shadowOf(Looper.getMainLooper()).idle();
        return camera;
    }

    @Test
    public void aPhoneWithoutACameraSaysSo() {
        Camera camera = open();
        assertEquals("none", camera.fault());
        assertNull(camera.take());
        camera.close();
        camera.close();
    }

    @Test
    public void theCameraThatLooksIntoTheFaceIsNeverTaken() {
        add("1", CameraCharacteristics.LENS_FACING_FRONT);
        assertEquals("none", open().fault());
    }

    @Test
    public void theOneOnTheBackIsOpenedAndIsSilentUntilItsFirstPicture() {
        add("1", CameraCharacteristics.LENS_FACING_FRONT);
        add("0", CameraCharacteristics.LENS_FACING_BACK);
        Camera camera = open();
        assertEquals("", camera.fault());
        assertNull(camera.take());
        camera.close();
    }

    @Test
    public void faultsAreSaidInTheWordsThatPythonKnows() {
        assertEquals("taken", Camera.refusal(CameraAccessException.CAMERA_IN_USE));
        assertEquals("taken", Camera.refusal(CameraAccessException.MAX_CAMERAS_IN_USE));
        assertEquals("disabled", Camera.refusal(CameraAccessException.CAMERA_DISABLED));
        assertEquals("lost", Camera.refusal(CameraAccessException.CAMERA_DISCONNECTED));
        assertEquals("taken", Camera.error(CameraDevice.StateCallback.ERROR_CAMERA_IN_USE));
        assertEquals("disabled", Camera.error(CameraDevice.StateCallback.ERROR_CAMERA_DISABLED));
        assertEquals("lost", Camera.error(CameraDevice.StateCallback.ERROR_CAMERA_DEVICE));
    }

    @Test
    public void aPictureHoldsItsPlanesOneBehindTheOther() {
        ByteBuffer[] planes = {
            ByteBuffer.wrap(new byte[] {1, 2, 3, 4, 5, 6}),
            ByteBuffer.wrap(new byte[] {0, 7}, 1, 1),
            ByteBuffer.allocateDirect(1).put(0, (byte) -1),
        };
        Picture picture = new Picture(2, 2, planes, new int[] {4, 2, 2}, new int[] {1, 2, 2}, 90);
        assertArrayEquals(new byte[] {1, 2, 3, 4, 5, 6, 7, -1}, picture.data());
        assertArrayEquals(new int[] {2, 2, 90, 0, 4, 1, 6, 2, 2, 7, 2, 2}, picture.layout());
        assertEquals(1, planes[1].position()); // the camera's buffers stay as they are
    }
}
