r"""Data on a line in the plane, and three ways to look for the line.

Events (0, x_2), x_2 ~ N(0, 1); the model is a line through the origin at angle alpha to the first
axis with a normal density of width sigma along it.  Events are projected onto the line, so

    mean log p = -log(sigma sqrt(2 pi)) - sin^2(alpha) / (2 sigma^2)

is unbounded: the line turns away from the data and sigma shrinks.  At the true line it is -1.42.

References:
    Brehmer and Cranmer (2020), arXiv:2003.13913, section 2.C.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from mflow_sbi.charts import InvertibleChart, LinearHead
from mflow_sbi.errors import ChartError, TrainingError
from mflow_sbi.flows import FlowOptions, build_flow, build_transform
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import (
    FitSettings,
    LatentNegativeLogProb,
    Phase,
    Reconstruction,
    Schedule,
    SurfaceNegativeLogProb,
    TrainingEvents,
    fit,
)

__all__ = ["SCHEDULES", "count_lines"]

LINEAR = FlowOptions(layers=0)
TRUE_LOG_PROB = -0.5 * math.log(2 * math.pi) - 0.5
EVENTS, TURN = 300, 0.7


def _phase(name: str, reconstruction: float, likelihood: float, epochs: int = 50) -> Phase:
    """Return a phase of both objectives with these weights, those of weight zero left out."""
    pairs = ((Reconstruction(1e-6), reconstruction), (SurfaceNegativeLogProb(), likelihood))
    objectives = tuple((objective, weight) for objective, weight in pairs if weight)
    trains = ("chart", "density") if likelihood else ("chart",)
    return Phase(name, objectives, trains, epochs=epochs, batch_size=27, learning_rate=0.1)


_DENSITY = Phase(
    "density",
    ((LatentNegativeLogProb(), 1.0),),
    ("density",),
    epochs=5,
    batch_size=27,
    learning_rate=0.1,
)

SCHEDULES: Mapping[str, Schedule] = {
    "naive": Schedule((_phase("joint", 0.0, 1.0),)),
    "sequential": Schedule((_phase("manifold", 1.0, 0.0, 25), _DENSITY)),
    "simultaneous_weak": Schedule((_phase("joint", 1.0, 0.01), _DENSITY)),
    "simultaneous_strong": Schedule((_phase("joint", 1.0, 10.0), _DENSITY)),
}
"""Likelihood alone; M/D; both together, likelihood weighing 0.01 and 10 times reconstruction."""


class _Line(NamedTuple):
    """Angle to the true line, degrees, and mean log density of the projected events."""

    angle: float
    log_prob: float


def _random_line(seed: int) -> ManifoldFlow:
    """Return a line of random angle with a normal density along it."""
    transform = build_transform(2, 0, LINEAR)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += TURN * torch.randn(parameter.shape, generator=generator)
    chart = InvertibleChart(LinearHead(2, 2), transform, latent_dim=1)
    flows = build_flow(1, 0, LINEAR, seed), build_flow(1, 1, LINEAR, seed)
    return ManifoldFlow(chart, *flows).double()


def _learned_line(schedule: Schedule, seed: int) -> _Line:
    """Return the line that a schedule ends at."""
    quantiles = (torch.arange(EVENTS, dtype=torch.float64) + 0.5) / EVENTS
    x = torch.zeros(EVENTS, 2, dtype=torch.float64)
    x[:, 1] = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    theta = torch.zeros(EVENTS, 1, dtype=torch.float64)
    flow = _random_line(seed)
    fit(flow, TrainingEvents(x, theta), schedule, FitSettings(seed=seed))
    with torch.no_grad():
        _, tangent = flow.chart.decode_with_jacobian(torch.zeros(1, 1, dtype=torch.float64))
        log_prob = float(flow.log_prob(x, theta).mean())
    sine = float((tangent[0, 1, 0] / tangent[0, :, 0].norm()).abs())
    return _Line(90.0 - math.degrees(math.asin(min(1.0, sine))), log_prob)


def count_lines(name: str, n_seeds: int) -> dict[str, float]:
    """Return how many seeds of a schedule find the line, and how many run away from it.

    recovered   within 1 degree of the true line
    diverged    more than 45 degrees off with a larger likelihood than the truth's, or without a
                volume at all
    """
    recovered = diverged = 0
    best = -math.inf
    for seed in range(n_seeds):
        try:
            line = _learned_line(SCHEDULES[name], seed)
        except (ChartError, TrainingError):
            diverged += 1
            continue
        recovered += line.angle < 1.0
        diverged += line.angle > 45.0 and line.log_prob > TRUE_LOG_PROB
        best = max(best, line.log_prob)
    counts = {"recovered": float(recovered), "diverged": float(diverged), "seeds": float(n_seeds)}
    return counts | {"largest_log_prob": best}
