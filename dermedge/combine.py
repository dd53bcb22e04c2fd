"""Several pictures of one lesion, one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dermedge import DISCLAIMER
from dermedge.bundle.manifest import Manifest
from dermedge.triage import Rule, malignancy_of, most_likely, triage_of


@dataclass(frozen=True)
class Combined:
    """What several pictures of one lesion say; those that were refused say nothing.

    A card, ruler or coin beside the lesion shifts the risk: such a picture gives the size alone
    where another one can be judged.
    Without a usable picture: triage 'retake', no probabilities, the rest None.
    """

    pictures: int  # that were given, those that cannot be read, too
    used: int  # of them, for the mean
    probabilities: dict[str, float]  # class: mean of the calibrated probabilities
    likely: str | None
    malignancy: float | None
    lowest: float | None  # malignancy of a single picture
    highest: float | None
    agreed: bool | None  # whether each used picture alone leads to the same triage
    triage: str
    rule: str
    because: Rule | None  # of the mean; None without a usable picture

    def to_json(self) -> dict[str, Any]:
        """The object that `analysis.schema.json` describes under 'together'."""
        because = self.because and self.because.to_json()
        return {"together": {**asdict(self), "because": because}, "disclaimer": DISCLAIMER}


def combine(
    analyses: Sequence[Mapping[str, Any]], manifest: Manifest, unreadable: int = 0
) -> Combined:
    """Mean over the analyses of one lesion's pictures, judged as one picture is.

    Parameters
    ----------
    analyses : as `Analysis.to_json` gives them, one or more, all made with one bundle.
    manifest : of that bundle; its thresholds and class offsets hold for the mean, too.
    unreadable : how many more pictures of the lesion have no analysis.

    Raises
    ------
    ValueError : no analyses, or such of different bundles or of another than the manifest's.
    """
    if not analyses:
        raise ValueError("there are no analyses to put together")
    if len({one["versions"]["bundle_sha256"] for one in analyses}) > 1:
        raise ValueError("analyses of different bundles cannot be put together: analyse again")
    if any(set(one["probabilities"]) != set(manifest.labels) for one in analyses):
        raise ValueError("these analyses were made with another bundle: analyse again")
    pictures = len(analyses) + unreadable
    judged = [one for one in analyses if one["triage"] != "retake"]
    used = [one for one in judged if not _with_reference(one)] or judged
    if not used:
        rule = f"none of {pictures} pictures can be judged"
        return Combined(pictures, 0, {}, None, None, None, None, None, "retake", rule, None)
    # By name: what stores JSON may have sorted it.
    stated = np.array([[one["probabilities"][label] for label in manifest.labels] for one in used])
    mean = stated.mean(axis=0)
    risks = [one["malignancy"] for one in used]
    malignancy = round(malignancy_of(mean, manifest.labels), 6)
    triage, because = triage_of(malignancy, manifest.thresholds)
    return Combined(
        pictures=pictures,
        used=len(used),
        probabilities={
            label: round(float(value), 6)
            for label, value in zip(manifest.labels, mean, strict=True)
        },
        likely=most_likely(manifest, mean),
        malignancy=malignancy,
        lowest=min(risks),
        highest=max(risks),
        agreed=len({one["triage"] for one in used}) == 1,
        triage=triage,
        rule=f"mean of {len(used)} pictures: {because}",
        because=because,
    )


def _with_reference(analysis: Mapping[str, Any]) -> bool:
    """Whether the networks saw drawn skin in the place of a card, ruler or coin."""
    scale = analysis.get("scale") or {}
    return scale.get("px_per_mm") is not None and scale["reference"] != "given"
