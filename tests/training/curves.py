"""A toy that chunks and processes train on: a curve in R^3, its chunks, a small M-flow."""

from collections.abc import Iterator

import numpy as np
import torch

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import (
    LatentNegativeLogProb,
    Phase,
    Reconstruction,
    ReferenceNegativeLogProb,
    Schedule,
    TrainingEvents,
)

SMALL = FlowOptions(layers=2, hidden=16, bins=5, bound=4.0)
METADATA = EventMetadata(
    "toy",
    "Events",
    "flat",
    observables=tuple(map(Observable, "abc")),
    parameters=(Parameter("t"),),
)


def curve_sample(n: int, seed: int = 0) -> EventSample:
    """Return a curve in R^3 on which u ~ N(theta, 0.5^2)."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 1))
    u = theta + 0.5 * rng.normal(size=(n, 1))
    x = np.concatenate([u, np.sin(u), 0.3 * u**2], axis=1)
    return EventSample(x=x, metadata=METADATA, theta=theta)


def told(sample: EventSample) -> TrainingEvents:
    """Return events as the loop takes them, unscaled."""
    assert sample.theta is not None
    return TrainingEvents(torch.from_numpy(sample.x), torch.from_numpy(sample.theta).float())


class SomeChunks:
    """A sample in memory that comes in chunks."""

    def __init__(self, sample: EventSample, size: int) -> None:
        rows = range(0, len(sample), size)
        self.parts = [sample.take(np.arange(a, min(a + size, len(sample)))) for a in rows]
        self.metadata = sample.metadata
        self.n_entries = len(sample)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[EventSample]:
        yield from self.parts


def small_mflow(seed: int = 0) -> ManifoldFlow:
    """Return an untrained M-flow of the curve."""
    chart = build_invertible_chart(LinearHead.fit(told(curve_sample(500)).x), 1, SMALL, seed)
    return ManifoldFlow(chart, build_flow(1, 0, SMALL, seed), build_flow(1, 1, SMALL, seed + 1))


def curve_schedule(epochs: int = 2, batch_size: int = 100) -> Schedule:
    """Return manifold, reference and density phases."""
    options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": 5e-3}
    return Schedule(
        (
            Phase("manifold", ((Reconstruction(0.0), 1.0),), ("chart",), **options),
            Phase("reference", ((ReferenceNegativeLogProb(), 1.0),), ("reference",), **options),
            Phase("density", ((LatentNegativeLogProb(), 1.0),), ("density",), **options),
        )
    )


def numbers_of(surrogate: torch.nn.Module) -> torch.Tensor:
    """Return all numbers of a surrogate, (M,) float64."""
    return torch.cat([value.flatten().double() for value in surrogate.state_dict().values()])
