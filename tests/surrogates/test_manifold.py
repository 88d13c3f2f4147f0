"""The M-flow's density: normalised on known and learned surfaces, Jacobians against autodiff."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from mflow_sbi.charts import Chart, LinearHead, build_invertible_chart
from mflow_sbi.flows import ConditionalFlow, FlowOptions, build_flow
from mflow_sbi.interfaces import ManifoldSurrogate, Surrogate
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow

THETA = torch.tensor([[0.4]], dtype=torch.float64)


class Stereographic(Chart):
    """R^d -> unit d-sphere without its pole: x = (2u, |u|^2 - 1) / (|u|^2 + 1)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.ambient_dim = latent_dim + 1

    def encode(self, x: Tensor) -> Tensor:
        return x[..., :-1] / (1.0 - x[..., -1:])

    def decode(self, u: Tensor) -> Tensor:
        square = u.square().sum(dim=-1, keepdim=True)
        return torch.cat([2.0 * u, square - 1.0], dim=-1) / (square + 1.0)


def _flow(features: int, parameter_dim: int, layers: int) -> ConditionalFlow:
    options = FlowOptions(layers=layers, hidden=16, bins=5, bound=3.0)
    density = build_flow(features, parameter_dim, options, seed=4).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in density.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += 0.2 * noise
    return density


def _density(features: int) -> ConditionalFlow:
    return _flow(features, 1, layers=2)


def _reference(features: int) -> ConditionalFlow:
    reference = _flow(features, 0, layers=2)
    u = torch.randn(300, features, generator=torch.Generator().manual_seed(6)).double()
    reference.fit_whitening(0.8 * u + 0.1)
    return reference


def _mflow(chart: Chart) -> ManifoldFlow:
    return ManifoldFlow(chart, _reference(chart.latent_dim), _density(chart.latent_dim))


def _theta(n: int) -> Tensor:
    return THETA.expand(n, 1)


def test_density_on_the_circle_integrates_to_one():
    flow = _mflow(Stereographic(1))
    n = 20_000  # midpoints, never the pole
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 * math.pi / n
    x = torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)
    density = flow.log_prob(x, _theta(n)).exp().detach()
    assert abs(float(density.sum()) * 2 * math.pi / n - 1.0) < 1e-3


def test_density_on_the_sphere_integrates_to_one():
    flow = _mflow(Stereographic(2))
    n_z, n_phi = 400, 200
    z = -1 + (torch.arange(n_z, dtype=torch.float64) + 0.5) * 2 / n_z
    phi = (torch.arange(n_phi, dtype=torch.float64) + 0.5) * 2 * math.pi / n_phi
    z, phi = torch.meshgrid(z, phi, indexing="ij")
    r = torch.sqrt(1 - z.square())
    x = torch.stack([r * torch.cos(phi), r * torch.sin(phi), z], dim=-1).reshape(-1, 3)
    density = flow.log_prob(x, _theta(len(x))).exp().detach()
    assert abs(float(density.mean()) * 4 * math.pi - 1.0) < 1e-3  # dz dphi is the sphere's area


def _invertible(latent_dim: int, ambient_dim: int) -> Chart:
    options = FlowOptions(layers=3, hidden=16, bins=5, bound=3.0)
    x = torch.randn(300, ambient_dim, generator=torch.Generator().manual_seed(0)).double()
    chart = build_invertible_chart(LinearHead.fit(x), latent_dim, options, seed=2).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in chart.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += 0.3 * noise
    return chart


def test_density_on_a_learned_curve_integrates_to_one_over_its_arc_length():
    flow = _mflow(_invertible(1, 3))
    u = torch.linspace(-30, 30, 30_001, dtype=torch.float64)[:, None]
    x = flow.decode(u).detach()
    length = torch.linalg.vector_norm(x[1:] - x[:-1], dim=-1)  # knows nothing of Jacobians
    middle = flow.decode(0.5 * (u[1:] + u[:-1])).detach()
    density = flow.log_prob(middle, _theta(len(middle))).exp().detach()
    assert abs(float((density * length).sum()) - 1.0) < 1e-3


@pytest.mark.parametrize(("latent_dim", "ambient_dim"), [(1, 2), (3, 5), (4, 4)])
def test_both_jacobians_are_those_of_autodiff(latent_dim, ambient_dim):
    flow = _mflow(_invertible(latent_dim, ambient_dim))
    noise = torch.randn(60, latent_dim, generator=torch.Generator().manual_seed(1)).double()

    def generate(one: Tensor) -> Tensor:
        return flow.decode(flow.density.decode_noise(one[None], THETA))[0]

    jacobian = vmap(jacrev(generate))(noise)  # noise -> events, both maps at once
    log_volume = 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet
    base = -0.5 * noise.square().sum(-1) - 0.5 * latent_dim * math.log(2 * math.pi)
    events = vmap(generate)(noise)
    got = flow.log_prob(events, _theta(len(events)))
    torch.testing.assert_close(got, base - log_volume, atol=1e-8, rtol=0)


def test_ambient_density_is_that_of_autodiff_and_normalised():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double()
    x = torch.cat([x, x[:, :1] - 2 * x[:, 1:]], dim=-1)  # one linear constraint
    flow = AmbientFlow(LinearHead.fit(x), _reference(2), _density(2))
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    plane = torch.stack([a, b], dim=-1).reshape(-1, 2) @ flow.head.basis.T + flow.head.mean
    log_prob = torch.cat([flow.log_prob(part, _theta(len(part))) for part in plane.split(100_000)])
    area = float((axis[1] - axis[0]).square())
    assert abs(float(log_prob.detach().exp().sum()) * area - 1.0) < 1e-3


def test_samples_lie_on_the_surface_and_repeat():
    flow = _mflow(_invertible(2, 4))
    theta = torch.zeros(500, 1, dtype=torch.float64)
    x = flow.sample(theta, seed=1)
    assert flow.reconstruction_error(x).max() < 1e-9
    assert torch.equal(x, flow.sample(theta, seed=1))
    assert not torch.equal(x, flow.sample(theta, seed=2))


def test_likelihood_ratios_do_not_need_the_volume():
    flow = _mflow(_invertible(2, 4))
    x = flow.sample(torch.zeros(50, 1, dtype=torch.float64), seed=1)
    here, there = torch.full((50, 1), 0.3).double(), torch.full((50, 1), -0.8).double()
    exact = flow.log_prob(x, here) - flow.log_prob(x, there)
    cheap = flow.log_likelihood(x, here) - flow.log_likelihood(x, there)
    torch.testing.assert_close(cheap, exact, atol=1e-10, rtol=0)


def test_surrogates_satisfy_the_protocols():
    manifold = _mflow(_invertible(2, 4))
    ambient = AmbientFlow(LinearHead(4, 4), _reference(4), _density(4))
    assert isinstance(manifold, ManifoldSurrogate)
    assert isinstance(ambient, Surrogate)
    assert not isinstance(ambient, ManifoldSurrogate)
