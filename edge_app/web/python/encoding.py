"""`edge_app.referral.encoding` in a browser: its canvas made the JPEG, of pixels alone."""

from __future__ import annotations

from edge_app.referral.form import ReferredPicture


def encoded(picture: ReferredPicture, lossy: bool) -> bytes:
    if not lossy or not isinstance(picture.image, bytes) or picture.image[:2] != b"\xff\xd8":
        raise ValueError("the page hands on JPEG alone")
    return picture.image
