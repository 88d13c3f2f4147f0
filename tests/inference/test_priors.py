"""Priors are normalised densities that remember what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.inference.priors import BoxPrior, NormalPrior, RecordedPrior, prior_from_dict

NAMES = ("CWL2", "CPWL2")
PRIORS = {
    "normal": NormalPrior(NAMES, mean=(0.5, -1), std=(1, 0.3)),
    "box": BoxPrior(NAMES, low=(-1, 0), high=(2, 0.5)),
}
priors = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


@priors
def test_density_integrates_to_one_over_its_box(prior: RecordedPrior) -> None:
    axes = [np.linspace(low, high, 401)[:-1] + (high - low) / 800 for low, high in prior.box()]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.prod(np.ptp(prior.box(), axis=1)) / 400**2
    assert np.exp(prior.log_prob(points)).sum() * cell == pytest.approx(1, abs=2e-6)


@priors
def test_draws_follow_the_density(prior: RecordedPrior) -> None:
    draws = prior.sample(40_000, np.random.default_rng(1))
    assert draws.shape == (40_000, 2)
    np.testing.assert_array_equal(draws, prior.sample(40_000, np.random.default_rng(1)))
    # E[log p] is minus the entropy: -sum(1/2 + log(std sqrt(2 pi))) or -log(volume)
    entropy = {
        "normal": 1 + np.log(0.3) + np.log(2 * np.pi),
        "box": np.log(3 * 0.5),
    }[prior.to_dict()["kind"]]
    assert prior.log_prob(draws).mean() == pytest.approx(-entropy, abs=0.025)


@priors
def test_record_round_trip(prior: RecordedPrior) -> None:
    assert prior_from_dict(prior.to_dict()) == prior


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_box_is_closed_and_empty_outside(a: float, b: float) -> None:
    prior = BoxPrior(NAMES, low=(-1, 0), high=(2, 0.5))
    inside = -1 <= a <= 2 and 0 <= b <= 0.5
    assert (prior.log_prob(np.array([[a, b]]))[0] > -np.inf) == inside


ERRORS = {
    "unequal lengths": (lambda: NormalPrior(NAMES, (0,), (1, 1)), "one number per parameter"),
    "std zero": (lambda: NormalPrior(NAMES, (0, 0), (1, 0)), "positive"),
    "not finite": (lambda: NormalPrior(NAMES, (0, np.nan), (1, 1)), "finite"),
    "empty box": (lambda: BoxPrior(NAMES, (0, 1), (1, 1)), "box of CPWL2: expected low < high"),
    "not numbers": (lambda: BoxPrior(NAMES, ("a", 1), (1, 1)), "expected 2 numbers"),  # type: ignore[arg-type]
    "same name twice": (lambda: NormalPrior(("a", "a"), (0, 0), (1, 1)), "distinct"),
    "one string": (lambda: NormalPrior("ab", (0, 0), (1, 1)), "list of at least one"),  # type: ignore[arg-type]
    "unknown kind": (
        lambda: prior_from_dict({"kind": "flat"}),
        r"one of \['box', .*'truncated_normal'\]",
    ),
    "missing field": (
        lambda: prior_from_dict({"kind": "normal", "parameter_names": ["a"], "mean": [0]}),
        "std",
    ),
    "unknown field": (
        lambda: prior_from_dict({**PRIORS["box"].to_dict(), "mean": [0, 0]}),
        "mean",
    ),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()


@priors
def test_theta_of_wrong_shape(prior: RecordedPrior) -> None:
    with pytest.raises(ShapeError, match=r"expected shape \(M, 2\), got \(2,\)"):
        prior.log_prob(np.zeros(2))
