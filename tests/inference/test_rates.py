"""Rates: the formula, its slopes, its Monte Carlo error, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import ConfigurationError, MissingReference, ParameterRangeError, ShapeError
from mflow_sbi.events import read_events
from mflow_sbi.inference.cross_section import CrossSection, UncertainCrossSection
from mflow_sbi.inference.rates import (
    FixedYield,
    FreeYield,
    LinearFactor,
    LogNormalFactor,
    ProductRate,
    Rate,
    RateModel,
    RemainingFraction,
)

from .differences import central_differences
from .toys import NAMES, QUADRATIC

FILE = Path(__file__).parents[2] / "data" / "wbf_tuned_observed_theta_0.5_0.root"
C = np.array([1.0, -0.5, 0.2, 0.8, 0.1, 0.9])
ERRORS_OF_C = np.array([0.01, 0.02, 0.0, 0.03, 0.01, 0.02])
SIGMA = CrossSection(NAMES, QUADRATIC, C, ERRORS_OF_C)
RATES: dict[str, Rate] = {
    "cross section": SIGMA,
    "cross section with error": UncertainCrossSection(SIGMA, "mc"),
    "fixed": FixedYield(3.0),
    "free": FreeYield("background"),
    "log-normal": LogNormalFactor("luminosity", 1.1),
    "linear": LinearFactor("scale", -0.2),
    "remaining": RemainingFraction(("f", "g")),
    "everything": RateModel(
        UncertainCrossSection(SIGMA, "mc"),
        luminosity=0.3,
        efficiency=0.2,
        factors=(LogNormalFactor("lumi", 1.1), LinearFactor("scale", 0.2), FreeYield("strength")),
    ),
}
each_rate = pytest.mark.parametrize("rate", RATES.values(), ids=RATES)


def _points(rate: Rate) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(23, len(rate.parameter_names)))


@each_rate
def test_gradient_is_the_derivative(rate: Rate) -> None:
    theta = _points(rate)
    values, gradients = rate.value_and_gradient(theta)
    np.testing.assert_allclose(values, rate(theta), rtol=1e-14)
    assert gradients.shape == theta.shape
    if theta.shape[1]:
        expected = central_differences(rate, theta)
        np.testing.assert_allclose(gradients, expected, rtol=1e-8, atol=1e-8)


@each_rate
def test_shapes_and_protocol(rate: Rate) -> None:
    assert isinstance(rate, Rate)
    p = len(rate.parameter_names)
    assert rate(np.zeros((0, p))).shape == (0,)
    with pytest.raises(ShapeError, match=rf"expected shape \(M, {p}\)"):
        rate(np.zeros((2, p + 1)))


def test_error_of_the_cross_section_is_that_of_its_coefficients() -> None:
    """The spread of w.(C + err * normal) over many draws is err(theta)."""
    theta = np.array([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]])
    draws = C + ERRORS_OF_C * np.random.default_rng(1).normal(size=(40_000, 6))
    spread = (QUADRATIC.weights(theta) @ draws.T).std(axis=1)
    np.testing.assert_allclose(SIGMA.error(theta), spread, rtol=0.015)


def test_error_has_a_slope() -> None:
    theta = _points(SIGMA)
    gradients = SIGMA.error_and_gradient(theta)[1]
    np.testing.assert_allclose(gradients, central_differences(SIGMA.error, theta), atol=1e-8)


def test_nuisance_of_the_error_moves_sigma_by_its_error() -> None:
    theta = np.array([[0.5, -1.0, 0.0], [0.5, -1.0, 0.01]])
    values = UncertainCrossSection(SIGMA, "mc")(theta)
    slope = (values[1] - values[0]) / 0.01
    assert slope == pytest.approx(SIGMA.error(theta[:1, :2])[0], rel=1e-3)
    assert values[0] == SIGMA(theta[:1, :2])[0]


def test_expected_events_of_the_committed_file() -> None:
    """L sigma in pb and fb^-1: 0.648 pb at the standard model and 0.1 fb^-1 are 64.8 events."""
    metadata = read_events(FILE).metadata
    sigma = CrossSection.from_metadata(metadata)
    rate = RateModel(sigma, luminosity=0.1)
    assert metadata.morphing is not None
    assert rate(np.zeros((1, 2)))[0] == pytest.approx(100 * metadata.morphing.cross_section[0])
    assert (sigma.parameter_names, sigma.parameter_units) == (NAMES, {"CWL2": "1", "CPWL2": "1"})
    assert sigma.error(np.zeros((1, 2)))[0] == metadata.morphing.cross_section_error[0]
    with pytest.raises(MissingReference, match="no morphing polynomial"):
        CrossSection.from_metadata(replace(metadata, morphing=None))


def test_rate_grows_with_luminosity() -> None:
    rate = RateModel(SIGMA, 2.0, 0.5, (LogNormalFactor("lumi", 1.1),))
    theta = _points(rate)
    np.testing.assert_allclose(rate.at_luminosity(6.0)(theta), 3 * rate(theta))


def test_cross_section_that_is_not_positive() -> None:
    negative = CrossSection(NAMES, QUADRATIC, C * [1, 1, 1, -1, 1, 1])
    for call in (negative, negative.value_and_gradient, RateModel(negative, 1.0)):
        with pytest.raises(ParameterRangeError, match="expected a positive one"):
            call(np.array([[3.0, 0.0]]))
    with pytest.raises(ParameterRangeError, match="finite parameters"):
        SIGMA(np.array([[np.nan, 0.0]]))


ERRORS = {
    "no luminosity": (lambda: RateModel(SIGMA, 0.0), "luminosity: expected a positive"),
    "negative luminosity": (lambda: RateModel(SIGMA, -1.0), "luminosity: expected a positive"),
    "luminosity NaN": (lambda: RateModel(SIGMA, np.nan), "luminosity: expected a positive"),
    "efficiency in percent": (lambda: RateModel(SIGMA, 1.0, 50.0), r"share in \(0, 1\], got 50"),
    "no efficiency": (lambda: RateModel(SIGMA, 1.0, 0.0), r"share in \(0, 1\]"),
    "nuisance named like a parameter": (
        lambda: RateModel(SIGMA, 1.0, factors=(LogNormalFactor("CWL2", 1.1),)),
        r"every name once, got \['CWL2'\]",
    ),
    "error named like a parameter": (lambda: UncertainCrossSection(SIGMA, "CWL2"), "CWL2"),
    "kappa one": (lambda: LogNormalFactor("lumi", 1.0), "other than one"),
    "kappa negative": (lambda: LogNormalFactor("lumi", -0.1), "positive"),
    "delta zero": (lambda: LinearFactor("lumi", 0.0), "other than zero"),
    "negative yield": (lambda: FixedYield(-1.0), ">= 0, got -1"),
    "yield NaN": (lambda: FixedYield(np.nan), ">= 0, got nan"),
    "no factors": (lambda: ProductRate(()), "at least one factor"),
    "names in one string": (lambda: RemainingFraction("fg"), "list of names"),  # type: ignore[arg-type]
    "negative error": (
        lambda: CrossSection(NAMES, QUADRATIC, C, -ERRORS_OF_C),
        "errors >= 0",
    ),
    "coefficient NaN": (lambda: CrossSection(NAMES, QUADRATIC, C * np.nan), "finite"),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()


def test_coefficients_of_another_basis() -> None:
    with pytest.raises(ShapeError, match="expected 2 names and 6 coefficients"):
        CrossSection(NAMES, QUADRATIC, C[:5])
