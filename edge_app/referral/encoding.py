"""A picture as the bytes that leave. In a browser, which encodes itself, another stands for it."""

from __future__ import annotations

import cv2

from edge_app.referral.form import ReferredPicture


def encoded(picture: ReferredPicture, lossy: bool) -> bytes:
    """JPEG where `lossy`, else PNG; encoded again from its pixels, without what a camera noted."""
    pixels = cv2.cvtColor(picture.pixels(), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if lossy else []
    done, data = cv2.imencode(".jpg" if lossy else ".png", pixels, options)
    if not done:
        raise ValueError("OpenCV did not encode a picture")
    return data.tobytes()
