"""The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class TooFewSamples(ValueError):
    """A covariance of these features would be singular; the distance would depend mostly on the number of samples."""


def frechet_distance(features: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), covariances with n − 1.

    With centred features Xᵢ = QᵢRᵢ, Σᵢ = RᵢᵀRᵢ / (nᵢ − 1), and the eigenvalues of (Σ₁Σ₂)^½ are the singular values of
    R₁R₂ᵀ / √((n₁ − 1)(n₂ − 1)). Computing them from R avoids squaring and a matrix square root, so small values keep
    their precision and no negative eigenvalues appear.

    Args:
        features, reference: [n₁, D] and [n₂, D].

    Raises `TooFewSamples` unless n₁, n₂ > D.
    Raises `ValueError` for other shapes or values that are not finite.
    """
    sets = [np.asarray(values, np.float64) for values in (features, reference)]
    if any(values.ndim != 2 for values in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"both sets of features must be [n, D], got {[list(values.shape) for values in sets]}")
    if not all(np.isfinite(values).all() for values in sets):
        raise ValueError("features are not finite")
    width, fewest = sets[0].shape[1], min(map(len, sets))
    if fewest <= width:
        raise TooFewSamples(f"{fewest} samples of {width} features; more samples than features are needed on each side")
    means = [values.mean(axis=0) for values in sets]
    roots: list[Floats] = [
        np.asarray(np.linalg.qr((values - mean) / np.sqrt(len(values) - 1), mode="r"))
        for values, mean in zip(sets, means, strict=True)
    ]
    spread = sum(float(np.sum(root**2)) for root in roots)
    shared = float(np.linalg.norm(roots[0] @ roots[1].T, "nuc"))
    return max(0.0, float(np.sum((means[0] - means[1]) ** 2)) + spread - 2 * shared)


def squared_distance(features: npt.ArrayLike, portrait: npt.ArrayLike) -> float:
    """Mean over faces of the squared distance between their features [n, D] and the portrait's [D].

    ConsisID's evaluation reports this as the FID of one video (eval/get_facesim_fid.py): it compares one frame with one
    portrait, each counted twice, so both covariances are zero and only ‖μ₁ − μ₂‖² remains, averaged over frames.
    """
    return float(np.mean(np.sum((np.asarray(features, np.float64) - np.asarray(portrait, np.float64)) ** 2, axis=1)))
