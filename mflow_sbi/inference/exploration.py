r"""Weighted draws all over the prior: where chains begin, jump to, and must have been.

theta_i ~ p(theta) with weights w_i = L(theta_i) are a crude sample of the posterior; where few of
them carry all the weight, points drawn from a density fitted to them, w_i = L p / q, are a better
one, and so on (population Monte Carlo; Cappe et al., 2004).  Chains that begin at points chosen by
w_i begin in every mode in proportion to its mass.  The density itself, mixed with the prior,
proposes jumps between modes.  And weight that lies where no chain ever came is a mode that the
chains have missed, however well they agree with one another.

In many parameters few points carry all the weight to the end: then the weights are raised to a
power beta < 1, and the check for missed modes finds only what such points can find.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mflow_sbi.errors import SamplingError
from mflow_sbi.interfaces import Array, Prior

__all__ = ["Exploration", "JumpDensity", "explore_prior"]

_ROUNDS = 10  # of prior draws, while too few are usable
_REFINEMENTS = 4
_LEAST_GAIN = 1.2  # in effective draws, for another refinement
_HALVINGS = 30
_EFFECTIVE_PER_CHOICE = 2.0
_CENTRES = 128
_NEIGHBOURS = 16
_PRIOR_SHARE = 0.1  # of the jumps, so that the density is nowhere much smaller than the prior's
_COMPARED_DRAWS = 4000
_FAR = 2.0  # in units of the loneliest draw's distance from its nearest neighbour
_LOW = 0.01  # quantile of the draws' log posterior: below it nothing counts as missed


@dataclass(frozen=True, eq=False)
class Exploration:
    """Points at which the posterior does not vanish, weighted to stand for it.

    Args:
        prior: where they come from, at first.
        points: theta_i, (K, p).
        log_joint: log L + log p(theta), finite, (K,).
        log_weights: log w_i = log_joint - log q, q the density they were drawn from, (K,).
    """

    prior: Prior
    points: Array
    log_joint: Array
    log_weights: Array

    @property
    def effective_draws(self) -> float:
        """Kish's (sum w)^2 / sum w^2: how many draws from the posterior these are worth."""
        return _effective(self.log_weights)

    def starts(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        r"""Return n different points chosen by w^beta and their log posterior, (n, p), (n,).

        beta is the largest power in [0, 1] that leaves 2n effective draws: 1, mostly, and the
        points then are draws from the posterior.
        """
        chosen = self._choose(n, rng)
        return self.points[chosen], self.log_joint[chosen]

    def jumps(self, rng: np.random.Generator) -> "JumpDensity":
        """Return a density that proposes points in every mode, whatever the walker's place."""
        centres = self.points[self._choose(min(_CENTRES, len(self.points)), rng)]
        whitened = centres @ np.linalg.inv(_axes(centres))
        n_neighbours = max(_NEIGHBOURS, 2 * centres.shape[1] + 2)
        away = np.linalg.norm(whitened[:, None] - whitened, axis=2)
        near = np.argsort(away, axis=1)[:, :n_neighbours]
        return JumpDensity(self.prior, centres, np.stack([_axes(centres[j]) for j in near]))

    def missed_share(self, draws: Array, log_joint: Array) -> float:
        """Return the share of the weight where the posterior is high and no draw came near.

        High: above the lowest percentile of the draws' log posterior.  Near: within twice the
        largest distance between such a draw and its nearest neighbour, in the draws' own metric.

        Args:
            draws: posterior draws, (S, p).
            log_joint: their log L + log p(theta), (S,).
        """
        level = np.quantile(log_joint, _LOW)
        candidates = self.log_joint > level
        some, first = np.unique(
            draws[:: -(-len(draws) // _COMPARED_DRAWS)], axis=0, return_index=True
        )
        bulk = log_joint[:: -(-len(draws) // _COMPARED_DRAWS)][first] > level
        if np.count_nonzero(bulk) < 3 or not candidates.any():
            return 0.0
        whiten = np.linalg.inv(_axes(some))
        tree = KDTree(some @ whiten)
        lonely = tree.query(some[bulk] @ whiten, k=2)[0][:, 1].max()
        away = tree.query(self.points[candidates] @ whiten)[0]
        log_weights = self.log_weights
        missed = log_weights[candidates][away > _FAR * lonely]
        return float(np.exp(missed - _log_sum(log_weights)).sum())

    def _choose(self, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return n different indices drawn by w^beta, in random order."""
        beta = _power(self.log_weights, _EFFECTIVE_PER_CHOICE * n)
        keys = beta * self.log_weights + rng.gumbel(size=len(self.log_weights))
        return rng.permutation(np.argsort(keys)[-n:])


@dataclass(frozen=True, eq=False)
class JumpDensity:
    r"""q(theta) = (1 - s) / m sum_j N(theta; c_j, A_j^T A_j) + s p(theta), s = 0.1.

    Args:
        prior: p(theta).
        centres: c_j, (m, p).
        axes: A_j, from the nearest neighbours of c_j, (m, p, p).
    """

    prior: Prior
    centres: Array
    axes: Array

    @cached_property
    def _to_unit(self) -> tuple[Array, Array]:
        """Return the inverses of A_j, (m, p, p), and the log norms of N / m, (m,)."""
        inverse = np.asarray(np.linalg.inv(self.axes), dtype=np.float64)
        norms = np.linalg.slogdet(inverse)[1] - 0.5 * inverse.shape[1] * np.log(2 * np.pi)
        return inverse, np.asarray(norms - np.log(len(inverse)))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n draws, (n, p)."""
        chosen = rng.integers(len(self.centres), size=n)
        steps = rng.normal(size=(n, self.centres.shape[1]))
        points = self.centres[chosen] + np.einsum("np,npq->nq", steps, self.axes[chosen])
        from_prior = rng.random(n) < _PRIOR_SHARE
        points[from_prior] = self.prior.sample(int(from_prior.sum()), rng)
        return points

    def log_prob(self, theta: Array) -> Array:
        """Return log q(theta), (M, p) -> (M,)."""
        inverse, norms = self._to_unit
        away = (theta - self.centres[:, None]) @ inverse
        kernels = norms[:, None] - 0.5 * np.square(away).sum(axis=2)
        largest = kernels.max(axis=0)
        fitted = largest + np.log(np.exp(kernels - largest).sum(axis=0))
        from_prior = self.prior.log_prob(theta)
        return np.logaddexp(np.log1p(-_PRIOR_SHARE) + fitted, np.log(_PRIOR_SHARE) + from_prior)


def explore_prior(
    log_joint: Callable[[Array], Array],
    prior: Prior,
    n: int,
    at_least: int,
    rng: np.random.Generator,
) -> Exploration:
    """Return weighted points all over the prior that stand for the posterior.

    Args:
        log_joint: log L + log p(theta), (M, p) -> (M,).
        prior: the prior to draw from.
        n: points per round; a round more while too few are usable, or carry the weight.
        at_least: how many usable ones are needed.
        rng: source of the draws.

    Raises:
        SamplingError: fewer than `at_least` in 10 n prior draws.
    """
    exploration = _from_prior(log_joint, prior, n, at_least, rng)
    for _ in range(_REFINEMENTS):
        enough = exploration.effective_draws >= _EFFECTIVE_PER_CHOICE * _CENTRES
        if enough or len(exploration.points) < _CENTRES:
            break
        density = exploration.jumps(rng)
        points = density.sample(n, rng)
        values = log_joint(points)
        finite = np.isfinite(values)
        points, values = points[finite], values[finite]
        finer = Exploration(prior, points, values, values - density.log_prob(points))
        gained = finer.effective_draws > _LEAST_GAIN * exploration.effective_draws
        if len(points) < at_least or not gained:
            break
        exploration = finer
    return exploration


def _from_prior(
    log_joint: Callable[[Array], Array],
    prior: Prior,
    n: int,
    at_least: int,
    rng: np.random.Generator,
) -> Exploration:
    kept: list[tuple[Array, Array]] = []
    for _ in range(_ROUNDS):
        points = prior.sample(n, rng)
        values = log_joint(points)
        finite = np.isfinite(values)
        kept.append((points[finite], values[finite]))
        if sum(len(values) for _, values in kept) >= at_least:
            points, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            return Exploration(prior, points, values, values - prior.log_prob(points))
    message = (
        f"no finite starting points: fewer than {at_least} of {_ROUNDS * n} draws from the "
        "prior; the likelihood vanishes where the prior lives: check units, the selection of the "
        "observed events, and the prior"
    )
    raise SamplingError(message)


def _effective(log_weights: Array) -> float:
    return float(np.exp(2 * _log_sum(log_weights) - _log_sum(2 * log_weights)))


def _log_sum(logs: Array) -> float:
    return float(np.logaddexp.reduce(logs))


def _power(log_weights: Array, wanted: float) -> float:
    """Return the largest beta in [0, 1] for which w^beta has so many effective draws."""
    if _effective(log_weights) >= wanted:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        enough = _effective(middle * log_weights) >= wanted
        low, high = (middle, high) if enough else (low, middle)
    return low


def _axes(points: Array) -> Array:
    """Return A^T of the covariance A A^T of points (m, p), never singular, (p, p)."""
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(points, rowvar=False)))
    smallest = max(variances.max() * 1e-12, np.finfo(float).tiny)
    return np.sqrt(np.maximum(variances, smallest))[:, None] * axes.T
