package org.dermedge.page;

import android.Manifest;
import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.ClipData;
import android.content.Intent;
import android.net.Uri;
import android.provider.MediaStore;
import android.webkit.ValueCallback;
import java.util.ArrayList;
import java.util.List;

/** A photo of the phone's camera app or a file, for the page. On the main thread. */
final class Chooser {
    static final int CHOOSE = 1;
    static final int PHOTO = 2;

    private final PageActivity activity;
    private ValueCallback<Uri[]> waiting;
    private int photos;

    Chooser(PageActivity activity) {
        this.activity = activity;
        PhotoProvider.forget(activity); // of a run that was ended from outside
    }

    /** The page hears of every request once, or it never asks again. */
    void open(ValueCallback<Uri[]> callback, boolean capture, String[] types) {
        tell(null);
        waiting = callback;
        if (!capture) {
            start(files(types), CHOOSE);
        } else if (activity.mayUseCamera()) {
            allowed();
        } else {
            // An app that names this permission may not even ask a camera app without it.
            activity.requestPermissions(new String[] {Manifest.permission.CAMERA}, PHOTO);
        }
    }

    private static Intent files(String[] accepted) {
        List<String> types = new ArrayList<String>();
        for (String type : accepted) {
            if (type.contains("/")) { // an ending is no type that Android knows
                types.add(type);
            }
        }
        Intent picker =
                new Intent(Intent.ACTION_OPEN_DOCUMENT)
                        .addCategory(Intent.CATEGORY_OPENABLE)
                        .setType(types.size() == 1 ? types.get(0) : "*/*");
        if (types.size() > 1) {
            picker.putExtra(Intent.EXTRA_MIME_TYPES, types.toArray(new String[0]));
        }
        return picker;
    }

    /** The person has answered whether the camera may be used. */
    void allowed() {
        if (!activity.mayUseCamera()) {
            tell(null);
            return;
        }
        Uri target = PhotoProvider.address(++photos);
        Intent photo =
                new Intent(MediaStore.ACTION_IMAGE_CAPTURE)
                        .putExtra(MediaStore.EXTRA_OUTPUT, target)
                        .addFlags(
                                Intent.FLAG_GRANT_WRITE_URI_PERMISSION
                                        | Intent.FLAG_GRANT_READ_URI_PERMISSION);
        photo.setClipData(ClipData.newRawUri("", target));
        start(photo, PHOTO);
    }

    private void start(Intent intent, int request) {
        try {
            activity.startActivityForResult(intent, request);
        } catch (ActivityNotFoundException error) {
            tell(null);
        }
    }

    void chosen(int request, int result, Uri file) {
        if (result != Activity.RESULT_OK) {
            tell(null);
        } else if (request == PHOTO) {
            Uri target = PhotoProvider.address(photos);
            boolean taken = PhotoProvider.file(activity, target).length() > 0;
            tell(taken ? new Uri[] {target} : null);
        } else {
            tell(file == null ? null : new Uri[] {file});
        }
    }

    private void tell(Uri[] files) {
        if (waiting != null) {
            ValueCallback<Uri[]> callback = waiting;
            waiting = null;
            callback.onReceiveValue(files);
        }
    }

    void close() {
        tell(null);
        PhotoProvider.forget(activity);
    }
}
