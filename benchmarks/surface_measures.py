"""What one trained surface is worth: projections, samples, volumes, constraints."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from timing import cpu_seconds
from torch import Tensor

from mflow_sbi.charts import AdaptedChart, Chart, project_onto_constraints
from mflow_sbi.charts.collider import ColliderChart
from mflow_sbi.constraints import discover_constraints
from mflow_sbi.evaluation import reconstruction_error
from mflow_sbi.events import EventSample, closure
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import ManifoldFlow, TrainedSurrogate

__all__ = ["TESTS", "Metrics", "Tests", "discovery_metrics", "surface_metrics"]

TESTS: Mapping[str, tuple[str, ...]] = {
    "prior": ("--theta-prior", "normal"),
    "sm": ("--theta", "0", "0"),
    "half": ("--theta", "0.5", "0"),
    "minus": ("--theta", "-1", "-1"),
}
CHUNK_EVENTS, VOLUME_EVENTS, CONSTRAINED_EVENTS, DRAWN_LATENTS = 2000, 1000, 2000, 10_000

Metrics = dict[str, float]


class Tests(NamedTuple):
    """Physical events (N, n) and their theta (N, p), as many for each of `TESTS`, in order."""

    x: Array
    theta: Array

    def groups(self) -> Iterator[tuple[str, slice]]:
        """Yield suffix of the metric and rows: of all events, then of each theta."""
        count = len(self.x) // len(TESTS)
        yield "", slice(None)
        for k, label in enumerate(TESTS):
            yield f"_{label}", slice(k * count, (k + 1) * count)


@torch.no_grad()
def project_twice(chart: Chart, x: Tensor) -> tuple[Tensor, ...]:
    """Return encode(x), P(x), encode(P(x)), P(P(x)) and where both were found, (N,) bool."""
    parts = []
    for part in x.split(CHUNK_EVENTS):
        u = chart.encode(part)
        point, found = chart.decode_with_flags(u)
        u_again, encoded = chart.encode_with_flags(point)
        point_again, found_again = chart.decode_with_flags(u_again)
        found = found & encoded & found_again
        parts.append((u, point.double(), u_again, point_again.double(), found))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def projection_metrics(
    trained: TrainedSurrogate, chart: Chart, tests: Tests
) -> tuple[Metrics, Tensor]:
    """Return what projections of test events say, and the latents (N, d) that were found."""
    x = trained.standardise(tests.x)
    u, point, u_again, point_again, found = project_twice(chart, x)
    physical = trained.record.observables.inverse(point.numpy())
    distance = torch.linalg.vector_norm(x - point, dim=-1)[found]
    metrics = {
        "re_median": float(distance.median()),
        "re_max": float(distance.max()),
        "lost": float((~found).sum()),
        "test_events": float(len(found)),
        "idempotence": float((point_again - point)[found].norm(dim=-1).max()),
        "round_trip": float((u_again - u)[found].abs().max()),
    }
    for suffix, rows in tests.groups():
        kept = found[rows]
        before, after = x[rows][kept].numpy(), point[rows][kept].numpy()
        metrics[f"re{suffix}"] = reconstruction_error(before, after)
        metrics[f"closure{suffix}"] = closure(physical[rows][kept.numpy()])
    return metrics, u[found]


def sample_metrics(trained: TrainedSurrogate, tests: Tests, seed: int) -> Metrics:
    """Return closure of newly drawn events, one for each test event's theta, and redraws."""
    surrogate, record = trained.surrogate, trained.record
    assert isinstance(surrogate, ManifoldFlow)
    theta = torch.from_numpy(record.parameters.transform(tests.theta)).float()
    parts = enumerate(theta.split(CHUNK_EVENTS))
    drawn = [surrogate.sample_counted(part, seed=1000 * seed + k) for k, part in parts]
    x = record.observables.inverse(torch.cat([events for events, _ in drawn]).numpy())
    again = sum(count for _, count in drawn)
    metrics = {"redrawn_share": again / (again + len(x))}
    for suffix, rows in tests.groups():
        metrics[f"closure_samples{suffix}"] = closure(x[rows])
    return metrics


def volume_metrics(chart: AdaptedChart, known: ColliderChart, x: Tensor) -> Metrics:
    """Return the implicit chart's error of log volume and of the tangent space at events x."""
    with torch.no_grad():
        _, log_volume = chart.encode_with_volume(x)
        _, tangents = chart.decode_with_jacobian(chart.encode(x))
        v = known.encode(x)
        _, reference = known.decode_with_jacobian(v)
    slopes = torch.stack([torch.autograd.functional.jacobian(_reader(chart), e) for e in x])
    change = torch.linalg.slogdet(slopes @ reference).logabsdet
    error = log_volume - (known.log_volume(v) - change)
    frame = torch.linalg.qr(reference).Q
    off = torch.linalg.matrix_norm(tangents - frame @ (frame.mT @ tangents))
    return {
        "volume_error": float(error.abs().max()),
        "tangent_error": float((off / torch.linalg.matrix_norm(tangents)).max()),
    }


def _reader(chart: AdaptedChart) -> Callable[[Tensor], Tensor]:
    """Return the coordinates of one point as a function, (n,) -> (d,)."""
    return lambda event: chart.read(event[None])[0]


@torch.no_grad()
def convergence_metrics(
    trained: TrainedSurrogate, chart: AdaptedChart, tests: Tests, seed: int
) -> Metrics:
    """Return the shares of drawn latents that Newton solves, and that lie inside the edges."""
    surrogate, record = trained.surrogate, trained.record
    assert isinstance(surrogate, ManifoldFlow)
    theta = torch.from_numpy(record.parameters.transform(tests.theta)).float()
    theta = theta[:: max(1, len(theta) // DRAWN_LATENTS)]
    generator = torch.Generator().manual_seed(seed)
    u = surrogate.reference.decode_noise(surrogate.density.sample(theta, generator))
    return {
        "converged_share_samples": float(chart.converged(u).double().mean()),
        "share_inside_edges": float(chart.decode_drawn(u)[1].double().mean()),
    }


def discovery_metrics(trained: TrainedSurrogate, training: EventSample, seed: int) -> Metrics:
    """Return CPU seconds and clearness of the discovery alone, done once more."""
    scale, names = trained.record.observables, training.observable_names
    began = time.process_time()
    found = discover_constraints(training.x, scale.mean, scale.std, names=names, seed=seed)
    spent = time.process_time() - began
    return {"discovery_cpu_s": spent, "gradient_rank_gap": float(np.median(found.gradient_gaps))}


@torch.no_grad()
def constrained_metrics(
    trained: TrainedSurrogate, chart: Chart, training: EventSample, tests: Tests, seed: int
) -> Metrics:
    """Return what is left once projections are moved onto the constraints found in the data."""
    scale, names = trained.record.observables, training.observable_names
    found = discover_constraints(training.x, scale.mean, scale.std, names=names, seed=seed)
    if found.constraints is None:
        return {}
    few = slice(None, None, max(1, len(tests.x) // CONSTRAINED_EVENTS))
    x = trained.standardise(tests.x[few])
    point, converged = project_onto_constraints(chart, found.constraints, x)
    kept = converged.numpy()
    return {
        "re_constrained": reconstruction_error(x.numpy()[kept], point.numpy()[kept]),
        "closure_constrained": closure(scale.inverse(point.numpy()[kept])),
        "converged_share_constrained": float(kept.mean()),
    }


def surface_metrics(
    trained: TrainedSurrogate, training: EventSample, tests: Tests, seed: int
) -> Metrics:
    """Return all that is measured of one surface."""
    assert isinstance(trained.surrogate, ManifoldFlow)
    surface, scale = trained.surrogate.chart, trained.record.observables
    metrics, u = projection_metrics(trained, surface, tests)
    metrics |= sample_metrics(trained, tests, seed)
    few = u[:: max(1, len(u) // VOLUME_EVENTS)][:VOLUME_EVENTS]
    x = trained.standardise(tests.x[:: max(1, len(tests.x) // VOLUME_EVENTS)][:VOLUME_EVENTS])
    with torch.no_grad():
        x = x[surface.encode_with_flags(x)[1]]  # the others are counted as lost
        of_events = cpu_seconds(lambda: surface.encode_with_volume(x), 2.0, len(x))
        of_latents = cpu_seconds(lambda: surface.log_volume(few), 2.0, len(few))
        metrics["log_volumes_per_cpu_s"] = 1 / of_events()
        metrics["log_volumes_of_latents_per_cpu_s"] = 1 / of_latents()
    if isinstance(surface, AdaptedChart):
        known = ColliderChart.for_observables(training.observable_names, scale.mean, scale.std)
        metrics |= convergence_metrics(trained, surface, tests, seed)
        return metrics | volume_metrics(surface, known, x)
    if surface.learns_by_reconstruction:
        metrics |= constrained_metrics(trained, surface, training, tests, seed)
    return metrics
