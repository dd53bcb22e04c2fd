package org.dermedge;

import java.nio.ByteBuffer;

/** One picture of a camera, YUV_420_888: the planes as they came, one behind the other. */
public final class Picture {
    private final byte[] data;
    private final int[] layout;

    /**
     * @param planes Y, U and V; each is read from its position to its limit.
     * @param rows bytes from one row to the next, of each plane.
     * @param pixels bytes from one pixel to the next, of each plane.
     * @param rotation degrees clockwise after which the picture stands upright.
     */
    public Picture(
            int width, int height, ByteBuffer[] planes, int[] rows, int[] pixels, int rotation) {
        int size = 0;
        int[] starts = new int[planes.length];
        for (int i = 0; i < planes.length; i++) {
            starts[i] = size;
            size += planes[i].remaining();
        }
        data = new byte[size];
        for (int i = 0; i < planes.length; i++) {
            planes[i].duplicate().get(data, starts[i], planes[i].remaining());
        }
        layout =
                new int[] {
                    width, height, rotation,
                    starts[0], rows[0], pixels[0],
                    starts[1], rows[1], pixels[1],
                    starts[2], rows[2], pixels[2],
                };
    }

    public byte[] data() {
        return data;
    }

    /** Width, height, rotation; then of Y, U and V: start, bytes a row, bytes a pixel. */
    public int[] layout() {
        return layout;
    }
}
