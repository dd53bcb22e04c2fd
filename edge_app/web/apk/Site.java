package org.dermedge.page;

import android.net.Uri;
import android.webkit.WebResourceResponse;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.HashMap;
import java.util.Map;
import org.json.JSONException;
import org.json.JSONObject;

/** The page's files, out of the APK, as if a host answered by https. Any thread. */
final class Site {
    /** A name that no network knows; https, or a page gets no camera. */
    static final String HOST = "dermedge.invalid";

    static final String START = "https://" + HOST + "/index.html";

    /** Where they lie: the APK's assets. */
    interface Files {
        InputStream open(String path) throws IOException;
    }

    private final Files assets;
    private final JSONObject files;
    private final String policy;
    private final String workerPolicy;

    Site(Files assets) throws IOException {
        this.assets = assets;
        try {
            JSONObject site = new JSONObject(new String(read(assets.open("site.json")), "UTF-8"));
            files = site.getJSONObject("files");
            policy = site.getString("policy");
            workerPolicy = site.getString("worker_policy");
        } catch (JSONException error) {
            throw new IOException(error);
        }
    }

    static boolean isOurs(Uri address) {
        return "https".equals(address.getScheme())
                && HOST.equals(address.getHost())
                && address.getPort() == -1;
    }

    /** Never null: null would send the request on to a network. */
    WebResourceResponse answer(Uri address, String method) {
        String path = address.getPath() == null ? "" : address.getPath();
        path = path.startsWith("/") ? path.substring(1) : path;
        String type = files.optString(path.isEmpty() ? "index.html" : path, null);
        if (!isOurs(address) || !"GET".equals(method) || type == null) {
            return refused();
        }
        path = path.isEmpty() ? "index.html" : path;
        Map<String, String> headers = new HashMap<String, String>();
        headers.put("Content-Security-Policy", path.equals("worker.js") ? workerPolicy : policy);
        headers.put("X-Content-Type-Options", "nosniff");
        headers.put("Cache-Control", "no-store");
        String[] parts = type.split("; charset=");
        try {
            InputStream content = assets.open("site/" + path);
            return new WebResourceResponse(
                    parts[0], parts.length > 1 ? parts[1] : null, 200, "OK", headers, content);
        } catch (IOException error) {
            return refused();
        }
    }

    private static WebResourceResponse refused() {
        return new WebResourceResponse(
                "text/plain",
                "utf-8",
                404,
                "Not Found",
                new HashMap<String, String>(),
                new ByteArrayInputStream(new byte[0]));
    }

    static byte[] read(InputStream stream) throws IOException {
        try {
            ByteArrayOutputStream whole = new ByteArrayOutputStream();
            byte[] part = new byte[1 << 16];
            for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
                whole.write(part, 0, count);
            }
            return whole.toByteArray();
        } finally {
            stream.close();
        }
    }
}
