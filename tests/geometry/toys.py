"""Surrogates on a known curve: x = (u, u^2 / 4), u | theta ~ N(theta, 1), units of 50 GeV."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mflow_sbi.charts import Chart, LinearHead
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter, Standardizer
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.interfaces import Array, Measure, Surrogate
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow, TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord

END = 4.0
DIGESTS = {"training_events": "f" * 64}
METADATA = EventMetadata(
    process="toy",
    tree="t",
    layout="flat",
    parameters=(Parameter("mu"),),
    observables=(Observable("x0", unit="GeV"), Observable("x1", unit="GeV")),
)


class Parabola(Chart):
    """u -> (u, u^2 / 4), which ends at |u| = 4."""

    latent_dim, ambient_dim = 1, 2

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones((), dtype=torch.float64))

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :1]

    def decode(self, u: Tensor) -> Tensor:
        return torch.cat([u, 0.25 * u.square()], dim=-1) * self.unit

    def encode_with_flags(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode(x), x[:, 0].abs() < END


class NormalDensity(nn.Module):
    """u | theta ~ N(theta, 1)."""

    parameter_dim = 1

    def log_prob(self, u: Tensor, theta: Tensor) -> Tensor:
        return -0.5 * (u - theta).square().sum(dim=-1) - 0.5 * np.log(2 * np.pi)


class RatioOnly(nn.Module):
    """What a ratio estimator shows of itself."""

    ambient_dim, latent_dim, parameter_dim = 2, 1, 1
    measure: Measure = "none"


def on_curve(u: Array) -> Array:
    """Return physical events with these latents, (N,) -> (N, 2)."""
    return 100 + 50 * np.column_stack([u, 0.25 * np.square(u)])


def training_events(n: int, seed: int = 1) -> EventSample:
    """Return events at theta ~ N(0, 0.5)."""
    rng = np.random.default_rng(seed)
    theta = 0.5 * rng.normal(size=(n, 1))
    return EventSample(
        x=on_curve(theta[:, 0] + rng.normal(size=n)), metadata=METADATA, theta=theta
    )


def trained(module: nn.Module, digests: Mapping[str, str] = DIGESTS) -> TrainedSurrogate:
    scale = Standardizer(np.full(2, 100.0), np.full(2, 50.0))
    unit = Standardizer(np.zeros(1), np.ones(1))
    record = SurrogateRecord("mflow", {}, {}, 1, scale, unit, METADATA, digests)
    assert isinstance(module, Surrogate | RatioOnly)
    return TrainedSurrogate(module, record)  # pyright: ignore[reportArgumentType]


def curve_surrogate() -> TrainedSurrogate:
    reference = build_flow(1, 0, FlowOptions(layers=0), seed=1).double()
    density = NormalDensity()
    flow = ManifoldFlow(Parabola(), reference, density)  # pyright: ignore[reportArgumentType]
    return trained(flow)


def plane_surrogate() -> TrainedSurrogate:
    options = FlowOptions(layers=0)
    reference, density = (build_flow(2, p, options, seed=1).double() for p in (0, 1))
    return trained(AmbientFlow(LinearHead(2, 2), reference, density))
