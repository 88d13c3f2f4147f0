"""Joint training, joint scores, transport: gradients, minima, and what must not move."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mflow_sbi.charts import (
    Chart,
    LinearHead,
    NetworkOptions,
    build_autoencoder_chart,
    build_encoded_chart,
    build_invertible_chart,
    decoder_jacobian,
)
from mflow_sbi.errors import TrainingError
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import (
    SampleTransport,
    ScoreMatching,
    SurfaceNegativeLogProb,
    TrainingBatch,
)

SMALL = FlowOptions(layers=2, hidden=16, bins=5)
AFFINE = FlowOptions(layers=2, hidden=16, coupling="affine")
NETWORK = NetworkOptions(hidden=16, blocks=1)

CHARTS: dict[str, Callable[[LinearHead], Chart]] = {
    "invertible": lambda head: build_invertible_chart(head, 2, AFFINE, 1),
    "spline": lambda head: build_invertible_chart(head, 2, SMALL, 1),
    "encoded": lambda head: build_encoded_chart(head, 2, NETWORK, AFFINE, 1),
    "autoencoder": lambda head: build_autoencoder_chart(head, 2, NETWORK, 1),
}


def _events(n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn((n, 2), generator=generator, dtype=torch.float64)
    x = torch.stack([u[:, 0], u[:, 1], torch.sin(u[:, 0]) + 0.1 * u[:, 1]], dim=1)
    return x, torch.randn((n, 1), generator=generator, dtype=torch.float64)


def _perturb(flow: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(params=CHARTS)
def flow(request: pytest.FixtureRequest) -> ManifoldFlow:
    chart = CHARTS[request.param](LinearHead.fit(_events(200)[0]))
    made = ManifoldFlow(chart, build_flow(2, 0, AFFINE, 2), build_flow(2, 1, SMALL, 3))
    _perturb(made, 4)
    return made.double()


def _log_prob_by_autodiff(flow: ManifoldFlow, x: Tensor, theta: Tensor) -> Tensor:
    """log p(u|theta) - 1/2 log det J^T J with J by forward-mode autodiff of the whole decoder."""
    u = flow.encode(x)
    jacobian = decoder_jacobian(flow.decode, u)
    volume = 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet
    return flow.density.log_prob(u, theta) - volume


def test_simultaneous_gradient_is_that_of_the_exact_density(flow):
    x, theta = _events()
    parameters = [p for p in flow.parameters() if p.requires_grad]
    objective = SurfaceNegativeLogProb()(flow, TrainingBatch(x, theta))
    found = torch.autograd.grad(objective, parameters, allow_unused=True)
    expected = -_log_prob_by_autodiff(flow, x, theta).mean()
    slopes = torch.autograd.grad(expected, parameters, allow_unused=True)
    assert float(objective.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    largest = 0.0
    for mine, other in zip(found, slopes, strict=True):
        a, b = (torch.zeros((), dtype=x.dtype) if g is None else g for g in (mine, other))
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)
        largest = max(largest, float(a.abs().max()))
    assert largest > 0.01


class _Gaussian(nn.Module):
    """log N(u; a theta, 1), u one number: its score a (u - a theta) is known."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def latent_log_prob(self, u: Tensor, theta: Tensor) -> Tensor:
        centred = (u - self.slope * theta)[:, 0]
        return -0.5 * centred.square() - 0.5 * math.log(2 * math.pi)


TRUE_SLOPE = 0.8


def _scored(n: int, latent_noise: float) -> TrainingBatch:
    """Events with joint scores: the score of x plus noise of mean zero given (x, theta)."""
    generator = torch.Generator().manual_seed(7)
    theta, noise, extra = torch.randn((3, n, 1), generator=generator, dtype=torch.float64)
    u = TRUE_SLOPE * theta + noise
    return TrainingBatch(u, theta, u, TRUE_SLOPE * noise + latent_noise * extra)


def test_score_matching_vanishes_at_the_true_density_only():
    batch = _scored(500, 0.0)
    assert float(ScoreMatching()(_Gaussian(TRUE_SLOPE), batch).detach()) == pytest.approx(0.0)
    for other in (0.5, 1.1):
        assert float(ScoreMatching()(_Gaussian(other), batch).detach()) > 0.05


def test_score_matching_is_unbiased_with_joint_scores():
    n, noise = 200_000, 3.0
    batch, truth = _scored(n, noise), _Gaussian(TRUE_SLOPE)
    value = ScoreMatching()(truth, batch)
    assert float(value.detach()) == pytest.approx(noise**2, rel=0.02)
    (slope,) = torch.autograd.grad(value, truth.slope)
    # |d/da of the score| = |u - 2 a theta| has mean square 1 + a^2
    error = 2 * noise * math.sqrt((1 + TRUE_SLOPE**2) / n)
    assert abs(float(slope)) < 4 * error
    biased = _Gaussian(TRUE_SLOPE + 0.2)
    (pull,) = torch.autograd.grad(ScoreMatching()(biased, batch), biased.slope)
    assert float(pull) > 10 * error


def test_score_matching_has_the_gradient_of_its_value():
    batch, density = _scored(50, 1.0), _Gaussian(0.3)
    (slope,) = torch.autograd.grad(ScoreMatching()(density, batch), density.slope)
    with torch.no_grad():  # as in validation
        ahead, behind = (ScoreMatching()(_Gaussian(0.3 + h), batch) for h in (1e-5, -1e-5))
    assert not ahead.requires_grad
    assert float(slope) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-6)


def test_score_matching_asks_for_scores():
    batch = TrainingBatch(*_events()[:2], resting=_events()[0])
    with pytest.raises(TrainingError, match="needs the joint scores"):
        ScoreMatching()(_Gaussian(1.0), batch)


def _generated(shift: float = 0.0) -> tuple[ManifoldFlow, TrainingBatch]:
    """A flow, and events that are its own, with theta that moves them."""
    chart = CHARTS["invertible"](LinearHead.fit(_events(200)[0]))
    flow = ManifoldFlow(chart, build_flow(2, 0, AFFINE, 2), build_flow(2, 1, SMALL, 3))
    _perturb(flow, 4)
    theta = torch.linspace(-1.5, 1.5, 300, dtype=torch.float64)[:, None]
    flow = flow.double()
    return flow, TrainingBatch(flow.sample(theta, seed=5) + shift, theta)


def test_transport_is_small_for_events_of_the_surrogate_and_grows_with_their_distance():
    values = []
    for shift in (0.0, 0.5, 1.0):
        flow, batch = _generated(shift)
        values.append(float(SampleTransport(parameter_weight=0.0)(flow, batch).detach()))
    assert 0 < values[0] < 0.25 * values[1] < 0.25 * values[2]


@pytest.mark.parametrize(("weight", "sees"), [(0.0, False), (1.0, True)])
def test_transport_sees_theta_only_if_theta_has_a_weight(weight, sees):
    flow, batch = _generated()
    x = torch.cat([batch.theta, batch.theta.square() - 1, batch.theta], dim=1)

    class FollowsTheta:
        density = flow.density

        def decode(self, u: Tensor) -> Tensor:
            return x + 0.0 * u[:, :1]

    objective = SampleTransport(parameter_weight=weight)
    right = objective(FollowsTheta(), TrainingBatch(x, batch.theta))
    wrong = objective(FollowsTheta(), TrainingBatch(x.flip(0), batch.theta))
    assert float(right.detach()) == pytest.approx(0.0, abs=1e-9)
    assert bool(wrong > 0.1) == sees


def test_transport_moves_chart_and_density_and_repeats():
    flow, batch = _generated(0.3)
    first, second = (SampleTransport()(flow, batch) for _ in range(2))
    assert float(first.detach()) == float(second.detach())
    slopes = torch.autograd.grad(first, list(flow.parameters()), allow_unused=True)
    moved = {
        name.split(".")[0]
        for (name, _), slope in zip(flow.named_parameters(), slopes, strict=True)
        if slope is not None and bool(slope.abs().max() > 0)
    }
    assert moved == {"chart", "reference", "density"}


def test_transport_of_a_large_batch_is_the_mean_over_its_parts():
    flow, batch = _generated(0.3)
    halves = [
        TrainingBatch(batch.x[part], batch.theta[part]) for part in (range(150), range(150, 300))
    ]
    whole = float(SampleTransport(rows=150)(flow, batch).detach())
    parts = [float(SampleTransport()(flow, half).detach()) for half in halves]
    assert whole == pytest.approx(sum(parts) / 2)
