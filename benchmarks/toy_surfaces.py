r"""M-flows and an ambient flow on surfaces and densities that are known exactly.

    python benchmarks/toy_surfaces.py --size small|medium|large

Surfaces and densities come from `simulators/manifolds`, theta ~ U(-1, 1), no noise unless said:

    polynomial   the M-flow study's surface with our own constants, d = 2 in R^3, all of it
    circle       von Mises, kappa = 1, all of the circle, with noise N(0, 0.01^2) as published;
                 densities are compared at events before the noise
    arc          the circle's patch x0 > 0: von Mises, kappa = 60
    sphere       the patch x0 > 0 of the 2-sphere: von Mises-Fisher, kappa = 60
    torus        the patch x0 > 0, x0^2 + x1^2 > R^2 of the ring torus (outer half, one side):
                 two von Mises angles, kappa = 60

A graph over observables cannot cover a circle, a sphere or a torus: hence the patches, which the
densities leave with probability 1e-4 at most (the torus; such events are dropped from all
samples).  The polynomial surface is P_5(z) exp(-|z|^2 / 10), no zero set of polynomials, and the
noisy circle is no surface to the precision of its numbers: on both an implicit chart has to be
refused, and `chart: automatic` has to take the invertible one.

Charts: `invertible` (learned), `implicit` (constraints found in the data); `af` is the ambient
flow.  Each for several random seeds (of training and test events, too), on one thread.  Lengths
are in the surface's own units.  Each <metric>_<chart>_<surface> is the median over seeds, as
published; `_worst` is the worst seed.  No seed is left out.

    dist           samples at theta ~ prior to the true surface, mean, clipped at 10
                   (polynomial: along the direction of the graph, at least the distance)
    re             test events to their projections P(x), mean, clipped at 10
    kl             KL(true || model), nats, each density on its own surface: read it beside re
    mmd2           of the posterior given 20 events at theta = 0 to the exact one, Gaussian
                   kernel with median scale, on a grid; median over sets of events, as the
                   published numbers are medians over runs of one set each (mmd2_mean: mean)
    auc            of |x - P(x)| (af: of -log p), test events against the same + N(0, 0.1^2)
    denoising      E dist(P(x + n)) / E dist(x + n), n ~ N(0, 0.05^2)
    idempotence    max |P(P(x)) - P(x)|
    lost           test events without a projection, summed over seeds; AUC counts them as outside
    redrawn_share  latents without a point, drawn again / drawn
    cpu_minutes    of training
    failed         seeds that end in an error or with dist > 0.1 (the published failures: 0.30
                   and 0.50), summed
    refused        seeds in which the data have no implicit chart, summed
    automatic_implicit_<surface>   share of seeds in which `chart: automatic` takes that one

Published (arXiv:2003.13913, notebooks, medians of 5): polynomial, sequential M-flow dist 0.009,
re 0.013, mmd2 0.017, auc 0.961 with 2 failed of 5, the best of all variants 0.002, 0.002, 0.007,
0.987; ambient flow dist 0.005, mmd2 0.071, auc 0.990.  Circle: M-flow 0.921, ambient flow 0.580,
true noise 0.0081.

Finished pieces stay in `quickstart/benchmark/toy_surfaces_<size>/` and are used again while the
code stays the same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from record import ROOT, write_record
from timing import KeptSections
from toy_cases import BARS, TOYS, Toy
from toy_metrics import auc, density_gap, posterior_mmd2

from mflow_sbi.charting import AutomaticOptions, ChartingEvents, ImplicitOptions, fit_chart
from mflow_sbi.console import Terminal
from mflow_sbi.errors import ChartError, MflowSbiError
from mflow_sbi.events import EventSample, Standardizer, read_events
from mflow_sbi.interfaces import Array
from mflow_sbi.options import parse_options
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, Schedule
from simulators.__main__ import main as simulate

KINDS = ("invertible", "implicit", "af")
FAILED_DISTANCE, CLIP = 0.1, 10.0
OUTLIER_NOISE, DENOISED_NOISE = 0.1, 0.05
POSTERIOR_EVENTS, GRID_CELLS = 20, 400

SUMS = ("failed", "refused", "lost")

LATENT_FLOW = {"reference": {"layers": 0}, "density": {"layers": 5, "hidden": 64}}
"""Two latents or one need no straightening before theta comes in: conditional layers only."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class Size:
    """Training events of the polynomial surface, passes, test events, sets and seeds."""

    training_events: int
    test_events: int
    posteriors: int
    seeds: tuple[int, ...]
    epochs: Mapping[str, int]


SIZES = {
    "small": Size(20_000, 2000, 5, (1,), {"manifold": 40, "reference": 4, "density": 8}),
    "medium": Size(
        100_000, 5000, 20, (1, 2, 3, 4, 5), {"manifold": 15, "reference": 3, "density": 8}
    ),
    "large": Size(
        100_000, 10_000, 20, (1, 2, 3, 4, 5), {"manifold": 40, "reference": 10, "density": 20}
    ),
}


class Drawn(NamedTuple):
    """Training and test events, the test events before noise, and sets at theta = 0."""

    training: EventSample
    test: EventSample
    clean: EventSample
    observed: Array


def simulated_events(
    words: Sequence[str], path: Path, n: int, seed: int, *, noise: float = 0.0
) -> EventSample:
    """Return events written by the simulator's command line: surface and theta in the words."""
    numbers = ["--events", str(n), "--seed", str(seed), "--noise", str(noise)]
    if simulate([*words, *numbers, "--out", str(path)]) != 0:
        message = f"the simulator refused {words}"
        raise RuntimeError(message)
    return read_events(str(path))


PRIOR = ("--theta-prior", "uniform")


def draw_events(toy: Toy, size: Size, seed: int, folder: Path) -> Drawn:
    """Return events written by the simulator's command line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.root"

    def simulated(n: int, seed: int, noise: float, *theta: str) -> EventSample:
        words = [*toy.words, *(theta or PRIOR)]
        return toy.keep(simulated_events(words, path, n, seed, noise=noise))

    n_sets = size.posteriors * POSTERIOR_EVENTS
    observed = simulated(n_sets + 100, 2000 + seed, toy.noise, "--theta", "0").x[:n_sets]
    return Drawn(
        simulated(round(toy.events * size.training_events), seed, toy.noise),
        simulated(size.test_events, 1000 + seed, toy.noise),
        simulated(size.test_events, 1000 + seed, 0.0),
        observed.reshape(size.posteriors, POSTERIOR_EVENTS, -1),
    )


def schedule_of(kind: str, toy: Toy, size: Size) -> Schedule:
    """Return the recipe's schedule with this size's passes, more of them over smaller samples."""
    schedule = RECIPES["af" if kind == "af" else "mflow"].schedule
    share = 1.0 if kind == "af" else toy.events
    changes: dict[str, dict[str, object]] = {
        phase.name: {"epochs": max(1, round(size.epochs[phase.name] / share**0.5))}
        for phase in schedule.phases
        if phase.name in size.epochs
    }
    if kind != "af":
        changes["manifold"] |= toy.manifold
    return schedule.with_phases(**changes)


def chart_options(kind: str, toy: Toy) -> dict[str, Any]:
    """Return the recipe's options for this kind on this surface."""
    if kind == "af":
        return {}
    given = {"kind": kind, **(toy.chart if kind == "invertible" else {"degree": toy.degree})}
    return {"latent_dim": toy.surface.latent_dim, "chart": given, **LATENT_FLOW}


def trained_kind(
    kind: str, toy: Toy, drawn: Drawn, seed: int, size: Size, terminal: Terminal
) -> tuple[TrainedSurrogate, Metrics]:
    """Train a surrogate; return it and its CPU minutes."""
    began = time.process_time()
    trained = train(
        drawn.training,
        "af" if kind == "af" else "mflow",
        options=chart_options(kind, toy),
        schedule=schedule_of(kind, toy, size),
        settings=FitSettings(seed=seed),
        on_note=terminal.say,
    ).surrogate
    return trained, {"cpu_minutes": (time.process_time() - began) / 60}


def reconstruction_metrics(
    trained: TrainedSurrogate, toy: Toy, x: Array, rng: np.random.Generator
) -> Metrics:
    """Return what projections of test events, clean and moved off the surface, say."""

    def projected(events: Array) -> tuple[Array, Array]:
        """Return P(x) and |x - P(x)|, infinite where there is no projection."""
        points, found = trained.project_with_flags(events)
        distance = np.linalg.norm(events - points, axis=1)
        return points, np.where(found, distance, np.inf)

    points, error = projected(x)
    kept = np.isfinite(error)
    again, _ = projected(points[kept])
    moved = x + OUTLIER_NOISE * rng.standard_normal(x.shape)
    blurred = x + DENOISED_NOISE * rng.standard_normal(x.shape)
    cleaned, off = projected(blurred)
    back = np.isfinite(off)
    return {
        "re": float(np.minimum(error[kept], CLIP).mean()),
        "re_max": float(error[kept].max()),
        "lost": float((~kept).sum()),
        "idempotence": float(np.nanmax(np.linalg.norm(again - points[kept], axis=1))),
        "auc": auc(error, projected(moved)[1]),
        "denoising": float(
            toy.distance(cleaned[back]).mean() / toy.distance(blurred[back]).mean()
        ),
    }


def ambient_metrics(
    trained: TrainedSurrogate, x: Array, theta: Array, rng: np.random.Generator
) -> Metrics:
    """Return what the density says of test events, clean and moved, and PIE's projections."""
    moved = x + OUTLIER_NOISE * rng.standard_normal(x.shape)
    metrics = {"auc": auc(-trained.log_prob(x, theta), -trained.log_prob(moved, theta))}
    if trained.has_surface:
        error = np.linalg.norm(x - trained.project_at(x, theta)[0], axis=1)
        metrics["re"] = float(np.minimum(error, CLIP).mean())
    return metrics


def measure(trained: TrainedSurrogate, toy: Toy, drawn: Drawn, seed: int) -> Metrics:
    """Return the metrics of one trained surrogate."""
    rng = np.random.default_rng(seed)
    metrics: Metrics = {}
    theta, x = drawn.test.require_theta(), drawn.test.x
    samples, again = trained.sample_counted(theta, seed)
    metrics["dist"] = float(np.minimum(toy.distance(samples), CLIP).mean())
    metrics["failed"] = float(not metrics["dist"] <= FAILED_DISTANCE)
    if trained.is_manifold:
        metrics |= reconstruction_metrics(trained, toy, x, rng)
        metrics["redrawn_share"] = again / (again + len(x))
    else:
        metrics |= ambient_metrics(trained, x, theta, rng)
    if trained.surrogate.measure == "manifold":
        clean, at = drawn.clean.x, drawn.clean.require_theta()
        metrics["kl"] = density_gap(trained, toy.known, clean, at)
    edges = np.linspace(-1, 1, GRID_CELLS + 1)
    grid = 0.5 * (edges[1:] + edges[:-1])
    gaps = posterior_mmd2(trained, toy.known, drawn.observed, grid, seed)
    return metrics | {"mmd2": float(np.median(gaps)), "mmd2_mean": float(np.mean(gaps))}


def automatic_is_implicit(toy: Toy, training: EventSample, seed: int) -> bool:
    """Return whether `chart: automatic` takes an implicit chart for these events."""
    scale = Standardizer.fit(training.x, names=training.observable_names)
    x = torch.from_numpy(scale.transform(training.x))
    events = ChartingEvents(training.x, x, scale.mean, scale.std, training.observable_names)
    given = {"implicit": {"degree": toy.degree, "epochs": 1}}
    options = parse_options(AutomaticOptions, given, "chart")
    taken = fit_chart(events, toy.surface.latent_dim, options, seed).options
    return isinstance(taken, ImplicitOptions)


def measured_or_refused(
    kind: str, toy: Toy, drawn: Drawn, seed: int, size: Size, terminal: Terminal
) -> Metrics:
    """Return the metrics, or that the data have no implicit chart, or that the seed failed."""
    try:
        trained, spent = trained_kind(kind, toy, drawn, seed, size, terminal)
    except MflowSbiError as error:
        terminal.warn(f"{kind}, seed {seed}: {error}")
        refused = kind == "implicit" and isinstance(error, ChartError)
        return {"refused": 1.0} if refused else {"failed": 1.0}
    try:
        return spent | measure(trained, toy, drawn, seed)
    except MflowSbiError as error:
        terminal.warn(f"{kind}, seed {seed}: {error}")
        return spent | {"failed": 1.0}


def measure_pieces(
    size: Size, chosen: Sequence[str], folder: Path, terminal: Terminal
) -> dict[str, Metrics]:
    """Measure the pieces `surface/kind/seed` that are missing; return all."""
    kept = KeptSections(folder / "pieces.json", sources())
    for seed, name in ((seed, name) for seed in size.seeds for name in chosen):
        toy = TOYS[name]
        pieces = {kind: f"{name}/{kind}/{seed}" for kind in (*toy.kinds, "automatic")}
        missing = {kind: key for kind, key in pieces.items() if key not in kept.sections}
        drawn = draw_events(toy, size, seed, folder) if missing else None
        for kind, key in missing.items():
            assert drawn is not None
            if kind == "automatic":
                found = {"implicit": float(automatic_is_implicit(toy, drawn.training, seed))}
            else:
                with terminal.task(f"{name}, {kind}, seed {seed}"):
                    found = measured_or_refused(kind, toy, drawn, seed, size, terminal)
            terminal.say(f"{key}: {found}")
            kept.keep(key, found)
    return kept.sections


def summarise(pieces: Mapping[str, Metrics]) -> Metrics:
    """Return median and worst over seeds, sums of counts, named <metric>_<kind>_<surface>.

    A seed that failed without a number has the worst one, infinite (auc: 0).
    """
    groups: dict[tuple[str, str], list[Metrics]] = {}
    for key, metrics in pieces.items():
        surface, kind, _ = key.split("/")
        groups.setdefault((surface, kind), []).append(metrics)
    summary: Metrics = {}
    for (surface, kind), seeds in groups.items():
        where = f"{kind}_{surface}"
        if kind == "automatic":
            shares = [metrics["implicit"] for metrics in seeds]
            summary[f"automatic_implicit_{surface}"] = float(np.mean(shares))
            continue
        for name in dict.fromkeys([*SUMS[:2], *(name for metrics in seeds for name in metrics)]):
            if name in SUMS:
                summary[f"{name}_{where}"] = sum(metrics.get(name, 0.0) for metrics in seeds)
                continue
            absent, worst = (0.0, min) if name == "auc" else (np.inf, max)
            values = [m.get(name, absent) for m in seeds if "refused" not in m]
            summary[f"{name}_{where}"] = float(np.median(values))
            summary[f"{name}_{where}_worst"] = worst(values)
    return summary


def table_rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    """Yield metric, median, worst seed, bar and whether the median reaches it."""
    for name, value in metrics.items():
        if name.endswith("_worst"):
            continue
        sign, limit = BARS.get(name, ("", 0.0))
        reached = value >= limit if sign == ">=" else value <= limit
        answer = (f"{sign} {limit:g}", "yes" if reached else "NO") if sign else ("", "")
        worst = metrics.get(f"{name}_worst")
        yield name, f"{value:.4g}", "" if worst is None else f"{worst:.4g}", *answer


def sources() -> list[Path]:
    """Return the files whose contents decide the numbers."""
    package = ROOT / "mflow_sbi"
    rooms = ("charts", "constraints", "densities", "events", "surrogates", "training")
    single = ("beginnings", "charting", "flows", "float64_buffers", "options", "recipes")
    here = Path(__file__).parent
    folders = [package / room for room in (*rooms, "transforms")]
    folders.append(ROOT / "simulators" / "manifolds")
    return [
        *(package / f"{room}.py" for room in single),
        *(path for folder in folders for path in folder.rglob("*.py")),
        *(here / name for name in ("toy_surfaces.py", "toy_cases.py", "toy_metrics.py")),
    ]


def main() -> None:
    """Measure the missing pieces, print a table with the bars, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", choices=TOYS, nargs="+", help="some surfaces; writes no record")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / f"toy_surfaces_{options.size}"
    metrics = summarise(measure_pieces(size, options.only or list(TOYS), folder, terminal))
    header = ("metric", "median", "worst seed", "bar", "reached")
    terminal.table(f"toy surfaces, {options.size}", header, list(table_rows(metrics)))
    if not options.only:
        written = write_record(
            "toy_surfaces", options.size, metrics, list(size.seeds), options.out
        )
        terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
