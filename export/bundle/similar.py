"""The part `cases.npz`: training cases to show beside a picture that is similar to them."""

from __future__ import annotations

import numpy as np
import torch

from dermedge.bundle.similar import SimilarCases
from export.calibration.calibrate import Calibration

SIMILAR_BYTES = 100 * 1024


def similar_cases(calibration: Calibration, most: int, pictures: bool) -> bytes | None:
    """The content of the part; None: no case.

    They were named rightly and show different lesions, `most` of a class: fewer where there are no
    more, or where they would take more room than `SIMILAR_BYTES`. Without `pictures` their
    embeddings and labels travel alone.
    """
    sample = calibration.sample
    if not sample.right.any():
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
            return content
        most -= 1
