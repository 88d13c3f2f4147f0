"""Every sampler agrees with posteriors known in closed form or on a grid, or says it fails."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

import mflow_sbi.inference
from mflow_sbi.errors import ConfigurationError, LikelihoodError, SamplingError, ShapeError
from mflow_sbi.inference.convergence import (
    autocorrelation_time,
    chain_complaints,
    verdict_on,
)
from mflow_sbi.inference.grid import Grid, grid_posterior
from mflow_sbi.inference.grid_sampler import GridSampler
from mflow_sbi.inference.likelihood import FlatLikelihood
from mflow_sbi.inference.mcmc import MOVES, EmceeSampler
from mflow_sbi.inference.nested import NestedSampler
from mflow_sbi.inference.nuts import NutsSampler
from mflow_sbi.inference.priors import BoxPrior, NormalPrior
from mflow_sbi.inference.result import (
    InferenceData,
    diagnostics_of,
    draws_of,
    load_posterior,
    rank_r_hat,
    save_posterior,
    summarise,
)
from mflow_sbi.inference.samplers import SAMPLERS, sampler_from_dict
from mflow_sbi.inference.sampling import Sampler
from mflow_sbi.interfaces import Array, Likelihood

from .sampler_toys import Normal, Ring, Spurious, TwoModes, Walled, total_variation
from .toys import NAMES

PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
SHORT: dict[str, Sampler] = {
    "emcee": EmceeSampler(ensembles=3, walkers=32, burn_in=100, steps=250),
    "nuts": NutsSampler(chains=2, warm_up=150, draws=600),
    "nested": NestedSampler(live_points=120, draws=2000),
    "grid": GridSampler(draws=2000),
}
TINY: dict[str, Sampler] = {
    "emcee": EmceeSampler(ensembles=2, walkers=8, burn_in=3, steps=5),
    "nuts": NutsSampler(chains=2, warm_up=50, draws=20),
    "nested": NestedSampler(live_points=25, remaining_evidence=1.0, draws=20),
    "grid": GridSampler(cells=10, draws=20),
}
each_sampler = pytest.mark.parametrize("name", SHORT)
NORMAL = Normal([0.5, -1.0], 0.3**2 * np.array([[1, 0.8], [0.8, 1]]))
NORMAL_PRIOR = NormalPrior(NORMAL.parameter_names, (0, 0), (1, 1))


@pytest.fixture(scope="module")
def normal_posteriors() -> dict[str, InferenceData]:
    return {name: s.sample(NORMAL, NORMAL_PRIOR, seed=3) for name, s in SHORT.items()}


def test_the_tables_are_the_registry() -> None:
    assert set(SHORT) == set(TINY) == set(SAMPLERS)
    for name, sampler in SHORT.items():
        assert isinstance(sampler, SAMPLERS[name])


@each_sampler
def test_correlated_normal_within_monte_carlo_errors(
    name: str, normal_posteriors: dict[str, InferenceData]
) -> None:
    mean, covariance, _ = NORMAL.posterior((1, 1))
    posterior = normal_posteriors[name]
    summary, effective = summarise(posterior), diagnostics_of(posterior).effective_draws
    std = np.sqrt(np.diag(covariance))
    correlation = covariance[0, 1] / std.prod()
    error = 1 / np.sqrt(min(effective))
    assert diagnostics_of(posterior).converged, diagnostics_of(posterior).complaints
    assert np.all(np.abs(summary.mean - mean) < 4 * summary.mean_error)
    np.testing.assert_allclose(summary.std, std, rtol=4 * error)
    assert summary.correlation[0, 1] == pytest.approx(
        correlation, abs=4 * (1 - correlation**2) * error
    )
    assert verdict_on(posterior).banner == ""


@pytest.mark.parametrize("name", ["nested", "grid"])
def test_evidence_of_a_conjugate_normal(
    name: str, normal_posteriors: dict[str, InferenceData]
) -> None:
    diagnostics = diagnostics_of(normal_posteriors[name])
    assert diagnostics.log_evidence is not None
    error = diagnostics.log_evidence_error or 0.002
    assert error < 0.3
    exact = NORMAL.posterior((1, 1))[2]
    assert diagnostics.log_evidence == pytest.approx(exact, abs=3 * error)


@each_sampler
def test_records_survive_the_file(
    name: str, normal_posteriors: dict[str, InferenceData], tmp_path: Path
) -> None:
    posterior = normal_posteriors[name]
    loaded = load_posterior(save_posterior(posterior, tmp_path / "posterior.nc"))
    assert diagnostics_of(loaded) == diagnostics_of(posterior)
    assert set(loaded.groups()) == {"posterior", "sample_stats", "constant_data"}
    for group in loaded.groups():
        assert loaded[group].identical(posterior[group])
    assert f'"kind": "{name}"' in loaded.attrs["sampler"]
    lp = posterior["sample_stats"]["lp"].to_numpy().ravel()
    draws = draws_of(posterior)
    exact = NORMAL(draws) + NORMAL_PRIOR.log_prob(draws)
    np.testing.assert_allclose(lp, exact, atol=1e-9)


@each_sampler
def test_draws_respect_the_walls_of_a_box(name: str) -> None:
    prior = BoxPrior(NAMES, (0.0, -0.5), (1.0, 0.3))
    exact = grid_posterior(Walled(), prior, Grid.regular(prior.box(), (200, 200)))
    posterior = SHORT[name].sample(Walled(), prior, seed=4)
    draws, error = draws_of(posterior), 4 * summarise(posterior).mean_error
    assert np.all((draws >= prior.low) & (draws <= prior.high))
    assert np.all(np.abs(draws.mean(axis=0) - exact.mean) < error)
    np.testing.assert_allclose(draws.std(axis=0), exact.std, rtol=0.1)
    lp = posterior["sample_stats"]["lp"].to_numpy().ravel()
    np.testing.assert_allclose(lp, Walled()(draws) + prior.log_prob(draws), atol=1e-9)
    assert draws[:, 0].min() < 0.01  # up to the wall
    assert draws[:, 1].max() > 0.29


@each_sampler
@pytest.mark.parametrize("likelihood", [TwoModes(), Ring()], ids=lambda x: type(x).__name__)
def test_several_modes_come_out_right_or_unconverged(name: str, likelihood: Likelihood) -> None:
    posterior = SHORT[name].sample(likelihood, PRIOR, seed=1)
    distance = total_variation(likelihood, PRIOR, draws_of(posterior))
    verdict = verdict_on(posterior, "the ring")
    if name == "nuts":
        assert not verdict.converged
        assert "NOT CONVERGED: the ring" in verdict.banner
    else:
        assert verdict.converged
        assert distance < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_chains_that_share_a_mode_are_not_deceived(seed: int) -> None:
    """Two chains in one mode have a perfect R-hat; prior draws know of the other mode."""
    sampler = NutsSampler(chains=2, warm_up=50, draws=250)
    posterior = sampler.sample(TwoModes(), PRIOR, seed)
    diagnostics = diagnostics_of(posterior)
    first = np.sign(posterior["posterior"]["CWL2"].to_numpy()[:, 0])
    assert not diagnostics.converged
    if first[0] == first[1]:
        assert max(diagnostics.r_hat) < 1.1
        share = 1 / 3 if first[0] > 0 else 2 / 3
        assert diagnostics.missed_share == pytest.approx(share, abs=0.25)
        assert any("a mode is missed" in complaint for complaint in diagnostics.complaints)
    else:
        assert max(diagnostics.r_hat) > 1.5
        assert any("R-hat" in complaint for complaint in diagnostics.complaints)


@pytest.mark.parametrize("seed", range(2))
def test_no_walker_stays_in_a_mode_of_no_weight(seed: int) -> None:
    posterior = SHORT["emcee"].sample(Spurious(), PRIOR, seed)
    assert diagnostics_of(posterior).converged
    np.testing.assert_allclose(draws_of(posterior).std(axis=0), 0.03, rtol=0.15)


def test_a_stuck_walker_is_told() -> None:
    """One walker of 32 aside moves R-hat by nothing, and the effective draws of its ensemble."""
    draws = np.random.default_rng(1).normal(size=(4, 500, 32))
    for stuck, words in ((0.0, []), (30.0, ["a chain of 3"])):
        draws[0, :, 0] += stuck
        r_hat = [rank_r_hat(draws.reshape(4, -1))]
        effective = np.array([[500 * 32 / autocorrelation_time(each)] for each in draws])
        complaints = list(chain_complaints(r_hat, effective.sum(axis=0), effective))
        assert max(r_hat) < 1.01
        assert [complaint[:12] for complaint in complaints] == words


@pytest.mark.parametrize("move", MOVES)
def test_every_move_leaves_the_normal_invariant(move: str) -> None:
    mean, covariance, _ = NORMAL.posterior((1, 1))
    walkers = 48 if move == "kde" else 24
    sampler = EmceeSampler(2, walkers, 50, 150, ((move, 1.0),))
    if move == "whole_difference":  # alone, it only ever reaches a lattice
        sampler = EmceeSampler(2, walkers, 50, 150, ((move, 0.5), ("stretch", 0.5)))
    posterior = sampler.sample(NORMAL, NORMAL_PRIOR, seed=2)
    effective = min(diagnostics_of(posterior).effective_draws)
    summary = summarise(posterior)
    assert effective > 100
    assert np.all(np.abs(summary.mean - mean) < 4 * summary.mean_error)
    np.testing.assert_allclose(summary.std, np.sqrt(np.diag(covariance)), rtol=4 / effective**0.5)


@each_sampler
def test_same_seed_same_draws_and_numpy_s_global_state_plays_no_part(name: str) -> None:
    runs = []
    for global_seed, seed in ((1, 7), (2, 7), (3, 8)):
        np.random.seed(global_seed)  # noqa: NPY002
        runs.append(draws_of(TINY[name].sample(NORMAL, NORMAL_PRIOR, seed)))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@each_sampler
def test_progress_reaches_the_end(name: str) -> None:
    seen: list[tuple[int, int]] = []
    TINY[name].sample(NORMAL, NORMAL_PRIOR, 0, lambda done, of: seen.append((done, of)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@each_sampler
def test_one_parameter(name: str) -> None:
    likelihood = Normal([0.5], np.array([[0.25]]))
    prior = NormalPrior(likelihood.parameter_names, (0,), (1,))
    draws = draws_of(TINY[name].sample(likelihood, prior, 1))
    assert draws.shape[1] == 1
    assert draws.mean() == pytest.approx(0.4, abs=0.6)


@pytest.mark.parametrize("name", ["emcee", "nuts"])
def test_five_parameters(name: str) -> None:
    likelihood = Normal([-1, -0.5, 0, 0.5, 1], np.diag([0.5, 0.1, 0.3, 0.02, 1.0]))
    prior = NormalPrior(likelihood.parameter_names, (0,) * 5, (1,) * 5)
    mean, covariance, _ = likelihood.posterior((1,) * 5)
    summary = summarise(SHORT[name].sample(likelihood, prior, 1))
    assert np.all(np.abs(summary.mean - mean) < 4 * summary.mean_error)
    np.testing.assert_allclose(summary.std, np.sqrt(np.diag(covariance)), rtol=0.25)


def test_nested_sampling_of_a_plateau_says_so() -> None:
    prior = BoxPrior(NAMES, (-1, 0), (1, 3))
    posterior = TINY["nested"].sample(FlatLikelihood(NAMES), prior, 1)
    diagnostics = diagnostics_of(posterior)
    assert diagnostics.log_evidence == pytest.approx(0, abs=0.15)
    assert any("plateau" in caution for caution in diagnostics.cautions)
    assert "CAUTION" in verdict_on(posterior).banner


def test_nested_sampling_that_was_cut_says_so() -> None:
    sampler = NestedSampler(live_points=25, max_evaluations=60, draws=20)
    diagnostics = diagnostics_of(sampler.sample(NORMAL, NORMAL_PRIOR, 1))
    assert any("stopped after 60 evaluations" in words for words in diagnostics.complaints)


def test_a_grid_too_coarse_says_so() -> None:
    prior = NormalPrior(NAMES, (0, 0), (100, 100))
    narrow = Normal([0, 0], np.eye(2) * 1e-4)
    narrow.parameter_names = NAMES
    diagnostics = diagnostics_of(GridSampler(cells=10, draws=500).sample(narrow, prior, 1))
    assert any("does not resolve" in words for words in diagnostics.complaints)


class _Cliff(Normal):
    """A likelihood that is a number at so many calls only."""

    calls = 0
    good_calls = 10**9

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        self.calls += 1
        if self.calls > self.good_calls:
            message = "not a number"
            raise LikelihoodError(message)
        return super().value_and_gradient(theta)


@each_sampler
def test_an_error_of_the_likelihood_is_raised_and_not_printed(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the exploration, at the first steps, at the very last ones."""
    whole = _Cliff(NORMAL.mean, NORMAL.covariance)
    TINY[name].sample(whole, NORMAL_PRIOR, 1)
    for share in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0):
        cliff = _Cliff(NORMAL.mean, NORMAL.covariance)
        cliff.good_calls = max(int(share * whole.calls) - 1, 0)
        with pytest.raises(LikelihoodError, match="not a number"):
            TINY[name].sample(cliff, NORMAL_PRIOR, 1)
    assert capfd.readouterr() == ("", "")


class _Nowhere(Normal):
    """No density anywhere."""

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        return np.full(len(theta), -np.inf), np.zeros_like(theta)


@each_sampler
def test_a_prior_without_the_truth_is_an_error(name: str) -> None:
    with pytest.raises(SamplingError, match="no finite starting points"):
        TINY[name].sample(_Nowhere(NORMAL.mean, NORMAL.covariance), NORMAL_PRIOR, 1)


@each_sampler
def test_other_parameters_are_an_error(name: str) -> None:
    with pytest.raises(ShapeError, match="same parameters"):
        TINY[name].sample(NORMAL, PRIOR, 1)


@pytest.mark.parametrize(("name", "library"), [("nuts", "nutpie"), ("nested", "dynesty")])
def test_a_missing_library_is_named_with_its_command(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SamplingError, match=rf'{library}: pip install "mflow_sbi\[samplers\]"$'):
        TINY[name].sample(NORMAL, NORMAL_PRIOR, 1)


def test_optional_libraries_are_imported_at_first_use_only() -> None:
    for room in Path(mflow_sbi.inference.__file__).parent.glob("*.py"):
        imports = [
            node
            for node in ast.walk(ast.parse(room.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        named = {alias.name for node in imports for alias in node.names}
        named |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
        assert not {"nutpie", "dynesty"} & named, room


class _Valueless:
    parameter_names = NORMAL.parameter_names
    n_events = 1

    def __call__(self, theta: Array) -> Array:
        return NORMAL(theta)


def test_what_a_sampler_cannot_do_is_an_error() -> None:
    with pytest.raises(SamplingError, match="value_and_gradient, got _Valueless"):
        NutsSampler().sample(_Valueless(), NORMAL_PRIOR, 1)
    three = Normal([0, 0, 0], np.eye(3))
    prior = NormalPrior(three.parameter_names, (0,) * 3, (1,) * 3)
    with pytest.raises(SamplingError, match="at most 2 parameters"):
        GridSampler().sample(three, prior, 1)


@each_sampler
def test_records_of_samplers_round_trip(name: str) -> None:
    assert sampler_from_dict(SHORT[name].to_dict()) == SHORT[name]
    assert sampler_from_dict({"kind": name}) == SAMPLERS[name]()


WRONG = {
    "kind": ({"kind": "emce"}, "did you mean 'emcee'"),
    "no kind": ({"walkers": 3}, "got None"),
    "option": ({"kind": "nuts", "chain": 3}, "did you mean 'chains'"),
    "type": ({"kind": "nuts", "chains": "3"}, "sampler nuts, chains: expected int, got '3'"),
    "truth": ({"kind": "nuts", "chains": True}, "expected int, got True"),
    "move": ({"kind": "emcee", "moves": "walks"}, "got 'walks'"),
    "share": ({"kind": "emcee", "moves": {"walk": 0}}, "positive shares"),
    "shares": ({"kind": "emcee", "moves": {"walk": "1"}}, "moves with their shares"),
    "moves": ({"kind": "emcee", "moves": {}}, "at least one"),
    "chains": ({"kind": "nuts", "chains": 1}, "nuts chains: expected at least 2, got 1"),
    "acceptance": ({"kind": "nuts", "target_acceptance": 1}, r"in \(0, 1\), got 1.0"),
    "live points": ({"kind": "nested", "live_points": 3}, "at least 25"),
    "evidence": ({"kind": "nested", "remaining_evidence": 0}, "positive number"),
    "cells": ({"kind": "grid", "cells": 1}, "at least 10"),
}


@pytest.mark.parametrize(("record", "words"), WRONG.values(), ids=WRONG)
def test_wrong_records(record: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        sampler_from_dict(record)


def test_one_move_or_several_by_name() -> None:
    assert sampler_from_dict({"kind": "emcee", "moves": "walk"}) == EmceeSampler(
        moves=(("walk", 1.0),)
    )
    assert sampler_from_dict({"kind": "emcee", "moves": {"walk": 1, "jump": 0.5}}) == EmceeSampler(
        moves=(("walk", 1.0), ("jump", 0.5))
    )
