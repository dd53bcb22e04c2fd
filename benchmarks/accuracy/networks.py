"""What the networks of a bundle say of a picture, also where the bundle holds one role only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES
from dermedge.image.preprocess import prepare, working
from dermedge.image.read import Picture
from dermedge.lesion.features import measure
from dermedge.lesion.quality import SIDE, Quality
from dermedge.metadata import understood
from dermedge.network import Network
from dermedge.runtime import ExecutionConfig
from dermedge.triage import most_likely


@dataclass(frozen=True)
class Outputs:
    """None: not among what the bundle's networks give."""

    mask: np.ndarray | None = None  # bool (height, width) of the whole picture
    probabilities: np.ndarray | None = None  # float64 (labels,)
    likely: str | None = None
    distance: float | None = None
    ood: bool = False  # the distance is beyond the bundle's limit
    triage: str | None = None
    quality: Quality | None = None


class Networks:
    """A bundle of both roles, run by the analyzer, or a single network, fed as the analyzer would.

    Not thread-safe: give each thread its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        views: int,
        executions: Mapping[str, ExecutionConfig] | None = None,
    ):
        """Load what the bundle holds; `views` is 1, or 4 for test-time augmentation, `executions`
        (of a bundle of both roles) as `dermedge.analyzer.Analyzer` takes them.

        Raises
        ------
        BundleError, SessionError
            As `dermedge.analyzer.Analyzer` raises them.
        """
        self._manifest = bundle.manifest
        models = bundle.manifest.models
        self._analyzer = None
        if set(models) == set(ROLES):
            self._analyzer = Analyzer(bundle, threads=threads, views=views, executions=executions)
            return
        (role,) = models  # a classifier alone never crops: its manifest would not be valid
        self._network = Network(bundle, (role,), threads, views)

    def examine(self, picture: Picture, metadata: dict) -> Outputs:
        """Run the networks on one picture. `metadata` holds age, sex and site where known.

        Raises SessionError where a network gives no finite numbers.
        """
        if self._analyzer is None:
            return self._alone(picture, metadata)
        analysis = self._analyzer.analyze(picture, metadata=understood(metadata))
        return Outputs(
            mask=analysis.full_mask(),
            probabilities=np.array(list(analysis.probabilities.values())),
            likely=analysis.likely,
            distance=analysis.distance,
            ood=analysis.unfamiliar,
            triage=analysis.triage,
            quality=analysis.quality,
        )

    def _alone(self, picture: Picture, metadata: dict) -> Outputs:
        limits = self._manifest.thresholds
        spec = self._network.model.preprocessing
        view = working(picture.pixels, max(SIDE, spec.size))
        square, placement = prepare(view, spec)
        output = self._network.run(square, metadata)
        if "mask" in output:
            x, y = placement.corner  # within a plain frame, where there is one
            part = np.s_[y : y + placement.height, x : x + placement.width]
            lesion = measure(placement.inside(output["mask"]), view[part].copy(), limits.mask)
            mask = np.zeros(view.shape[:2], np.uint8)
            mask[part][lesion.mask] = 255
            return Outputs(mask=cv2.resize(mask, (picture.width, picture.height)) > 127)
        probabilities = output["probabilities"].astype(np.float64).round(6)  # as an analysis does
        distance = float(output["distance"][0]) if "distance" in output else None
        limit = limits.unfamiliar
        beyond = distance is not None and limit is not None and distance > limit
        return Outputs(
            probabilities=probabilities,
            likely=most_likely(self._manifest, output["probabilities"]),
            distance=distance,
            ood=beyond,
        )
