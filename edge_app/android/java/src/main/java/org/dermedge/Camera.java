package org.dermedge;

import android.content.Context;
import android.graphics.ImageFormat;
import android.hardware.camera2.CameraAccessException;
import android.hardware.camera2.CameraCaptureSession;
import android.hardware.camera2.CameraCharacteristics;
import android.hardware.camera2.CameraDevice;
import android.hardware.camera2.CameraManager;
import android.hardware.camera2.CaptureRequest;
import android.hardware.camera2.params.StreamConfigurationMap;
import android.hardware.display.DisplayManager;
import android.media.Image;
import android.media.ImageReader;
import android.os.Handler;
import android.os.HandlerThread;
import android.util.Size;
import android.view.Display;
import java.nio.ByteBuffer;
import java.util.Collections;

/**
 * The newest picture of the camera on the back, by Camera2. Each method may be called from any
 * thread. What goes wrong is one of the words that {@link #fault} gives; a camera with a fault
 * gives no more pictures, and is to be closed.
 */
public final class Camera {
    private static final int IMAGES = 3; // the newest, one that arrives, one that is let go

    private final Context context;
    private final HandlerThread thread = new HandlerThread("dermedge-camera");
    private String fault = "";
    private boolean closed;
    private int orientation;
    private ImageReader reader;
    private CameraDevice device;
    private Image newest;

    /** Opens it; pictures of about this size come later. */
    public Camera(Context context, int width, int height) {
        this.context = context;
        thread.start();
        Handler handler = new Handler(thread.getLooper());
        CameraManager manager = (CameraManager) context.getSystemService(Context.CAMERA_SERVICE);
        try {
            String id = back(manager);
            if (id == null) {
                fail("none");
                return;
            }
            CameraCharacteristics about = manager.getCameraCharacteristics(id);
            Integer mounted = about.get(CameraCharacteristics.SENSOR_ORIENTATION);
            orientation = mounted == null ? 0 : mounted;
            Size size = nearest(about, width, height);
            if (size == null) {
                fail("none");
                return;
            }
            reader =
                    ImageReader.newInstance(
                            size.getWidth(), size.getHeight(), ImageFormat.YUV_420_888, IMAGES);
            reader.setOnImageAvailableListener(this::keep, handler);
            manager.openCamera(id, new Opening(handler), handler);
        } catch (CameraAccessException error) {
            fail(refusal(error.getReason()));
        } catch (SecurityException error) {
            fail("denied");
        } catch (IllegalArgumentException error) { // it was taken off meanwhile
            fail("none");
        }
    }

    /** "" while all is well, else "none", "denied", "taken", "disabled" or "lost". */
    public synchronized String fault() {
        return fault;
    }

    /** The newest picture, once; null where none has come since. */
    public synchronized Picture take() {
        if (newest == null) {
            return null;
        }
        Image image = newest;
        newest = null;
        try {
            Image.Plane[] planes = image.getPlanes();
            ByteBuffer[] buffers = new ByteBuffer[planes.length];
            int[] rows = new int[planes.length];
            int[] pixels = new int[planes.length];
            for (int i = 0; i < planes.length; i++) {
                buffers[i] = planes[i].getBuffer();
                rows[i] = planes[i].getRowStride();
                pixels[i] = planes[i].getPixelStride();
            }
            return new Picture(
                    image.getWidth(), image.getHeight(), buffers, rows, pixels, rotation());
        } finally {
            image.close();
        }
    }

    /** Gives the camera back. Twice is once. */
    public synchronized void close() {
        closed = true;
        if (device != null) {
            device.close(); // and its session
            device = null;
        }
        drop();
        if (reader != null) {
            reader.close();
            reader = null;
        }
        thread.quitSafely();
    }

    /** What an exception of the camera service means, as {@link #fault} says it. */
    static String refusal(int reason) {
        switch (reason) {
            case CameraAccessException.CAMERA_IN_USE:
            case CameraAccessException.MAX_CAMERAS_IN_USE:
                return "taken";
            case CameraAccessException.CAMERA_DISABLED:
                return "disabled";
            default:
                return "lost";
        }
    }

    /** The same of an error of an open camera. */
    static String error(int code) {
        switch (code) {
            case CameraDevice.StateCallback.ERROR_CAMERA_IN_USE:
            case CameraDevice.StateCallback.ERROR_MAX_CAMERAS_IN_USE:
                return "taken";
            case CameraDevice.StateCallback.ERROR_CAMERA_DISABLED:
                return "disabled";
            default:
                return "lost";
        }
    }

    private static String back(CameraManager manager) throws CameraAccessException {
        String other = null;
        for (String id : manager.getCameraIdList()) {
            Integer facing =
                    manager.getCameraCharacteristics(id).get(CameraCharacteristics.LENS_FACING);
            if (facing != null && facing == CameraCharacteristics.LENS_FACING_BACK) {
                return id;
            }
            // A USB microscope; never the one that looks into the user's face.
            if (facing != null && facing == CameraCharacteristics.LENS_FACING_EXTERNAL) {
                other = id;
            }
        }
        return other;
    }

    private static Size nearest(CameraCharacteristics about, int width, int height) {
        StreamConfigurationMap map =
                about.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP);
        Size[] sizes = map == null ? null : map.getOutputSizes(ImageFormat.YUV_420_888);
        Size nearest = null;
        long least = Long.MAX_VALUE;
        for (Size size : sizes == null ? new Size[0] : sizes) {
            long off =
                    Math.abs(size.getWidth() - (long) width)
                            + Math.abs(size.getHeight() - (long) height);
            if (off < least) {
                least = off;
                nearest = size;
            }
        }
        return nearest;
    }

    private int rotation() {
        DisplayManager displays =
                (DisplayManager) context.getSystemService(Context.DISPLAY_SERVICE);
        Display display = displays.getDisplay(Display.DEFAULT_DISPLAY);
        int turned = display == null ? 0 : 90 * display.getRotation();
        return (orientation - turned + 360) % 360;
    }

    private synchronized void keep(ImageReader source) {
        if (closed) {
            return;
        }
        drop();
        newest = source.acquireLatestImage();
    }

    private void drop() {
        if (newest != null) {
            newest.close();
            newest = null;
        }
    }

    private synchronized void fail(String word) {
        if (fault.isEmpty()) {
            fault = word;
        }
    }

    private final class Opening extends CameraDevice.StateCallback {
        private final Handler handler;

        Opening(Handler handler) {
            this.handler = handler;
        }

        @Override
        public void onOpened(CameraDevice opened) {
            synchronized (Camera.this) {
                if (closed) {
                    opened.close();
                    return;
                }
                device = opened;
                try {
                    opened.createCaptureSession(
                            Collections.singletonList(reader.getSurface()),
                            new Streaming(handler),
                            handler);
                } catch (CameraAccessException error) {
                    fail(refusal(error.getReason()));
                } catch (IllegalStateException error) { // it was closed meanwhile
                    fail("lost");
                }
            }
        }

        @Override
        public void onDisconnected(CameraDevice gone) {
            end(gone, "taken"); // by a program that the system puts first
        }

        @Override
        public void onError(CameraDevice broken, int code) {
            end(broken, error(code));
        }

        private void end(CameraDevice ended, String word) {
            ended.close();
            synchronized (Camera.this) {
                device = null;
                fail(word);
            }
        }
    }

    private final class Streaming extends CameraCaptureSession.StateCallback {
        private final Handler handler;

        Streaming(Handler handler) {
            this.handler = handler;
        }

        @Override
        public void onConfigured(CameraCaptureSession session) {
            synchronized (Camera.this) {
                if (closed || device == null) { // it was closed or taken away meanwhile
                    return;
                }
                try {
                    CaptureRequest.Builder request =
                            device.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW);
                    request.addTarget(reader.getSurface());
                    request.set(
                            CaptureRequest.CONTROL_AF_MODE,
                            CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE);
                    session.setRepeatingRequest(request.build(), null, handler);
                } catch (CameraAccessException error) {
                    fail(refusal(error.getReason()));
                } catch (IllegalStateException error) { // it was closed meanwhile
                    fail("lost");
                }
            }
        }

        @Override
        public void onConfigureFailed(CameraCaptureSession session) {
            fail("lost");
        }
    }
}
