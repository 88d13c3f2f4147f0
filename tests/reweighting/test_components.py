"""Components from benchmark weights of samples, and parts of pools."""

from dataclasses import replace

import numpy as np
import pytest

from mflow_sbi.errors import EventDataError, MetadataError, MissingReference, ShapeError
from mflow_sbi.events import Benchmarks, EventSample, Parameter, SelectionReport
from mflow_sbi.morphing import MorphingBasis, MorphingBenchmarks, suggest_benchmarks
from mflow_sbi.reweighting import (
    MorphingPool,
    benchmarks_of,
    pool_part,
    resampled,
    with_morphing,
)

from ..densities.toys import CROSS_SECTION, EXPONENTS, components, toy_events

BASIS = MorphingBasis(EXPONENTS)
POINTS = suggest_benchmarks(BASIS, [(-1, 1)] * 2, 7, np.random.default_rng(1), [[0.0, 0.0]])
BENCHMARKS = MorphingBenchmarks(BASIS, POINTS)


def foreign(n: int = 3000, seed: int = 1) -> EventSample:
    """Return events of another density (a wider normal) with weights at benchmarks."""
    events = toy_events(2, 1)
    x = 1.3 * np.random.default_rng(seed).normal(size=(n, 2))
    ratio = 1.69 * np.exp(-0.5 * np.square(x).sum(axis=1) * (1 - 1 / 1.69))
    weights = (components(x) * ratio[:, None]) @ BASIS.weights(POINTS).T
    names = tuple(f"b{k}" for k in range(7))
    record = Benchmarks("rwgt", names, tuple(map(tuple, POINTS.tolist())))
    metadata = replace(events.metadata, morphing=None, benchmarks=record)
    return EventSample(x, metadata, benchmark_weight=weights)


def _morphing(sample: EventSample):
    assert sample.metadata.morphing is not None
    return sample.metadata.morphing


def test_components_are_densities_over_that_of_the_sampling():
    sample = foreign()
    found, fit = with_morphing(sample, benchmarks_of(sample, BASIS), picobarn_per_weight=1 / 3000)
    ratio = 1.69 * np.exp(-0.5 * np.square(sample.x).sum(axis=1) * (1 - 1 / 1.69))
    np.testing.assert_allclose(
        found.require_components(), components(sample.x) * ratio[:, None], rtol=1e-9, atol=1e-9
    )
    pulls = (np.array(_morphing(found).cross_section) - CROSS_SECTION) / np.array(
        _morphing(found).cross_section_error
    )
    assert np.abs(pulls).max() < 4
    assert (fit.misfit or 0.0) < 1e-12
    assert "condition number" in str(fit)
    events, _ = resampled(found, [0.4, 0.3], 1000, np.random.default_rng(1))
    assert events.metadata.benchmarks is None
    assert events.benchmark_weight is None


def test_the_factor_is_that_of_the_cross_section_only():
    sample = foreign()
    one, thousand = (
        with_morphing(sample, BENCHMARKS, picobarn_per_weight=f)[0] for f in (1.0, 1000.0)
    )
    ratio = np.array(_morphing(thousand).cross_section) / _morphing(one).cross_section
    np.testing.assert_allclose(ratio, 1000)
    draws = [resampled(s, [0.1, 0.2], 50, np.random.default_rng(1))[0] for s in (one, thousand)]
    np.testing.assert_allclose(draws[0].x, draws[1].x)
    np.testing.assert_allclose(draws[0].require_score(), draws[1].require_score())


def test_a_selection_leaves_its_cross_section():
    sample = foreign(40_000)
    kept = sample.x[:, 0] > 0.3
    report = SelectionReport(40_000, int(kept.sum()), {"x0": int((~kept).sum())})
    selected = replace(sample.take(kept), report=report)
    whole, part = (
        with_morphing(s, BENCHMARKS, picobarn_per_weight=1 / 40_000)[0] for s in (sample, selected)
    )
    y = whole.require_components() * kept[:, None]
    np.testing.assert_allclose(_morphing(part).cross_section, y.mean(axis=0), atol=1e-9)
    expected = y.std(axis=0, ddof=1) / np.sqrt(40_000)
    np.testing.assert_allclose(_morphing(part).cross_section_error, expected, rtol=1e-6)
    half = MorphingPool.of(part.take(np.arange(len(part)) % 2 == 0)).estimate
    pulls = (half.value - y.mean(axis=0)) / half.error
    assert np.abs(pulls).max() < 4


def test_parameters_are_named_by_the_file_or_by_hand():
    sample = foreign()
    bare = replace(sample, metadata=replace(sample.metadata, parameters=(), benchmarks=None))
    named, _ = with_morphing(bare, BENCHMARKS, parameters=["c1", Parameter("c2", "TeV^-2")])
    assert named.parameter_names == ("c1", "c2")
    with pytest.raises(MetadataError, match=r"expected the names of 2 parameters .*; got \[\]"):
        with_morphing(bare, BENCHMARKS)
    with pytest.raises(MetadataError, match=r"got \['a', 'b'\], the file has \['t0', 't1'\]"):
        with_morphing(sample, BENCHMARKS, parameters=["a", "b"])


REFUSED = {
    "no weights": (
        lambda s: with_morphing(replace(s, benchmark_weight=None), BENCHMARKS),
        MissingReference,
        "weights of each event at benchmark points",
    ),
    "no points": (
        lambda s: benchmarks_of(
            replace(s, metadata=replace(s.metadata, benchmarks=Benchmarks("rwgt"))), BASIS
        ),
        MissingReference,
        "do not say at which parameters",
    ),
    "other events": (
        lambda s: with_morphing(s, BENCHMARKS, weights=np.ones((5, 7))),
        EventDataError,
        "expected weights of 3,000 events; got 5",
    ),
    "no factor": (
        lambda s: with_morphing(s, BENCHMARKS, picobarn_per_weight=0.0),
        EventDataError,
        "picobarn_per_weight > 0",
    ),
    "permuted weights": (
        lambda s: with_morphing(s, BENCHMARKS, weights=s.benchmark_weight[:, ::-1]),
        EventDataError,
        "Check the order of weights and points",
    ),
    "six of seven": (
        lambda s: with_morphing(s, BENCHMARKS, weights=s.benchmark_weight[:, :6]),
        ShapeError,
        r"expected weights \(N, 7\)",
    ),
    "no such part": (lambda s: pool_part(s, 0.5, 0.5), EventDataError, "begin < end"),
    "an empty part": (
        lambda s: pool_part(s.take(np.arange(3)), 0.0, 1e-9),
        EventDataError,
        "none of 3 events",
    ),
    "one weight for all": (
        lambda s: pool_part(replace(s, benchmark_weight=np.ones((3000, 7))), 0.0, 0.5),
        EventDataError,
        "3,000 events have only 1 different rows",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    make, error, message = case
    with pytest.raises(error, match=message):
        make(foreign())


def test_parts_share_no_event_whatever_the_order_or_the_selection():
    sample = foreign()
    doubled = sample.take(np.random.default_rng(1).permutation(np.repeat(np.arange(3000), 2)))
    train, test = pool_part(sample, 0.0, 0.8), pool_part(doubled, 0.8, 1.0)
    assert abs(len(train) - 2400) < 4 * np.sqrt(3000 * 0.16)
    assert len(test) == 2 * (3000 - len(train))
    assert not set(map(tuple, train.x)) & set(map(tuple, test.x))
    kept = sample.x[:, 0] > 0
    again = pool_part(sample.take(kept), 0.0, 0.8)
    assert set(map(tuple, again.x)) == {tuple(x) for x in train.x if x[0] > 0}
    assert np.array_equal(pool_part(sample, 0.0, 1.0).x, sample.x)
