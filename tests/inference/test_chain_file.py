"""A chain that was interrupted and taken up again is the chain without interruption."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import SamplingError
from mflow_sbi.inference.mcmc import EmceeSampler
from mflow_sbi.inference.priors import NormalPrior, UserPrior
from mflow_sbi.inference.result import diagnostics_of, draws_of
from mflow_sbi.interfaces import Array

from .sampler_toys import Normal

NORMAL = Normal([0.5, -1.0], np.array([[0.1, 0.05], [0.05, 0.1]]))
PRIOR = NormalPrior(NORMAL.parameter_names, (0, 0), (1, 1))
SAMPLER = EmceeSampler(ensembles=2, walkers=8, burn_in=20, steps=60)


class Interruption(Exception):
    """What stops a run."""


def _interrupted_at(step: int, path: Path, sampler: EmceeSampler = SAMPLER) -> None:
    def progress(done: int, of: int) -> None:
        assert of == sampler.ensembles * (sampler.burn_in + sampler.steps)
        if done == step:
            raise Interruption

    with pytest.raises(Interruption):
        sampler.sample_resumably(NORMAL, PRIOR, 5, path, progress)


@pytest.mark.parametrize("steps", [(1,), (7,), (80,), (83,), (10, 50, 81, 130), (160,)])
def test_resumed_is_uninterrupted(steps: tuple[int, ...], tmp_path: Path) -> None:
    """Interrupted in burn-in, at its end, between ensembles, several times, at the very end."""
    path = tmp_path / "deep" / "chain.h5"
    for step in steps:
        _interrupted_at(step, path)
    resumed = SAMPLER.sample_resumably(NORMAL, PRIOR, 5, path)
    straight = SAMPLER.sample(NORMAL, PRIOR, 5)
    for group in ("posterior", "sample_stats"):
        assert resumed[group].identical(straight[group])
    assert diagnostics_of(resumed) == diagnostics_of(straight)
    assert resumed.attrs == straight.attrs


@pytest.mark.parametrize("step", [1, 24, 25, 60, 119])
def test_a_killed_run_loses_its_last_steps_only(step: int, tmp_path: Path) -> None:
    path, left = tmp_path / "chain.h5", tmp_path / "left.h5"

    def progress(done: int, of: int) -> None:  # noqa: ARG001
        if done == step:
            left.write_bytes(path.read_bytes())

    straight = SAMPLER.sample_resumably(NORMAL, PRIOR, 5, path, progress)
    counted = Counted(NORMAL.mean, NORMAL.covariance)
    resumed = SAMPLER.sample_resumably(counted, PRIOR, 5, left)
    assert resumed["posterior"].identical(straight["posterior"])
    repeated = (counted.points - 16) / 8 - (160 - step)
    assert 0 <= repeated < 25


def test_a_finished_chain_is_read_and_made_longer(tmp_path: Path) -> None:
    path, counted = tmp_path / "chain.h5", Counted(NORMAL.mean, NORMAL.covariance)
    short = SAMPLER.sample_resumably(counted, PRIOR, 5, path)
    counted.points = 0
    again = SAMPLER.sample_resumably(counted, PRIOR, 5, path)
    assert counted.points == 16  # compared with the stored values, and no step made
    assert np.array_equal(draws_of(short), draws_of(again))
    longer = replace(SAMPLER, steps=100)
    made_longer = longer.sample_resumably(counted, PRIOR, 5, path)
    assert counted.points == 2 * 16 + 2 * 8 * 40
    assert np.array_equal(draws_of(made_longer), draws_of(longer.sample(NORMAL, PRIOR, 5)))
    shorter = replace(SAMPLER, steps=30).sample_resumably(NORMAL, PRIOR, 5, path)
    assert np.array_equal(shorter["posterior"]["theta_0"], short["posterior"]["theta_0"][:, :30])


class Counted(Normal):
    """Counts the points at which it is evaluated."""

    points = 0

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        self.points += len(theta)
        return super().value_and_gradient(theta)


class Observing(Normal):
    """Shows its events."""

    observed = {"x": np.ones((3, 2))}  # noqa: RUF012
    n_events = 3


class OtherEvents(Observing):
    """Shows other events."""

    observed = {"x": np.full((3, 2), 2.0)}  # noqa: RUF012


def _scaled(sigma: float) -> UserPrior:
    """Return a prior whose record does not tell its scale."""
    return UserPrior(
        NORMAL.parameter_names,
        density=lambda theta: -0.5 * np.square(theta / sigma).sum(axis=1),
        draw=lambda n, rng: rng.normal(scale=sigma, size=(n, 2)),
        limits=[[-9, 9], [-9, 9]],
    )


OTHERS = {
    "seed": ({"seed": 6}, "seed;"),
    "prior": ({"prior": replace(PRIOR, std=(1, 2))}, "prior;"),
    "walkers": ({"sampler": replace(SAMPLER, walkers=10)}, "sampler;"),
    "moves": ({"sampler": replace(SAMPLER, moves=(("walk", 1.0),))}, "sampler;"),
    "burn-in": ({"sampler": replace(SAMPLER, burn_in=21)}, "sampler;"),
    "events": ({"likelihood": OtherEvents(NORMAL.mean, NORMAL.covariance)}, "observed events;"),
    "likelihood": (
        {"likelihood": Observing(NORMAL.mean, 1.01 * NORMAL.covariance)},
        "likelihood;",
    ),
}


@pytest.mark.parametrize(("change", "words"), OTHERS.values(), ids=OTHERS)
def test_a_chain_of_something_else_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    path, observing = tmp_path / "chain.h5", Observing(NORMAL.mean, NORMAL.covariance)
    right = {"sampler": SAMPLER, "likelihood": observing, "prior": PRIOR, "seed": 5}
    _sample_into(path, **right)
    before = path.read_bytes()
    with pytest.raises(SamplingError, match=rf"holds a chain of another {words}"):
        _sample_into(path, **{**right, **change})
    assert path.read_bytes() == before


def _sample_into(
    path: Path, sampler: EmceeSampler, likelihood: Normal, prior: NormalPrior, seed: int
) -> None:
    sampler.sample_resumably(likelihood, prior, seed, path)


def test_a_prior_that_its_record_does_not_tell_is_known_by_its_values(tmp_path: Path) -> None:
    path = tmp_path / "chain.h5"
    SAMPLER.sample_resumably(NORMAL, _scaled(1.0), 5, path)
    with pytest.raises(SamplingError, match="another likelihood"):
        SAMPLER.sample_resumably(NORMAL, _scaled(1.1), 5, path)


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file"])
def test_a_file_that_is_no_chain_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "chain.h5"
    path.write_bytes(content)
    with pytest.raises(SamplingError, match=r"cannot read it .*; remove it"):
        SAMPLER.sample_resumably(NORMAL, PRIOR, 5, path)
    assert path.read_bytes() == content
