"""Problems whose answers are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.checks import kl, pair


def gaussian_value(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray, eps: float) -> float:
    """Balanced entropic transport of two Gaussians of mass 1 for |x - y|^2 / 2 (Janati et al. 2020, theorem 1).

    (|m_a - m_b|^2 + tr A + tr B - tr D + d eps (1 - log 2 eps) + eps log det(D + eps)) / 2,
    D = (4 A^(1/2) B A^(1/2) + eps^2)^(1/2)
    """
    d = len(mean_a)
    # the eigenvalues of A^(1/2) B A^(1/2) are those of A B
    eigenvalues = np.sqrt(4 * np.linalg.eigvals(cov_a @ cov_b).real + eps**2)
    bures = np.trace(cov_a) + np.trace(cov_b) - eigenvalues.sum()
    entropy = d * eps * (1 - math.log(2 * eps)) + eps * np.log(eigenvalues + eps).sum()
    return float(np.sum((mean_a - mean_b) ** 2) + bures + entropy) / 2


def gaussian_divergence(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray, eps: float
) -> float:
    cross = gaussian_value(mean_a, cov_a, mean_b, cov_b, eps)
    own = gaussian_value(mean_a, cov_a, mean_a, cov_a, eps) + gaussian_value(mean_b, cov_b, mean_b, cov_b, eps)
    return cross - own / 2


def gaussian_grid(mean: np.ndarray, cov: np.ndarray, spacing: float, width: float = 6.5) -> tuple[Any, Any]:
    """A Gaussian as weighted points of a lattice: the sums are integrals, up to a spectrally small error."""
    deviations = np.sqrt(np.diag(cov))
    axes = [np.arange(m - width * s, m + width * s, spacing) for m, s in zip(mean, deviations, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(mean))
    offset = points - mean
    density = np.exp(-0.5 * np.sum(offset @ np.linalg.inv(cov) * offset, axis=1))
    kept = density > 1e-10  # the corners of the lattice hold nothing
    return points[kept], density[kept] / density[kept].sum()


def dirac_mass(cost: float, mass_a: float, mass_b: float, eps: float, rho: Any) -> float:
    """The mass of the plan between two Diracs: one number p that minimises a scalar function."""
    rho_a, rho_b = pair(rho)
    if rho_a is None or rho_b is None:
        return mass_a if rho_a is None else mass_b
    strength = eps * math.log(mass_a * mass_b) + rho_a * math.log(mass_a) + rho_b * math.log(mass_b)
    return math.exp((strength - cost) / (eps + rho_a + rho_b))


def dirac_value(cost: float, mass_a: float, mass_b: float, eps: float, rho: Any = None) -> float:
    """p C + eps KL(p | m_a m_b) + rho_a KL(p | m_a) + rho_b KL(p | m_b)."""
    rho_a, rho_b = pair(rho)
    p, a, b = (np.asarray([z]) for z in (dirac_mass(cost, mass_a, mass_b, eps, rho), mass_a, mass_b))
    value = float(p[0]) * cost + eps * kl(p, a * b)
    value += 0.0 if rho_a is None else rho_a * kl(p, a)
    return value + (0.0 if rho_b is None else rho_b * kl(p, b))


def two_by_two(cost: float, eps: float, mass: float = 1.0) -> tuple[np.ndarray, float]:
    """The plan and value for C = cost off the diagonal, 0 on it, and two equal weights a side."""
    stay = mass / 2 / (1 + math.exp(-cost / eps))
    P = np.asarray([[stay, mass / 2 - stay], [mass / 2 - stay, stay]])
    product = np.full((2, 2), mass**2 / 4)
    return P, 2 * float(P[0, 1]) * cost + eps * kl(P, product)


def sorted_matching(x: np.ndarray, y: np.ndarray, p: int) -> float:
    """Unregularised transport on the line, n points each: sum |x_(i) - y_(i)|^p / (p n)."""
    return float(np.mean(np.abs(np.sort(x) - np.sort(y)) ** p) / p)
