"""PIE: a normalised density that draws elsewhere.  PAE: the M-flow without a measure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.charting import ChartingEvents
from mflow_sbi.charts import NetworkOptions
from mflow_sbi.config import parse_config
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import read_events
from mflow_sbi.flows import FlowOptions
from mflow_sbi.interfaces import EncodedLikelihood, ManifoldSurrogate
from mflow_sbi.pseudo_inverses import PseudoInvertibleOptions, begin_pie
from mflow_sbi.recipes import find_recipe, load_surrogate, train
from mflow_sbi.runs import evaluate_run, train_run
from mflow_sbi.surrogates import PseudoInvertibleFlow
from mflow_sbi.training import FitSettings
from simulators.__main__ import main as simulate

SMALL = FlowOptions(layers=3, hidden=12, bins=4)


def _pie(n: int, *, per_theta: bool = True, width: float = 0.2) -> PseudoInvertibleFlow:
    """Return a flow of random weights on R^n, one latent, one parameter, float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((200, n), generator=generator, dtype=torch.float64)
    x[:, 0] *= 2.0
    zeros, ones = np.zeros(n), np.ones(n)
    charting = ChartingEvents(x.numpy(), x, zeros, ones, [f"x{k}" for k in range(n)])
    options = PseudoInvertibleOptions(1, SMALL, SMALL, width, per_theta)
    flow = begin_pie(charting, 1, options, seed=3).surrogate
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return flow.double()


@pytest.mark.parametrize("per_theta", [True, False])
def test_pie_is_normalised_at_every_theta(per_theta):
    flow = _pie(2, per_theta=per_theta, width=0.5)
    axis = torch.linspace(-12, 12, 240, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    area = float(axis[1] - axis[0]) ** 2
    for theta in (-1.0, 0.7):
        with torch.no_grad():
            log_prob = flow.log_prob(x, torch.full((1, 1), theta, dtype=torch.float64))
        assert float(log_prob.exp().sum()) * area == pytest.approx(1.0, abs=0.01)


def _points(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return (
        torch.randn((30, n), generator=generator, dtype=torch.float64),
        torch.randn((30, 1), generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("per_theta", [True, False])
def test_pie_draws_points_whose_last_coordinates_vanish(per_theta):
    flow, (_, theta) = _pie(3, per_theta=per_theta), _points(3)
    drawn = flow.sample(theta, seed=1)
    with torch.no_grad():
        assert torch.allclose(flow.project_at(drawn, theta), drawn, atol=1e-6)
        image, _ = flow.split.encode_noise(flow.encode(drawn), theta)
        x = _points(3)[0]
        projected = flow.project_at(x, theta)
        assert torch.allclose(flow.project_at(projected, theta), projected, atol=1e-6)
    assert float(image[:, 1:].abs().max()) < 1e-6
    assert float((projected - x).norm(dim=1).median()) > 0.1


@pytest.mark.parametrize("per_theta", [True, False])
def test_pie_has_a_surface_per_theta_only_as_published(per_theta):
    flow, (x, theta) = _pie(3, per_theta=per_theta), _points(3)
    with torch.no_grad():
        here, there = flow.project_at(x, theta), flow.project_at(x, theta + 1.0)
    assert torch.allclose(here, there) != per_theta


@pytest.mark.parametrize("per_theta", [True, False])
def test_pie_answers_all_pairs_of_points_and_events_as_rows(per_theta):
    flow, (x, theta) = _pie(3, per_theta=per_theta), _points(3)
    z, points = flow.encode(x), theta[:4]
    with torch.no_grad():
        table = flow.latent_log_prob(z, points[:, None])
        rows = [flow.log_likelihood(x, point.expand(len(x), 1)) for point in points]
    assert torch.allclose(table, torch.stack(rows))


def test_pie_presses_the_last_coordinates_to_zero_within_its_width():
    # off the surface log p falls as a normal of width eps does, whatever else it learns
    flow, (x, theta) = _pie(2, width=0.1), _points(2)
    with torch.no_grad():
        image, log_det = flow.split.encode_noise(flow.encode(x), theta)
        on = flow.density.log_prob(image[:, :1], theta)
        normal = torch.distributions.Normal(0.0, 0.1).log_prob(image[:, 1])
        found = flow.latent_log_prob(flow.encode(x), theta)
    assert torch.allclose(found, on + normal + log_det)


PAE = {
    "latent_dim": 2,
    "chart": {"hidden": 16, "blocks": 1},
    "reference": {"layers": 1, "hidden": 12},
    "density": {"layers": 2, "hidden": 12},
}


@pytest.fixture(scope="module")
def events_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "events.root"
    words = ["polynomial", "--theta-prior", "uniform", "--events", "500", "--seed", "1"]
    assert simulate([*words, "--out", str(path)]) == 0
    return path


def _config(path: Path, recipe: str, options: dict[str, object]) -> dict[str, object]:
    phases = {name: {"epochs": 2, "batch_size": 50} for name in ("manifold", "density")}
    box = {"kind": "box", "low": [-1], "high": [1]}
    given = {"name": recipe, "events": str(path), "recipe": recipe, "options": options}
    return {**given, "phases": phases, "prior": box}


def test_pae_is_trained_evaluated_and_refuses_a_density(events_file: Path, tmp_path: Path):
    folder = tmp_path / "pae"
    trained = train_run(parse_config(_config(events_file, "pae", PAE)), folder)
    assert isinstance(trained, EncodedLikelihood)
    assert isinstance(trained.surrogate, ManifoldSurrogate)
    assert trained.is_manifold
    assert trained.generates
    metrics = evaluate_run(folder, str(events_file))
    assert metrics["log_prob_measure"] == "none"
    assert metrics["log_prob_mean"] is None
    assert metrics["reconstruction_error"] > 0
    assert np.isfinite(metrics["mean_wasserstein"])
    x = trained.sample(np.zeros((5, 1)), seed=1)
    assert np.isfinite(load_surrogate(folder).log_likelihood(x, [0.2])).all()
    with pytest.raises(ConfigurationError, match="chart: autoencoder"):
        trained.log_prob(x, [0.2])


def test_pae_is_the_m_flow_of_free_networks_without_its_volume(events_file: Path):
    events = read_events(str(events_file))
    of_mflow = {**PAE, "chart": {"kind": "autoencoder", **PAE["chart"]}}  # type: ignore[dict-item]
    trained = []
    for recipe, options in (("pae", PAE), ("mflow", of_mflow)):
        schedule = find_recipe(recipe).schedule.without("ratio")
        quick = {name: {"epochs": 1} for name in schedule.phase_names}
        settings = FitSettings(seed=2)
        schedule = schedule.with_phases(**quick)  # type: ignore[arg-type]
        result = train(events, recipe, options=options, schedule=schedule, settings=settings)
        trained.append(result.surrogate)
    x, theta = events.x[:20], events.require_theta()[:20]
    likelihoods = [surrogate.log_likelihood(x, theta) for surrogate in trained]
    assert np.array_equal(*likelihoods)
    assert np.array_equal(*(surrogate.project(x) for surrogate in trained))
    flow = trained[1].surrogate
    with torch.no_grad():
        volume = flow.log_volume(flow.encode(trained[1].standardise(x))).numpy()
    assert np.allclose(trained[1].log_prob(x, theta), likelihoods[1] - volume, atol=1e-4)


def test_network_options_are_those_of_the_chart():
    assert find_recipe("pae").parse_options(PAE).chart == NetworkOptions(hidden=16, blocks=1)
