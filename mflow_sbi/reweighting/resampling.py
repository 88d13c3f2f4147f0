r"""Events at thetas of a prior from one pool, by morphing weights.

The weights of event i at theta, p_i(theta) = w(theta) . y_i / sum_j w(theta) . y_j, give

* `resampled`: theta_m ~ prior, then an event of the pool with probability p_i(theta_m);
* `thinned`: every event at most once: event i stays with probability proportional to its own,
  p_i = mean_m p_i(theta_m), and gets a theta from p(theta_m|i) = p_i(theta_m) / (M p_i);
* `weighted`: every event once, with theta_i ~ prior and weight N p_i(theta_i): of either sign,
  where the others refuse negative probabilities.

All three are draws of prior(theta) p(x|theta) as the pool knows it: a finite pool is not the
density, and no number of draws makes it more than its effective events.

Signs: events of negative weight (next-to-leading order, or weights morphed beyond where noise lets
them be positive) have no probability; leaving them out would be another density.  `weighted` keeps
them, for every recipe that trains on weights.

Test sets come from other events than training sets: `pool_part` divides a pool once and for all by
the contents of its events.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.events import EventSample, ThetaSampling
from mflow_sbi.events.weights import WeightSummary, training_weights
from mflow_sbi.inference import BoxPrior, NormalPrior
from mflow_sbi.interfaces import Array, Prior
from mflow_sbi.morphing import joint_score
from mflow_sbi.reweighting.drawing import draw_rows, negative_shares
from mflow_sbi.reweighting.pool import EVENT_MEASURE, MorphingPool
from mflow_sbi.reweighting.reports import (
    LARGEST_NEGATIVE_SHARE,
    ResamplingReport,
    require_worth,
)

__all__ = ["resampled", "reweighted", "thinned", "weighted"]

_CHECKED = 2 * 10**8  # pairs of event and theta whose sign is looked at


def reweighted(sample: EventSample, theta: ArrayLike) -> EventSample:
    """Return all events of a pool at one theta, weights summing to sigma(theta), pb.

    Args:
        sample: a pool, see `MorphingPool`.
        theta: (p,).

    Raises:
        MissingReference, EventDataError: no pool.
        ParameterRangeError: the cross section is not positive there.
    """
    pool = MorphingPool.of(sample)
    point = pool.basis.points(np.reshape(theta, (1, -1)))
    pool.estimate.cross_section(point)  # positive, or refused
    weight = (pool.basis.weights(point) * pool.carried).sum(axis=1) / len(pool)
    kept = np.flatnonzero(weight)
    thetas = np.broadcast_to(point, (len(kept), point.shape[1]))
    return replace(_taken(pool, kept, thetas, point), weight=weight[kept])


def resampled(
    sample: EventSample, at: Prior | ArrayLike, n_events: int, rng: np.random.Generator
) -> tuple[EventSample, ResamplingReport]:
    """Return unweighted events x_m ~ p(x|theta_m), theta_m ~ prior, with what the pool was worth.

    Args:
        sample: a pool, see `MorphingPool`.
        at: a prior; or the thetas, one for each event, (n, p), or one for all, (p,).
        n_events: n.
        rng: draws everything.

    Raises:
        MissingReference: no components, or neither a sampling density nor theta.
        EventDataError: a pool that is worth too little (`reports`), or negative probabilities.
        ParameterRangeError: the cross section is not positive at some theta.
    """
    pool = MorphingPool.of(sample)
    theta = _thetas(pool, at, n_events, rng)
    columns, report = _probabilities(pool, theta, n_events)
    rows = draw_rows(pool.carried, columns, rng)
    return _taken(pool, rows, theta, at), report.counted(rows)


def thinned(
    sample: EventSample,
    at: Prior,
    rng: np.random.Generator,
    n_events: int | None = None,
    n_thetas: int = 20_000,
) -> tuple[EventSample, ResamplingReport]:
    """Return unweighted events, each of the pool at most once, at thetas of a prior.

    How many there are is told by the largest p_i: N mean_i p_i / max_i p_i.

    Args:
        sample: a pool, see `MorphingPool`.
        at: a prior.
        rng: draws everything.
        n_events: that many of them; default: all.
        n_thetas: M draws of the prior, from which events get theirs.

    Raises:
        MissingReference: no components, or neither a sampling density nor theta.
        EventDataError: a pool that is worth too little, negative probabilities, or fewer events
            than asked for.
        ParameterRangeError: the cross section is not positive at some theta.
    """
    pool = MorphingPool.of(sample)
    theta = _thetas(pool, at, n_thetas, rng)
    columns, report = _probabilities(pool, theta, n_events or 1)
    own = np.maximum(pool.carried @ columns.mean(axis=0), 0.0)
    rows = np.flatnonzero(rng.random(len(pool)) * own.max() < own)
    wanted = len(rows) if n_events is None else n_events
    if not 0 < wanted <= len(rows):
        msg = (
            f"thinned: {len(rows):,} different events of the pool of {len(pool):,} are left, "
            f"expected {max(wanted, 1):,}. Ask for fewer, take a larger pool, or let events come "
            "several times (`resampled`)."
        )
        raise EventDataError(msg)
    rows = rng.permutation(rows)[:wanted]
    chosen = draw_rows(columns, pool.carried[rows], rng)
    return _taken(pool, rows, theta[chosen], at), report.counted(rows)


def weighted(
    sample: EventSample, at: Prior | ArrayLike, rng: np.random.Generator
) -> tuple[EventSample, WeightSummary]:
    """Return every event of the pool at a theta of the prior, with its weight N p_i(theta_i).

    Weights may be negative; events of weight zero are left out.

    Args:
        sample: a pool, see `MorphingPool`.
        at: a prior; or the thetas, one for each event, (N, p).
        rng: draws the thetas.

    Raises:
        MissingReference: no components, or neither a sampling density nor theta.
        EventDataError: weights that nothing can be trained on, see `events.weights`.
        ParameterRangeError: the cross section is not positive at some theta.
    """
    pool = MorphingPool.of(sample)
    theta = _thetas(pool, at, len(pool), rng)
    if isinstance(at, Prior):  # a pool simulated with the same seed met these thetas in this order
        theta = rng.permutation(theta)
    sigma, _ = pool.estimate.cross_section(theta)
    weight = (pool.basis.weights(theta) * pool.carried).sum(axis=1) / sigma
    kept = np.flatnonzero(weight)
    training_weights(weight[kept])
    events = _taken(pool, kept, theta[kept], at)
    return replace(events, weight=weight[kept]), WeightSummary.of(weight[kept])


def _thetas(
    pool: MorphingPool, at: Prior | ArrayLike, n_events: int, rng: np.random.Generator
) -> Array:
    """Return one theta for each event, (n, p)."""
    if n_events < 1:
        msg = f"expected at least one event to be drawn; got {n_events}."
        raise EventDataError(msg)
    if isinstance(at, Prior):
        names = tuple(at.parameter_names)
        if names != pool.sample.parameter_names:
            msg = (
                f"the prior is of {list(names)}, the events are of parameters "
                f"{list(pool.sample.parameter_names)}; expected the same."
            )
            raise ShapeError(msg)
        return at.sample(n_events, rng)
    theta = np.atleast_2d(np.asarray(at, dtype=np.float64))
    if len(theta) not in (1, n_events):
        msg = f"expected theta ({n_events}, p), one for each event, or (p,); got {theta.shape}."
        raise ShapeError(msg)
    return np.broadcast_to(pool.basis.points(theta), (n_events, theta.shape[1]))


def _probabilities(
    pool: MorphingPool, theta: Array, n_events: int
) -> tuple[Array, ResamplingReport]:
    """Return w(theta_m) / sigma(theta_m), (M, K), for which y_i . w is N p_i, and the report."""
    effective = pool.estimate.effective_events(theta)
    sigma, _ = pool.estimate.cross_section(theta)
    columns = pool.basis.weights(theta) / sigma[:, None]
    own = pool.carried @ columns.mean(axis=0)
    n_effective = float(own.sum() ** 2 / np.square(own).sum())
    report = require_worth(effective, theta, n_effective, n_events, len(pool))
    worst = int(effective.argmin())
    share = _require_positive(pool, theta, columns, worst)
    there = np.maximum(pool.carried @ columns[worst], 0.0)
    largest = float(there.max() / there.sum())
    return columns, replace(report, negative_share=share, largest_share=largest)


def _require_positive(pool: MorphingPool, theta: Array, columns: Array, worst: int) -> float:
    """Return the largest share of negative densities at (up to 2e8 / N of) the thetas."""
    n_checked = min(len(columns), max(1, _CHECKED // len(pool)))
    looked = np.unique(np.linspace(0, len(columns) - 1, n_checked).astype(np.intp))
    looked = np.append(looked, worst)
    shares = negative_shares(pool.carried, columns[looked])
    m = int(shares.argmax())
    if shares[m] > LARGEST_NEGATIVE_SHARE:
        msg = (
            f"at theta = {theta[looked[m]].tolist()} {shares[m]:.2%} of the weights (by size) are "
            "negative: events cannot be drawn with negative probabilities, and leaving them out "
            "would be another density. Keep the signs as weights (`weighted`; in a run "
            "`resample: {kind: weighted}`), or take a prior within the benchmarks."
        )
        raise EventDataError(msg)
    return float(shares[m])


def _taken(
    pool: MorphingPool, rows: NDArray[np.intp], theta: Array, at: Prior | ArrayLike
) -> EventSample:
    """Return events of the pool at other thetas: scores, components and record are theirs.

    Their benchmark weights are left out: they belong to the sampling of the pool.  So is its
    report: what a selection left is in the cross section.
    """
    morphing = pool.morphing(EVENT_MEASURE)
    components = pool.sample.require_components()[rows]
    total = np.array(morphing.cross_section)
    metadata = replace(
        pool.sample.metadata,
        morphing=morphing,
        benchmarks=None,
        theta_sampling=_sampling(at),
        n_events=len(rows),
        sum_of_weights=None,
        sum_of_weights_before_selection=None,
    )
    return replace(
        pool.sample.take(rows),
        metadata=metadata.with_ranges_of(theta),
        theta=theta,
        weight=None,
        benchmark_weight=None,
        score=joint_score(pool.basis, components, total, theta),
        components=components,
        report=None,
    )


def _sampling(at: Prior | ArrayLike) -> ThetaSampling | None:
    """Return how theta was drawn, where the record knows words for it."""
    if isinstance(at, NormalPrior):
        return ThetaSampling("normal", mean=at.mean, std=at.std)
    if isinstance(at, BoxPrior):
        return ThetaSampling("uniform", low=at.low, high=at.high)
    if isinstance(at, Prior) or np.size(at) != np.shape(at)[-1]:
        return None
    return ThetaSampling("fixed", value=tuple(np.ravel(at).tolist()))
