r"""How right the surfaces are: reconstruction, closure, volumes, and what they cost.

    python benchmarks/surface.py --size small|medium|large

Charts: `implicit` (recipe mflow, constraints and pivots found in the data), `fom` (closed form,
the reference), and three that are learned by reconstruction only, told no physics, from an equal
budget of CPU minutes: `invertible` (recipe mflow), `encoded` (recipe emflow: the same behind a
free encoder) and `autoencoder` (recipe mflow, free both ways).  `re_learned_best` is the smallest
`re` of the three, `closure_learned_best` the closure of that chart.

Each is trained on WBF events (channel ud) at theta ~ prior, for random seeds and the simulator's
settings `tuned` and `paper`, and tested on fresh events at theta ~ prior and at the three truths
of the published study, in equal numbers.  Observables are computed in float64 when events are
read: they obey the redundancies to 1e-16, better than float32 columns would.  One thread.

    re, re_median, re_max    |x - P(x)|_2, standardised (the mean clipped at 10, as published)
    closure                  weighted violations of the 26 redundancies by P(x)
    closure_samples          the same of events drawn from the trained density at the tests' theta
    converged_share_samples  latents drawn from the density over which Newton finds a point
    share_inside_edges       those whose point obeys the order relations of all training events
                             (pt_j1 >= pt_j2, ...); the others are drawn again too
    redrawn_share            latents drawn again / drawn
    log_volumes_per_cpu_s    exact log volumes of events, encoding included; `.._of_latents..`
                             where the event has to be solved for
    lost                     test events without a converged projection, left out above
    idempotence, round_trip  max |P(P(x)) - P(x)|_2, max |encode(decode(u)) - u|
    cpu_minutes, .._total    of this process for the chart (0: given), and with its flows
    re_, closure_constrained projections of learned charts moved onto the discovered constraints
                             (some events): another method, reported apart

Closure alone proves nothing (any event, projected, closes): read it beside `re`.  Nor does the
implicit chart's `idempotence` alone: events on the surface are read as they are, it is 0 unless a
root is lost or on another branch.  Its `re` is about the rounding of its float32 latents.

`volume_error_implicit` compares two charts of one surface.  At an event x, let u(x) be its
implicit and v its closed-form latents.  Latents u are given functions of x, differentiated by
autodiff, so the change of coordinates is

    du/dv = du/dx dx/dv,   log vol(u) = log vol(v) - log|det du/dv|

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import ROOT, write_record
from surface_measures import TESTS, Metrics, Tests, discovery_metrics, surface_metrics
from timing import KeptSections

from mflow_sbi.console import Terminal
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule
from simulators.__main__ import main as simulate

LEARNED = ("invertible", "encoded", "autoencoder")
CHARTS = ("implicit", "fom", *LEARNED)
RECIPE_OF = {chart: "mflow" for chart in CHARTS} | {"fom": "fom", "encoded": "emflow"}
SETTINGS = ("tuned", "paper")
CALIBRATION_EVENTS, LONG_BATCH = 20_000, 1000
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
    "re_learned_best": ("<=", 0.05),
    "closure_learned_best": ("<=", 0.005),
    **{f"cpu_minutes_{chart}": ("<=", 30) for chart in LEARNED},
}


@dataclass(frozen=True)
class Size:
    """Training events, test events at each theta, settings, seeds, and the learned charts' share.

    `learned_minutes` are CPU minutes of each learned chart's manifold phase.
    """

    training_events: int
    test_events: int
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    learned_settings: tuple[str, ...] = ("tuned",)
    learned_seeds: tuple[int, ...] = (1,)
    learned_minutes: float = 30.0

    def charts(self, setting: str, seed: int) -> Sequence[str]:
        """Return the charts that are measured at this setting and seed, `fom` at the first one."""
        learned = setting in self.learned_settings and seed in self.learned_seeds
        if learned:
            return CHARTS
        return CHARTS[:2] if seed == self.seeds[0] else CHARTS[:1]


SIZES = {
    "small": Size(20_000, 1000, ("tuned",), (1,), learned_minutes=0.5),
    "medium": Size(100_000, 2500, SETTINGS, (1, 2, 3), learned_minutes=5.0),
    "large": Size(200_000, 5000, SETTINGS, (1, 2, 3), SETTINGS, (1, 2, 3)),
}


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


def schedule_within(
    minutes: float, training: EventSample, recipe: str, options: dict[str, Any]
) -> Schedule:
    """Return the recipe's schedule with as many manifold epochs as fit into CPU minutes."""
    schedule = RECIPES[recipe].schedule
    manifold = next(phase for phase in schedule.phases if phase.name == "manifold")
    short = Schedule((replace(manifold, epochs=2, batch_size=LONG_BATCH),))
    few = training.take(np.arange(min(CALIBRATION_EVENTS, len(training))))
    ends: list[float] = []

    def on_epoch(record: HistoryRecord) -> None:
        ends.append(time.process_time())

    train(few, recipe, options=options, schedule=short, on_epoch=on_epoch)
    epoch = (ends[1] - ends[0]) * len(training) / len(few)
    epochs = max(1, int(60 * minutes / epoch))
    changes: dict[str, object] = {"batch_size": LONG_BATCH, "patience": epochs}
    return schedule.with_phases(manifold={"epochs": epochs, **changes})


def trained_chart(
    chart: str, training: EventSample, seed: int, size: Size, terminal: Terminal
) -> tuple[TrainedSurrogate, Metrics]:
    """Train one chart with its flows; return them and their CPU minutes."""
    recipe = RECIPE_OF[chart]
    options: dict[str, Any] = {} if chart == "fom" else {"chart": chart}
    schedule = None
    if chart in LEARNED:
        schedule = schedule_within(size.learned_minutes, training, recipe, options)
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
    metrics |= surface_metrics(trained, training, tests, seed) | {"failed": 0.0}
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
    errors = {summary[f"re_{chart}"]: chart for chart in LEARNED if f"re_{chart}" in summary}
    if errors:
        summary["re_learned_best"] = min(errors)
        summary["closure_learned_best"] = summary[f"closure_{errors[min(errors)]}"]
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
    own = [Path(__file__), Path(__file__).with_name("surface_measures.py")]
    return [*files, *(path for folder in folders for path in folder.rglob("*.py")), *own]


def measure_pieces(size: Size, folder: Path, terminal: Terminal) -> dict[str, Metrics]:
    """Measure the pieces `chart/setting/seed` that are missing; return all."""
    kept = KeptSections(folder / "pieces.json", sources())
    pieces: dict[str, Metrics] = {}
    for seed, setting in product(size.seeds, size.settings):
        keys = {chart: f"{chart}/{setting}/{seed}" for chart in size.charts(setting, seed)}
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
    seeds, pieces = list(size.seeds), measure_pieces(size, folder, terminal)
    metrics = summarise(pieces, size.settings)
    header = ("metric", "measured", "bar", "reached")
    terminal.table(f"surfaces, {options.size}", header, table_rows(metrics))
    written = write_record("surface", options.size, metrics, seeds, options.out)
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
