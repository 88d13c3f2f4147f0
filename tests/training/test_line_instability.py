r"""Why chart and density are not trained together by likelihood: data on a line in the plane.

Events (0, x_2), x_2 ~ N(0, 1); the model is a line through the origin at angle alpha to the first
axis with a normal density of width sigma along it.  Events are projected onto the line, so

    mean log p = -log(sigma sqrt(2 pi)) - sin^2(alpha) / (2 sigma^2)

is unbounded: the line turns away from the data and sigma shrinks.  At the true line it is -1.42.

References:
    Brehmer and Cranmer (2020), arXiv:2003.13913, section 2.C.
"""

import math

import pytest
import torch
from torch import Tensor

from mflow_sbi.charts import LinearHead
from mflow_sbi.charts.invertible import InvertibleChart
from mflow_sbi.flows import FlowOptions, build_flow, build_transform
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import (
    FitSettings,
    LatentNegativeLogProb,
    Phase,
    Reconstruction,
    Schedule,
    TrainingEvents,
    fit,
)

LINEAR = FlowOptions(layers=0)
TRUE_LOG_PROB = -0.5 * math.log(2 * math.pi) - 0.5
N_SEEDS = 20


def _line(seed: int) -> ManifoldFlow:
    """Return a line of random angle with a normal density along it."""
    transform = build_transform(2, 0, LINEAR)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator)
    chart = InvertibleChart(LinearHead(2, 2), transform, latent_dim=1)
    flows = build_flow(1, 0, LINEAR, seed), build_flow(1, 1, LINEAR, seed)
    return ManifoldFlow(chart, *flows).double()


def _events(n: int = 300) -> TrainingEvents:
    x = torch.zeros(n, 2, dtype=torch.float64)
    quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x[:, 1] = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    return TrainingEvents(x, torch.zeros(n, 1, dtype=torch.float64))


@torch.no_grad()
def _sine(flow: ManifoldFlow) -> Tensor:
    """Return sin(alpha) of the learned line."""
    _, tangent = flow.chart.decode_with_jacobian(torch.zeros(1, 1, dtype=torch.float64))
    return (tangent[0, 1, 0] / tangent[0, :, 0].norm()).abs()


def test_naive_likelihood_grows_without_bound_as_the_line_turns_away():
    flow, events = _line(0), _events()
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.04)
    with torch.no_grad():
        begin = flow.log_prob(*events[:2]).mean()
    for _ in range(300):
        optimizer.zero_grad()
        loss = -flow.log_prob(*events[:2]).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        end = flow.log_prob(*events[:2]).mean()
        lost = flow.reconstruction_error(events.x).square().mean().sqrt()
    assert end > max(begin, TRUE_LOG_PROB + 2)
    assert _sine(flow) < 0.1
    assert lost > 0.99


@pytest.mark.parametrize("seed", range(N_SEEDS))
def test_manifold_first_finds_the_line(seed):
    schedule = Schedule(
        (
            Phase(
                "manifold",
                ((Reconstruction(coordinate_norm=1e-6), 1.0),),
                ("chart",),
                epochs=25,
                batch_size=27,
                learning_rate=0.1,
            ),
            Phase(
                "density",
                ((LatentNegativeLogProb(), 1.0),),
                ("density",),
                epochs=5,
                batch_size=27,
                learning_rate=0.1,
            ),
        )
    )
    flow, events = _line(seed), _events()
    fit(flow, events, schedule, FitSettings(seed=seed))
    angle = math.degrees(math.asin(min(1.0, float(_sine(flow)))))
    assert abs(angle - 90) < 1
    with torch.no_grad():
        log_prob = float(flow.log_prob(*events[:2]).mean())
    assert log_prob == pytest.approx(TRUE_LOG_PROB, abs=0.05)
