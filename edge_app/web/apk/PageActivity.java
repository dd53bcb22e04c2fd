package org.dermedge.page;

import android.Manifest;
import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Context;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.net.Uri;
import android.os.Bundle;
import android.print.PrintAttributes;
import android.print.PrintManager;
import android.util.Base64;
import android.view.WindowManager;
import android.webkit.DownloadListener;
import android.webkit.JavascriptInterface;
import android.webkit.PermissionRequest;
import android.webkit.RenderProcessGoneDetail;
import android.webkit.ValueCallback;
import android.webkit.WebResourceRequest;
import android.webkit.WebResourceResponse;
import android.webkit.WebView;
import android.webkit.WebViewClient;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import org.json.JSONObject;

/** The built page in a window of its own; device.js is its other half. */
public class PageActivity extends Activity implements Site.Files {
    static final int SAVE = 3;

    private WebView view;
    private Site site;
    private Chooser chooser;
    private PermissionRequest camera;
    private byte[] saving;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        getWindow()
                .setFlags(
                        WindowManager.LayoutParams.FLAG_SECURE,
                        WindowManager.LayoutParams.FLAG_SECURE);
        try {
            site = new Site(this);
        } catch (IOException error) {
            throw new IllegalStateException("the APK is not whole", error);
        }
        chooser = new Chooser(this);
        view = new WebView(this);
        view.getSettings().setJavaScriptEnabled(true);
        view.getSettings().setAllowFileAccess(false);
        view.getSettings().setGeolocationEnabled(false);
        view.getSettings().setMediaPlaybackRequiresUserGesture(false);
        view.setWebViewClient(new Client());
        view.setWebChromeClient(new Chrome());
        view.setDownloadListener(new Download());
        view.addJavascriptInterface(new Device(), "dermedgeDevice");
        setContentView(view);
        view.loadUrl(Site.START);
    }

    @Override
    public InputStream open(String path) throws IOException {
        return getAssets().open(path);
    }

    @Override
    protected void onPause() {
        view.onPause();
        super.onPause();
    }

    @Override
    protected void onResume() {
        super.onResume();
        view.onResume();
    }

    @Override
    protected void onDestroy() {
        chooser.close();
        view.destroy();
        super.onDestroy();
    }

    /** The page's own way back, where it has one; else out of the app. */
    @Override
    public void onBackPressed() {
        view.evaluateJavascript(
                "typeof deviceBack === 'function' && deviceBack()",
                new ValueCallback<String>() {
                    @Override
                    public void onReceiveValue(String went) {
                        if (!"true".equals(went)) {
                            finish();
                        }
                    }
                });
    }

    @Override
    public void onRequestPermissionsResult(int request, String[] names, int[] answers) {
        if (request == Chooser.PHOTO) {
            chooser.allowed();
        } else if (camera != null) {
            answer(camera);
            camera = null;
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        Uri target = result == RESULT_OK && data != null ? data.getData() : null;
        if (request != SAVE) {
            chooser.chosen(request, result, target);
            return;
        }
        byte[] content = saving;
        saving = null;
        if (target != null && content != null) {
            write(target, content);
        }
    }

    private void write(Uri target, byte[] content) {
        try {
            OutputStream stream = getContentResolver().openOutputStream(target, "wt");
            try {
                stream.write(content);
            } finally {
                stream.close();
            }
        } catch (IOException | RuntimeException error) { // of a provider that is not ours
            notSaved(String.valueOf(error.getMessage()));
        }
    }

    private void notSaved(String reason) {
        view.evaluateJavascript("deviceNotSaved(" + JSONObject.quote(reason) + ")", null);
    }

    /** Ask where to, then write it there. */
    private void save(String name, String type, byte[] content) {
        Intent picker =
                new Intent(Intent.ACTION_CREATE_DOCUMENT)
                        .addCategory(Intent.CATEGORY_OPENABLE)
                        .setType(type.isEmpty() ? "application/octet-stream" : type)
                        .putExtra(Intent.EXTRA_TITLE, name);
        saving = content;
        try {
            startActivityForResult(picker, SAVE);
        } catch (ActivityNotFoundException error) {
            saving = null;
            notSaved(String.valueOf(error.getMessage()));
        }
    }

    boolean mayUseCamera() {
        return checkSelfPermission(Manifest.permission.CAMERA)
                == PackageManager.PERMISSION_GRANTED;
    }

    private void answer(PermissionRequest request) {
        if (mayUseCamera()) {
            request.grant(new String[] {PermissionRequest.RESOURCE_VIDEO_CAPTURE});
        } else {
            request.deny();
        }
    }

    private final class Client extends WebViewClient {
        @Override
        public WebResourceResponse shouldInterceptRequest(
                WebView view, WebResourceRequest request) {
            String scheme = request.getUrl().getScheme();
            // Both are of the page's own memory.
            if ("blob".equals(scheme) || "data".equals(scheme)) {
                return null;
            }
            return site.answer(request.getUrl(), request.getMethod());
        }

        @Override
        public boolean shouldOverrideUrlLoading(WebView view, WebResourceRequest request) {
            return !Site.isOurs(request.getUrl());
        }

        @Override
        public boolean onRenderProcessGone(WebView view, RenderProcessGoneDetail detail) {
            recreate(); // the phone was short of memory; the page begins anew
            return true;
        }
    }

    private final class Chrome extends android.webkit.WebChromeClient {
        @Override
        public void onPermissionRequest(PermissionRequest request) {
            String[] wanted = request.getResources();
            if (!Site.isOurs(request.getOrigin())
                    || wanted.length != 1
                    || !PermissionRequest.RESOURCE_VIDEO_CAPTURE.equals(wanted[0])) {
                request.deny();
            } else if (mayUseCamera()) {
                answer(request);
            } else {
                if (camera != null) {
                    camera.deny();
                }
                camera = request;
                requestPermissions(new String[] {Manifest.permission.CAMERA}, SAVE);
            }
        }

        @Override
        public boolean onShowFileChooser(
                WebView view, ValueCallback<Uri[]> callback, FileChooserParams wanted) {
            chooser.open(callback, wanted.isCaptureEnabled(), wanted.getAcceptTypes());
            return true;
        }
    }

    /** A link to a file of the page; what the page makes itself comes by device.js. */
    private final class Download implements DownloadListener {
        @Override
        public void onDownloadStart(
                String address, String agent, String disposition, String type, long length) {
            Uri file = Uri.parse(address);
            WebResourceResponse found = site.answer(file, "GET");
            if (found.getStatusCode() != 200) {
                return;
            }
            try {
                save(file.getLastPathSegment(), found.getMimeType(), Site.read(found.getData()));
            } catch (IOException error) {
                notSaved(String.valueOf(error.getMessage()));
            }
        }
    }

    /** What the page may ask of the phone; called on a thread of the WebView. */
    final class Device {
        @JavascriptInterface
        public void save(final String name, final String type, final String base64) {
            runOnUiThread(
                    new Runnable() {
                        @Override
                        public void run() {
                            PageActivity.this.save(
                                    name, type, Base64.decode(base64, Base64.DEFAULT));
                        }
                    });
        }

        @JavascriptInterface
        public void print() {
            runOnUiThread(
                    new Runnable() {
                        @Override
                        public void run() {
                            PrintManager printer =
                                    (PrintManager) getSystemService(Context.PRINT_SERVICE);
                            printer.print(
                                    "dermedge",
                                    view.createPrintDocumentAdapter("dermedge"),
                                    new PrintAttributes.Builder().build());
                        }
                    });
        }
    }
}
