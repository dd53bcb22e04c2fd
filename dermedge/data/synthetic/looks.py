"""What each class tends to look like, and the colours of lesions on a skin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dermedge.data.synthetic.skin import ITA_RANGE


@dataclass(frozen=True)
class Look:
    """What a class tends to look like; ranges overlap on purpose, as they do in clinics."""

    share: float  # of the lesions in a data set
    asymmetry: tuple[float, float]
    border: tuple[float, float]
    colors: tuple[int, int]
    diameter: tuple[float, float]  # mm
    edge: tuple[float, float]  # width of the fading rim, mm
    palettes: tuple[tuple[str, ...], ...]  # base colour first, then accents in order of use
    structures: dict[str, float]  # name -> probability
    ages: tuple[float, float]
    ita: float = 0.0  # lesions of sun-damaged skin are met more on light skin


_BROWNS = ("light_brown", "dark_brown", "black", "pink", "blue_gray", "white")
_DARKS = ("dark_brown", "light_brown", "black", "blue_gray", "red", "white")

LOOKS = {
    "akiec": Look(
        0.08, (0.1, 0.7), (0.2, 0.8), (1, 3), (5, 16), (0.7, 1.8),
        (("pink", "red", "light_brown", "yellow", "white", "dark_brown"),
         ("red", "pink", "yellow", "white", "light_brown", "dark_brown"),
         ("light_brown", "pink", "red", "gray_brown", "white", "yellow")),
        {"strawberry": 0.65, "scales": 0.7, "dot_vessels": 0.3, "network": 0.1}, (52, 88), 10.0,
    ),
    "bcc": Look(
        0.11, (0.1, 0.7), (0.1, 0.6), (1, 4), (4, 14), (0.5, 1.4),
        (("pink", "blue_gray", "red", "white", "light_brown", "black"),
         ("pearl", "pink", "blue_gray", "red", "dark_brown", "white"),
         ("light_brown", "pink", "blue_gray", "black", "red", "white")),
        {"arborizing_vessels": 0.75, "ovoid_nests": 0.55, "ulcer": 0.3, "pearl_rim": 0.5,
         "scales": 0.1}, (45, 88), 10.0,
    ),
    "bkl": Look(
        0.14, (0.05, 0.65), (0.1, 0.65), (1, 3), (4, 16), (0.12, 0.6),
        (("gray_brown", "dark_brown", "yellow", "light_brown", "black", "white"),
         ("light_brown", "gray_brown", "dark_brown", "yellow", "black", "pink"),
         ("dark_brown", "gray_brown", "black", "light_brown", "blue_gray", "yellow"),
         ("pink", "light_brown", "gray_brown", "yellow", "white", "dark_brown")),
        {"milia_cysts": 0.7, "comedones": 0.45, "fissures": 0.5, "network": 0.15, "scales": 0.2},
        (40, 88),
    ),
    "df": Look(
        0.06, (0.0, 0.35), (0.0, 0.35), (1, 3), (3, 10), (0.6, 1.5),
        (("light_brown", "pink", "white", "dark_brown", "red", "gray_brown"),
         ("pink", "light_brown", "white", "gray_brown", "red", "dark_brown")),
        {"peripheral_network": 0.8, "pale_centre": 0.85}, (22, 65),
    ),
    "mel": Look(
        0.16, (0.25, 1.0), (0.25, 1.0), (2, 5), (4, 17), (0.25, 1.0),
        (_DARKS, _DARKS, _BROWNS,
         ("black", "dark_brown", "blue_gray", "light_brown", "red", "white"),
         ("pink", "red", "light_brown", "blue_gray", "dark_brown", "white")),
        {"network": 0.4, "veil": 0.5, "streaks": 0.45, "globules": 0.25, "dark_dots": 0.5,
         "regression": 0.3, "dot_vessels": 0.12}, (28, 86), 4.0,
    ),
    "nv": Look(
        0.34, (0.0, 0.5), (0.0, 0.5), (1, 3), (2.5, 10), (0.3, 1.3),
        (_BROWNS, _BROWNS, _DARKS,
         ("pink", "light_brown", "dark_brown", "red", "gray_brown", "white"),
         ("dark_brown", "black", "light_brown", "blue_gray", "gray_brown", "pink")),
        {"network": 0.5, "globules": 0.35, "dark_dots": 0.12, "milia_cysts": 0.06,
         "veil": 0.04}, (8, 70),
    ),
    "scc": Look(
        0.05, (0.15, 0.75), (0.2, 0.8), (1, 4), (6, 18), (0.3, 1.1),
        (("pink", "red", "yellow", "white", "dark_brown", "gray_brown"),
         ("red", "yellow", "pink", "white", "dark_brown", "black")),
        {"keratin": 0.75, "ulcer": 0.5, "dot_vessels": 0.6, "scales": 0.5}, (52, 90), 8.0,
    ),
    "vasc": Look(
        0.06, (0.0, 0.5), (0.0, 0.45), (1, 3), (2, 9), (0.12, 0.6),
        (("red", "purple", "pink", "blue_gray", "black", "white"),
         ("purple", "red", "blue_gray", "black", "pink", "white"),
         ("pink", "red", "purple", "blue_gray", "white", "black")),
        {"lacunae": 0.85}, (15, 80),
    ),
}  # fmt: skip

# Lesion colours as (factor on the skin's L*, shift of a*, shift of b*), before the shade of the
# skin is taken into account. A pigment is darker than the skin that it lies in, whatever the skin.
_TONES = {
    "light_brown": (0.76, 4.5, 5.0),
    "dark_brown": (0.53, 4.0, 0.0),
    "black": (0.29, -5.0, -11.0),
    "gray_brown": (0.64, -2.0, -4.0),
    "blue_gray": (0.58, -6.0, -16.0),
    "pink": (0.92, 10.0, -2.5),
    "red": (0.74, 20.0, 3.0),
    "purple": (0.44, 13.0, -15.0),
    "pearl": (1.06, 4.0, -6.0),
    "white": (1.16, -3.0, -8.0),
    "yellow": (1.04, -1.0, 9.0),
}


def class_shares() -> np.ndarray:
    """How often each class of LOOKS is drawn: float64 (classes,), sum 1."""
    shares = np.array([look.share for look in LOOKS.values()])
    distribution: np.ndarray = shares / shares.sum()
    return distribution


def random_ita(rng: np.random.Generator, look: Look) -> float:
    """An individual typology angle for a class, in degrees, within ITA_RANGE."""
    return float(np.clip(rng.normal(22 + look.ita, 30), *ITA_RANGE))


def tone_on(name: str, skin: np.ndarray) -> np.ndarray:
    """A lesion colour of `_TONES` on `skin`, both CIELAB (3,); float32."""
    factor, red, yellow = _TONES[name]
    # Dark skin hides redness and keeps less room below it.
    shade = np.clip(skin[0] / 65, 0.5, 1.1)
    return np.array(
        [min(skin[0] * factor, 96), skin[1] + red * shade, skin[2] + yellow * shade], np.float32
    )
