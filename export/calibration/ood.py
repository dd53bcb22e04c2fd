"""The out-of-distribution score: how far a picture is from those a classifier learnt from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

AXES = 32  # of the embedding
# Dividing by less would make rounding, which differs from runtime to runtime, look like knowledge.
LEAST_SHARE = 1e-4  # of the greatest variance
LEAST_OF_SQUARE = 1e-7  # of the features' squared length; only untrained networks come near it
LEAST = 1e-8  # of a network whose features are all zero


class OodScore(nn.Module):
    """Probabilistic PCA of pooled features (Tipping & Bishop, J. R. Stat. Soc. B 61, 1999).

    `forward` takes features (N, D) and gives

    - the embedding (N, E): the E greatest principal components, each of variance 1 in training;
    - the distance (N, 1): root of the Mahalanobis distance squared under the model's Gaussian,
      which is -2 log likelihood up to constants, over D. In training its root mean square is 1,
      or less where a variance was raised to the least.
    """

    def __init__(self, mean: np.ndarray, axes: np.ndarray, spread: np.ndarray, noise: float):
        """All of the training features z (n, D); `fit_ood` computes them.

        Parameters
        ----------
        mean : float (D,).
        axes : float (E, D), orthonormal rows.
        spread : float (E,), standard deviation along each axis.
        noise : standard deviation across all axes, of each dimension that is left.
        """
        super().__init__()

        def constant(values) -> nn.Parameter:
            return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)

        self.mean, self.axes = constant(mean), constant(axes)
        self.precision = constant(1 / spread)
        self.noise_precision = constant([1 / noise])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        centred = features - self.mean
        along = centred @ self.axes.T
        embedding = along * self.precision
        # The rest itself: as a difference of two sums it could fall below zero.
        rest = (centred - along @ self.axes) * self.noise_precision
        squares = (embedding**2).sum(dim=1, keepdim=True) + (rest**2).sum(dim=1, keepdim=True)
        return embedding, torch.sqrt(squares / features.shape[1])


def fit_ood(features: np.ndarray) -> OodScore:
    """The maximum likelihood model of float (n, D) features, n and D at least 2."""
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / count)
    components = min(AXES, width - 1, count - 1)
    order = np.argsort(-variances)[:components]
    axes = vectors.T[order]
    # An eigenvector has two signs: the same runs must give the same bundle.
    axes *= np.sign(axes[np.arange(components), np.abs(axes).argmax(axis=1)])[:, None]
    noise = (variances.sum() - variances[order].sum()) / (width - components)
    square = float(np.mean(np.sum(np.square(features, dtype=np.float64), axis=1)))
    least = max(LEAST_SHARE * variances.max(), LEAST_OF_SQUARE * square, LEAST)
    spread = np.sqrt(np.maximum(variances[order], least))
    return OodScore(mean, axes, spread, float(np.sqrt(max(noise, least))))
