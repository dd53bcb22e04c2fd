"""Names of colour spaces in headers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Colours:
    """Code points of ITU-T H.273, as HEIF, AVIF and PNG (cICP) name a colour space."""

    primaries: int
    transfer: int


_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green, blue: x, y


def near_srgb(gamma: float | None, corners: list[float] | None) -> bool:
    """Whether an encoding gamma and chromaticities, None where not given, are those of sRGB."""
    if gamma is not None and not 0.95 < gamma * 2.2 < 1.05:
        return False
    if corners is None:
        return True
    return all(abs(a - b) <= 0.005 for a, b in zip(corners, _SRGB, strict=True))
