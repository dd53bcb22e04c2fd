package org.dermedge.page;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.Manifest;
import android.app.Activity;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.net.Uri;
import android.os.Looper;
import android.provider.MediaStore;
import android.view.WindowManager;
import android.webkit.PermissionRequest;
import android.webkit.ValueCallback;
import android.webkit.WebChromeClient;
import android.webkit.WebResourceResponse;
import android.webkit.WebView;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.Before;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;
import org.robolectric.android.controller.ActivityController;
import org.robolectric.annotation.Config;
import org.robolectric.shadows.ShadowActivity;
import org.robolectric.shadows.ShadowWebView;

@RunWith(RobolectricTestRunner.class)
@Config(sdk = 34)
public class PageActivityTest {
    private static final Uri OURS = Uri.parse(Site.START);

    private static final String SITE =
            "{\"files\": {\"index.html\": \"text/html; charset=utf-8\","
                    + "\"worker.js\": \"text/javascript; charset=utf-8\","
                    + "\"files/a.wasm\": \"application/wasm\", \"gone.js\": \"text/javascript\"},"
                    + "\"policy\": \"of the page\", \"worker_policy\": \"of the worker\"}";

    private static InputStream file(String path) throws IOException {
        if (path.equals("site/gone.js")) {
            throw new FileNotFoundException(path);
        }
        String content = path.equals("site.json") ? SITE : "content of " + path;
        return new ByteArrayInputStream(content.getBytes("UTF-8"));
    }

    /** Maven knows no assets. */
    public static final class Opened extends PageActivity {
        @Override
        public InputStream open(String path) throws IOException {
            return file(path);
        }
    }

    private ActivityController<Opened> controller;
    private PageActivity activity;
    private ShadowActivity shadow;
    private ShadowWebView web;
    private final List<Uri[]> heard = new ArrayList<Uri[]>();
    private final ValueCallback<Uri[]> callback = heard::add;

    @Before
    public void open() {
        controller = Robolectric.buildActivity(Opened.class).setup();
        activity = controller.get();
        shadow = shadowOf(activity);
        web = shadowOf((WebView) shadow.getContentView());
    }

    private void allowCamera(boolean allowed) {
        if (allowed) {
            shadowOf(RuntimeEnvironment.getApplication())
                    .grantPermissions(Manifest.permission.CAMERA);
        }
    }

    private static WebResourceResponse answer(String address) throws IOException {
        return new Site(PageActivityTest::file).answer(Uri.parse(address), "GET");
    }

    @Test
    public void thePageComesFromTheApkWithItsTypeAndPolicy() throws IOException {
        assertEquals("https://dermedge.invalid/index.html", web.getLastLoadedUrl());
        WebResourceResponse page = answer(Site.START);
        assertEquals(200, page.getStatusCode());
        assertEquals("text/html", page.getMimeType());
        assertEquals("utf-8", page.getEncoding());
        assertEquals("of the page", page.getResponseHeaders().get("Content-Security-Policy"));
        assertArrayEquals("content of site/index.html".getBytes("UTF-8"), Site.read(page.getData()));
        WebResourceResponse worker = answer("https://dermedge.invalid/worker.js");
        assertEquals("of the worker", worker.getResponseHeaders().get("Content-Security-Policy"));
        WebResourceResponse wasm = answer("https://dermedge.invalid/files/a.wasm");
        assertEquals("application/wasm", wasm.getMimeType());
        assertNull(wasm.getEncoding());
        assertEquals("text/html", answer("https://dermedge.invalid/").getMimeType());
    }

    @Test
    public void whateverElseIsAskedForIsAnsweredHereAndNotFound() throws IOException {
        for (String address :
                new String[] {
                    "https://example.org/index.html",
                    "http://dermedge.invalid/index.html",
                    "https://dermedge.invalid:8443/index.html",
                    "https://dermedge.invalid/site.json",
                    "https://dermedge.invalid/../site.json",
                    "https://dermedge.invalid/gone.js",
                    "file:///etc/hosts",
                    "mailto:a@example.org",
                }) {
            assertEquals(address, 404, answer(address).getStatusCode());
        }
    }

    @Test
    public void nobodySeesTheScreenAndNoLinkLeadsOut() {
        int flags = activity.getWindow().getAttributes().flags;
        assertTrue((flags & WindowManager.LayoutParams.FLAG_SECURE) != 0);
        assertFalse(web.getWebViewClient() == null);
        assertFalse(Site.isOurs(Uri.parse("https://dermedge.invalid.example.org/")));
    }

    /** A request of the page for the camera. */
    private static final class Asked extends PermissionRequest {
        private final Uri origin;
        private final String[] resources;
        String[] granted;
        boolean denied;

        Asked(Uri origin, String... resources) {
            this.origin = origin;
            this.resources = resources;
        }

        @Override
        public Uri getOrigin() {
            return origin;
        }

        @Override
        public String[] getResources() {
            return resources;
        }

        @Override
        public void grant(String[] resources) {
            granted = resources;
        }

        @Override
        public void deny() {
            denied = true;
        }
    }

    @Test
    public void theCameraIsThePersonsToGive() {
        WebChromeClient chrome = web.getWebChromeClient();
        Asked refused = new Asked(OURS, PermissionRequest.RESOURCE_VIDEO_CAPTURE);
        chrome.onPermissionRequest(refused);
        assertNull(refused.granted);
        assertEquals(
                Manifest.permission.CAMERA,
                shadow.getLastRequestedPermission().requestedPermissions[0]);
        activity.onRequestPermissionsResult(
                shadow.getLastRequestedPermission().requestCode,
                new String[] {Manifest.permission.CAMERA},
                new int[] {PackageManager.PERMISSION_DENIED});
        assertTrue(refused.denied);

        allowCamera(true);
        Asked allowed = new Asked(OURS, PermissionRequest.RESOURCE_VIDEO_CAPTURE);
        chrome.onPermissionRequest(allowed);
        assertArrayEquals(new String[] {PermissionRequest.RESOURCE_VIDEO_CAPTURE}, allowed.granted);

        for (Asked other :
                Arrays.asList(
                        new Asked(OURS, PermissionRequest.RESOURCE_AUDIO_CAPTURE),
                        new Asked(
                                OURS,
                                PermissionRequest.RESOURCE_VIDEO_CAPTURE,
                                PermissionRequest.RESOURCE_AUDIO_CAPTURE),
                        new Asked(
                                Uri.parse("https://example.org/"),
                                PermissionRequest.RESOURCE_VIDEO_CAPTURE))) {
            chrome.onPermissionRequest(other);
            assertTrue(other.denied);
            assertNull(other.granted);
        }
    }

    /** What an input of the page asks for. */
    private static final class Wanted extends WebChromeClient.FileChooserParams {
        private final boolean capture;

        Wanted(boolean capture) {
            this.capture = capture;
        }

        @Override
        public int getMode() {
            return MODE_OPEN;
        }

        @Override
        public String[] getAcceptTypes() {
            return new String[] {"image/jpeg", ".png", "image/webp"};
        }

        @Override
        public boolean isCaptureEnabled() {
            return capture;
        }

        @Override
        public CharSequence getTitle() {
            return null;
        }

        @Override
        public String getFilenameHint() {
            return null;
        }

        @Override
        public Intent createIntent() {
            return null;
        }
    }

    private Intent choose(boolean capture) {
        WebChromeClient chrome = web.getWebChromeClient();
        assertTrue(chrome.onShowFileChooser(null, callback, new Wanted(capture)));
        return shadow.getNextStartedActivity();
    }

    @Test
    public void aPictureIsChosenByTheSystemsPicker() {
        Intent picker = choose(false);
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, picker.getAction());
        assertArrayEquals(
                new String[] {"image/jpeg", "image/webp"},
                picker.getStringArrayExtra(Intent.EXTRA_MIME_TYPES));
        Uri file = Uri.parse("content://documents/1");
        shadow.receiveResult(picker, Activity.RESULT_OK, new Intent().setData(file));
        assertArrayEquals(new Uri[] {file}, heard.get(0));
        shadow.receiveResult(choose(false), Activity.RESULT_CANCELED, null);
        assertNull(heard.get(1)); // or the page could never ask again
    }

    @Test
    public void aPhotoOfTheCameraAppStaysInTheAppsOwnFolder() throws IOException {
        // Not before the person has allowed it.
        assertFalse(MediaStore.ACTION_IMAGE_CAPTURE.equals(choose(true).getAction()));
        assertNotNull(shadow.getLastRequestedPermission());
        allowCamera(true);
        activity.onRequestPermissionsResult(
                Chooser.PHOTO,
                new String[] {Manifest.permission.CAMERA},
                new int[] {PackageManager.PERMISSION_GRANTED});
        Intent photo = shadow.getNextStartedActivity();
        assertEquals(MediaStore.ACTION_IMAGE_CAPTURE, photo.getAction());
        Uri target = photo.getParcelableExtra(MediaStore.EXTRA_OUTPUT);
        assertEquals(target, photo.getClipData().getItemAt(0).getUri());
        try (FileOutputStream stream = new FileOutputStream(PhotoProvider.file(activity, target))) {
            stream.write(7);
        }
        shadow.receiveResult(photo, Activity.RESULT_OK, null);
        assertArrayEquals(new Uri[] {target}, heard.get(0));
        assertEquals(1, PhotoProvider.file(activity, target).length());

        Intent nothing = choose(true);
        shadow.receiveResult(nothing, Activity.RESULT_OK, null); // no file was written
        assertNull(heard.get(1));

        controller.pause().stop().destroy();
        assertFalse(PhotoProvider.file(activity, target).exists());
    }

    @Test
    public void noOtherFileIsHandedOut() {
        for (String address :
                new String[] {
                    "content://org.dermedge.page.photo/../x.jpg",
                    "content://org.dermedge.page.photo/1.png",
                    "content://org.dermedge.page.photo/a/1.jpg",
                    "content://another/1.jpg",
                }) {
            assertNull(PhotoProvider.file(activity, Uri.parse(address)));
        }
    }

    @Test
    public void aFileOfThePageIsWrittenWhereThePersonSays() throws IOException {
        PageActivity.Device device =
                (PageActivity.Device) web.getJavascriptInterface("dermedgeDevice");
        device.save("cases.dermcases", "", "AAEC");
        shadowOf(Looper.getMainLooper()).idle();
        Intent picker = shadow.getNextStartedActivity();
        assertEquals(Intent.ACTION_CREATE_DOCUMENT, picker.getAction());
        assertEquals("application/octet-stream", picker.getType());
        assertEquals("cases.dermcases", picker.getStringExtra(Intent.EXTRA_TITLE));
        Uri target = Uri.parse("content://documents/2");
        ByteArrayOutputStream written = new ByteArrayOutputStream();
        shadowOf(activity.getContentResolver()).registerOutputStream(target, written);
        shadow.receiveResult(picker, Activity.RESULT_OK, new Intent().setData(target));
        assertArrayEquals(new byte[] {0, 1, 2}, written.toByteArray());
    }

    @Test
    public void whatCouldNotBeWrittenIsSaid() {
        PageActivity.Device device =
                (PageActivity.Device) web.getJavascriptInterface("dermedgeDevice");
        device.save("a.pdf", "application/pdf", "AAEC");
        shadowOf(Looper.getMainLooper()).idle();
        Uri target = Uri.parse("content://documents/3");
        shadowOf(activity.getContentResolver())
                .registerOutputStreamSupplier(
                        target,
                        () -> {
                            throw new IllegalStateException("no \"room\"");
                        });
        shadow.receiveResult(
                shadow.getNextStartedActivity(),
                Activity.RESULT_OK,
                new Intent().setData(target));
        assertEquals("deviceNotSaved(\"no \\\"room\\\"\")", web.getLastEvaluatedJavascript());
    }

    @Test
    public void theBackButtonIsThePagesFirst() {
        activity.onBackPressed();
        assertEquals(
                "typeof deviceBack === 'function' && deviceBack()",
                web.getLastEvaluatedJavascript());
        web.getLastEvaluatedJavascriptCallback().onReceiveValue("true");
        assertFalse(activity.isFinishing());
        activity.onBackPressed();
        web.getLastEvaluatedJavascriptCallback().onReceiveValue("false");
        assertTrue(activity.isFinishing());
    }
}
