r"""How right the surfaces are: reconstruction, closure, volumes, and what they cost.

    python benchmarks/surface.py --size small|medium|large

Three charts: `implicit` (recipe mflow, constraints and pivots found in the data), `fom` (closed
form, the reference) and `invertible` (recipe mflow, learned by reconstruction).

Each is trained on WBF events (channel ud) at theta ~ prior, for random seeds and the simulator's
settings `tuned` and `paper`, and tested on fresh events at theta ~ prior and at the three truths
of the published study, in equal numbers.  Observables are computed in float64 when events are
read: they obey the redundancies to 1e-16, better than float32 columns would.  One thread.

    re, re_median, re_max    |x - P(x)|_2, standardised (the mean clipped at 10, as published)
    closure                  weighted violations of the 26 redundancies by P(x)
    closure_samples          the same of events drawn from the trained density at the tests' theta
    redrawn_share            latents drawn again / drawn; converged_share_samples is the rest
    lost                     test events without a converged projection, left out above
    idempotence, round_trip  max |P(P(x)) - P(x)|_2, max |encode(decode(u)) - u|
    cpu_minutes, .._total    of this process for the chart (0: given), and with its flows

Closure alone proves nothing (any event, projected, closes): read it beside `re`.  Nor does the
implicit chart's `idempotence` alone: events on the surface are read as they are, it is 0 unless a
root is lost or on another branch.  Its `re` is about the rounding of its float32 latents.

`volume_error_implicit` compares two charts of one surface.  At an event x, let u be its implicit
and v its closed-form latents.  Pivots u are observables of x, so the change of coordinates is
made of rows of the closed-form Jacobian:

    du/dv = (dx/dv)[pivots],   log vol(u) = log vol(v) - log|det du/dv|

The implicit Jacobian is not in it: an error there shows in first order, also within the tangent
plane, where a du/dv fitted to both Jacobians would absorb it.  `tangent_error_implicit` says
whether both span one tangent space, max |J_u - Q Q^T J_u| / |J_u| with Q R = J_v.

Names: `<metric>_<chart>`, means over seeds and settings with standard error `_error`, and by
theta (`_prior`, `_sm`, `_half`, `_minus`) and setting (`_tuned`, `_paper`).  Maxima are taken over
all; `lost`, `failed` and `test_events` are sums.  Finished pieces stay in
`quickstart/benchmark/surface_<size>/` and are used again while the code stays the same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from record import ROOT, write_record
from timing import KeptSections, cpu_seconds
from torch import Tensor

from mflow_sbi.charts import Chart
from mflow_sbi.charts.collider import ColliderChart
from mflow_sbi.charts.implicit import ImplicitChart
from mflow_sbi.console import Terminal
from mflow_sbi.constraints import discover_constraints
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.evaluation import reconstruction_error
from mflow_sbi.events import EventSample, closure, read_events
from mflow_sbi.interfaces import Array
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import ManifoldFlow, TrainedSurrogate
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule
from simulators.__main__ import main as simulate

CHARTS = ("implicit", "fom", "invertible")
SETTINGS = ("tuned", "paper")
TESTS: Mapping[str, tuple[str, ...]] = {
    "prior": ("--theta-prior", "normal"),
    "sm": ("--theta", "0", "0"),
    "half": ("--theta", "0.5", "0"),
    "minus": ("--theta", "-1", "-1"),
}
CHUNK_EVENTS, VOLUME_EVENTS, CALIBRATION_EVENTS = 2000, 1000, 20_000

LARGEST = ("re_max", "idempotence", "round_trip", "volume_error", "tangent_error")
SUMS = ("lost", "failed", "test_events")

BARS: Mapping[str, tuple[str, float]] = {
    "re_implicit": ("<=", 1e-4),
    "closure_implicit": ("<=", 1e-5),
    "closure_samples_implicit": ("<=", 1e-4),
    "converged_share_samples_implicit": (">=", 0.995),
    "lost_implicit": ("<=", 0),
    **{f"failed_{chart}": ("<=", 0) for chart in CHARTS},
    "idempotence_implicit": ("<=", 1e-6),
    "round_trip_implicit": ("<=", 1e-6),
    "cpu_minutes_implicit": ("<=", 2),
    "volume_error_implicit": ("<=", 1e-6),
    "log_volumes_per_cpu_s_implicit": (">=", 5000),
    "gradient_rank_gap": (">=", 2),
    "closure_fom": ("<=", 1e-7),
    "closure_samples_fom": ("<=", 1e-7),
    "re_invertible": ("<=", 0.12),
    "closure_invertible": ("<=", 0.005),
}

Metrics = dict[str, float]


@dataclass(frozen=True)
class Size:
    """Training events, test events at each theta, settings, and seeds of each chart.

    `invertible_minutes` are CPU minutes of its manifold phase; None: its default schedule.
    """

    training_events: int
    test_events: int
    settings: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    invertible_minutes: float | None = None


ONE, THREE = (1,), (1, 2, 3)
ALL: dict[str, tuple[int, ...]] = dict.fromkeys(CHARTS, THREE)
SIZES = {
    "small": Size(20_000, 1000, ("tuned",), {"implicit": ONE, "fom": ONE}),
    "medium": Size(100_000, 5000, SETTINGS, ALL | {"invertible": ONE}),
    "large": Size(200_000, 5000, SETTINGS, ALL, invertible_minutes=30.0),
}


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


def draw_events(folder: Path, size: Size, setting: str, seed: int) -> tuple[EventSample, Tests]:
    """Return training and test events, written anew by the simulator's command line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.root"

    def simulated(theta: Sequence[str], n_events: int, seed: int) -> EventSample:
        words = ["--setting", setting, *theta, "--events", str(n_events), "--seed", str(seed)]
        if simulate(["wbf", *words, "--out", str(path)]) != 0:
            message = f"the simulator refused {words}"
            raise RuntimeError(message)
        return read_events(str(path))

    training = simulated(TESTS["prior"], size.training_events, seed)
    numbered = enumerate(TESTS.values(), start=1)
    tests = [simulated(theta, size.test_events, 1000 * k + seed) for k, theta in numbered]
    theta = np.concatenate([test.require_theta() for test in tests])
    return training, Tests(np.concatenate([test.x for test in tests]), theta)


def schedule_within(minutes: float, training: EventSample, options: dict[str, Any]) -> Schedule:
    """Return the M-flow's schedule with as many manifold epochs as fit into CPU minutes."""
    schedule = RECIPES["mflow"].schedule
    manifold = next(phase for phase in schedule.phases if phase.name == "manifold")
    short = Schedule((replace(manifold, epochs=2),))
    few = training.take(np.arange(min(CALIBRATION_EVENTS, len(training))))
    ends: list[float] = []

    def on_epoch(record: HistoryRecord) -> None:
        ends.append(time.process_time())

    train(few, "mflow", options=options, schedule=short, on_epoch=on_epoch)
    epoch = (ends[1] - ends[0]) * len(training) / len(few)
    return schedule.with_phases(manifold={"epochs": max(1, int(60 * minutes / epoch))})


@torch.no_grad()
def project_twice(chart: Chart, x: Tensor) -> tuple[Tensor, ...]:
    """Return encode(x), P(x), encode(P(x)), P(P(x)) and where both were found, (N,) bool."""
    parts = []
    for part in x.split(CHUNK_EVENTS):
        u = chart.encode(part)
        point, found = chart.decode_with_flags(u)
        u_again = chart.encode(point)
        point_again, found_again = chart.decode_with_flags(u_again)
        parts.append((u, point.double(), u_again, point_again.double(), found & found_again))
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
    share = again / (again + len(x))
    metrics = {"redrawn_share": share, "converged_share_samples": 1 - share}
    for suffix, rows in tests.groups():
        metrics[f"closure_samples{suffix}"] = closure(x[rows])
    return metrics


@torch.no_grad()
def volume_metrics(chart: ImplicitChart, known: ColliderChart, u: Tensor) -> Metrics:
    """Return the implicit chart's error of log volume and of the tangent space at latents u."""
    x, tangents = chart.decode_with_jacobian(u)
    v = known.encode(x)
    _, reference = known.decode_with_jacobian(v)
    change = torch.linalg.slogdet(reference[:, chart.pivots]).logabsdet
    error = chart.log_volume(u) - (known.log_volume(v) - change)
    frame = torch.linalg.qr(reference).Q
    off = torch.linalg.matrix_norm(tangents - frame @ (frame.mT @ tangents))
    return {
        "volume_error": float(error.abs().max()),
        "tangent_error": float((off / torch.linalg.matrix_norm(tangents)).max()),
    }


def discovery_metrics(trained: TrainedSurrogate, training: EventSample, seed: int) -> Metrics:
    """Return CPU seconds and clearness of the discovery alone, done once more."""
    scale, names = trained.record.observables, training.observable_names
    began = time.process_time()
    found = discover_constraints(training.x, scale.mean, scale.std, names=names, seed=seed)
    spent = time.process_time() - began
    return {"discovery_cpu_s": spent, "gradient_rank_gap": float(np.median(found.gradient_gaps))}


def trained_chart(
    chart: str, training: EventSample, seed: int, size: Size, terminal: Terminal
) -> tuple[TrainedSurrogate, Metrics]:
    """Train one chart with its flows; return them and their CPU minutes."""
    recipe, options = ("fom", {}) if chart == "fom" else ("mflow", {"chart": chart})
    budget = size.invertible_minutes if chart == "invertible" else None
    schedule = schedule_within(budget, training, options) if budget else None
    marks = [time.process_time()]  # the last one: when the chart stands

    def on_note(note: str) -> None:
        marks.append(time.process_time())
        terminal.say(note)

    def on_epoch(record: HistoryRecord) -> None:
        if record.phase == "manifold":
            marks.append(time.process_time())

    trained = train(
        training,
        recipe,
        options=options,
        schedule=schedule,
        settings=FitSettings(seed=seed),
        on_epoch=on_epoch,
        on_note=on_note,
    ).surrogate
    ends = {"cpu_minutes": marks[-1], "cpu_minutes_total": time.process_time()}
    return trained, {name: (end - marks[0]) / 60 for name, end in ends.items()}


def measure(
    chart: str, training: EventSample, tests: Tests, seed: int, size: Size, terminal: Terminal
) -> Metrics:
    """Return the metrics of one piece by their final names."""
    with terminal.task(f"training {chart} on {len(training):,} events, seed {seed}"):
        trained, metrics = trained_chart(chart, training, seed, size, terminal)
    assert isinstance(trained.surrogate, ManifoldFlow)
    surface, scale = trained.surrogate.chart, trained.record.observables
    projected, u = projection_metrics(trained, surface, tests)
    metrics |= projected | sample_metrics(trained, tests, seed) | {"failed": 0.0}
    few = u[:: max(1, len(u) // VOLUME_EVENTS)][:VOLUME_EVENTS]
    with torch.no_grad():
        cost = cpu_seconds(lambda: surface.log_volume(few), 2.0, len(few))
        metrics["log_volumes_per_cpu_s"] = 1 / cost()
    if isinstance(surface, ImplicitChart):
        known = ColliderChart.for_observables(training.observable_names, scale.mean, scale.std)
        metrics |= volume_metrics(surface, known, few)
    named = {_named(metric, chart): value for metric, value in metrics.items()}
    return named | (discovery_metrics(trained, training, seed) if chart == "implicit" else {})


def _named(metric: str, chart: str) -> str:
    """Return <metric>_<chart>, before the theta: closure_sm -> closure_implicit_sm."""
    stem, _, last = metric.rpartition("_")
    return f"{stem}_{chart}_{last}" if last in TESTS else f"{metric}_{chart}"


def summarise(pieces: Mapping[str, Metrics], settings: Sequence[str]) -> Metrics:
    """Return means, sums or maxima over pieces `chart/setting/seed`, in all and by setting."""
    summary: Metrics = {}
    for name in dict.fromkeys(name for metrics in pieces.values() for name in metrics):
        values = {key: metrics[name] for key, metrics in pieces.items() if name in metrics}
        summary[name] = _combined(name, list(values.values()))
        if len(values) > 1 and not name.startswith(LARGEST + SUMS):
            spread = float(np.std(list(values.values()), ddof=1))
            summary[f"{name}_error"] = spread / len(values) ** 0.5
        for setting in settings if len(settings) > 1 else ():
            chosen = [value for key, value in values.items() if f"/{setting}/" in key]
            if chosen:
                summary[f"{name}_{setting}"] = _combined(name, chosen)
    return summary


def _combined(name: str, values: Sequence[float]) -> float:
    if name.startswith(SUMS):
        return float(np.sum(values))
    return float(np.max(values) if name.startswith(LARGEST) else np.mean(values))


def table_rows(metrics: Metrics) -> list[tuple[str, str, str, str]]:
    """Return metric, measured, bar and whether it is reached, without the breakdowns."""
    rows = []
    for name, value in metrics.items():
        if name.rpartition("_")[2] in (*SETTINGS, *TESTS, "error"):
            continue
        sign, limit = BARS.get(name, ("", 0.0))
        reached = value >= limit if sign == ">=" else value <= limit
        answer = (f"{sign} {limit:g}", "yes" if reached else "NO") if sign else ("", "")
        rows.append((name, f"{value:.4g}", *answer))
    return rows


def sources() -> list[Path]:
    """Return the files whose contents decide the numbers."""
    package, wbf = ROOT / "mflow_sbi", ROOT / "simulators" / "wbf"
    rooms = ("charts", "constraints", "events", "surrogates", "training", "transforms")
    single = ("charting", "evaluation/metrics", "flows", "options", "recipes")
    files = [package / f"{room}.py" for room in single]
    folders = [*(package / room for room in rooms), wbf]
    return [*files, *(path for folder in folders for path in folder.rglob("*.py")), Path(__file__)]


def measure_pieces(size: Size, folder: Path, terminal: Terminal) -> dict[str, Metrics]:
    """Measure the pieces `chart/setting/seed` that are missing; return all."""
    kept = KeptSections(folder / "pieces.json", sources())
    pieces: dict[str, Metrics] = {}
    for seed, setting in product(size.seeds["implicit"], size.settings):
        keys = {c: f"{c}/{setting}/{seed}" for c, seeds in size.seeds.items() if seed in seeds}
        missing = {chart: key for chart, key in keys.items() if key not in kept.sections}
        if missing:
            training, tests = draw_events(folder, size, setting, seed)
            for chart, key in missing.items():
                try:
                    found = measure(chart, training, tests, seed, size, terminal)
                except MflowSbiError as error:
                    terminal.warn(f"{key}: {error}")
                    found = {f"failed_{chart}": 1.0}
                kept.keep(key, found)
        pieces |= {key: kept.sections[key] for key in keys.values()}
    return pieces


def main() -> None:
    """Measure the missing pieces, print a table with the bars, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / f"surface_{options.size}"
    seeds, pieces = list(size.seeds["implicit"]), measure_pieces(size, folder, terminal)
    metrics = summarise(pieces, size.settings)
    header = ("metric", "measured", "bar", "reached")
    terminal.table(f"surfaces, {options.size}", header, table_rows(metrics))
    written = write_record("surface", options.size, metrics, seeds, options.out)
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
