"""From probabilities to what to do next: the most likely class, the risk, the advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dermedge.bundle.manifest import Manifest, Thresholds
from dermedge.lesion.quality import Quality
from dermedge.taxonomy import MALIGNANT

TRIAGE = ("retake", "low", "see a doctor", "urgent")

# Code of a rule: what it says, in English. A screen translates it by its values.
RULES = {
    "urgent": "malignancy {malignancy} >= urgent threshold {limit}",
    "see a doctor": "malignancy {malignancy} >= see a doctor threshold {limit}",
    "low": "malignancy {malignancy} < see a doctor threshold {limit}",
    "quality": "picture quality: {reasons}",
    "unfamiliar": "unlike the pictures the model learnt from (distance {distance} > threshold "
    "{limit})",
}


@dataclass(frozen=True)
class Rule:
    """What led to a triage: one of RULES and its values, of which `str` makes the English text."""

    code: str
    # Numbers, or codes of dermedge.lesion.quality.TITLES.
    values: Mapping[str, float | Sequence[str]]

    def __str__(self) -> str:
        digits = 2 if self.code == "unfamiliar" else 3
        return RULES[self.code].format(
            **{
                name: f"{value:.{digits}f}" if isinstance(value, float) else ", ".join(value)
                for name, value in self.values.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What `analysis.schema.json` describes as 'because'."""
        values = {
            name: round(value, 4) if isinstance(value, float) else list(value)
            for name, value in self.values.items()
        }
        return {"code": self.code, "values": values}


def most_likely(manifest: Manifest, probabilities: np.ndarray) -> str:
    """The label that float (K,) probabilities speak for, after the manifest's class offsets."""
    scores = np.log(np.maximum(probabilities, 1e-12, dtype=np.float64))
    return manifest.labels[int((scores + (manifest.thresholds.class_offsets or 0.0)).argmax())]


def triage_of(malignancy: float, limits: Thresholds) -> tuple[str, Rule]:
    """What a malignancy of 0 to 1 leads to, one of TRIAGE, and the rule that says so."""
    triage, limit = "low", limits.see_doctor
    if malignancy >= limits.urgent:
        triage, limit = "urgent", limits.urgent
    elif malignancy >= limits.see_doctor:
        triage = "see a doctor"
    return triage, Rule(triage, {"malignancy": float(malignancy), "limit": float(limit)})


def malignancy_of(probabilities: np.ndarray, labels: Sequence[str]) -> float:
    """The sum of float (K,) probabilities over the malignant ones of `labels`, 0 to 1."""
    malignant = [label in MALIGNANT for label in labels]
    return float(probabilities[malignant].sum(dtype=np.float64).clip(0, 1))


def decide(
    quality: Quality, malignancy: float, distance: float | None, limits: Thresholds
) -> tuple[str, Rule]:
    """The advice on one picture, one of TRIAGE, and the rule that led to it.

    An estimate from a picture that cannot be judged would only look like knowledge: such a
    picture is to be taken again, whatever the malignancy. `distance` is that of a picture beyond
    the limit of what the model was trained on, else None.
    """
    if not quality.usable:
        return "retake", Rule("quality", {"reasons": quality.reasons[: quality.refused]})
    if distance is not None and limits.unfamiliar is not None:
        values = {"distance": float(distance), "limit": float(limits.unfamiliar)}
        return "retake", Rule("unfamiliar", values)
    return triage_of(malignancy, limits)
