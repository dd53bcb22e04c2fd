package org.dermedge.page;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;
import java.io.File;
import java.io.FileNotFoundException;

/** Photos in the app's private cache: a camera app writes them, the page reads them. */
public final class PhotoProvider extends ContentProvider {
    private static final String HOST = "org.dermedge.page.photo";

    static Uri address(int number) {
        return Uri.parse("content://" + HOST + "/" + number + ".jpg");
    }

    /** Null where the address is not one of ours. */
    static File file(Context context, Uri address) {
        String path = String.valueOf(address.getPath());
        if (!HOST.equals(address.getHost()) || !path.matches("/[0-9]+[.]jpg")) {
            return null;
        }
        return new File(folder(context), path.substring(1));
    }

    /** The page keeps a photo no longer than itself. */
    static void forget(Context context) {
        File[] photos = folder(context).listFiles();
        for (File photo : photos == null ? new File[0] : photos) {
            photo.delete();
        }
    }

    private static File folder(Context context) {
        File folder = new File(context.getCacheDir(), "photos");
        folder.mkdirs();
        return folder;
    }

    @Override
    public boolean onCreate() {
        return true;
    }

    @Override
    public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
        File photo = file(getContext(), uri);
        if (photo == null) {
            throw new FileNotFoundException(uri.toString());
        }
        return ParcelFileDescriptor.open(photo, ParcelFileDescriptor.parseMode(mode));
    }

    @Override
    public String getType(Uri uri) {
        return "image/jpeg";
    }

    @Override
    public Cursor query(Uri uri, String[] wanted, String where, String[] values, String order) {
        String[] names = {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE};
        File photo = file(getContext(), uri);
        if (photo == null) {
            return null;
        }
        MatrixCursor cursor = new MatrixCursor(wanted == null ? names : wanted, 1);
        MatrixCursor.RowBuilder row = cursor.newRow();
        for (String name : cursor.getColumnNames()) {
            if (name.equals(OpenableColumns.DISPLAY_NAME)) {
                row.add(photo.getName());
            } else if (name.equals(OpenableColumns.SIZE)) {
                row.add(photo.length());
            } else {
                row.add(null);
            }
        }
        return cursor;
    }

    @Override
    public Uri insert(Uri uri, ContentValues values) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int update(Uri uri, ContentValues values, String where, String[] arguments) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int delete(Uri uri, String where, String[] arguments) {
        throw new UnsupportedOperationException();
    }
}
