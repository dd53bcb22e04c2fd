"""What was found in one picture, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dermedge import DISCLAIMER
from dermedge.bundle.similar import Case
from dermedge.image.preprocess import Placement
from dermedge.lesion.features import Lesion
from dermedge.lesion.quality import Quality
from dermedge.triage import Rule


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in one picture. Coordinates are px of the whole picture, oriented upright.

    Attributes
    ----------
    image : what the picture is called.
    height : of the whole picture, px.
    width : of the whole picture, px.
    inner : (x, y, width, height) of what was judged; the rest is a plain frame. None: all of it.
    quality : `ok`, `usable`, and the `reasons` against the picture, the gravest first.
    lesion : outline and ABCD measures; `found` says whether there is one.
    scale : "reference", "px_per_mm" (None where it was not found) and "reason". None: none was
        asked for.
    probabilities : class to calibrated probability; they sum to 1.
    likely : the most likely class, after the bundle's class offsets.
    malignancy : 0 to 1, the sum over the malignant classes.
    distance : from the training pictures, of which the root mean square is 1 at most. None: not
        known.
    unfamiliar : whether it is farther than `threshold`.
    threshold : of the distance. None: none was chosen.
    activation : float32 (K, h, w), scores of the classes over the classifier's input. None: it
        gives none.
    placement : of the picture, as it was read, in the classifier's input.
    embedding : float32 (E,). None: the classifier gives none.
    similar : training cases that the bundle carries, the most similar first.
    triage : "retake", "low", "see a doctor" or "urgent". Where it is "retake", the picture cannot
        be judged, and `probabilities`, `likely` and `malignancy` are no estimate.
    because : the rule that led to the triage, as a code and values.
    timing_ms : stage to ms; "total" is the whole call.
    versions : of dermedge, the bundle, its networks and the runtime.
    evidence : float32, what speaks for a lesion or against it. None: not asked for.
    outlier : score of the bundle's head against pictures without a lesion. None: it has none.
    outlier_limit : above it the picture is refused as without a lesion.
    """

    image: str
    height: int
    width: int
    inner: tuple[int, int, int, int] | None
    quality: Quality
    lesion: Lesion
    scale: dict[str, object] | None
    probabilities: dict[str, float]
    likely: str
    malignancy: float
    distance: float | None
    unfamiliar: bool
    threshold: float | None
    activation: np.ndarray | None
    placement: Placement
    embedding: np.ndarray | None
    similar: tuple[Case, ...]
    triage: str
    because: Rule
    timing_ms: dict[str, float]
    versions: dict[str, object]
    evidence: np.ndarray | None = None
    outlier: float | None = None
    outlier_limit: float | None = None

    @property
    def is_outlier(self) -> bool:
        """Whether the bundle's head says that the picture shows no lesion."""
        if self.outlier is None or self.outlier_limit is None:
            return False
        return self.outlier > self.outlier_limit

    @property
    def rule(self) -> str:
        """What led to the triage, in words."""
        return str(self.because)

    def to_json(self) -> dict[str, Any]:
        """The object that `analysis.schema.json` describes; the caller's own, to add to it."""
        lesion = self.lesion
        return {
            "image": self.image,
            "size": [self.width, self.height],
            "inner": None if self.inner is None else list(self.inner),
            "quality": {
                "ok": self.quality.ok,
                "usable": self.quality.usable,
                "reasons": list(self.quality.reasons),
                "scores": {name: round(v, 4) for name, v in self.quality.scores.items()},
            },
            "lesion": {
                "found": lesion.found,
                "box": list(lesion.box) if lesion.box else None,
                "polygons": [polygon.tolist() for polygon in lesion.polygons],
                "area_px": lesion.area_px,
                "centroid": lesion.centroid and [round(value, 1) for value in lesion.centroid],
            },
            "abcd": {
                "asymmetry": lesion.asymmetry,
                "border": lesion.border,
                "color": lesion.color,
                "diameter_mm": lesion.diameter_mm,
                "asymmetry_index": lesion.asymmetry_index,
                "border_irregularity": lesion.border_irregularity,
                "colors": list(lesion.colors),
                "axis": None if lesion.axis is None else round(lesion.axis, 4),
            },
            "scale": deepcopy(self.scale),
            "probabilities": dict(self.probabilities),
            "likely": self.likely,
            "malignancy": self.malignancy,
            "familiarity": None
            if self.distance is None
            else {
                "distance": round(self.distance, 4),
                "threshold": self.threshold,
                "unfamiliar": self.unfamiliar,
            },
            "outlier": None
            if self.outlier is None
            else {
                "score": round(self.outlier, 4),
                "limit": self.outlier_limit,
                "refused": self.is_outlier,
            },
            "similar": [
                {"id": case.id, "label": case.label, "similarity": round(case.similarity, 4)}
                for case in self.similar
            ],
            "triage": self.triage,
            "rule": self.rule,
            "because": self.because.to_json(),
            "timing_ms": dict(self.timing_ms),
            "versions": deepcopy(self.versions),
            "disclaimer": DISCLAIMER,
        }

    def full_mask(self) -> np.ndarray:
        """The lesion as bool (height, width) at the picture's own size.

        Where `is_outlier`, what was outlined is not one: do not show it.
        """
        x, y, width, height = self.inner or (0, 0, self.width, self.height)
        mask = self.lesion.mask.astype(np.uint8) * 255
        whole = np.zeros((self.height, self.width), bool)
        part = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        whole[y : y + height, x : x + width] = part > 127
        return whole


def lesion_outline(analysis: Mapping[str, Any]) -> list[list[list[float]]]:
    """The outline to show of `Analysis.to_json`: polygons of [x, y], px; empty without a lesion.

    Where the bundle's head says that the picture shows none, what was outlined is not one.
    """
    if (analysis.get("outlier") or {}).get("refused"):
        return []
    polygons: list[list[list[float]]] = analysis["lesion"]["polygons"]
    return polygons
