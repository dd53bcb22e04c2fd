"""Does a picture show a lesion at all? A small head over what the networks say of it anyway.

The distance of features alone does not tell plain skin and everyday things from lesions. The head
was fitted to pictures with a lesion and to outliers (outlier exposure: Hendrycks et al., ICLR
2019), see `export.outliers`. It is a part of the bundle, of about 50 kB, and computed by numpy: no
graph changes, and every precision has it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dermedge.bundle.archive import ArchiveError
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import OUTLIERS, BundleError, BundleRefused
from dermedge.bundle.npz import Field, read_npz
from dermedge.lesion.quality import LIMITS, TITLES, Quality
from dermedge.network import Network, Outputs

GRID = 32  # px, side of the copy of picture and map that colours are compared on
NEEDED = ("probabilities", "activation", "embedding", "distance")  # outputs of the classifier
OF_PICTURE = 35  # numbers of `evidence` that stem from neither labels nor embedding
CLIP = 6.0  # standard deviations: farther is as far
MOST_SCORES = 8  # linear ones
MAX_BYTES = 1 << 20  # of all arrays
MAX_ITEMS = 512  # numbers of the evidence
_FIELDS = {
    "mean": Field("f", 1),
    "scale": Field("f", 1),
    "weights": Field("f", 2),
    "precision": Field("f", 2),
    "spread": Field("f", 1),
    "limit": Field("f", 1),
}


def length(labels: int, embedding: int) -> int:
    """How many numbers `evidence` gives of a classifier."""
    return embedding + 4 * labels + OF_PICTURE


def evidence(
    outputs: Outputs, view: np.ndarray, certainty: np.ndarray, quality: Quality
) -> np.ndarray | None:
    """What speaks for a lesion or against, float32 (length,); None where an output is missing.

    Parameters
    ----------
    outputs : of the classifier, without their first axis; it takes those of NEEDED.
    view : uint8 (h, w, 3) RGB, the picture.
    certainty : float32 (any size), the segmenter's map of it.
    quality : of it, as `dermedge.lesion.quality.assess` gives it.
    """
    if not set(NEEDED) <= set(outputs):
        return None
    scores = outputs["activation"].reshape(len(outputs["activation"]), -1)
    classes = np.log(np.maximum(outputs["probabilities"], 1e-6))
    numbers = [
        outputs["embedding"],
        np.log(np.maximum(outputs["distance"], 1e-6)),
        classes - classes.mean(),
        scores.mean(axis=1),
        scores.max(axis=1),
        scores.std(axis=1),
        _appearance(view, certainty),
        # What was not measured counts as usual.
        [np.clip(quality.scores.get(name, 0.0), -3, 6) for name in TITLES],
    ]
    return np.concatenate(numbers).astype(np.float32)


def _appearance(view: np.ndarray, certainty: np.ndarray) -> list[float]:
    """The map's shape, and the colours (L*a*b*) of lesion and surroundings."""
    size = (GRID, GRID)
    # L* 0 to 100, a* and b* about -100 to 100.
    small = cv2.resize(view, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colours = cv2.cvtColor(small, cv2.COLOR_RGB2Lab).reshape(-1, 3)
    chart = cv2.resize(certainty, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    inside = chart.ravel() + 1e-3
    outside = 1.002 - inside
    edge = np.concatenate([chart[0], chart[-1], chart[:, 0], chart[:, -1]]).mean()
    shape = [
        chart.mean(),
        chart.max(),
        (chart * chart).sum() / (chart.sum() + 1e-3),
        (chart * (1 - chart)).mean(),
        edge,
    ]
    numbers = [float(value) for value in shape]
    means = []
    for weights in (inside, outside):
        mean = weights @ colours / weights.sum()
        spread = np.sqrt(weights @ (colours - mean) ** 2 / weights.sum())
        numbers += [*mean.tolist(), *spread.tolist()]
        means.append(mean)
    lightness = colours[:, 0].reshape(size)
    steps = [np.abs(np.diff(lightness, axis=axis)).mean() for axis in (0, 1)]
    numbers += [*(means[0] - means[1]).tolist(), float(np.linalg.norm(means[0] - means[1]))]
    return [*numbers, *map(float, steps), float(colours.std())]


@dataclass(frozen=True, eq=False)
class OutlierHead:
    """The part `outlier.npz` of a bundle: scores of the evidence, and the limit of the highest.

    Plain skin lies near the pictures that a classifier learnt from, everyday things lie elsewhere:
    each has a linear score of its own, fitted with outliers. What is like neither may still lie
    far: the Mahalanobis distance tells that. All are 0 at the median of the training pictures and
    near 1 at their 98th percentile; how near is chosen with the limit.

    mean, scale : float (D,), of the evidence of training pictures. weights : float (S, D + 1), of
    each linear score; the last of a row is the bias. precision : float (D, D), inverse covariance
    of the scaled evidence, over D. spread : float (2,), median of the distance and how far above it
    that score is 1. limit : float (1,); a picture whose score lies above shows no lesion.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    precision: np.ndarray
    spread: np.ndarray
    limit: np.ndarray

    def scaled(self, evidence: np.ndarray) -> np.ndarray:
        """Evidence (..., D) in standard deviations of the training pictures, at most CLIP."""
        return np.asarray(np.clip((evidence - self.mean) / self.scale, -CLIP, CLIP))

    def distance(self, scaled: np.ndarray) -> np.ndarray:
        """Mahalanobis distance (...,) of scaled evidence (..., D), over the root of D."""
        squares = ((scaled @ self.precision) * scaled).sum(axis=-1)
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def score(self, evidence: np.ndarray) -> np.ndarray:
        """How little pictures look like one with a lesion, float (...,), of evidence (..., D)."""
        scaled = self.scaled(evidence)
        linear = scaled @ self.weights[:, :-1].T + self.weights[:, -1]
        far = (self.distance(scaled) - self.spread[0]) / self.spread[1]
        return np.asarray(np.maximum(linear.max(axis=-1), far))

    def judge(self, score: float, quality: Quality) -> Quality:
        """The quality of a picture; refused as `no_lesion` where its score is above the limit."""
        if score <= float(self.limit[0]):
            return quality
        limit = LIMITS["no_lesion"]
        least = limit.score(limit.refused or limit.reported)
        reasons, count = quality.reasons, quality.refused
        if "no_lesion" not in reasons[:count]:
            refusing = {*reasons[:count], "no_lesion"}
            others = (name for name in reasons[count:] if name != "no_lesion")
            reasons = (*(name for name in TITLES if name in refusing), *others)
            count += 1
        scores = {
            **quality.scores,
            "no_lesion": max(quality.scores.get("no_lesion", 0.0), least),
        }
        scores = {name: scores[name] for name in TITLES if name in scores}
        return replace(quality, ok=False, reasons=reasons, scores=scores, refused=count)

    def to_bytes(self) -> bytes:
        """The part's content; equal heads give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: getattr(self, name).astype(np.float32) for name in _FIELDS})
        return buffer.getvalue()

    @classmethod
    def of(cls, bundle: Bundle, classifier: Network) -> OutlierHead | None:
        """The bundle's; None: it has none.

        Raises BundleRefused where the part is not what the classifier needs.
        """
        if OUTLIERS not in bundle.manifest.parts:
            return None
        numbers = length(len(bundle.manifest.labels), classifier.embedding or 0)
        try:
            if missing := set(NEEDED) - classifier.gives:
                raise _refused(f"needs {min(missing)!r}, which the classifier does not give")
            return cls.from_bytes(bundle.part(OUTLIERS), numbers)
        except BundleError as error:
            raise BundleRefused.of(bundle.path, error) from None

    @classmethod
    def from_bytes(cls, content: bytes, length: int) -> OutlierHead:
        """Raises BundleError where the part is damaged, or takes not `length` numbers."""
        try:
            head = cls(**read_npz(content, _FIELDS, MAX_BYTES, MAX_ITEMS))
            shapes = [head.mean.shape, head.scale.shape, head.precision.shape]
            if shapes != [(length,), (length,), (length, length)] or (
                head.weights.shape[1] != length + 1 or not 1 <= len(head.weights) <= MOST_SCORES
            ):
                raise ArchiveError(f"does not fit the classifier, which gives {length} numbers")
            if len(head.limit) != 1 or len(head.spread) != 2:
                raise ArchiveError("has not one limit and one spread")
            if not (head.scale > 0).all() or head.spread[1] <= 0:
                raise ArchiveError("has a scale of 0")
        except ArchiveError as error:
            raise _refused(str(error)) from None
        return head


def _refused(reason: str) -> BundleError:
    return BundleError(
        "what tells pictures without a lesion is refused ({part} {reason}): export the bundle "
        "again",
        code="bundle.outlier",
        part=OUTLIERS,
        reason=reason,
    )
