"""Our surrogates inside sbi: densities, potentials, samplers and diagnostics are ours."""

import copy
import math

import numpy as np
import pytest
import torch
from sbi.diagnostics import run_sbc
from sbi.inference import MCMCPosterior, likelihood_estimator_based_potential
from torch import Tensor
from torch.distributions import Independent, Normal

from mflow_sbi.baselines import as_sbi_estimator
from mflow_sbi.charts import Chart
from mflow_sbi.errors import ConfigurationError, EventDataError, LikelihoodError, ShapeError
from mflow_sbi.events import Standardizer
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.inference import CachedLikelihood, common_grid, grid_posterior
from mflow_sbi.recipes import train
from mflow_sbi.surrogates import ManifoldFlow, TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord

from .toys import NAMES, PRIOR, linear_events, metadata

N_EVENTS = 20


class Paraboloid(Chart):
    """(u_1, u_2) -> (u_1, u_2, c |u|^2): no event elsewhere."""

    ambient_dim, latent_dim, curvature = 3, 2, 0.3

    def encode(self, x: Tensor) -> Tensor:
        return x[..., :2]

    def decode(self, u: Tensor) -> Tensor:
        return torch.cat([u, self.curvature * u.square().sum(dim=-1, keepdim=True)], dim=-1)


def _surrogate() -> TrainedSurrogate:
    """Return an M-flow with random weights, moved by theta, in single precision as trained."""
    rng = np.random.default_rng(0)
    theta = 0.1 + 0.8 * rng.normal(size=(400, 2))
    u = rng.normal(size=(400, 2)) + theta
    x = 200 * np.column_stack([u, 0.3 * np.square(u).sum(axis=1)]) + 300
    options = FlowOptions(layers=2, hidden=8, coupling="affine")
    chart, reference = Paraboloid(), build_flow(2, 0, FlowOptions(layers=0), seed=1)
    flow = ManifoldFlow(chart, reference, build_flow(2, 2, options, seed=2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.density.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
    observables, parameters = Standardizer.fit(x), Standardizer.fit(theta)
    record = SurrogateRecord("mflow", {}, {}, 1, observables, parameters, metadata(), {})
    return TrainedSurrogate(flow, record)


@pytest.fixture(scope="module")
def trained() -> TrainedSurrogate:
    torch.set_num_threads(1)
    return _surrogate()


@pytest.fixture(scope="module")
def observed(trained: TrainedSurrogate) -> np.ndarray:
    return trained.sample(np.tile([[0.5, -0.3]], (N_EVENTS, 1)), seed=4)


@pytest.fixture(scope="module")
def prior() -> Independent:
    return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)


def _points(n: int) -> np.ndarray:
    return PRIOR.sample(n, np.random.default_rng(1)).astype(np.float32).astype(np.float64)


def test_densities_are_ours(trained: TrainedSurrogate, observed: np.ndarray) -> None:
    estimator, theta = as_sbi_estimator(trained, observed), _points(7)
    shown = torch.from_numpy(observed).float()
    table = estimator.log_prob(shown[:, None].expand(-1, 7, -1), torch.from_numpy(theta).float())
    assert table.shape == (N_EVENTS, 7)
    assert table.dtype == torch.float64
    exact = np.stack([trained.log_prob(observed, point) for point in theta], axis=1)
    assert np.abs(table.numpy() - exact).max() < 1e-4
    assert np.ptp(exact) > 1
    one = estimator.log_prob(shown[:1, None], torch.from_numpy(theta).float())
    assert torch.allclose(one, table[:1])
    rows = estimator.log_prob(shown[None, :7], torch.from_numpy(theta).float())
    assert torch.allclose(rows[0], table[:7].diagonal())
    assert torch.allclose(estimator.log_prob(shown[:7], torch.from_numpy(theta).float()), rows)
    own = torch.from_numpy(np.stack([theta, theta[::-1]])).float()
    both = estimator.log_prob(shown[None, :7], own)
    assert both.shape == (2, 7)
    assert torch.allclose(both[0], rows[0])
    assert torch.allclose(both[1], table[:7].flip(1).diagonal())
    assert torch.allclose(estimator.loss(shown[:7], torch.from_numpy(theta).float()), -rows[0])


def test_potentials_are_ours_in_chunks_of_any_size(
    trained: TrainedSurrogate, observed: np.ndarray, prior: Independent
) -> None:
    theta = _points(300)
    ours = CachedLikelihood(trained, observed)(theta) + PRIOR.log_prob(theta)
    values = {}
    for chunk_rows in (1, 64, 10_000):
        estimator = as_sbi_estimator(trained, observed, chunk_rows=chunk_rows)
        potential, _ = likelihood_estimator_based_potential(
            estimator, prior, torch.from_numpy(observed)
        )
        points = theta[:20] if chunk_rows == 1 else theta
        values[chunk_rows] = potential(torch.from_numpy(points).float()).numpy()
    apart = values[64] - ours
    assert np.ptp(apart) < 1e-4
    assert np.ptp(ours) > 10
    assert np.allclose(values[64], values[10_000], atol=1e-5)
    assert np.allclose(values[1], values[64][:20], atol=1e-5)


def test_what_does_not_depend_on_theta_is_evaluated_once(
    trained: TrainedSurrogate, observed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator, theta = as_sbi_estimator(trained), torch.from_numpy(_points(4)).float()
    shown = torch.from_numpy(observed).float()[:, None].expand(-1, 4, -1)
    calls, encode = [], Paraboloid.encode
    monkeypatch.setattr(Paraboloid, "encode", lambda s, x: (calls.append(len(x)), encode(s, x))[1])
    first = estimator.log_prob(shown, theta)
    n_calls = len(calls)
    assert torch.equal(first, estimator.log_prob(shown, theta))
    assert len(calls) == n_calls > 0
    estimator.log_prob(shown[:3], theta)
    assert len(calls) > n_calls


def test_thin_gaps_survive_single_precision(trained: TrainedSurrogate) -> None:
    x = trained.sample(np.tile([[0.5, -0.3]], (N_EVENTS, 1)), seed=5)
    shift = 3e-6 * np.abs(x)  # below the rounding of what sbi shows
    known = as_sbi_estimator(trained, x + shift)
    shown = torch.from_numpy(x + shift).float()
    theta = torch.zeros(1, 2)
    exact = trained.log_prob((x + shift), [0.0, 0.0])
    rounded = as_sbi_estimator(trained).log_prob(shown[:, None], theta)[:, 0].numpy()
    kept = known.log_prob(shown[:, None], theta)[:, 0].numpy()
    assert np.array_equal(kept, exact) or np.abs(kept - exact).max() < 1e-6
    assert np.abs(rounded - exact).max() > 0


def test_gradients_reach_theta(trained: TrainedSurrogate, observed: np.ndarray) -> None:
    estimator, theta = as_sbi_estimator(trained), torch.from_numpy(_points(5)).float()
    theta.requires_grad_()
    shown = torch.from_numpy(observed).float()[:, None].expand(-1, 5, -1)
    total = estimator.log_prob(shown, theta).sum(dim=0)
    (slopes,) = torch.autograd.grad(total.sum(), theta)
    points = theta.detach().double().numpy()
    rounded = observed.astype(np.float32).astype(np.float64)
    _, ours = CachedLikelihood(trained, rounded).value_and_gradient(points)
    assert np.allclose(slopes.numpy(), ours, rtol=1e-3, atol=1e-3)
    assert not estimator.log_prob(shown, theta.detach()).requires_grad


def test_a_chain_of_sbi_samples_our_posterior(
    trained: TrainedSurrogate, observed: np.ndarray, prior: Independent
) -> None:
    torch.manual_seed(1)
    potential, transform = likelihood_estimator_based_potential(
        as_sbi_estimator(trained, observed), prior, torch.from_numpy(observed)
    )
    sampler = MCMCPosterior(
        potential,
        prior,
        transform,
        method="slice_np_vectorized",
        num_chains=100,
        warmup_steps=30,
        thin=1,
        init_strategy_parameters={"num_candidate_samples": 100},
    )
    draws = sampler.sample((6000,), x=torch.from_numpy(observed), show_progress_bars=False)
    likelihood = CachedLikelihood(trained, observed)
    ours = grid_posterior(likelihood, PRIOR, common_grid([likelihood], PRIOR, 60))
    mean, width = ours.mean, ours.std
    assert np.abs((draws.numpy().mean(axis=0) - mean) / width).max() < 0.05
    assert np.abs(draws.numpy().std(axis=0) / width - 1).max() < 0.05


def test_diagnostics_of_sbi_run(trained: TrainedSurrogate, prior: Independent) -> None:
    torch.manual_seed(2)
    estimator = as_sbi_estimator(trained)
    theta = prior.sample((10,))
    events = estimator.sample(torch.Size((1,)), theta)[0]
    assert events.shape == (10, 3)
    potential, transform = likelihood_estimator_based_potential(estimator, prior, events[:1])
    sampler = MCMCPosterior(
        potential, prior, transform, num_chains=2, warmup_steps=5, thin=1, init_strategy="proposal"
    )
    with pytest.warns(UserWarning, match="on the order of 100s"):
        ranks, _ = run_sbc(theta, events, sampler, 20, show_progress_bar=False)
    assert ranks.shape == (10, 2)
    assert 0 < float(ranks.mean()) < 20


def test_samples_follow_theta(trained: TrainedSurrogate) -> None:
    estimator = as_sbi_estimator(trained)
    torch.manual_seed(3)
    theta = torch.tensor([[0.0, 0.0], [1.0, 0.5]])
    drawn = estimator.sample(torch.Size((4, 3)), theta)
    assert drawn.shape == (4, 3, 2, 3)
    assert drawn.dtype == torch.float32
    torch.manual_seed(3)
    assert torch.equal(drawn, estimator.sample(torch.Size((4, 3)), theta))
    ours = trained.sample(np.tile(theta.numpy(), (2000, 1)), seed=1).reshape(2000, 2, 3)
    many = estimator.sample(torch.Size((2000,)), theta).numpy()
    error = ours.std(axis=0) / math.sqrt(1000)
    assert (np.abs(ours.mean(axis=0) - many.mean(axis=0)) < 5 * error).all()


def test_copies_are_independent(trained: TrainedSurrogate, observed: np.ndarray) -> None:
    estimator = as_sbi_estimator(trained, observed)
    shown = torch.from_numpy(observed).float()
    theta = torch.zeros(1, 2)
    before = estimator.log_prob(shown[:, None], theta)
    assert torch.equal(copy.deepcopy(estimator).log_prob(shown[:, None], theta), before)


def test_estimators_without_a_density_serve_as_likelihoods(prior: Independent) -> None:
    events = linear_events(400, 1)
    trained = train(events, "nre", options={"hidden": 8}).surrogate
    x, theta = events.x[:8], _points(30)
    potential, _ = likelihood_estimator_based_potential(
        as_sbi_estimator(trained, x), prior, torch.from_numpy(x)
    )
    ours = CachedLikelihood(trained, x)(theta) + PRIOR.log_prob(theta)
    assert np.ptp(potential(torch.from_numpy(theta).float()).numpy() - ours) < 1e-4
    assert trained.parameter_names == NAMES


def test_what_does_not_fit_is_refused(trained: TrainedSurrogate) -> None:
    estimator = as_sbi_estimator(trained)
    with pytest.raises(ValueError, match="Shape of input"):
        estimator.log_prob(torch.zeros(1, 1, 5), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="Shape of condition"):
        estimator.log_prob(torch.zeros(1, 1, 3), torch.zeros(1, 4))
    with pytest.raises(LikelihoodError, match="1 of 1 without a density"):
        estimator.log_prob(torch.full((1, 1, 3), torch.nan), torch.zeros(1, 2))
    with pytest.raises(ShapeError, match="chunk_rows"):
        as_sbi_estimator(trained, chunk_rows=0)
    with pytest.raises(EventDataError, match="at least one observed event"):
        as_sbi_estimator(trained, np.zeros((0, 3)))
    grouped = linear_events(40, 1, each=3)
    tiny = {"sets": 60, "event_hidden": 4, "summaries": 2, "embedding": 2, "transforms": 1}
    of_sets = train(grouped, "sbi_npe", options=tiny).surrogate
    with pytest.raises(ConfigurationError, match="events one by one, got recipe 'sbi_npe'"):
        as_sbi_estimator(of_sets)
