r"""Prior draws weighted by the likelihood: where chains begin, jump to, and must have been.

theta_i ~ p(theta) with weights w_i = L(theta_i) are a crude sample of the posterior.  Chains that
begin at draws chosen by w_i begin in every mode in proportion to its mass.  A density fitted to
such draws, mixed with the prior, proposes jumps between modes.  And weight that lies where no
chain ever came is a mode that the chains have missed, however well they agree with one another.

In many parameters, or with many events, few draws carry all the weight: then the weights are
raised to a power beta < 1, and the check for missed modes finds only what prior draws can find.
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

_BLOCK = 512  # points per call of the likelihood
_ROUNDS = 10
_HALVINGS = 30
_EFFECTIVE_PER_START = 2.0
_CENTRES = 256
_PRIOR_SHARE = 0.1  # of the jumps, so that the density is nowhere much smaller than the prior's
_COMPARED_DRAWS = 4000
_FAR = 2.0  # in units of the loneliest draw's distance from its nearest neighbour
_LOW = 0.01  # quantile of the draws' log posterior: below it nothing counts as missed


@dataclass(frozen=True, eq=False)
class Exploration:
    """Prior draws at which the posterior does not vanish.

    Args:
        prior: what they were drawn from.
        points: the draws, (K, p).
        log_joint: log L + log p(theta), finite, (K,).
    """

    prior: Prior
    points: Array
    log_joint: Array

    @property
    def log_weights(self) -> Array:
        """Return log L, (K,)."""
        return self.log_joint - self.prior.log_prob(self.points)

    @property
    def effective_draws(self) -> float:
        """Kish's (sum w)^2 / sum w^2: how many draws from the posterior these are worth."""
        return _effective(self.log_weights)

    def starts(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        r"""Return n different points chosen by w^beta and their log posterior, (n, p), (n,).

        beta is the largest power in [0, 1] that leaves 2n effective draws: 1 where the posterior
        is broad (the points then are draws from it), less where it is narrow.
        """
        chosen = self._choose(n, rng)
        return self.points[chosen], self.log_joint[chosen]

    def jumps(self, rng: np.random.Generator) -> "JumpDensity":
        """Return a density that proposes points in every mode, whatever the walker's place."""
        centres = self.points[self._choose(min(_CENTRES, len(self.points)), rng)]
        width = len(centres) ** (-1 / (centres.shape[1] + 4))
        return JumpDensity(self.prior, centres, _axes(centres) * width)

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
        log_weights = self.log_weights
        beta = _power(log_weights, _EFFECTIVE_PER_START * n)
        keys = beta * log_weights + rng.gumbel(size=len(log_weights))
        return rng.permutation(np.argsort(keys)[-n:])


@dataclass(frozen=True, eq=False)
class JumpDensity:
    r"""q(theta) = (1 - s) / m sum_j N(theta; c_j, A A^T) + s p(theta), s = 0.1.

    Args:
        prior: p(theta).
        centres: c_j, (m, p).
        axes: A^T, (p, p).
    """

    prior: Prior
    centres: Array
    axes: Array

    @cached_property
    def _whitened(self) -> tuple[Array, Array, float]:
        """Return A^-T, the centres where A is one, and the log norm of (1/m) sum_j N."""
        to_unit = np.asarray(np.linalg.inv(self.axes), dtype=np.float64)
        norm = np.linalg.slogdet(to_unit)[1] - 0.5 * len(to_unit) * np.log(2 * np.pi)
        return to_unit, self.centres @ to_unit, float(norm - np.log(len(self.centres)))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n draws, (n, p)."""
        points = self.centres[rng.integers(len(self.centres), size=n)]
        points = points + rng.normal(size=points.shape) @ self.axes
        from_prior = rng.random(n) < _PRIOR_SHARE
        points[from_prior] = self.prior.sample(int(from_prior.sum()), rng)
        return points

    def log_prob(self, theta: Array) -> Array:
        """Return log q(theta), (M, p) -> (M,)."""
        to_unit, centres, norm = self._whitened
        points = theta @ to_unit
        overlaps = points @ centres.T - 0.5 * np.square(centres).sum(axis=1)
        largest = overlaps.max(axis=1)
        kernels = largest + np.log(np.exp(overlaps - largest[:, None]).sum(axis=1))
        kernels += norm - 0.5 * np.square(points).sum(axis=1)
        return np.logaddexp(
            np.log1p(-_PRIOR_SHARE) + kernels, np.log(_PRIOR_SHARE) + self.prior.log_prob(theta)
        )


def explore_prior(
    log_joint: Callable[[Array], Array],
    prior: Prior,
    n: int,
    at_least: int,
    rng: np.random.Generator,
) -> Exploration:
    """Return those of n prior draws at which the posterior does not vanish.

    Args:
        log_joint: log L + log p(theta), (M, p) -> (M,).
        prior: the prior to draw from.
        n: how many draws; as many again, and again, while too few are usable.
        at_least: how many usable ones are needed.
        rng: source of the draws.

    Raises:
        SamplingError: fewer than `at_least` in 10 n draws.
    """
    kept: list[tuple[Array, Array]] = []
    for _ in range(_ROUNDS):
        points = prior.sample(n, rng)
        values = np.concatenate([log_joint(points[k : k + _BLOCK]) for k in range(0, n, _BLOCK)])
        finite = np.isfinite(values)
        kept.append((points[finite], values[finite]))
        if sum(len(values) for _, values in kept) >= at_least:
            points, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
            return Exploration(prior, points, values)
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
