"""`python -m simulators circle | sphere | ...`: on the surface, normalised, and repeatable."""

import json
import math
from typing import Any

import numpy as np
import pytest
import uproot

from simulators.__main__ import SURFACES, main
from simulators.manifolds.surfaces import PolynomialSurface, RingTorus, Sphere, Surface, Torus

CASES: dict[str, Surface] = {
    "circle": Sphere(1, 1.3),
    "sphere": Sphere(2, 2.0),
    "sphere of 5 dimensions": Sphere(5, 4.0),
    "narrow sphere": Sphere(2, 300.0),
    "torus": Torus(2, 1.5),
    "ring-torus": RingTorus(1.5),
    "polynomial": PolynomialSurface(),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def surface(request) -> Surface:
    return request.param


def drawn(surface: Surface, n: int, seed: int = 4, theta: float | None = None):
    rng = np.random.default_rng(seed)
    parameter = rng.uniform(-1, 1, n) if theta is None else np.full(n, theta)
    return surface.draw(parameter, rng), parameter


def off_surface(surface: Surface, x: np.ndarray) -> np.ndarray:
    """How far the points are from the surface's implicit equation, written out here."""
    match surface:
        case Sphere():
            return np.abs(np.linalg.norm(x, axis=1) - 1)
        case RingTorus():
            return np.abs(np.hypot(np.hypot(x[:, 0], x[:, 1]) - 2.0, x[:, 2]) - 1.0)
        case Torus():
            return np.abs(np.linalg.norm(x.reshape(len(x), -1, 2), axis=2) - 1).max(axis=1)
    settings: Any = surface.settings
    z1, z2, height = (x @ np.array(settings["rotation"])).T
    terms = [z1 ** (k - j) * z2**j for k in range(6) for j in range(k + 1)]
    expected = np.exp(-0.1 * (z1**2 + z2**2)) * (np.array(settings["coefficients"]) @ terms)
    return np.abs(height - expected)


def test_points_lie_on_the_surface(surface):
    x, _ = drawn(surface, 2000)
    assert x.shape == (2000, surface.ambient_dim)
    assert off_surface(surface, x).max() < 1e-12


def midpoints(low: float, high: float, n: int) -> np.ndarray:
    return low + (np.arange(n) + 0.5) * (high - low) / n


def covering(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Points all over the surface and the area around each, by geometry alone."""
    turn = midpoints(-math.pi, math.pi, 400)
    step = turn[1] - turn[0]
    if surface.ambient_dim == 2:
        return np.stack([np.cos(turn), np.sin(turn)], axis=1), np.full(len(turn), step)
    if isinstance(surface, Sphere):  # the area between two heights is that of the cylinder
        height = midpoints(-1, 1, 400)
        h, a = (grid.ravel() for grid in np.meshgrid(height, turn))
        r = np.sqrt(1 - h * h)
        # narrow densities sit on the equator, far from the poles of this grid
        return np.stack([r * np.cos(a), r * np.sin(a), h], axis=1), np.full(len(h), step / 200)
    if isinstance(surface, PolynomialSurface):
        axis = midpoints(-9, 9, 400)
        z = np.stack([grid.ravel() for grid in np.meshgrid(axis, axis)], axis=1)
        e = 1e-4
        one, two = (surface.embed(z + e * v) - surface.embed(z - e * v) for v in np.eye(2))
        area = np.linalg.norm(np.cross(one, two), axis=1) / (4 * e * e)
        return surface.embed(z), area * (axis[1] - axis[0]) ** 2
    a, b = (grid.ravel() for grid in np.meshgrid(turn, turn))
    if isinstance(surface, RingTorus):
        w = 2.0 + np.cos(b)
        return np.stack([w * np.cos(a), w * np.sin(a), np.sin(b)], axis=1), w * step**2
    x = np.stack([np.cos(a), np.sin(a), np.cos(b), np.sin(b)], axis=1)
    return x, np.full(len(a), step**2)


@pytest.mark.parametrize("theta", [-0.8, 0.0, 0.9])
@pytest.mark.parametrize("name", [name for name in CASES if name != "sphere of 5 dimensions"])
def test_density_integrates_to_one_over_the_surface(name, theta):
    x, area = covering(CASES[name])
    density = np.exp(CASES[name].log_density(x, np.full(len(x), theta)))
    assert density @ area == pytest.approx(1.0, abs=1e-3)


def test_density_in_five_dimensions_integrates_to_one():
    surface = CASES["sphere of 5 dimensions"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200_000, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)  # uniform; the area is pi^3
    ratio = np.exp(surface.log_density(x, np.full(len(x), 0.4))) * math.pi**3
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / math.sqrt(len(x)))


@pytest.mark.parametrize("name", [name for name in CASES if name != "sphere of 5 dimensions"])
def test_points_follow_the_density(name):
    surface, n = CASES[name], 40_000
    x, _ = drawn(surface, n, theta=0.3)
    grid, area = covering(surface)
    weight = np.exp(surface.log_density(grid, np.full(len(grid), 0.3))) * area
    for power in (1, 2, 3):
        for k in range(surface.ambient_dim):
            expected = weight @ grid[:, k] ** power
            error = (x[:, k] ** power).std() / math.sqrt(n)
            assert abs((x[:, k] ** power).mean() - expected) < 5 * error + 1e-3 * abs(expected)


def test_points_in_five_dimensions_follow_the_density():
    surface, n = CASES["sphere of 5 dimensions"], 40_000
    x, _ = drawn(surface, n, theta=0.0)
    w = midpoints(-1, 1, 20_000)  # p(w) ~ exp(kappa w) (1 - w^2)^{d/2 - 1}, kappa 4, d 5
    weight = np.exp(4.0 * w) * (1 - w * w) ** 1.5
    weight /= weight.sum()
    for power in (1, 2, 3):
        error = (x[:, 0] ** power).std() / math.sqrt(n)
        assert abs((x[:, 0] ** power).mean() - weight @ w**power) < 5 * error
    assert np.abs(x[:, 1:].mean(axis=0)).max() < 5 * 0.5 / math.sqrt(n)


def test_score_is_the_slope_of_the_log_density(surface):
    x, theta = drawn(surface, 500)
    slope = (surface.log_density(x, theta + 1e-5) - surface.log_density(x, theta - 1e-5)) / 2e-5
    np.testing.assert_allclose(surface.score(x, theta), slope, rtol=1e-5, atol=1e-5)


def test_the_polynomial_surface_is_frozen():
    surface = PolynomialSurface()
    x = surface.embed(np.array([[0.0, 0.0], [1.5, -2.0]]))
    expected = [
        surface.coefficients[0] * surface.rotation[:, 2],
        [0.42936181881598645, 1.000359375577987, 2.4918913301335186],
    ]
    np.testing.assert_allclose(x, expected, rtol=1e-12)
    np.testing.assert_allclose(surface.rotation.T @ surface.rotation, np.eye(3), atol=1e-14)
    assert np.linalg.det(surface.rotation) > 0


def simulate(path, name, *options, events=300, seed=3):
    words = [name, *options, "--events", str(events), "--seed", str(seed), "--out", str(path)]
    assert main(words) == 0
    return path


def read(path):
    file: Any = uproot.open(path)
    columns = {name: file["events"][name].array(library="np") for name in file["events"].keys()}
    return columns, json.loads(str(file["mflow_sbi"]))


@pytest.mark.parametrize("name", SURFACES)
def test_files_carry_points_parameters_and_exact_densities(name, tmp_path):
    columns, record = read(simulate(tmp_path / "a.root", name, "--theta-prior", "uniform"))
    n = len(record["observables"])
    names = [f"x{k}" for k in range(n)]
    assert list(columns) == [*names, "theta.theta", "score.theta", "log_density"]
    surface = {"circle": Sphere(1), "sphere": Sphere(2), "torus": Torus(2)} | {
        "ring-torus": RingTorus(),
        "polynomial": PolynomialSurface(),
    }
    x = np.stack([columns[name] for name in names], axis=1)
    theta = columns["theta.theta"]
    assert off_surface(surface[name], x).max() < 1e-12
    np.testing.assert_allclose(
        columns["log_density"], surface[name].log_density(x, theta), atol=1e-10
    )
    assert np.abs(theta).max() <= 1
    assert len(np.unique(theta)) == 300
    assert record["n_events"] == 300
    assert record["layout"] == "flat"
    assert record["theta_sampling"] == {"kind": "uniform", "low": [-1], "high": [1]}
    assert record["command"].endswith("--out a.root")


def test_the_same_seed_gives_the_same_file(tmp_path):
    one, two, other = (
        read(simulate(tmp_path / f"{k}.root", "polynomial", "--theta", "0.5", seed=seed))
        for k, seed in enumerate((7, 7, 8))
    )
    for name, column in one[0].items():
        np.testing.assert_array_equal(column, two[0][name])
    assert (one[0]["x0"] != other[0]["x0"]).all()
    assert one[1]["theta_sampling"] == {"kind": "fixed", "value": [0.5]}


def test_noise_leaves_the_surface_and_not_the_truth(tmp_path):
    quiet, _ = read(simulate(tmp_path / "a.root", "circle", "--theta", "0", events=5000))
    noisy, record = read(
        simulate(tmp_path / "b.root", "circle", "--theta", "0", "--noise", "0.01", events=5000)
    )
    np.testing.assert_array_equal(quiet["log_density"], noisy["log_density"])
    distance = np.abs(np.hypot(noisy["x0"], noisy["x1"]) - 1)
    assert distance.mean() == pytest.approx(0.01 * math.sqrt(2 / math.pi), rel=0.05)
    assert record["simulator"]["settings"]["noise"] == 0.01


GOOD = {"--theta": "0", "--events": "5", "--seed": "1", "--out": "x.root"}
BAD = {
    "no theta": ("circle", {"--theta": None}, "--theta --theta-prior is required"),
    "negative noise": ("circle", {"--noise": "-1"}, "expected a number >= 0, got -1"),
    "no dimension": ("sphere", {"--dim": "0"}, "expected an integer >= 1"),
    "too many dimensions": ("torus", {"--dim": "5000"}, "--dim: expected 1 to 1000"),
    "dimension of a circle": ("circle", {"--dim": "2"}, "unrecognized arguments: --dim"),
    "flat density": ("sphere", {"--concentration": "0"}, "--concentration: expected 0.001"),
    "negative width": ("polynomial", {"--theta": "-1.5"}, "expected theta > -1.5"),
    "no folder": ("polynomial", {"--out": "nowhere/x.root"}, "the folder nowhere does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines_say_what_to_do_in_one_line(case, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name, change, message = BAD[case]
    options = {k: v for k, v in (GOOD | change).items() if v is not None}
    assert main([name, *(word for pair in options.items() for word in pair)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
