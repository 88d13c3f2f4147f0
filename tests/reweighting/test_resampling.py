"""Resampled, thinned and weighted events against the density of a toy, and against brute force."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp

from mflow_sbi.calibration import draw_sets_at
from mflow_sbi.errors import EventDataError, MflowSbiError, MissingReference, ShapeError
from mflow_sbi.events import EventSample, SelectionReport
from mflow_sbi.inference import BoxPrior, NormalPrior
from mflow_sbi.morphing import MorphingBasis, score
from mflow_sbi.reweighting import MorphingPool, resampled, reweighted, thinned, weighted
from mflow_sbi.reweighting.drawing import draw_rows, negative_shares
from mflow_sbi.reweighting.pool import SAMPLING_MEASURE

from ..densities.toys import CROSS_SECTION, EXPONENTS, components, monomials, toy_events

PRIOR = NormalPrior(("t0", "t1"), (0.4, -0.2), (0.5, 0.7))
BASIS = MorphingBasis(EXPONENTS)


@pytest.fixture(scope="module")
def pool() -> EventSample:
    return toy_events(20_000, 1)


@pytest.fixture(scope="module")
def signed(pool) -> EventSample:
    """Return the pool with components over its density, a quarter of the events negative."""
    y = MorphingPool.of(pool).carried
    signs = np.where(np.random.default_rng(2).random(len(pool)) < 0.2, -1.0, 1.5)
    morphing = replace(_morphing(pool), likelihood="joint", measure=SAMPLING_MEASURE)
    metadata = replace(pool.metadata, morphing=morphing)
    return replace(pool, metadata=metadata, components=y * signs[:, None], score=None)


def _morphing(sample: EventSample):
    assert sample.metadata.morphing is not None
    return sample.metadata.morphing


def _moments(events: EventSample):
    """Return the means of functions of x and theta, and their errors."""
    x, theta = events.x, events.require_theta()
    f = np.column_stack([theta, theta**2, x * theta, x**2, x**2 * theta**2, x[:, 0] * x[:, 1]])
    w = np.ones(len(x)) if events.weight is None else events.weight
    mean = w @ f / w.sum()
    return mean, np.sqrt(np.square(w) @ np.square(f - mean)) / w.sum()


@pytest.fixture(scope="module")
def truth():
    """Return events of the toy at thetas of PRIOR: mean + std of standard ones, kept by weight."""
    standard = toy_events(60_000, 9)
    z = (standard.require_theta() - PRIOR.mean) / PRIOR.std
    ratio = np.exp(0.5 * (np.square(standard.require_theta()) - np.square(z)).sum(axis=1))
    kept = np.random.default_rng(3).random(len(ratio)) * 4.0 < ratio
    assert ratio.max() < 4.0
    return standard.take(kept)


MAKERS = {
    "resampled": lambda pool: resampled(pool, PRIOR, 8000, np.random.default_rng(4))[0],
    "thinned": lambda pool: thinned(pool, PRIOR, np.random.default_rng(4))[0],
    "weighted": lambda pool: weighted(pool, PRIOR, np.random.default_rng(4))[0],
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_events_are_of_prior_times_density(make, pool, truth):
    events = make(pool)
    mean, error = _moments(events)
    expected, of_truth = _moments(truth)
    assert (np.abs(mean - expected) < 4 * np.hypot(error, of_truth) * np.sqrt(1.5)).all()
    far, _ = _moments(pool)
    assert (np.abs(far - expected) > 6 * of_truth).any()  # the pool is another density
    expected_score = score(BASIS, components(events.x), CROSS_SECTION, events.require_theta())
    np.testing.assert_allclose(events.require_score(), expected_score, rtol=1e-6, atol=1e-6)
    assert events.metadata.theta_sampling is not None
    assert events.metadata.theta_sampling.mean == PRIOR.mean
    again = make(pool)
    assert again.digest == events.digest


def test_no_event_is_kept_twice_by_thinning(pool):
    events, report = thinned(pool, PRIOR, np.random.default_rng(5), n_events=3000)
    assert len(events) == report.n_distinct == len(np.unique(events.x, axis=0)) == 3000
    assert report.largest_multiplicity == 1


def test_thetas_of_the_same_seed_know_nothing_of_the_pool():
    pool = toy_events(4000, 5)
    events, _ = weighted(pool, PRIOR, np.random.default_rng(5))  # the same normals as the pool's
    theta, own = (s.require_theta() / s.require_theta().std(axis=0) for s in (events, pool))
    both = (theta - theta.mean(axis=0)).T @ (own - own.mean(axis=0)) / 4000
    assert np.abs(both).max() < 4 / np.sqrt(4000)


def test_thetas_given_one_by_one_and_for_all(pool):
    theta = PRIOR.sample(500, np.random.default_rng(1))
    events, _ = resampled(pool, theta, 500, np.random.default_rng(1))
    assert np.array_equal(events.require_theta(), theta)
    assert events.metadata.theta_sampling is None
    one, _ = resampled(pool, [0.3, 0.1], 500, np.random.default_rng(1))
    assert (one.require_theta() == [0.3, 0.1]).all()
    box, _ = resampled(
        pool, BoxPrior(("t0", "t1"), (-1, -1), (1, 1)), 500, np.random.default_rng(1)
    )
    assert box.metadata.theta_sampling is not None
    assert box.metadata.theta_sampling.kind == "uniform"


def test_resampled_events_are_a_pool_again(pool):
    events, _ = resampled(pool, PRIOR, 8000, np.random.default_rng(6))
    estimate = MorphingPool.of(events).estimate
    sigma, error = estimate.cross_section(np.array([[0.3, 0.1], [0.8, -0.5]]))
    exact = monomials(np.array([[0.3, 0.1], [0.8, -0.5]])) @ CROSS_SECTION
    assert (np.abs(sigma - exact) < 5 * error).all()


def test_report_counts_what_was_drawn(pool):
    pool = pool.take(np.arange(4000))
    events, report = resampled(pool, PRIOR, 2000, np.random.default_rng(7))
    _, counts = np.unique(events.x, axis=0, return_counts=True)
    assert (report.n_distinct, report.largest_multiplicity) == (len(counts), counts.max())
    assert report.n_events == len(events) == 2000
    theta = events.require_theta()
    y = MorphingPool.of(pool).carried
    density = monomials(theta) @ y.T
    n_eff = density.sum(axis=1) ** 2 / np.square(density).sum(axis=1)
    assert report.least_effective == pytest.approx(n_eff.min())
    assert report.least_theta == tuple(theta[n_eff.argmin()])
    worst = density[n_eff.argmin()]
    assert report.largest_share == pytest.approx(worst.max() / worst.sum())
    own = (density / density.sum(axis=1, keepdims=True)).mean(axis=0)
    assert report.n_effective == pytest.approx(1 / np.square(own).sum())
    assert report.poor_share == 0
    assert f"{report.n_distinct / 2000:.1%} of those drawn are different" in str(report)


@pytest.mark.parametrize("n_rows", [1, 2, 10, 37])
def test_rows_are_drawn_by_their_probabilities(n_rows):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, n_rows))  # densities (a + t b)^2: components of either sign
    y, w = np.stack([a * a, 2 * a * b, b * b], axis=1), np.array([[1, t, t * t] for t in (-1, 2)])
    y[n_rows // 2] = 0.0 if n_rows > 2 else y[n_rows // 2]
    for column in w:
        rows = draw_rows(y, np.tile(column, (20_000, 1)), rng)
        expected = y @ column / (y @ column).sum() * 20_000
        counts = np.bincount(rows, minlength=n_rows)
        assert (counts[expected == 0] == 0).all()
        possible = expected > 0
        statistic = (np.square(counts - expected)[possible] / expected[possible]).sum()
        assert chi2.sf(statistic, max(1, possible.sum() - 1)) > 1e-4


def test_shares_of_negative_densities():
    y, w = np.array([[1.0, 0.0], [-1.0, 1.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(negative_shares(y, w), [0.5, 0.0])


def test_signs_stay_in_weights_and_are_no_probabilities(signed, truth):
    for draw in (
        lambda: resampled(signed, PRIOR, 100, np.random.default_rng(1)),
        lambda: thinned(signed, PRIOR, np.random.default_rng(1)),
    ):
        with pytest.raises(EventDataError, match=r"\d+.\d\d% of the weights .* are negative"):
            draw()
    events, summary = weighted(signed, PRIOR, np.random.default_rng(8))
    mean, error = _moments(events)
    expected, of_truth = _moments(truth)
    assert (np.abs(mean - expected) < 4 * np.hypot(error, of_truth)).all()
    assert 0.15 < summary.negative_share < 0.25
    assert summary.cancelled_share > 0.2
    assert events.weight_notes == (str(summary),)


def test_rounding_below_zero_counts_as_zero_and_is_reported(pool):
    y = MorphingPool.of(pool).carried
    noisy = y.copy()
    noisy[:50, 0] -= y[:50].sum(axis=1) * 1e-9 + y[:50, 0]  # a density of about -1e-9
    noisy[:50, 1:] = 0.0
    morphing = replace(_morphing(pool), likelihood="joint", measure=SAMPLING_MEASURE)
    sample = replace(pool, components=noisy, metadata=replace(pool.metadata, morphing=morphing))
    events, report = resampled(sample, PRIOR, 2000, np.random.default_rng(1))
    assert 0 < report.negative_share < 1e-10
    assert not (events.x[:, None, 0] == pool.x[None, :50, 0]).any()


def test_cross_sections_and_scores_after_a_selection(pool):
    kept = pool.x[:, 0] > 0.3
    report = SelectionReport(len(pool), int(kept.sum()), {"selection": int((~kept).sum())})
    selected = replace(pool.take(kept), report=report)
    estimate = MorphingPool.of(selected).estimate
    grid = np.random.default_rng(4).normal(size=(400_000, 2))
    c = components(grid) * (grid[:, :1] > 0.3)
    pulls = (estimate.value - c.mean(axis=0)) / estimate.error
    assert np.abs(pulls).max() < 4.5
    events, _ = resampled(selected, [0.5, 0.2], 4000, np.random.default_rng(5))
    t = events.require_score()
    assert (np.abs(t.mean(axis=0)) < 4 * t.std(axis=0) / np.sqrt(3000)).all()
    whole, _ = resampled(pool, [0.5, 0.2], 4000, np.random.default_rng(6))
    own = whole.x[whole.x[:, 0] > 0.3, 0]
    assert ks_2samp(events.x[:, 0], own).pvalue > 1e-3  # pyright: ignore
    again = MorphingPool.of(selected.take(np.arange(2000))).estimate  # a part is worth as much
    assert np.abs((again.value - c.mean(axis=0)) / again.error).max() < 4.5
    drawn, _ = resampled(selected, PRIOR, 4000, np.random.default_rng(9))
    twice = MorphingPool.of(drawn).estimate  # the selection is in the cross section, once
    assert np.abs((twice.value - c.mean(axis=0)) / twice.error).max() < 6


def test_sets_of_calibration_are_drawn_from_the_same_pools(pool, signed):
    kept = pool.x[:, 0] > 0.3
    report = SelectionReport(len(pool), int(kept.sum()), {"selection": int((~kept).sum())})
    selected = replace(pool.take(kept), report=report)
    theta = np.tile([-0.8, 0.5], (1000, 1))
    sets = draw_sets_at(selected, theta, np.full(1000, 5), np.random.default_rng(1))
    x = np.concatenate(sets.events)
    grid = np.random.default_rng(4).normal(size=(400_000, 2))
    density = components(grid) @ monomials(theta[:1])[0] * (grid[:, 0] > 0.3)
    off = x.mean(axis=0) - density @ grid / density.sum()
    assert (np.abs(off) < 4 * x.std(axis=0) / np.sqrt(sets.effective_events[0] / 2)).all()
    with pytest.raises(EventDataError, match="events of negative weight at theta"):
        draw_sets_at(signed, theta, np.full(1000, 5), np.random.default_rng(1))


def test_a_reweighted_sample_is_worth_what_the_estimate_says(pool):
    theta = [0.5, 0.2]
    events = reweighted(pool, theta)
    estimate = MorphingPool.of(pool).estimate
    n_eff = estimate.effective_events([theta])[0]
    assert events.weight is not None
    assert events.weight.sum() ** 2 / np.square(events.weight).sum() == pytest.approx(n_eff)
    assert f"= {n_eff:,.0f} (" in events.weight_notes[0]


FAR = NormalPrior(("t0", "t1"), (0, 0), (1, 1))
REFUSED = {
    "poor thetas": (
        lambda pool: resampled(pool.take(np.arange(150)), FAR, 100, _rng()),
        EventDataError,
        r"150 events is worth fewer than 100 at \d+% of the thetas .at \[.*\]: \d+\.\d.*Simulate",
    ),
    "too many": (
        lambda pool: resampled(pool.take(np.arange(1000)), FAR, 50_000, _rng()),
        EventDataError,
        r"50,000 events asked for from a pool of 1,000 .* would come \d+ times",
    ),
    "none": (lambda pool: resampled(pool, FAR, 0, _rng()), EventDataError, "at least one event"),
    "too many different": (
        lambda pool: thinned(pool, FAR, _rng(), n_events=19_999),
        EventDataError,
        r"different events of the pool of 20,000 are left, expected 19,999",
    ),
    "another prior": (
        lambda pool: resampled(pool, NormalPrior(("a", "b"), (0, 0), (1, 1)), 10, _rng()),
        ShapeError,
        r"the prior is of \['a', 'b'\], the events are of parameters \['t0', 't1'\]",
    ),
    "three thetas": (
        lambda pool: resampled(pool, np.zeros((3, 2)), 10, _rng()),
        ShapeError,
        r"expected theta \(10, p\), one for each event",
    ),
    "no components": (
        lambda pool: resampled(replace(pool, components=None), FAR, 10, _rng()),
        MissingReference,
        "morphing components",
    ),
    "no monomials": (
        lambda pool: resampled(
            replace(pool, metadata=replace(pool.metadata, morphing=None)), FAR, 10, _rng()
        ),
        MissingReference,
        "do not say of which monomials",
    ),
    "no sampling": (
        lambda pool: resampled(replace(pool, theta=None), FAR, 10, _rng()),
        MissingReference,
        "the parameters of each event",
    ),
    "weights of an unknown sampling": (
        lambda pool: resampled(replace(pool, weight=np.arange(1.0, 20_001)), FAR, 10, _rng()),
        EventDataError,
        "expected unweighted events",
    ),
    "no density": (
        lambda pool: resampled(replace(pool, components=pool.components * 0.0), FAR, 10, _rng()),
        EventDataError,
        "20,000 of 20,000 events have no density at the thetas of the pool",
    ),
    "worthless weights": (
        lambda pool: weighted(pool.take(np.arange(120)), FAR, _rng()),
        EventDataError,
        "effective size",
    ),
}


def _rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case, pool):
    make, error, message = case
    assert issubclass(error, MflowSbiError)
    with pytest.raises(error, match=message):
        make(pool)
