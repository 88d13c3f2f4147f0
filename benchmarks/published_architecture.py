"""The published M-flow's architecture, ours and from stock nflows pieces, and its arithmetic.

40 observables, 14 latents, 2 parameters; 20 + 15 rational-quadratic coupling layers, conditioners
of 2 residual blocks 100 wide, 11 bins on [-10, 10] (arXiv:2003.13913, section 4.B).  Weights are
random and perturbed, so that splines bend and the Jacobian has full rank; speed does not depend
on training.
"""

import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets.resnet import ResidualNet
from nflows.transforms import (
    CompositeTransform,
    LULinear,
    PiecewiseRationalQuadraticCouplingTransform,
    RandomPermutation,
)
from nflows.utils import create_alternating_binary_mask
from timing import Work
from torch import Tensor, nn
from torch.func import jacfwd, vmap

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.flows import FlowOptions, build_flow, seeded
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import (
    FitSettings,
    Phase,
    Reconstruction,
    Schedule,
    TrainingBatch,
    TrainingEvents,
    fit,
)
from mflow_sbi.training.objectives import Objective

AMBIENT_DIM, LATENT_DIM, PARAMETER_DIM = 40, 14, 2
CHART = FlowOptions(layers=20, hidden=100, blocks=2, coupling="spline", bins=11, bound=10.0)
DENSITY = replace(CHART, layers=15)
REFERENCE = replace(CHART, layers=0)
SEED = 20261122
PERTURBATION = 0.03
STEP_BATCH = 100

ORIGINAL: Mapping[str, float] = MappingProxyType(
    {
        "encode_decode_events_per_cpu_s": 980.0,
        "manifold_step_events_per_cpu_s": 223.0,
        "density_step_events_per_cpu_s": 292.0,
        "exact_log_prob_events_per_cpu_s": 2.0,  # batch 5, its best
        "mcmc_evals_per_cpu_s": 9.0,  # 20 events, one walker
    }
)
"""The published code's rates with this architecture, one thread of another machine."""


def perturb(module: nn.Module, seed: int) -> None:
    """Add normal noise of standard deviation 0.03 to all parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(PERTURBATION * torch.randn(parameter.shape, generator=generator))


def build_surrogate() -> ManifoldFlow:
    """Return the M-flow of this package, float32, in evaluation mode."""
    surrogate = ManifoldFlow(
        build_invertible_chart(LinearHead(AMBIENT_DIM, AMBIENT_DIM), LATENT_DIM, CHART, SEED),
        build_flow(LATENT_DIM, 0, REFERENCE, SEED + 1),
        build_flow(LATENT_DIM, PARAMETER_DIM, DENSITY, SEED + 2),
    )
    perturb(surrogate, SEED + 3)
    return surrogate.eval()


def draw_events(n: int) -> tuple[Tensor, Tensor]:
    """Return standard normal events (n, 40) float64 and parameters (n, 2) float32."""
    generator = torch.Generator().manual_seed(SEED)
    theta = torch.randn(n, PARAMETER_DIM, generator=generator)
    return torch.randn(n, AMBIENT_DIM, generator=generator, dtype=torch.float64), theta


@dataclass(frozen=True)
class ArithmeticCount:
    """FLOPs of one event in matrix products; elementwise work is not counted.

    A product of (m, k) and (k, n) counts 2 m k n.

    Args:
        encode: the chart's map of the event.
        decode: its inverse.
        density: log p(u|theta).
        tangents: 14 tangents through the decoder, and the Gram matrix J^T J.
    """

    encode: float
    decode: float
    density: float
    tangents: float

    @property
    def exact_log_prob(self) -> float:
        """Encode, density, decode and tangents."""
        return self.encode + self.density + self.decode + self.tangents


def count_arithmetic() -> ArithmeticCount:
    r"""Return the FLOPs of one event by formula.

    Conditioner of a layer with i inputs, f transformed features, hidden width h, b blocks and
    P = 3 bins - 1 parameters per spline: body B = i h + 2 b h^2, last layer L = h f P, both
    twice in FLOPs; each linear map of F features 2 F^2.

    A tangent goes through the body, 2 B.  The spline's derivative with respect to its parameters
    is contracted with the last layer first, once an event, (f, P) x (f, P, h) -> (f, h): 2 L;
    each tangent then takes 2 h f instead of 2 L.
    """
    parameters = 3 * CHART.bins - 1
    hidden, half = CHART.hidden, AMBIENT_DIM // 2

    def body(inputs: int) -> int:
        return inputs * hidden + 2 * CHART.blocks * hidden**2

    splits = [(LATENT_DIM, AMBIENT_DIM - LATENT_DIM), *[(half, half)] * (CHART.layers - 1)]
    linear = 2 * (CHART.layers + 1) * AMBIENT_DIM**2
    head = 2 * AMBIENT_DIM**2
    one_way = linear + head + sum(2 * (body(i) + hidden * f * parameters) for i, f in splits)
    along = linear + head + sum(2 * (body(i) + hidden * f) for i, f in splits)
    contracted = sum(2 * hidden * f * parameters for _, f in splits)
    gram = 2 * AMBIENT_DIM * LATENT_DIM**2

    half = LATENT_DIM // 2
    gates = DENSITY.blocks * PARAMETER_DIM * hidden
    layer = body(half + PARAMETER_DIM) + gates + hidden * half * parameters
    density = 2 * (DENSITY.layers * layer + (DENSITY.layers + 1) * LATENT_DIM**2)
    return ArithmeticCount(one_way, one_way, density, LATENT_DIM * along + contracted + gram)


def jacfwd_log_prob(surrogate: ManifoldFlow, x: Tensor, theta: Tensor) -> Tensor:
    """Return log p(x|theta) with the volume the plain way: `vmap(jacfwd)` of the decoder."""
    u = surrogate.encode(x)

    def decode_one(latent: Tensor) -> Tensor:
        return surrogate.decode(latent.unsqueeze(0)).squeeze(0)

    jacobian = vmap(jacfwd(decode_one))(u).double()
    return surrogate.latent_log_prob(u, theta) - 0.5 * torch.logdet(jacobian.mT @ jacobian)


def _stock_transform(
    features: int, options: FlowOptions, context: int | None
) -> CompositeTransform:
    def net(inputs: int, outputs: int) -> ResidualNet:
        return ResidualNet(inputs, outputs, options.hidden, context, num_blocks=options.blocks)

    layers = []
    for index in range(options.layers):
        mask = create_alternating_binary_mask(features, even=index % 2 == 0)
        coupling = PiecewiseRationalQuadraticCouplingTransform(
            mask, net, num_bins=options.bins, tails="linear", tail_bound=options.bound
        )
        layers += [RandomPermutation(features), LULinear(features, identity_init=True), coupling]
    layers += [RandomPermutation(features), LULinear(features, identity_init=True)]
    return CompositeTransform(layers)


class StockChart(nn.Module):
    """The invertible chart from stock nflows transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = _stock_transform(AMBIENT_DIM, CHART, None)

    def coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents u (N, d) and off-manifold coordinates v (N, n - d)."""
        image, _ = self.transform(x.float())
        return image[:, :LATENT_DIM], image[:, LATENT_DIM:]

    def decode(self, u: Tensor) -> Tensor:
        """Return the surface point with latents u, (N, d) -> (N, n)."""
        padded = torch.cat([u, u.new_zeros(len(u), AMBIENT_DIM - LATENT_DIM)], dim=-1)
        return self.transform.inverse(padded)[0]


class StockManifoldFlow(nn.Module):
    """What the training loop and its objectives need of an M-flow, from stock nflows pieces."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(SEED):
            self.chart = StockChart()
            transform = _stock_transform(LATENT_DIM, DENSITY, PARAMETER_DIM)
            self.density = Flow(transform, StandardNormal([LATENT_DIM]))
        perturb(self, SEED + 3)

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"chart": self.chart, "density": self.density}

    def prepare(self, part: str, x: Tensor) -> None:
        """Nothing is taken from data before gradients."""

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Tensor], Tensor] | None:
        """Return the encoding while the chart rests."""
        return None if "chart" in trains else self.encode

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents, (N, n) -> (N, d)."""
        return self.chart.coordinates(x)[0]

    def latent_log_prob(self, u: Tensor, theta: Tensor) -> Tensor:
        """Return log p(u|theta), (N,)."""
        return self.density.log_prob(u, context=theta)


@dataclass(frozen=True)
class NegativeLogProb:
    """-mean log p(x|theta), exact volume included."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log density."""
        return -surrogate.log_prob(batch.x, batch.theta).mean()


@dataclass(frozen=True)
class DecodeOnly:
    """mean |x - decode(u)|^2 at fixed u, the first d columns of x: the decoder alone."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean squared distance."""
        u = batch.x[:, :LATENT_DIM].to(batch.theta.dtype)
        return (batch.x - surrogate.chart.decode(u)).square().sum(dim=-1).mean()


def training_epochs(
    surrogate: Any,  # noqa: ANN401
    objectives: tuple[Objective, ...],
    trains: tuple[str, ...],
    steps: int,
    *,
    compiled: bool = False,
) -> Work:
    """Return a Work: CPU seconds an event in the training loop, one epoch after the first."""
    phase = Phase(
        "timed",
        objectives=tuple((objective, 1.0) for objective in objectives),
        trains=trains,
        epochs=3,
        batch_size=STEP_BATCH,
        learning_rate=3e-4,
    )
    events = TrainingEvents(*draw_events(steps * STEP_BATCH + 1))
    settings = FitSettings(SEED, validation_fraction=1 / len(events.x), compiled=compiled)

    def cost() -> float:
        marks = []

        def mark(_: object) -> None:
            marks.append(time.process_time())

        fit(surrogate, events, Schedule((phase,)), settings, on_epoch=mark)
        return (marks[-1] - marks[0]) / ((len(marks) - 1) * steps * STEP_BATCH)

    return cost


@torch.no_grad()
def evaluate_in_parts(surrogate: ManifoldFlow, x: Tensor, theta: Tensor) -> Tensor:
    """Return exact log-likelihoods, 32,768 events at a time, float64 on the host."""
    parts = zip(x.split(32_768), theta.split(32_768), strict=True)
    return torch.cat([surrogate.log_prob(*part).double() for part in parts]).cpu()


def accelerator(device: torch.device, n_events: int) -> dict[str, float]:
    """Return wall seconds of exact log-likelihoods and of a manifold epoch, float32 and TF32."""
    metrics: dict[str, float] = {}
    x, theta = (tensor.to(device) for tensor in draw_events(n_events))
    exact = build_surrogate().double().to(device)
    truth = evaluate_in_parts(exact, x[:2000], theta[:2000].double())
    phase = Phase("manifold", ((Reconstruction(), 1.0),), ("chart",), 2, 4096, 3e-4)
    settings = FitSettings(SEED, validation_fraction=1 / n_events)
    for name, precision in (("", "highest"), ("_tf32", "high")):
        torch.set_float32_matmul_precision(precision)
        surrogate = build_surrogate().to(device)
        error = (evaluate_in_parts(surrogate, x[:2000], theta[:2000]) - truth).abs()
        metrics[f"gpu_log_prob_error{name}_max"] = float(error.max())
        began = time.perf_counter()
        evaluate_in_parts(surrogate, x, theta)
        metrics[f"gpu_1m_exact_log_prob{name}_s"] = time.perf_counter() - began
        history = fit(surrogate.train(), TrainingEvents(x, theta), Schedule((phase,)), settings)
        metrics[f"gpu_1m_manifold_epoch{name}_s"] = history[-1].seconds
    torch.set_float32_matmul_precision("highest")
    return metrics


def resident_memory_mb(n_events: int) -> float:
    """Return the largest resident memory of this process after n exact log-likelihoods, MB.

    For a fresh process; with n_events = 0 that of the imports alone.
    """
    torch.set_num_threads(1)
    if n_events:
        surrogate, (x, theta) = build_surrogate(), draw_events(n_events)
        with torch.no_grad():
            surrogate.log_prob(x, theta)
    # Not ru_maxrss: on Linux a fresh process inherits its parent's.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
