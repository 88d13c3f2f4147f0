"""Channels that share parameters add; constraints count once; widths scale with luminosity."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest, lognorm, norm

from mflow_sbi.errors import ConfigurationError, LikelihoodError, ShapeError
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.inference.combination import JointLikelihood
from mflow_sbi.inference.cross_section import CrossSection, UncertainCrossSection
from mflow_sbi.inference.exact import exact_likelihood
from mflow_sbi.inference.grid import Grid, grid_posterior
from mflow_sbi.inference.likelihood import MorphingLikelihood
from mflow_sbi.inference.mixture import Component
from mflow_sbi.inference.observation import (
    CountingLikelihood,
    ExtendedLikelihood,
    ShapeLikelihood,
)
from mflow_sbi.inference.points import common_names
from mflow_sbi.inference.priors import (
    BoxPrior,
    GaussianConstraint,
    LogNormalConstraint,
    NormalPrior,
    ProductPrior,
)
from mflow_sbi.inference.rates import (
    FixedYield,
    FreeYield,
    LogNormalFactor,
    ProductRate,
    RateModel,
)
from mflow_sbi.inference.reduction import fix_parameters, rename_parameters
from mflow_sbi.interfaces import Array, DifferentiableLikelihood
from mflow_sbi.morphing import MorphingBasis

from .differences import central_differences
from .toys import NAMES, QUADRATIC, NormalLikelihood

DATA = Path(__file__).parents[2] / "data"
THETA = np.random.default_rng(2).normal(scale=0.6, size=(31, 2))


@pytest.fixture
def exact(quadratic: tuple[Array, Array]) -> MorphingLikelihood:
    return MorphingLikelihood(NAMES, QUADRATIC, *quadratic, measure="bins")


@pytest.fixture
def rate(quadratic: tuple[Array, Array]) -> RateModel:
    lumi = LogNormalFactor("luminosity", 1.1)
    return RateModel(CrossSection(NAMES, QUADRATIC, quadratic[1]), 1e-3, factors=(lumi,))


@pytest.fixture
def joint(exact: MorphingLikelihood, rate: RateModel) -> JointLikelihood:
    control = ProductRate((FreeYield("b"), LogNormalFactor("luminosity", 1.1)))
    return JointLikelihood(
        {
            "signal": ExtendedLikelihood((Component("signal", exact, rate),)),
            "control": CountingLikelihood((control,), 12),
            "luminosity": GaussianConstraint.unit(("luminosity",)),
            "background": LogNormalConstraint(("b",), (10.0,), (1.3,)),
        }
    )


def _points(n: int = 31) -> Array:
    rng = np.random.default_rng(5)
    return np.column_stack([THETA[:n], rng.normal(size=n), rng.uniform(5, 20, size=n)])


def test_two_data_sets_are_the_sum_of_their_log_likelihoods() -> None:
    one, other = (
        exact_likelihood(read_events(DATA / f"wbf_tuned_observed_theta_{name}.root"))
        for name in ("0.5_0", "-1_-1")
    )
    joint = JointLikelihood({"one": one, "other": other})
    assert (joint.n_events, joint.parameter_names) == (40, NAMES)
    np.testing.assert_allclose(joint(THETA), one(THETA) + other(THETA), rtol=0, atol=1e-8)
    gradients = [part.value_and_gradient(THETA)[1] for part in (one, other)]
    np.testing.assert_allclose(joint.value_and_gradient(THETA)[1], sum(gradients), atol=1e-8)
    merged = MorphingLikelihood(
        NAMES,
        QUADRATIC,
        np.concatenate([one.observed["components"], other.observed["components"]]),
        one._cross_section,
    )
    np.testing.assert_allclose(joint(THETA), merged(THETA), rtol=0, atol=1e-8)


def test_channels_share_parameters_by_name(joint: JointLikelihood) -> None:
    assert joint.parameter_names == (*NAMES, "luminosity", "b")
    theta = _points()
    signal, control, luminosity, background = joint.channels.values()
    expected = (
        signal(theta[:, :3])
        + control(theta[:, [3, 2]])
        + luminosity(theta[:, [2]])
        + background(theta[:, [3]])
    )
    np.testing.assert_allclose(joint(theta), expected, rtol=1e-13)
    np.testing.assert_allclose(sum(joint.by_channel(theta).values()), expected, rtol=1e-13)
    values, gradients = joint.value_and_gradient(theta)
    np.testing.assert_allclose(values, expected, rtol=1e-13)
    np.testing.assert_allclose(
        gradients, central_differences(joint, theta, 1e-4), rtol=1e-6, atol=1e-6
    )
    assert isinstance(joint, DifferentiableLikelihood)
    assert joint.constrained_names == ("luminosity", "b")
    assert set(joint.observed) == {"signal_components"}


def test_order_of_parameters_may_be_chosen(joint: JointLikelihood) -> None:
    order = ("b", "luminosity", "CPWL2", "CWL2")
    other = JointLikelihood(joint.channels, order)
    assert other.parameter_names == order
    np.testing.assert_allclose(other(_points()[:, [3, 2, 1, 0]]), joint(_points()), rtol=1e-13)


def test_renamed_parameters_are_not_shared(exact: MorphingLikelihood) -> None:
    apart = JointLikelihood({"a": exact, "b": rename_parameters(exact, {"CPWL2": "other"})})
    assert apart.parameter_names == (*NAMES, "other")
    theta = np.column_stack([THETA, THETA[::-1, 1]])
    np.testing.assert_allclose(apart(theta), exact(THETA) + exact(theta[:, [0, 2]]), rtol=1e-13)


def test_shape_nuisance_is_a_parameter_of_the_basis_with_a_constraint() -> None:
    """p(x|c, nu) = (a0 + a1 c + a2 nu)^2 summed over amplitudes; nu ~ N(0, 1)."""
    rng = np.random.default_rng(1)
    basis = MorphingBasis(QUADRATIC.exponents)
    a, b = rng.normal(1, 0.4, size=(12, 3)), rng.normal(0, 0.2, size=(12, 3, 2))
    bins = np.stack(
        [
            (a * a).sum(1),
            2 * (a * b[..., 0]).sum(1),
            2 * (a * b[..., 1]).sum(1),
            (b[..., 0] ** 2).sum(1),
            2 * (b[..., 0] * b[..., 1]).sum(1),
            (b[..., 1] ** 2).sum(1),
        ],
        axis=1,
    )
    expected = basis.weights([[0.3, 0.0]])[0] @ bins.T
    shape = MorphingLikelihood(("c", "nu"), basis, bins, bins.sum(axis=0))
    weighted = ShapeLikelihood((Component("signal", shape),), 400 * expected / expected.sum())
    loose = JointLikelihood({"events": weighted})
    tight = JointLikelihood({"events": weighted, "nu": GaussianConstraint.unit(("nu",))})
    truth = np.array([[0.3, 0.0]])
    for likelihood in (loose, tight):
        np.testing.assert_allclose(likelihood.value_and_gradient(truth)[1], 0, atol=1e-9)
    np.testing.assert_allclose(
        _hessian(tight, truth) - _hessian(loose, truth), [[0, 0], [0, -1]], atol=1e-5
    )


def _hessian(likelihood: DifferentiableLikelihood, at: Array) -> Array:
    """Return second derivatives from slopes, (p, p)."""
    return np.stack(
        [
            central_differences(lambda t, k=k: likelihood.value_and_gradient(t)[1][:, k], at)[0]
            for k in range(at.shape[1])
        ]
    )


def test_errors_of_rates_add_in_quadrature_to_that_of_the_count() -> None:
    """Relative error of a signal strength: 1/n + err(sigma)^2 + log(kappa)^2, all constrained."""
    sigma = CrossSection(("c",), MorphingBasis(np.array([[0]])), np.array([2.0]), np.array([0.06]))
    factors = (LogNormalFactor("luminosity", 1.02), FreeYield("strength"))
    rate = RateModel(UncertainCrossSection(sigma, "mc"), 1.0, factors=factors)
    joint = JointLikelihood(
        {
            "count": CountingLikelihood((rate,), 2000),
            "nuisances": GaussianConstraint.unit(("mc", "luminosity")),
        },
        ("strength", "mc", "luminosity", "c"),
    )
    best = fix_parameters(joint, {"c": 0.0})
    covariance = np.linalg.inv(-_hessian(best, np.array([[1.0, 0.0, 0.0]])))
    expected = 1 / 2000 + 0.03**2 + np.log(1.02) ** 2
    assert covariance[0, 0] == pytest.approx(expected, rel=1e-6)


def test_constraint_is_likelihood_or_prior_but_never_both(
    exact: MorphingLikelihood, rate: RateModel
) -> None:
    events = ExtendedLikelihood((Component("signal", exact, rate),))
    constraint = GaussianConstraint.unit(("luminosity",))
    with_term = JointLikelihood({"events": events, "luminosity": constraint})
    theory = NormalPrior(NAMES, (0, 0), (1, 1))
    bayesian = ProductPrior((theory, constraint))
    flat = ProductPrior((theory, BoxPrior(("luminosity",), (-5,), (5,))))
    theta = _points()[:, :3]
    one = events(theta) + bayesian.log_prob(theta)
    other = with_term(theta) + flat.log_prob(theta)
    np.testing.assert_allclose(one - other, np.log(10), rtol=1e-12)
    assert common_names(events, bayesian) == common_names(with_term, flat)
    with pytest.raises(ConfigurationError, match=r"\['luminosity'\] stands in the likelihood and"):
        common_names(with_term, bayesian)
    with pytest.raises(ConfigurationError, match="every name once"):
        JointLikelihood({"events": events, "a": constraint, "b": constraint})


def test_log_normal_constraint_as_prior_has_one_jacobian_more() -> None:
    constraint = LogNormalConstraint(("b",), (10.0,), (1.3,))
    theta = np.array([[2.0], [10.0], [30.0]])
    difference = constraint(theta) - constraint.log_prob(theta)
    np.testing.assert_allclose(difference, np.log(theta[:, 0]))
    values, gradients = constraint.value_and_gradient(np.array([[10.0], [-1.0]]))
    assert gradients.ravel() == pytest.approx([0, 0])
    assert np.isneginf(values).tolist() == [False, True]


def test_measurements_fluctuate_about_the_truth() -> None:
    rng = np.random.default_rng(3)
    gaussian = GaussianConstraint(("nu",), (9.0,), (0.5,))
    means = [gaussian.fluctuated(np.array([2.0]), rng).mean[0] for _ in range(2000)]
    assert kstest(means, norm(2.0, 0.5).cdf).pvalue > 0.01
    log_normal = LogNormalConstraint(("b",), (9.0,), (1.3,))
    medians = [log_normal.fluctuated(np.array([2.0]), rng).median[0] for _ in range(2000)]
    assert kstest(medians, lognorm(np.log(1.3), scale=2.0).cdf).pvalue > 0.01
    with pytest.raises(ShapeError, match=r"expected shape \(1,\)"):
        gaussian.fluctuated(np.zeros(2), rng)


@pytest.fixture(scope="module")
def simulated() -> EventSample:
    return read_events(DATA / "wbf_tuned_train_small.root")


def _asimov(sample: EventSample, luminosity: float, kind: str) -> DifferentiableLikelihood:
    """Return the likelihood of expected data at (0.3, -0.2): simulated events, weighted."""
    sigma = CrossSection.from_metadata(sample.metadata)
    rate = RateModel(sigma, luminosity, efficiency=0.01)
    shape = exact_likelihood(sample.take(np.arange(2000)))
    truth = np.array([[0.3, -0.2]])
    density = shape.observed["components"] @ QUADRATIC.weights(truth)[0]
    reference = np.exp(_log_mean_density(shape, NormalPrior(NAMES, (0, 0), (1, 1))))
    weights = density / sigma(truth) / reference
    weights *= rate(truth) / weights.sum()
    component = (Component("signal", shape, rate),)
    kinds = {"shape": ShapeLikelihood, "extended": ExtendedLikelihood}
    return kinds[kind](component, weights)


def _log_mean_density(shape: MorphingLikelihood, prior: NormalPrior) -> Array:
    """Return log of the density from which the training events were drawn, (N,)."""
    draws = prior.sample(400, np.random.default_rng(1))
    terms = shape.per_event(draws)
    return np.logaddexp.reduce(terms, axis=0) - np.log(len(draws))


@pytest.mark.parametrize("kind", ["shape", "extended"])
def test_widths_shrink_with_the_root_of_the_luminosity(simulated: EventSample, kind: str) -> None:
    """Four times the luminosity of expected data: half the posterior widths, to 3%."""
    prior = BoxPrior(NAMES, (-3, -3), (3, 3))
    widths = []
    for luminosity in (100.0, 400.0):
        likelihood = _asimov(simulated, luminosity, kind)
        posterior = grid_posterior(likelihood, prior, _zoomed(luminosity))
        widths.append(posterior.std)
    np.testing.assert_allclose(widths[0] / widths[1], [2, 2], rtol=0.03)


def _zoomed(luminosity: float) -> Grid:
    reach = 3.0 / np.sqrt(luminosity)
    centre = np.array([0.3, -0.2])
    return Grid.regular(np.stack([centre - reach, centre + reach], axis=1), (60, 60))


def test_gradients_of_weighted_data_vanish_at_the_truth(simulated: EventSample) -> None:
    """The expected score is zero at the parameters behind Asimov data, up to its 2000 events."""
    likelihood = _asimov(simulated, 100.0, "extended")
    truth = np.array([[0.3, -0.2]])
    gradient = likelihood.value_and_gradient(truth)[1][0]
    off = np.linalg.solve(_hessian(likelihood, truth), gradient)
    assert np.abs(off).max() < 0.05


def test_a_channel_that_is_no_number_is_refused(exact: MorphingLikelihood) -> None:
    class Broken:
        parameter_names = NAMES
        n_events = 1

        def __call__(self, theta: Array) -> Array:
            return np.full(len(theta), np.nan)

        def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
            return self(theta), np.zeros_like(theta)

    joint = JointLikelihood({"good": exact, "broken": Broken()})
    for call in (joint, joint.value_and_gradient):
        with pytest.raises(LikelihoodError, match=r"got nan at CWL2 = 0"):
            call(np.zeros((1, 2)))


def test_refusals(exact: MorphingLikelihood, joint: JointLikelihood) -> None:
    with pytest.raises(ConfigurationError, match="at least one likelihood"):
        JointLikelihood({})
    no_slopes = NormalLikelihood((0.0, 0.0), np.eye(2))
    with pytest.raises(ConfigurationError, match="channel a: .* got NormalLikelihood"):
        JointLikelihood({"a": no_slopes})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="in some order, got"):
        JointLikelihood(joint.channels, ("b", "luminosity"))
    units = [
        MorphingLikelihood(
            NAMES, QUADRATIC, *_arrays(exact), parameter_units={"CWL2": unit, "CPWL2": "1"}
        )
        for unit in ("1", "TeV^-2")
    ]
    with pytest.raises(ConfigurationError, match="CWL2: expected one unit, got '1' and 'TeV"):
        JointLikelihood({"a": units[0], "b": units[1]})
    assert JointLikelihood({"a": units[0]}).parameter_units == {"CWL2": "1", "CPWL2": "1"}


def _arrays(exact: MorphingLikelihood) -> tuple[Array, Array]:
    return exact._components, exact._cross_section


def test_yield_of_no_events_and_a_fixed_background() -> None:
    """Zero events in one channel: log L = -mu there, and the sum stands."""
    nothing = CountingLikelihood((FixedYield(3.0), FreeYield("s")), 0)
    some = CountingLikelihood((FixedYield(2.0), FreeYield("s")), 7)
    joint = JointLikelihood({"nothing": nothing, "some": some})
    s = np.linspace(0, 9, 5)[:, None]
    np.testing.assert_allclose(joint(s), -(3 + s[:, 0]) + some(s), rtol=1e-13)
    assert joint.n_events == 7
