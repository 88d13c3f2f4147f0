r"""Distances between a surrogate and a known density on a known surface.

Lengths are in the surface's own units, |x - y|_2, not in those of standardised observables.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from scipy.stats import rankdata

from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import ManifoldFlow, TrainedSurrogate

__all__ = ["KnownDensity", "auc", "densities_on_grid", "density_gap", "mmd2", "posterior_mmd2"]

DRAWS_FOR_SCALE = 2000


class KnownDensity(Protocol):
    """log p(x|theta) with respect to the surface's own volume."""

    def log_density(self, x: Array, theta: Array) -> Array:
        """Return log p, (N, n), (N,) -> (N,)."""
        ...


def auc(inside: Array, outside: Array) -> float:
    """Return P(score of an outside event > score of an inside one), ties count half.

    >>> auc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))[n:]
    return float((ranks.sum() - m * (m + 1) / 2) / (n * m))


def mmd2(grid: Array, truth: Array, model: Array, rng: np.random.Generator) -> float:
    """Return sum_ij (p - q)_i k(t_i, t_j) (p - q)_j, k = exp(-(t_i - t_j)^2 / (2 s^2)).

    The squared maximum mean discrepancy of two posteriors on one grid, without the noise of
    samples; s is the median distance of two draws of the truth.

    Args:
        grid: parameter values, (M,).
        truth: posterior masses p, (M,), sum 1.
        model: posterior masses q, (M,), sum 1.
        rng: of the draws for s.
    """
    draws = rng.choice(grid, (2, DRAWS_FOR_SCALE), p=truth)
    scale = np.median(np.abs(draws[0] - draws[1]))
    kernel = np.exp(-0.5 * ((grid[:, None] - grid) / scale) ** 2)
    return float((truth - model) @ kernel @ (truth - model))


def densities_on_grid(log_likelihood: Callable[[float], Array], grid: Array) -> Array:
    """Return posterior masses under a flat prior, (sets, M), from log-likelihoods of the sets.

    Args:
        log_likelihood: log L of every set of events at one parameter value, (sets,).
        grid: parameter values of equal cells, (M,).
    """
    log_l = np.stack([log_likelihood(float(theta)) for theta in grid], axis=1)
    masses = np.exp(log_l - log_l.max(axis=1, keepdims=True))
    return masses / masses.sum(axis=1, keepdims=True)


@torch.no_grad()
def posterior_mmd2(
    trained: TrainedSurrogate, known: KnownDensity, x: Array, grid: Array, seed: int
) -> Array:
    """Return `mmd2` of posteriors given sets of events, flat prior, (sets, N, n) -> (sets,)."""
    n_sets, n_events = x.shape[:2]
    flat = x.reshape(n_sets * n_events, -1)
    latents = trained.encode(flat)

    def of_model(theta: float) -> Array:
        log_p = trained.latent_log_likelihood(latents, torch.tensor([[theta]]))
        return log_p.double().numpy().reshape(n_sets, n_events).sum(axis=1)

    def of_truth(theta: float) -> Array:
        log_p = known.log_density(flat, np.full(len(flat), theta))
        return log_p.reshape(n_sets, n_events).sum(axis=1)

    truth, model = densities_on_grid(of_truth, grid), densities_on_grid(of_model, grid)
    rng = np.random.default_rng(seed)
    return np.array([mmd2(grid, p, q, rng) for p, q in zip(truth, model, strict=True)])


@torch.no_grad()
def density_gap(trained: TrainedSurrogate, known: KnownDensity, x: Array, theta: Array) -> float:
    r"""Return mean log p_true(x|theta) - log p_model(P(x)|theta) over events with a projection.

    For events of the true density this is KL(true || model).  The model's density is taken with
    respect to the volume of its surface in the surface's own units, sqrt(det J^T S^2 J) with S
    the standard deviations; on a learned surface it means something only next to a small
    reconstruction error.

    Args:
        trained: a flow on a surface.
        known: the true density.
        x: events of the true density, (N, n).
        theta: their parameters, (N, 1).
    """
    flow = trained.surrogate
    assert isinstance(flow, ManifoldFlow)
    events, found = flow.chart.encode_with_flags(trained.standardise(x))
    found &= flow.chart.decode_with_flags(events)[1]
    s = events[found].to(flow.reference.whitening.mean.dtype)
    u, log_det = flow.reference.encode_noise(s)
    kept = found.numpy()
    parameters = torch.from_numpy(trained.record.parameters.transform(theta[kept])).to(u)
    std = torch.from_numpy(trained.record.observables.std)
    tangents = std[:, None] * flow.chart.decode_with_jacobian(s)[1].double()
    log_volume = 0.5 * torch.linalg.slogdet(tangents.mT @ tangents).logabsdet
    log_model = (flow.latent_log_prob(u, parameters) + log_det).double() - log_volume
    log_true = known.log_density(x[kept], theta[kept, 0])
    return float(np.mean(log_true - log_model.numpy()))
