"""A tilted reference: normalised, sampled exactly, condensed once, ambient or on a surface."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.charts import Chart, LinearHead
from mflow_sbi.densities import (
    MorphingRatio,
    MorphingShape,
    ObservableFeatures,
    StandardNormal,
    SymmetryGroup,
)
from mflow_sbi.flows import ConditionalFlow, FlowOptions, build_flow
from mflow_sbi.interfaces import CondensingSurrogate, ManifoldSurrogate, Surrogate
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow, TiltedFlow, tilt

EXPONENTS = np.array([[0], [1], [2]])
TRAINING_THETA = np.random.default_rng(0).normal(size=(500, 1))


class Circle(Chart):
    """R -> unit circle without a point: x = (2u, u^2 - 1) / (u^2 + 1)."""

    latent_dim, ambient_dim = 1, 2

    def encode(self, x: Tensor) -> Tensor:
        return x[..., :1] / (1.0 - x[..., 1:])

    def decode(self, u: Tensor) -> Tensor:
        return torch.cat([2.0 * u, u.square() - 1.0], dim=-1) / (u.square() + 1.0)


def _reference(features: int) -> ConditionalFlow:
    options = FlowOptions(layers=2, hidden=16, bins=5, bound=3.0)
    flow = build_flow(features, 0, options, seed=4).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator).double()
    return flow


def _ratio(features: ObservableFeatures) -> MorphingRatio:
    group = SymmetryGroup.generated_by([], features.feature_dim, 1)
    ratio = MorphingRatio(MorphingShape(features.feature_dim, 1, 3, 2, 1, 16, 2), seed=5)
    ratio.fill(EXPONENTS, TRAINING_THETA, np.array([1.0, 0.2, 0.8]), group)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in ratio.double().parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return ratio


def _tilted(on_surface: bool) -> TiltedFlow:  # noqa: FBT001
    chart = Circle() if on_surface else None
    normal = StandardNormal(1 if chart else 2, 1).double()
    if chart is not None:
        base = ManifoldFlow(chart, _reference(1), normal)
    else:
        base = AmbientFlow(LinearHead(2, 2), _reference(2), normal)
    x = base.sample(torch.zeros(2000, 1, dtype=torch.float64), seed=1)
    features = ObservableFeatures.for_observables(x, np.zeros(2), np.ones(2))
    features.fit(x, torch.zeros(4, dtype=torch.bool))
    return tilt(base, features, _ratio(features))


both = pytest.mark.parametrize("on_surface", [True, False], ids=["circle", "plane"])


def _grid(on_surface: bool) -> tuple[Tensor, float]:  # noqa: FBT001
    """Return points and the volume of each."""
    if on_surface:
        n = 20_000
        angle = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 * math.pi / n
        return torch.stack([angle.cos(), angle.sin()], dim=-1), 2 * math.pi / n
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    return plane, 0.01


@both
@torch.no_grad()
def test_mixture_of_all_training_thetas_is_the_normalised_reference(on_surface):
    flow = _tilted(on_surface)
    points, volume = _grid(on_surface)
    theta = (torch.from_numpy(TRAINING_THETA) - TRAINING_THETA.mean()) / TRAINING_THETA.std()
    condensed = flow.condense(points)
    ratio = torch.zeros(len(points), dtype=torch.float64)
    for some in theta.split(50):
        ratio += flow.condensed_log_likelihood(condensed, some[:, None]).exp().sum(dim=0)
    zeros = torch.zeros(len(points), 1, dtype=torch.float64)
    mixture = flow.reference.log_prob(points, zeros).exp() * ratio / len(theta)
    assert abs(float(mixture.sum()) * volume - 1) < 2e-3


@both
@torch.no_grad()
def test_samples_follow_the_density(on_surface):
    flow = _tilted(on_surface)
    points, volume = _grid(on_surface)
    at = torch.tensor([[1.3]], dtype=torch.float64)
    density = flow.log_prob(points, at.expand(len(points), 1)).exp()
    mass = density / density.sum()
    n = 4000
    x = flow.sample(at.expand(n, 1), seed=3)
    for moment in (lambda v: v.clamp(-3, 3), lambda v: v.clamp(-3, 3).square()):
        expected = (mass[:, None] * moment(points)).sum(dim=0)
        spread = (mass[:, None] * moment(points).square()).sum(dim=0) - expected.square()
        off = (moment(x).mean(dim=0) - expected).abs() / torch.sqrt(spread / n)
        assert off.max() < 4
    reference = flow.reference.sample(at.expand(n, 1), seed=4)
    tilt_of_mean = (reference.clamp(-3, 3).mean(dim=0) - x.clamp(-3, 3).mean(dim=0)).abs()
    assert tilt_of_mean.max() > 0.1  # the reference alone would not do
    assert torch.equal(x, flow.sample(at.expand(n, 1), seed=3))


@both
@torch.no_grad()
def test_condensing_once_gives_the_likelihood(on_surface):
    flow = _tilted(on_surface)
    assert isinstance(flow, CondensingSurrogate)
    assert isinstance(flow, Surrogate)
    assert isinstance(flow, ManifoldSurrogate) == on_surface
    theta = torch.linspace(-2, 2, 30, dtype=torch.float64)[:, None]
    x = flow.sample(theta, seed=1)
    condensed = flow.condense(x)
    assert condensed.shape == (30, 3)
    table = flow.condensed_log_likelihood(condensed, theta[:, None])
    torch.testing.assert_close(table.diagonal(), flow.log_likelihood(x, theta))
    difference = flow.log_prob(x, theta) - flow.log_likelihood(x, theta)
    again = flow.log_prob(x, theta.flip(0)) - flow.log_likelihood(x, theta.flip(0))
    torch.testing.assert_close(difference, again)


@both
@torch.no_grad()
def test_latents_come_back(on_surface):
    flow = _tilted(on_surface)
    u = torch.randn(50, flow.latent_dim, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(flow.encode(flow.decode(u)), u, atol=1e-8, rtol=1e-8)
    theta = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    x = flow.decode(u)
    here = flow.latent_log_prob(u, theta) - flow.reference.latent_log_prob(u, theta)
    torch.testing.assert_close(here, flow.log_likelihood(x, theta))
