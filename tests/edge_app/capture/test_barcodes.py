"""Numbers read from codes that are drawn here."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermedge.data import synthetic
from edge_app.capture.barcodes import read_code

LEFT = ("0001101", "0011001", "0010011", "0111101", "0100011", "0110001", "0101111", "0111011",
        "0110111", "0001011")  # fmt: skip
PARITY = ("LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG", "LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL",
          "LGGLGL")  # fmt: skip


def qr(text: str) -> np.ndarray:
    code = cv2.QRCodeEncoder.create().encode(text)
    return cv2.resize(code, None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)


def bars(digits: str) -> np.ndarray:
    """EAN-13 of twelve digits (ISO/IEC 15420)."""
    check = -sum(int(it) * (3 if at % 2 else 1) for at, it in enumerate(digits)) % 10
    digits = f"{digits}{check}"
    right = [line.translate(str.maketrans("01", "10")) for line in LEFT]
    first = "".join(
        LEFT[int(digit)] if side == "L" else right[int(digit)][::-1]
        for digit, side in zip(digits[1:7], PARITY[int(digits[0])], strict=True)
    )
    line = f"101{first}01010{''.join(right[int(digit)] for digit in digits[7:])}101"
    row = np.array([255 * (bit == "0") for bit in line], np.uint8)
    return np.repeat(np.repeat(row, 4)[None], 160, axis=0)


def seen(*codes: np.ndarray, tilted: float = 0) -> np.ndarray:
    """Labels in front of a camera."""
    scene = np.full((480, 1000, 3), 190, np.uint8)
    for number, code in enumerate(codes):
        label = cv2.copyMakeBorder(code, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=255)
        high, wide = label.shape
        x = 40 + 480 * number
        scene[40 : 40 + high, x : x + wide] = label[..., None]
    turn = cv2.getRotationMatrix2D((500, 240), tilted, 0.9)
    return cv2.GaussianBlur(
        cv2.warpAffine(scene, turn, (1000, 480), borderValue=(190,) * 3), (3, 3), 0
    )


@pytest.mark.parametrize("tilted", [0, 12])
@pytest.mark.parametrize(
    ("code", "text"), [(qr("PID-4711/a"), "PID-4711/a"), (bars("400638133393"), "4006381333931")]
)
def test_a_code_is_read(code, text, tilted):
    assert read_code(seen(code, tilted=tilted)) == text


def test_of_two_people_none_is_read():
    assert read_code(seen(qr("4711"), qr("4712"))) is None
    assert read_code(seen(qr("4711"), qr("4711"))) == "4711"


def test_skin_is_no_code():
    assert read_code(synthetic.draw(3, "phone", (480, 640), label="mel").image) is None


@pytest.mark.parametrize("text", ["x" * 65, "a\nb"])
def test_what_is_no_number_is_refused(text):
    assert read_code(seen(qr(text))) is None
