"""Gradients of likelihoods, priors and posteriors are the derivatives of their values."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.errors import LikelihoodError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.likelihood import FlatLikelihood, MorphingLikelihood
from mflow_sbi.inference.points import log_joint, log_posterior_and_gradient
from mflow_sbi.inference.priors import BoxPrior, NormalPrior
from mflow_sbi.interfaces import Array, DifferentiableLikelihood

from .toys import NAMES, QUADRATIC, BrokenSurrogate, CurvedSurrogate, LinearSurrogate

THETA = np.random.default_rng(2).normal(size=(37, 2))
PRIORS = {
    "normal": NormalPrior(NAMES, mean=(0.5, -1), std=(1, 0.3)),
    "box": BoxPrior(NAMES, low=(-1, -2), high=(2, 0.5)),
}
each_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


@pytest.fixture(params=["linear", "curved", "exact", "flat"])
def likelihood(
    request: pytest.FixtureRequest, observed: Array, quadratic: tuple[Array, Array]
) -> DifferentiableLikelihood:
    return {
        "linear": CachedLikelihood(LinearSurrogate(), observed),
        "curved": CachedLikelihood(CurvedSurrogate(), observed),
        "exact": MorphingLikelihood(NAMES, QUADRATIC, *quadratic),
        "flat": FlatLikelihood(NAMES),
    }[request.param]


def _central_differences(function: Callable[[Array], Array], theta: Array) -> Array:
    """Return the gradient (M, p) from values alone, fourth order in the step."""
    columns = []
    for shift in 1e-3 * np.eye(theta.shape[1]):
        near = function(theta + shift) - function(theta - shift)
        far = function(theta + 2 * shift) - function(theta - 2 * shift)
        columns.append((8 * near - far) / 12e-3)
    return np.stack(columns, axis=1)


def test_gradient_is_the_derivative_and_the_value_the_likelihood(
    likelihood: DifferentiableLikelihood,
) -> None:
    values, gradients = likelihood.value_and_gradient(THETA)
    np.testing.assert_allclose(values, likelihood(THETA), rtol=1e-13)
    assert values.dtype == gradients.dtype == np.float64
    np.testing.assert_allclose(
        gradients, _central_differences(likelihood, THETA), rtol=1e-7, atol=1e-7
    )


def test_no_points_no_gradients(likelihood: DifferentiableLikelihood) -> None:
    values, gradients = likelihood.value_and_gradient(np.zeros((0, 2)))
    assert (values.shape, gradients.shape) == ((0,), (0, 2))


def test_gradient_of_the_linear_toy_in_closed_form(observed: Array) -> None:
    """grad sum_i -1/2 |u_i - A theta|^2 = A^T sum_i (u_i - A theta)."""
    surrogate = LinearSurrogate()
    slope = surrogate.slope.numpy()
    away = observed.sum(axis=0) / 10 - len(observed) * THETA @ slope.T
    _, gradients = CachedLikelihood(surrogate, observed).value_and_gradient(THETA)
    np.testing.assert_allclose(gradients, away @ slope, rtol=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 7, 20, 50])
def test_gradient_whatever_the_chunk(observed: Array, chunk_rows: int) -> None:
    surrogate = CurvedSurrogate()
    whole = CachedLikelihood(surrogate, observed).value_and_gradient(THETA)
    parts = CachedLikelihood(surrogate, observed, chunk_rows).value_and_gradient(THETA)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11)


def test_float32_networks_give_float64_gradients(observed: Array) -> None:
    values, gradients = CachedLikelihood(
        LinearSurrogate(torch.float32), observed
    ).value_and_gradient(THETA)
    assert values.dtype == gradients.dtype == np.float64
    _, exact = CachedLikelihood(LinearSurrogate(), observed).value_and_gradient(THETA)
    np.testing.assert_allclose(gradients, exact, rtol=1e-5, atol=1e-4)


def test_gradient_needs_no_help_from_the_caller_and_leaves_none_behind(observed: Array) -> None:
    surrogate = LinearSurrogate()
    surrogate.slope.requires_grad_()
    likelihood = CachedLikelihood(surrogate, observed)
    with torch.no_grad():
        inside = likelihood.value_and_gradient(THETA)
    for one, other in zip(inside, likelihood.value_and_gradient(THETA), strict=True):
        assert np.array_equal(one, other)
    assert surrogate.slope.grad is None


class EndingSurrogate(LinearSurrogate):
    """Vanishes below CWL2 = -1, where torch's own gradient is not a number."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        return super().latent_log_likelihood(u, theta) + (theta[..., 0] + 1).relu().log()


def test_gradient_is_zero_where_the_likelihood_vanishes(
    observed: Array, quadratic: tuple[Array, Array]
) -> None:
    values, gradients = CachedLikelihood(EndingSurrogate(), observed).value_and_gradient(
        np.array([[-1.5, 0.3], [0.0, 0.3]])
    )
    assert np.isneginf(values).tolist() == [True, False]
    assert (gradients == 0).all(axis=1).tolist() == [True, False]
    components, cross_section = quadratic
    nothing = np.vstack([components, np.zeros(6)])
    values, gradients = MorphingLikelihood(
        NAMES, QUADRATIC, nothing, cross_section
    ).value_and_gradient(THETA)
    assert np.isneginf(values).all()
    assert (gradients == 0).all()


class KinkedSurrogate(LinearSurrogate):
    """Adds sqrt|CWL2|: a number everywhere, without a slope at zero."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        return super().latent_log_likelihood(u, theta) + theta[..., 0].abs().sqrt()


class IndifferentSurrogate(LinearSurrogate):
    """Does not depend on theta, though its weights want gradients."""

    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        weight = torch.ones(1, dtype=u.dtype, requires_grad=True)
        return (weight * u).sum(dim=-1).expand(*theta.shape[:-2], len(u))


class GraphlessSurrogate(LinearSurrogate):
    """Evaluates without a graph."""

    @torch.no_grad()
    def latent_log_likelihood(self, u: Tensor, theta: Tensor) -> Tensor:
        return super().latent_log_likelihood(u, theta)


def test_a_gradient_that_is_no_number_says_where(observed: Array) -> None:
    likelihood = CachedLikelihood(KinkedSurrogate(), observed)
    with pytest.raises(LikelihoodError, match=r"at CWL2 = 0, CPWL2 = -0.25 \(1 of 2 points\)"):
        likelihood.value_and_gradient(np.array([[0.5, 0.0], [0.0, -0.25]]))


def test_what_theta_does_not_move_has_no_slope(observed: Array) -> None:
    _, gradients = CachedLikelihood(IndifferentSurrogate(), observed).value_and_gradient(THETA)
    assert np.array_equal(gradients, np.zeros_like(THETA))


def test_a_density_without_a_graph_is_refused(observed: Array) -> None:
    likelihood = CachedLikelihood(GraphlessSurrogate(), observed)
    with pytest.raises(LikelihoodError, match=r"evaluate it without torch\.no_grad"):
        likelihood.value_and_gradient(THETA)


@each_prior
def test_prior_gradient_is_the_derivative_inside(prior: NormalPrior | BoxPrior) -> None:
    box = prior.box()
    inside = box[:, 0] + np.random.default_rng(1).uniform(0.01, 0.99, (50, 2)) * np.ptp(
        box, axis=1
    )
    np.testing.assert_allclose(
        prior.gradient(inside), _central_differences(prior.log_prob, inside), atol=1e-9, rtol=1e-9
    )


def test_box_prior_has_no_slope_outside() -> None:
    outside = np.array([[5.0, 0.0], [0.0, -9.0]])
    assert np.isneginf(PRIORS["box"].log_prob(outside)).all()
    assert np.array_equal(PRIORS["box"].gradient(outside), np.zeros((2, 2)))


@each_prior
def test_posterior_is_the_sum_and_its_gradient_the_derivative(
    prior: NormalPrior | BoxPrior, likelihood: DifferentiableLikelihood
) -> None:
    theta = prior.sample(30, np.random.default_rng(4))
    edges = prior.box()
    theta = np.clip(theta, edges[:, 0] + 0.01, edges[:, 1] - 0.01)
    values, gradients = log_posterior_and_gradient(likelihood, prior, theta)
    np.testing.assert_allclose(values, log_joint(likelihood, prior, theta), rtol=1e-13)
    expected = _central_differences(lambda t: log_joint(likelihood, prior, t), theta)
    np.testing.assert_allclose(gradients, expected, rtol=1e-7, atol=1e-7)


def test_posterior_outside_the_prior_asks_nothing_and_has_no_slope(observed: Array) -> None:
    likelihood = CachedLikelihood(LinearSurrogate(), observed)
    theta = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    values, gradients = log_posterior_and_gradient(likelihood, PRIORS["box"], theta)
    assert np.isneginf(values).tolist() == [False, True, True]
    assert (gradients == 0).all(axis=1).tolist() == [False, True, True]
    assert likelihood.evaluations.points == 1


def test_posterior_has_no_slope_where_the_likelihood_vanishes(observed: Array) -> None:
    likelihood = CachedLikelihood(BrokenSurrogate(), observed)
    values, gradients = log_posterior_and_gradient(
        likelihood, PRIORS["normal"], np.array([[-1.5, 0.3]])
    )
    assert np.isneginf(values).all()
    assert (gradients == 0).all()
