"""One picture from a seed: traits are chosen, then skin, lesion and artefacts are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.data.synthetic.artefacts import ARTEFACTS, DRAWN_OVER, Scene, draw_freckles
from dermedge.data.synthetic.lesion import STRUCTURES, Lesion, outline
from dermedge.data.synthetic.looks import LOOKS, class_shares, random_ita
from dermedge.data.synthetic.skin import ITA_RANGE, draw_skin, skin_lab

STYLES = ("dermoscopy", "phone")


@dataclass(frozen=True)
class Sample:
    """One drawn picture and all that is known of it.

    image uint8 (h, w, 3) RGB; mask bool (h, w); ita in degrees, of the skin under neutral light;
    asymmetry and border_irregularity 0 to 1, as drawn; colors the number of lesion colours;
    diameter_mm the greatest extent of the lesion; artefacts names out of `ARTEFACTS`.
    """

    image: np.ndarray
    mask: np.ndarray
    label: str
    style: str
    ita: float
    asymmetry: float
    border_irregularity: float
    colors: int
    diameter_mm: float
    px_per_mm: float
    artefacts: tuple[str, ...]


def draw(
    seed: int,
    style: str = "dermoscopy",
    size: tuple[int, int] = (384, 512),
    label: str | None = None,
    *,
    view: int = 0,
    ita: float | None = None,
    asymmetry: float | None = None,
    border_irregularity: float | None = None,
    colors: int | None = None,
    diameter_mm: float | None = None,
    artefacts: tuple[str, ...] | None = None,
) -> Sample:
    """Draw one lesion. The same arguments give the same picture, bit for bit.

    What is not asked for is chosen by `seed`, and does not change with what is asked for.

    Parameters
    ----------
    seed : 0 or more; decides the lesion.
    style : 'dermoscopy' (about 8 to 25 mm wide) or 'phone' (about 25 to 90 mm wide).
    size : (height, width) in px, 64 to 4096 each.
    label : one of `LOOKS`; None: chosen.
    view : 0 or more; other rotation, scale, light, hair and noise of the same lesion.
    ita : individual typology angle of the skin in degrees, -50 (very dark) to 70 (very light);
        Chardon et al., Int. J. Cosmet. Sci. 13, 1991.
    asymmetry, border_irregularity : 0 to 1.
    colors : 1 to 6, as the colours of the ABCD rule (Stolz et al., Eur. J. Dermatol. 4, 1994).
        Structures typical of the class (vessels, cysts, veil) may add theirs.
    diameter_mm : 1 to 40.
    artefacts : names out of `ARTEFACTS`, exactly these; None: chosen, typical of the style.

    Raises
    ------
    ValueError
        In one line, when a value is out of its range.
    """
    check_arguments(seed, style, size, label, view, artefacts)
    _check_range("ita", ita, *ITA_RANGE)
    _check_range("asymmetry", asymmetry, 0, 1)
    _check_range("border_irregularity", border_irregularity, 0, 1)
    _check_range("colors", colors, 1, 6)
    _check_range("diameter_mm", diameter_mm, 1, 40)
    if colors is not None and colors != int(colors):
        raise ValueError(f"colors must be a whole number, got {colors!r}")

    traits = np.random.default_rng([seed, 0])
    names = list(LOOKS)
    drawn_label = str(traits.choice(names, p=class_shares()))
    label = drawn_label if label is None else label
    look = LOOKS[label]
    # A draw for every trait, asked for or not: a control then changes nothing but itself.
    drawn_ita = random_ita(traits, look)
    ita = drawn_ita if ita is None else float(ita)
    drawn = [traits.uniform(*look.asymmetry), traits.uniform(*look.border)]
    asymmetry = float(drawn[0] if asymmetry is None else asymmetry)
    border_irregularity = float(drawn[1] if border_irregularity is None else border_irregularity)
    drawn_colors = int(traits.integers(look.colors[0], look.colors[1] + 1))
    colors = drawn_colors if colors is None else int(colors)
    drawn_diameter = look.diameter[0] + np.ptp(look.diameter) * traits.beta(1.6, 2.4)
    diameter_mm = float(drawn_diameter if diameter_mm is None else diameter_mm)
    edge = traits.uniform(*look.edge) * min(1.0, diameter_mm / 5)
    contrast = traits.uniform(0.6, 1.1)
    palette = look.palettes[traits.integers(len(look.palettes))]
    structures = [name for name, share in look.structures.items() if traits.random() < share]

    seen = np.random.default_rng([seed, 1, view, STYLES.index(style)])
    odds = {name: pair[STYLES.index(style)] for name, pair in ARTEFACTS.items()}
    met = [name for name, share in odds.items() if seen.random() < share]
    if artefacts is not None:
        met = [name for name in ARTEFACTS if name in artefacts]

    height, width = size
    skin = skin_lab(ita, traits)
    radius = outline(np.random.default_rng([seed, 2]), asymmetry, border_irregularity)
    field = seen.uniform(8, 19) if style == "dermoscopy" else seen.uniform(18, 60)
    field = max(field, diameter_mm * (1.15 if style == "dermoscopy" else 1.9) * width / min(size))
    px_per_mm = width / field
    spare = 0.5 - 0.5 * diameter_mm * px_per_mm / np.array([height, width])
    off = seen.uniform(-1, 1, 2) * np.clip(spare, 0, None) * (0.5 if style == "phone" else 0.7)
    centre = (0.5 + off[::-1]) * [width, height]
    angle = seen.uniform(0, 2 * np.pi)

    lab = draw_skin(seen, skin, size, px_per_mm)
    lesion = Lesion(seed, lab, skin, radius * diameter_mm, centre, angle, px_per_mm, diameter_mm)
    lesion.color(palette[:colors], contrast)
    for name in structures:
        STRUCTURES[name](lesion, np.random.default_rng([seed, 3, list(STRUCTURES).index(name)]))
    mask = lesion.blend(edge)

    scene = Scene(seen, lab, mask, centre, px_per_mm, style)
    if "freckles" in met:
        draw_freckles(scene, skin)
    scene.rgb = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)
    for name in met:
        if name in DRAWN_OVER:
            DRAWN_OVER[name](scene)
    image = cv2.convertScaleAbs(np.clip(scene.rgb, 0, 1), alpha=255)
    return Sample(
        image, mask, label, style, ita, asymmetry, border_irregularity, colors, diameter_mm,
        px_per_mm, tuple(met),
    )  # fmt: skip


def check_arguments(
    seed: object,
    style: str,
    size: Sequence[int],
    label: str | None,
    view: object,
    artefacts: Iterable[str] | None,
) -> None:
    """ValueError, in one line, where `draw` cannot take them."""
    for name, value in (("seed", seed), ("view", view)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} must be a whole number, 0 or more, got {value!r}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if label is not None and label not in LOOKS:
        raise ValueError(f"label must be one of {', '.join(LOOKS)}, got {label!r}")
    if len(size) != 2 or not all(64 <= side <= 4096 for side in size):
        raise ValueError(f"size must be (height, width) of 64 to 4096 px each, got {size!r}")
    unknown = sorted(set(artefacts or ()) - set(ARTEFACTS))
    if unknown:
        raise ValueError(
            f"no artefact {', '.join(map(repr, unknown))}; there are: {', '.join(ARTEFACTS)}"
        )


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value!r}")
