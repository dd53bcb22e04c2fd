"""A number read from a QR code or barcode in a picture, as on a wristband or a label."""

from __future__ import annotations

import cv2
import numpy as np

from edge_app.i18n.language import printable

MOST = 64  # characters: a longer one is no number of a person


def read_code(pixels: np.ndarray) -> str | None:
    """What the code in a picture says; None where there is none, or several say different things.

    QR codes, and the barcodes EAN-13, EAN-8 and UPC-A. Takes some hundredths of a second for a
    picture of a live camera. Any thread.

    Parameters
    ----------
    pixels : uint8 (h, w, 3) RGB.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    found = {text.strip() for read in (_qr, _bars) for text in read(gray)}
    if len(found) != 1:  # "" is one more: whose it is nobody knows
        return None
    (text,) = found
    return text if text and len(text) <= MOST and printable(text) == text else None


def _qr(gray: np.ndarray) -> tuple[str, ...]:
    try:
        whole, texts, *_rest = cv2.QRCodeDetectorAruco().detectAndDecodeMulti(gray)
    except (cv2.error, UnicodeDecodeError):  # of something that only looks like a code
        return ()
    return tuple(texts) if whole else ()  # "" for one that is seen, but not read


def _bars(gray: np.ndarray) -> tuple[str, ...]:
    try:
        whole, texts, *_rest = cv2.barcode.BarcodeDetector().detectAndDecodeMulti(gray)
    except (cv2.error, UnicodeDecodeError):
        return ()
    return tuple(texts) if whole else ()
