"""What a network must beat: Otsu's threshold, and colour statistics with logistic regression."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

_BLUR = 0.024  # of the long side
_FIELD = 0.58  # radius in sides; dermoscopes leave the corners dark
_CENTRE = 0.35  # width of the centre weight, in sides
_SIDE = 160  # px, long side on which colours are counted
_BINS = 8


def otsu_mask(image: np.ndarray) -> np.ndarray:
    """Lesion mask without learning: bool (h, w) for a uint8 (h, w, 3) RGB picture.

    Otsu, IEEE Trans. SMC 9(1), 1979. Blue, where melanin absorbs most, separates better than
    gray, green or saturation.
    """
    height, width = image.shape[:2]
    blue = cv2.GaussianBlur(image[..., 2], (0, 0), max(height, width) * _BLUR)
    rows, columns = np.ogrid[:height, :width]
    radius = np.hypot((rows - height / 2) / height, (columns - width / 2) / width)
    inside = (radius < _FIELD) & (image.max(axis=2) > 30)
    if not inside.any():
        return np.zeros((height, width), bool)
    limit, _ = cv2.threshold(blue[inside].reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    count, labels = cv2.connectedComponents(((blue <= limit) & inside).astype(np.uint8))
    if count < 2:
        return np.zeros((height, width), bool)
    weight = np.exp(-((radius / _CENTRE) ** 2))
    weights = np.bincount(labels.ravel(), weight.ravel(), minlength=count)
    best = (labels == 1 + weights[1:].argmax()).astype(np.uint8)
    outlines, _ = cv2.findContours(best, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(best), outlines, -1, 1, cv2.FILLED).astype(bool)


def colour_features(image: np.ndarray) -> np.ndarray:
    """What the colours of a picture alone say: float64 (87,) for a uint8 (h, w, 3) RGB picture.

    Mean, standard deviation and the 5th, 25th, 50th, 75th and 95th percentile of each channel in
    RGB, CIE Lab and HSV, and an 8-bin histogram of each RGB channel. Nothing of shape or texture.
    """
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    spaces = [small, cv2.cvtColor(small, cv2.COLOR_RGB2LAB), cv2.cvtColor(small, cv2.COLOR_RGB2HSV)]
    values = np.concatenate([space.reshape(-1, 3) for space in spaces], axis=1).astype(np.float64)
    parts = [values.mean(0), values.std(0), *np.percentile(values, (5, 25, 50, 75, 95), axis=0)]
    for channel in range(3):
        counts = np.bincount(small[..., channel].ravel() // (256 // _BINS), minlength=_BINS)
        parts.append(counts / counts.sum())
    return np.concatenate(parts)


class ColourClassifier:
    """Logistic regression on `colour_features`, classes weighted by their rarity."""

    def __init__(self, features: Iterable[np.ndarray], labels: Iterable[str]):
        """Fit on the train part: one feature vector and one label a picture.

        Raises ValueError where there are fewer than two labels.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._model = make_pipeline(
            StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
        )
        self._model.fit(np.stack(list(features)), list(labels))

    def probabilities(self, features: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """float64 (n, len(labels)) in the order of `labels`, 0 for one never seen in training.

        `features` is (n, features); `labels` holds all that the model was fitted on.
        """
        seen = dict(zip(self._model.classes_, self._model.predict_proba(features).T, strict=True))
        none = np.zeros(len(features))
        return np.stack([seen.get(label, none) for label in labels], axis=1)
