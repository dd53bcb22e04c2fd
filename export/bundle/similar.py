"""The part `cases.npz`: training cases to show beside a picture that is similar to them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch

from dermedge.bundle.similar import SimilarCases
from export.calibration.calibrate import Calibration

SIMILAR_BYTES = 100 * 1024


def similar_cases(
    calibration: Calibration, labels: Sequence[str], asked: int, pictures: bool
) -> bytes | None:
    """The content of the part; None: no case.

    They were named rightly and show different lesions, `asked` of a class: fewer, which a line on
    the terminal says, where there are no more, or where they would take more room than
    `SIMILAR_BYTES`. Without `pictures` their embeddings and labels travel alone.
    """
    sample, most = calibration.sample, asked
    if not sample.right.any():
        print(
            "no similar cases: the classifier names none of its training pictures rightly",
            file=sys.stderr,
        )
        return None
    with torch.inference_mode():
        embeddings = calibration.ood(torch.from_numpy(sample.features))[0].numpy()
    by_class = []
    for label in np.unique(sample.labels[sample.right]):
        rows = np.flatnonzero((sample.labels == label) & sample.right)
        _, first = np.unique(sample.groups[rows], return_index=True)
        by_class.append(rows[np.sort(first)])
    while True:
        rows = np.concatenate([own[:most] for own in by_class])
        content = SimilarCases.make(
            embeddings[rows],
            sample.labels[rows].tolist(),
            # Names of this bundle alone: the data set's may be a hospital's file names.
            [f"case-{number}" for number in range(1, 1 + len(rows))],
            list(sample.thumbnails[rows]) if pictures else (),
        ).to_bytes()
        if len(content) <= SIMILAR_BYTES:
            counts = np.bincount(sample.labels[rows], minlength=len(labels)).tolist()
            _say_fewer(dict(zip(labels, counts, strict=True)), asked, most)
            return content
        most -= 1


def _say_fewer(counts: dict[str, int], asked: int, most: int) -> None:
    """A line where not `asked` cases of each class are there; `most` have room."""
    reasons = []
    if most < asked:
        reasons.append(f"more than {most} of each would take over {SIMILAR_BYTES // 1024} kB")
    if few := [f"{label} {count}" for label, count in counts.items() if count < most]:
        reasons.append(f"no more lesions are named rightly of {', '.join(few)}")
    if reasons:
        print(
            f"similar cases: not {asked} of each class: {'; '.join(reasons)}",
            file=sys.stderr,
        )
