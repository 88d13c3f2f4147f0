"""`python -m simulators lorenz`: the equations, the attractor, and a file that repeats."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from simulators.__main__ import main
from simulators.file_format import RECORD
from simulators.manifolds.lorenz import LorenzAttractor


def _drawn(n: int = 4000, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    return LorenzAttractor(20).draw(np.zeros(n), noise, rng).x


def test_rests_at_its_three_fixed_points():
    side = math.sqrt(8 / 3 * 27)
    points = np.array([[0, 0, 0], [side, side, 27], [-side, -side, 27]]).T
    assert np.abs(LorenzAttractor().velocity(points)).max() < 1e-12


def test_turns_with_the_symmetry_and_shrinks_volumes_everywhere():
    attractor, x = LorenzAttractor(), np.random.default_rng(0).normal(size=(3, 50))
    turn = np.array([[-1.0], [-1.0], [1.0]])
    assert np.allclose(attractor.velocity(turn * x), turn * attractor.velocity(x))
    step = 1e-6
    slopes = [
        (attractor.velocity(x + step * e) - attractor.velocity(x - step * e))[k] / (2 * step)
        for k, e in enumerate(np.eye(3)[..., None])
    ]
    assert np.allclose(sum(slopes), -(10 + 1 + 8 / 3), atol=1e-6)


def test_points_are_those_of_the_attractor():
    x = _drawn()
    assert x.shape == (4000, 3)
    assert x[:, 2].mean() == pytest.approx(23.55, abs=0.6)  # long-run average
    assert np.abs(x[:, :2].mean(axis=0)).max() < 1.5
    assert 7 < x[:, 0].std() < 8.7
    # trapped where r x^2 + s y^2 + s (z - 2 r)^2 can only fall from outside
    energy = 28 * x[:, 0] ** 2 + 10 * x[:, 1] ** 2 + 10 * (x[:, 2] - 56) ** 2
    assert energy.max() < 10 * (8 / 3) ** 2 * 28**2 / (8 / 3 - 1) * 1.001


def test_averages_over_the_attractor_are_stationary():
    # E[d/dt g] = 0 on an attractor: for g = x, z and x^2 / 2
    x = _drawn(20_000)
    velocity = LorenzAttractor().velocity(x.T)
    for rate in (velocity[0], velocity[2], x[:, 0] * velocity[0]):
        assert abs(rate.mean()) < 0.06 * rate.std()


def test_noise_moves_every_observable():
    moved = _drawn(noise=0.5) - _drawn()
    assert moved.std(axis=0) == pytest.approx([0.5] * 3, rel=0.05)


def test_file_has_labels_but_no_density_and_repeats(tmp_path: Path):
    contents = []
    for name in ("a.root", "b.root"):
        words = ["lorenz", "--theta-prior", "uniform", "--events", "101", "--seed", "7"]
        assert main([*words, "--trajectories", "5", "--out", str(tmp_path / name)]) == 0
        file: Any = uproot.open(tmp_path / name)
        contents.append(file["events"].arrays(library="np"))
        record = json.loads(str(file[RECORD]))
    assert list(contents[0]) == ["x0", "x1", "x2", "theta.theta"]
    assert all(np.array_equal(contents[0][k], contents[1][k]) for k in contents[0])
    assert len(contents[0]["x0"]) == 101
    assert record["simulator"]["settings"]["trajectories"] == 5
    assert record["process"] == "manifold_lorenz"
    assert main(["lorenz", "--theta", "0", "--events", "1", "--seed", "1", "--out", "."]) == 2
