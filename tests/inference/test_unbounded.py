"""Bijections between parameters and R^p: inverse, slopes, Jacobian, and densities that carry."""

import numpy as np
import pytest

from mflow_sbi.errors import ConfigurationError, ParameterRangeError, ShapeError
from mflow_sbi.inference.combination import JointLikelihood
from mflow_sbi.inference.likelihood import FlatLikelihood
from mflow_sbi.inference.observation import CountingLikelihood
from mflow_sbi.inference.priors import (
    BoxPrior,
    GaussianConstraint,
    LogNormalPrior,
    LogUniformPrior,
    NormalPrior,
    ProductPrior,
    TruncatedNormalPrior,
)
from mflow_sbi.inference.rates import FreeYield
from mflow_sbi.inference.unbounded import Unbounded, UnboundedLikelihood, UnboundedPosterior

from .differences import central_differences

INF = np.inf
NAMES = ("free", "above", "below", "between", "narrow")
ENDS = np.array([[-INF, INF], [2.0, INF], [-INF, -1.0], [-1.0, 4.0], [1000.0, 1000.5]])
MAP = Unbounded(NAMES, ENDS)
Z = np.random.default_rng(1).normal(scale=3, size=(40, 5))


def test_round_trip_from_both_sides() -> None:
    theta = MAP.to_parameters(Z)
    assert ((theta > ENDS[:, 0]) & (theta < ENDS[:, 1])).all()
    np.testing.assert_allclose(MAP.to_unbounded(theta), Z, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(MAP.to_parameters(MAP.to_unbounded(theta)), theta, rtol=1e-14)


def test_slopes_and_jacobian_are_the_derivatives() -> None:
    slopes = np.stack(
        [
            np.diag(central_differences(lambda z, k=k: MAP.to_parameters(z)[:, k], Z)[:, k])
            for k in range(5)
        ]
    ).diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(MAP.slopes(Z)[:, :4], slopes.T[:, :4], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(MAP.slopes(Z)[:, 4], slopes.T[:, 4], atol=1e-7)
    np.testing.assert_allclose(MAP.log_jacobian(Z), np.log(MAP.slopes(Z)).sum(axis=1), rtol=1e-10)
    np.testing.assert_allclose(
        MAP.log_jacobian_gradient(Z), central_differences(MAP.log_jacobian, Z), atol=1e-8
    )


def test_all_increase() -> None:
    z = np.linspace(-30, 30, 301)[:, None].repeat(5, axis=1)
    assert (np.diff(MAP.to_parameters(z)[:, :4], axis=0) >= 0).all()
    assert (np.diff(MAP.to_parameters(z)[100:200], axis=0) > 0).all()


def test_far_out_nothing_overflows_and_nothing_leaves_the_ends() -> None:
    for far in (-800.0, -50.0, 50.0, 800.0):
        z = np.full((1, 5), far)
        theta = MAP.to_parameters(z)
        assert ((theta >= ENDS[:, 0]) & (theta <= ENDS[:, 1])).all()
        assert np.isfinite(MAP.log_jacobian(z)).all()
        assert np.isfinite(MAP.log_jacobian_gradient(z)).all()


def test_rounding_does_not_leave_the_ends() -> None:
    """low + (high - low) may be above high by a rounding error."""
    ends = np.sort(np.random.default_rng(4).normal(size=(200, 2)), axis=1)
    assert (ends[:, 0] + (ends[:, 1] - ends[:, 0]) > ends[:, 1]).any()
    names = [f"c{k}" for k in range(200)]
    assert (Unbounded(names, ends).to_parameters(np.full((1, 200), 60.0)) <= ends[:, 1]).all()


PRIOR = ProductPrior(
    (
        NormalPrior(("free",), (0.5,), (2,)),
        LogNormalPrior(("above",), (3,), (1.4,)),
        TruncatedNormalPrior(("below",), (0,), (1,), (-INF,), (0.3,)),
        BoxPrior(("between",), (-1,), (4,)),
        LogUniformPrior(("decades",), (0.1,), (30,)),
    )
)


def test_supports_become_the_ends() -> None:
    expected = [[-INF, INF], [0, INF], [-INF, 0.3], [-1, 4], [0.1, 30]]
    np.testing.assert_array_equal(Unbounded.of(PRIOR).ends, expected)


@pytest.mark.parametrize("k", range(5), ids=PRIOR.parameter_names)
def test_density_stays_normalised(k: int) -> None:
    """int p(T(z)) |dT/dz| dz = 1, by the midpoint rule that is exact to all orders on R."""
    part = PRIOR.parts[k]
    posterior = UnboundedPosterior(FlatLikelihood(tuple(part.parameter_names)), part)
    z = np.linspace(-60, 60, 24_001)[:, None]
    density = np.exp(posterior(z))
    assert density.sum() * 0.005 == pytest.approx(1, abs=1e-6)


def test_posterior_gradient_is_the_derivative() -> None:
    counting = CountingLikelihood((FreeYield("above"), FreeYield("decades")), 9)
    rest = FlatLikelihood(("free", "below", "between"))
    likelihood = JointLikelihood({"n": counting, "none": rest}, tuple(PRIOR.parameter_names))
    posterior = UnboundedPosterior(likelihood, PRIOR)
    values, gradients = posterior.value_and_gradient(Z)
    np.testing.assert_allclose(values, posterior(Z), rtol=1e-13)
    expected = central_differences(posterior, Z, 1e-4)
    np.testing.assert_allclose(gradients, expected, rtol=1e-6, atol=1e-6)
    theta = posterior.transform.to_parameters(Z)
    direct = likelihood(theta) + PRIOR.log_prob(theta) + posterior.transform.log_jacobian(Z)
    np.testing.assert_allclose(values, direct, rtol=1e-13)


def test_likelihood_in_z_has_no_jacobian_and_its_slopes_chain() -> None:
    counting = CountingLikelihood((FreeYield("b"),), 9)
    likelihood = UnboundedLikelihood(counting, Unbounded(("b",), [[0, INF]]))
    z = np.linspace(-3, 4, 15)[:, None]
    values, gradients = likelihood.value_and_gradient(z)
    np.testing.assert_allclose(values, counting(np.exp(z)), rtol=1e-13)
    np.testing.assert_allclose(likelihood(z), values, rtol=1e-13)
    np.testing.assert_allclose(gradients, central_differences(likelihood, z, 1e-4), atol=1e-7)
    assert likelihood.value_and_gradient(np.log([[9.0]]))[1] == pytest.approx(0, abs=1e-12)
    assert (likelihood.n_events, likelihood.parameter_names) == (9, ("b",))


def test_refusals() -> None:
    inside = np.array([[0.0, 3.0, -2.0, 0.0, 1000.1]])
    MAP.to_unbounded(inside)
    for k, value in ((1, 2.0), (2, -0.5), (3, 4.0), (3, np.nan), (0, INF)):
        outside = inside.copy()
        outside[0, k] = value
        with pytest.raises(ParameterRangeError, match=rf"{NAMES[k]} = .*1 of 1 points"):
            MAP.to_unbounded(outside)
    with pytest.raises(ShapeError, match=r"expected shape \(1, 2\), low < high"):
        Unbounded(("a",), [[1, 1]])
    with pytest.raises(ShapeError, match=r"expected shape \(M, 5\)"):
        MAP.to_parameters(np.zeros((2, 4)))
    with pytest.raises(ShapeError, match="expected a transformation of"):
        UnboundedLikelihood(CountingLikelihood((FreeYield("b"),), 9), MAP)
    constraint = GaussianConstraint.unit(("nu",))
    with pytest.raises(ConfigurationError, match="count twice"):
        UnboundedPosterior(JointLikelihood({"nu": constraint}), constraint)
