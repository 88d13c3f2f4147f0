r"""Sets of events at parameters drawn from the prior: theta_s ~ p(theta), x_i ~ p(x|theta_s).

From a pool whose events carry morphing components, events at any theta are drawn with weights

    p(x_i|theta_s) / p_pool(x_i),   p_pool(x) = mean_j p(x|theta_j) over the pool's own thetas,

which no event can make large while theta_s is where the pool's thetas are; pools of weighted
events, and selected ones: `mflow_sbi.reweighting.MorphingPool`.  A finite pool is not
p(x|theta): with n_eff = (sum w)^2 / sum w^2 effective events, a set of n events has a mean that
is off by sqrt(n / n_eff) of its own spread; keep n_eff above 100 n.  Without components, sets are
events that were simulated at their theta, grouped by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.calibration.sets import (
    ExpectedCount,
    LikelihoodOfSets,
    MorphingEventSets,
    RateSets,
    learned_sets,
)
from mflow_sbi.errors import EventDataError
from mflow_sbi.events import EventSample
from mflow_sbi.inference import exact_likelihood
from mflow_sbi.interfaces import Array, EncodedLikelihood, Prior
from mflow_sbi.morphing import MorphingBasis
from mflow_sbi.reweighting import MorphingPool
from mflow_sbi.reweighting.reports import LARGEST_NEGATIVE_SHARE

__all__ = [
    "DrawnSets",
    "draw_counted_sets",
    "draw_sets",
    "draw_sets_at",
    "group_counted_sets",
    "group_sets",
]


@dataclass(frozen=True, eq=False)
class DrawnSets:
    """S sets of events, each at its own parameters.

    Args:
        theta: parameters behind each set, (S, p).
        members: which events of the pool each set holds, S arrays (N_s,).
        pool: the events.
        effective_events: n_eff of the pool at each theta, (S,); inf where nothing was weighted.
        expected: mu(theta), if the sizes of the sets were drawn as Poisson counts.
    """

    theta: Array
    members: tuple[NDArray[np.intp], ...]
    pool: EventSample
    effective_events: Array
    expected: ExpectedCount | None = None

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the p parameters."""
        return self.pool.parameter_names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self.members)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of events of each set, (S,)."""
        return np.array([len(rows) for rows in self.members], dtype=np.int64)

    @property
    def events(self) -> list[Array]:
        """Observables of each set, (N_s, n) physical units."""
        return [self.pool.x[rows] for rows in self.members]

    def take(self, sets: Sequence[int] | NDArray[np.intp]) -> "DrawnSets":
        """Return some of the sets."""
        index = np.asarray(sets, dtype=np.intp)
        return replace(
            self,
            theta=self.theta[index],
            members=tuple(self.members[s] for s in index),
            effective_events=self.effective_events[index],
        )

    def exact(self) -> LikelihoodOfSets:
        """Return the exact likelihood of the sets, with the rate where sizes were drawn.

        Raises:
            MissingReference: the pool carries no exact morphing components.
        """
        exact_likelihood(self.pool.take(np.arange(1)))  # says what is missing
        components, morphing = self.pool.require_components(), self.pool.metadata.morphing
        assert morphing is not None
        sets = MorphingEventSets(
            self.parameter_names,
            MorphingBasis(np.array(morphing.exponents)),
            [components[rows] for rows in self.members],
            np.array(morphing.cross_section),
        )
        return self.with_rate(sets)

    def learned(self, surrogate: EncodedLikelihood) -> LikelihoodOfSets:
        """Return the learned likelihood of the sets, with the rate where sizes were drawn."""
        return self.with_rate(learned_sets(surrogate, self.events))

    def with_rate(self, sets: LikelihoodOfSets) -> LikelihoodOfSets:
        """Return likelihoods of the shapes of these sets, with the rate where sizes were drawn."""
        if self.expected is None:
            return sets
        return RateSets(sets, self.sizes.tolist(), self.expected)


def draw_sets(
    pool: EventSample, prior: Prior, n_sets: int, n_events: int, rng: np.random.Generator
) -> DrawnSets:
    """Return sets of n events each at theta ~ prior, by morphing weights; shape only.

    Args:
        pool: unweighted events with morphing components and theta.
        prior: from which theta_s is drawn.
        n_sets: S.
        n_events: events per set.
        rng: draws everything.

    Raises:
        MissingReference: the pool carries no components or no theta.
        EventDataError: no sets or no events asked for, weighted events, or a pool that says
            nothing about some theta.
    """
    _require_positive(n_sets, n_events)
    theta = prior.sample(n_sets, rng)
    return _drawn(pool, theta, np.full(n_sets, n_events), rng)


def draw_sets_at(
    pool: EventSample,
    theta: Array,
    sizes: Sequence[int] | NDArray[np.int64],
    rng: np.random.Generator,
) -> DrawnSets:
    """Return a set of so many events at each theta, (S, p), by morphing weights.

    Arguments and errors are those of `draw_sets`.
    """
    _require_positive(len(theta), 1)
    return _drawn(pool, theta, np.asarray(sizes, dtype=np.int64), rng)


def draw_counted_sets(
    pool: EventSample,
    prior: Prior,
    n_sets: int,
    expected: ExpectedCount,
    rng: np.random.Generator,
) -> DrawnSets:
    """Return sets at theta ~ prior of N_s ~ Poisson(mu(theta_s)) events; shape and rate.

    Arguments and errors are those of `draw_sets`; `expected` is mu(theta).
    """
    _require_positive(n_sets, 1)
    theta = prior.sample(n_sets, rng)
    sizes = rng.poisson(expected(theta))
    return replace(_drawn(pool, theta, sizes, rng), expected=expected)


def group_sets(
    events: EventSample, n_events: int, n_sets: int, rng: np.random.Generator
) -> DrawnSets:
    """Return sets of n events of one theta each, from events simulated at thetas of the prior.

    Args:
        events: unweighted events of at least `n_sets` different thetas, themselves draws of the
            prior, each with at least n events.
        n_events: events per set.
        n_sets: S.
        rng: chooses thetas and events.

    Raises:
        MissingReference: the events carry no theta.
        EventDataError: weighted events, too few thetas, or too few events of one.
    """
    _require_positive(n_sets, n_events)
    return _grouped(events, n_sets, lambda theta: np.full(len(theta), n_events), rng)


def group_counted_sets(
    events: EventSample, expected: ExpectedCount, n_sets: int, rng: np.random.Generator
) -> DrawnSets:
    """Return sets of N_s ~ Poisson(mu(theta_s)) events of one theta each; shape and rate.

    Arguments and errors are those of `group_sets`; `expected` is mu(theta).
    """
    _require_positive(n_sets, 1)
    drawn = _grouped(events, n_sets, lambda theta: rng.poisson(expected(theta)), rng)
    return replace(drawn, expected=expected)


def _drawn(
    pool: EventSample, theta: Array, sizes: NDArray[np.int64], rng: np.random.Generator
) -> DrawnSets:
    """Return sets of given sizes at given thetas, drawn from the pool by weight."""
    morphing_pool = MorphingPool.of(pool)
    carried, basis = morphing_pool.carried, morphing_pool.basis
    members, effective = [], np.empty(len(theta))
    for s, weights in enumerate(basis.weights(theta)):
        density = carried @ weights
        ratio = np.maximum(density, 0.0)
        cumulative = np.cumsum(ratio)
        if cumulative[-1] - density.sum() > LARGEST_NEGATIVE_SHARE * cumulative[-1]:
            message = (
                f"the pool has events of negative weight at theta {theta[s].tolist()}, which "
                "cannot be drawn; take an unweighted pool, or thetas within the benchmarks"
            )
            raise EventDataError(message)
        effective[s] = cumulative[-1] ** 2 / np.square(ratio).sum()
        if effective[s] < sizes[s]:
            message = (
                f"the pool of {len(pool)} events is worth {effective[s]:.1f} at theta "
                f"{theta[s].tolist()}, where {sizes[s]} are asked for; take a larger pool, "
                "simulated at thetas of this prior"
            )
            raise EventDataError(message)
        at = rng.random(int(sizes[s])) * cumulative[-1]
        members.append(np.searchsorted(cumulative, at, side="right"))
    return DrawnSets(theta, tuple(members), pool, effective)


def _grouped(
    events: EventSample,
    n_sets: int,
    sizes_at: Callable[[Array], NDArray[np.int64]],
    rng: np.random.Generator,
) -> DrawnSets:
    """Return sets of events of one theta each, of the sizes that go with their thetas."""
    events.require_unweighted()
    values, group = np.unique(events.require_theta(), axis=0, return_inverse=True)
    if len(values) < n_sets:
        message = (
            f"expected events of at least {n_sets} different thetas, one per set, got "
            f"{len(values)}; simulate more thetas, or draw the sets from events with components"
        )
        raise EventDataError(message)
    chosen = rng.permutation(len(values))[:n_sets]
    order = np.argsort(group.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(group.ravel()))
    sizes = sizes_at(values[chosen])
    members = []
    for theta, of, size in zip(values[chosen], chosen, sizes, strict=True):
        rows = order[ends[of - 1] if of else 0 : ends[of]]
        if len(rows) < size:
            message = (
                f"expected at least {size} events at theta {theta.tolist()}, got {len(rows)}; "
                "simulate more events per theta"
            )
            raise EventDataError(message)
        members.append(rng.choice(rows, size=int(size), replace=False))
    unweighted = np.full(n_sets, np.inf)
    return DrawnSets(values[chosen], tuple(members), events, unweighted)


def _require_positive(n_sets: int, n_events: int) -> None:
    if n_sets < 1 or n_events < 1:
        message = f"expected at least one set of at least one event, got {n_sets} of {n_events}"
        raise EventDataError(message)
