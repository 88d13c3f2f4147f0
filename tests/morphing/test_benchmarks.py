"""Components from benchmark weights: solves, refusals, and where benchmarks should stand."""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, ParameterRangeError, ShapeError
from mflow_sbi.morphing import (
    MorphingBasis,
    MorphingBenchmarks,
    morphing_error,
    suggest_benchmarks,
)

SHAPES = [(1, 2), (1, 4), (2, 2), (3, 2), (2, 4), (3, 4)]  # parameters, degree
MADGRAPH = Path(__file__).parents[3] / "shared/data"
MADGRAPH /= "pylhe-testfile-madgraph5-3.5.8-pp_to_jj.lhe.gz"


def positive_forms(n, n_parameters, degree, seed):
    """Return the function (M, p) -> (M, n) of densities sum_a [q_a . phi(theta)]^2."""
    half = MorphingBasis.of_degree(n_parameters, degree // 2)
    q = np.random.default_rng(seed).normal(size=(n, 2, half.n_components))
    return lambda theta: np.square(np.einsum("nak,mk->mna", q, half.weights(theta))).sum(axis=2)


@pytest.mark.parametrize(("n_parameters", "degree"), SHAPES)
@pytest.mark.parametrize("more", [0, 3])
def test_components_hold_the_weights_at_every_theta(n_parameters, degree, more):
    basis, rng = MorphingBasis.of_degree(n_parameters, degree), np.random.default_rng(1)
    box = [(-1.0, 2.0)] * n_parameters
    points = suggest_benchmarks(basis, box, basis.n_components + more, rng)
    density = positive_forms(20, n_parameters, degree, 2)
    fit = MorphingBenchmarks(basis, points).fit(density(points).T)
    theta = rng.uniform(-1, 2, size=(30, n_parameters))
    np.testing.assert_allclose(
        basis.weights(theta) @ fit.components.T, density(theta), rtol=1e-9, atol=1e-8
    )
    assert (fit.misfit is None) == (more == 0)
    assert (fit.misfit or 0.0) < 1e-12


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SHAPES[:4]), st.integers(0, 4), st.integers(0, 10**6))
def test_solves_are_exact_up_to_the_condition_number(shape, more, seed):
    basis, rng = MorphingBasis.of_degree(*shape), np.random.default_rng(seed)
    points = rng.normal(size=(basis.n_components + more, shape[0])) * rng.uniform(0.01, 100)
    try:
        benchmarks = MorphingBenchmarks(basis, points)
    except ParameterRangeError:
        reject()
    c = rng.normal(size=(5, basis.n_components))
    weights = c @ basis.weights(points).T
    scale = np.abs(points).max(axis=0)
    units = basis.weights(scale[None])
    off = np.abs(benchmarks.fit(weights).components - c) * units
    assert off.max() < 1e-13 * benchmarks.condition * np.abs(c * units).max()
    one = benchmarks.morphing_weights(points)
    np.testing.assert_allclose(one @ weights.T, weights.T, rtol=1e-6, atol=1e-9 * weights.max())


@given(st.floats(1e-3, 1e3))
def test_the_condition_number_knows_no_units(factor):
    basis = MorphingBasis.of_degree(2, 2)
    points = np.random.default_rng(3).normal(size=(7, 2))
    scaled = MorphingBenchmarks(basis, points * [factor, 1.0]).condition
    assert scaled == pytest.approx(MorphingBenchmarks(basis, points).condition, rel=1e-6)


@pytest.mark.parametrize(("n_parameters", "degree", "more"), [(1, 2, 0), (2, 2, 0), (2, 2, 3)])
def test_suggested_points_beat_random_ones(n_parameters, degree, more):
    basis, rng = MorphingBasis.of_degree(n_parameters, degree), np.random.default_rng(1)
    n, box = basis.n_components + more, [(-1.0, 1.0)] * n_parameters
    origin = [[0.0] * n_parameters]
    points = suggest_benchmarks(basis, box, n, rng, fixed=origin)
    again = suggest_benchmarks(basis, box, n, np.random.default_rng(1), fixed=origin)
    assert np.array_equal(points, again)
    assert np.array_equal(points[0], origin[0])
    assert points.shape == (n, n_parameters)
    assert np.abs(points).max() <= 1.0
    theta = rng.uniform(-1, 1, size=(3000, n_parameters))
    error = morphing_error(MorphingBenchmarks(basis, points), theta)
    random = [
        morphing_error(MorphingBenchmarks(basis, rng.uniform(-1, 1, (n, n_parameters))), theta)
        for _ in range(20)
    ]
    assert error < min(random)


def test_a_parabola_is_known_best_at_its_ends_and_middle():
    points = suggest_benchmarks(
        MorphingBasis.of_degree(1, 2), [(-1, 1)], 3, np.random.default_rng(0)
    )
    np.testing.assert_allclose(np.sort(points[:, 0]), [-1, 0, 1], atol=0.02)


def test_order_of_monomials_and_degrees():
    assert MorphingBasis.of_degree(3, 4).n_components == 35
    assert MorphingBasis.of_degree(3, 2, per_parameter_max=(2, 1, 0)).exponents.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [0, 1, 0],
        [2, 0, 0],
        [1, 1, 0],
    ]
    assert MorphingBasis.of_degree(1, 0).exponents.tolist() == [[0]]
    refused: list[tuple[Any, ...]] = [(0, 2), (2, -1), (2, 2, (1,)), (2, 2, (1, -1))]
    for bad in refused:
        with pytest.raises(ShapeError, match="expected p >= 1"):
            MorphingBasis.of_degree(*bad)


@pytest.mark.skipif(not MADGRAPH.exists(), reason="the MadGraph file is not here")
def test_scale_and_pdf_weights_of_madgraph_are_no_polynomials():
    text = gzip.decompress(MADGRAPH.read_bytes()).decode()
    events = re.findall(r"<rwgt>(.*?)</rwgt>", text, flags=re.DOTALL)
    found = [re.findall(r"<wgt id='\d+'>\s*(\S+?)\s*</wgt>", event) for event in events]
    weights = np.array(found, dtype=float)
    assert weights.shape == (1000, 145)
    basis, rng = MorphingBasis.of_degree(2, 2), np.random.default_rng(1)
    with pytest.raises(EventDataError, match="no sums of 1, theta_0, theta_1, theta_0"):
        MorphingBenchmarks(basis, rng.uniform(-1, 1, (145, 2))).fit(weights)
    exact = weights[:, :6]  # six weights are a quadratic form, whatever they mean
    points = suggest_benchmarks(basis, [(-1, 1)] * 2, 6, rng)
    fit = MorphingBenchmarks(basis, points).fit(exact)
    np.testing.assert_allclose(fit.components @ basis.weights(points).T, exact, rtol=1e-9)


PARABOLA = MorphingBasis.of_degree(1, 2)
PLANE = MorphingBasis.of_degree(2, 2)
CIRCLE = np.stack([np.cos(np.arange(8.0)), np.sin(np.arange(8.0))], axis=1)
FOUR = MorphingBenchmarks(PARABOLA, np.array([[-1.0], [0.0], [1.0], [2.0]]))
REFUSED = {
    "two points": (
        lambda: MorphingBenchmarks(PARABOLA, np.array([[0.0], [1.0]])),
        ShapeError,
        r"2 points cannot determine 3 monomials \(1, theta_0, theta_0\^2\)",
    ),
    "one twice": (
        lambda: MorphingBenchmarks(PARABOLA, np.array([[0.0], [1.0], [1.0]])),
        ParameterRangeError,
        r"do not determine the monomials theta_0, theta_0\^2: ",
    ),
    "a circle": (
        lambda: MorphingBenchmarks(PLANE, CIRCLE),
        ParameterRangeError,
        r"do not determine the monomials 1, theta_0\^2, theta_1\^2: .*suggest_benchmarks",
    ),
    "a parameter at zero": (
        lambda: MorphingBenchmarks(PLANE, CIRCLE * [1.0, 0.0]),
        ParameterRangeError,
        r"monomials theta_1, theta_0 theta_1, theta_1\^2: ",
    ),
    "close together": (
        lambda: MorphingBenchmarks(PARABOLA, np.array([[1.0], [1.00001], [1.00002]])),
        ParameterRangeError,
        r"condition number .*e\+\d\d of the 3 points, expected at most 1e\+08",
    ),
    "cubic": (
        lambda: FOUR.fit([[0.0, 1.0, 1.0, 10.0]]),
        EventDataError,
        r"no sums of 1, theta_0, theta_0\^2: at \[.*\] residuals are .* of the weights.*degree",
    ),
    "five weights": (
        lambda: FOUR.fit(np.ones((3, 5))),
        ShapeError,
        r"expected weights \(N, 4\), one for each point; got \(3, 5\)",
    ),
    "no number": (
        lambda: FOUR.fit([[1.0] * 4, [np.nan] * 4]),
        EventDataError,
        "1 of 2 events have weights that are not finite, the first is event 1",
    ),
    "too few suggested": (
        lambda: suggest_benchmarks(PLANE, [(-1, 1)] * 2, 5, np.random.default_rng(1)),
        ShapeError,
        "at least 6 points",
    ),
    "empty range": (
        lambda: suggest_benchmarks(PLANE, [(-1, 1), (1, 1)], 6, np.random.default_rng(1)),
        ParameterRangeError,
        "low < high",
    ),
    "three ranges": (
        lambda: suggest_benchmarks(PLANE, [(-1, 1)] * 3, 6, np.random.default_rng(1)),
        ShapeError,
        "expected 2 ranges",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case):
    make, error, message = case
    with pytest.raises(error, match=message):
        make()


def test_the_report_warns_of_lost_digits_and_of_nothing_to_check():
    good = FOUR.fit(np.ones((2, 4)))
    assert "weights are such polynomials to" in str(good)
    poor = MorphingBenchmarks(PARABOLA, np.array([[1.0], [1.01], [1.02]])).fit(np.ones((2, 3)))
    assert "digits of the weights" in str(poor)
    assert "nothing checks" in str(poor)
