r"""The training variants of the M-flow study on its toys: twelve on the polynomial surface.

    python benchmarks/polynomial_surface.py --size small|medium|large [--seeds 2 3]

    polynomial   the study's surface with our own constants, d = 2 in R^3, theta ~ U(-1, 1)
    circle       von Mises, kappa = 1, with noise N(0, 0.01^2)
    lorenz       the Lorenz attractor, d = 2 in R^3 (its dimension is 2.06: an approximation)
    line         a line in the plane, where likelihood alone turns the chart away from the data

Each variant is a recipe and a schedule (`<recipe>_<schedule>`), trained on the same events, for
about the same CPU time, on one thread, for several seeds (of events, initialisation, shuffles).
Metrics are medians over seeds, `_worst` the worst seed; no seed is left out.  Lengths are in the
surface's own units (Lorenz: standardised ones).

    distance       samples at theta ~ prior to the true surface, mean, clipped at 10
                   (polynomial: along the direction of the graph, at least the distance)
    re             test events to their projections, mean, clipped at 10 (PIE: v set to zero, at
                   the event's theta; ambient flow: there is none)
    mmd2           of the posterior given 20 events at theta = 0 to the exact one, Gaussian
                   kernel with median scale, on a grid; median over sets of events
    auc            test events against the same + N(0, 0.1^2), by |x - P(x)| (af, pie: -log p)
    failed_seeds   seeds that end in an error, or with distance > 0.1 (the published failures:
                   0.30 and 0.50); Lorenz: in an error
    cpu_minutes    of training
    re_pie_over_mflow   re of pie_likelihood / re of mflow_sequential; and whether it exceeds 30

    line_<way>_recovered|diverged_seeds   of all seeds: within 1 degree of the true line; more
                   than 45 degrees off with a larger likelihood than the truth's, or an error

Optimal transport compares events together with their theta (`SampleTransport`), which the study
did not; and its batches have 300 events instead of 1000: at equal CPU time it makes few steps.

`--seeds` measures some seeds, for instance in two clones at once; their pieces are one file's.
Finished pieces stay in `results/polynomial_surface_<size>_pieces.json`, each with the commit that
measured it; the record is written after every seed, and names the seeds that it has.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import toy_line
import toy_surfaces
from pieces import CommittedPieces
from polynomial_cases import BARS, CIRCLE, LORENZ, POLYNOMIAL, PUBLISHED, Variant
from record import RESULTS, ROOT, write_record
from toy_cases import TOYS, Toy
from toy_metrics import auc
from toy_surfaces import OUTLIER_NOISE, PRIOR, Metrics, draw_events, simulated_events

from mflow_sbi.console import Terminal
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array
from mflow_sbi.recipes import train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings

PUBLISHED_NAMES = ("distance", "re", "mmd2", "auc")
KEPT = {"dist": "distance", "re": "re", "mmd2": "mmd2", "auc": "auc", "cpu_minutes": "cpu_minutes"}
LINE_SEEDS = 20


@dataclass(frozen=True)
class Size:
    """Training events, test events, sets for the posterior, seeds, and passes as a factor."""

    events: int
    test_events: int
    posteriors: int
    seeds: tuple[int, ...]
    passes: float = 1.0


SIZES = {
    "small": Size(10_000, 2000, 5, (1,)),
    "medium": Size(50_000, 5000, 20, (1, 2, 3, 4, 5)),
    "large": Size(100_000, 10_000, 20, (1, 2, 3, 4, 5), passes=4.0),
}
CIRCLE_SHARE, LORENZ_SHARE = 0.4, 0.6
"""Events there, of those on the polynomial surface."""

Measure = Callable[[TrainedSurrogate], Metrics]


def trained_variant(
    variant: Variant, events: EventSample, seed: int, passes: float
) -> tuple[TrainedSurrogate, Metrics]:
    """Train a variant; return it and its CPU minutes."""
    began = time.process_time()
    trained = train(
        events,
        variant.recipe,
        options=variant.options,
        schedule=variant.plan(passes),
        settings=FitSettings(seed=seed),
    ).surrogate
    return trained, {"cpu_minutes": (time.process_time() - began) / 60}


def measured_or_failed(
    variant: Variant, events: EventSample, seed: int, passes: float, measure: Measure
) -> Metrics:
    """Return the metrics of a variant, or that the seed failed."""
    spent: Metrics = {}
    try:
        trained, spent = trained_variant(variant, events, seed, passes)
        return {"failed": 0.0} | spent | measure(trained)
    except MflowSbiError as error:
        Terminal().warn(f"{variant.recipe}, {variant.schedule}, seed {seed}: {error}")
        return spent | {"failed": 1.0}


@dataclass(frozen=True)
class Job:
    """One surface for one seed: its variants, its training events and how to measure on it."""

    variants: Mapping[str, Variant]
    events: EventSample
    measure: Measure


def toy_job(toy: Toy, variants: Mapping[str, Variant], size: Size, seed: int, folder: Path) -> Job:
    """Return the job of a surface whose density is known."""
    drawn_size = toy_surfaces.Size(size.events, size.test_events, size.posteriors, (seed,), {})
    drawn = draw_events(toy, drawn_size, seed, folder)

    def measure(trained: TrainedSurrogate) -> Metrics:
        return toy_surfaces.measure(trained, toy, drawn, seed)

    return Job(variants, drawn.training, measure)


def lorenz_job(size: Size, seed: int, folder: Path) -> Job:
    """Return the job of the Lorenz attractor; its test events are of other trajectories."""
    folder.mkdir(parents=True, exist_ok=True)
    path, words = folder / "lorenz.root", ("lorenz", *PRIOR)
    training = simulated_events(words, path, round(LORENZ_SHARE * size.events), seed)
    test = simulated_events(words, path, size.test_events, 1000 + seed)

    def measure(trained: TrainedSurrogate) -> Metrics:
        std = trained.record.observables.std
        noise = np.random.default_rng(seed).standard_normal(test.x.shape)

        def error(x: Array) -> Array:
            return trained.reconstruction_error(x)

        inside, outside = error(test.x), error(test.x + OUTLIER_NOISE * std * noise)
        return {"re": float(inside.mean()), "auc": auc(inside, outside)}

    return Job(LORENZ, training, measure)


def jobs(size: Size, seed: int, folder: Path) -> dict[str, Callable[[], Job]]:
    """Return what makes the jobs of a seed, by the name of the surface."""
    polynomial = replace(TOYS["polynomial"], events=1.0)
    circle = replace(TOYS["circle"], events=CIRCLE_SHARE)
    return {
        "polynomial": lambda: toy_job(polynomial, POLYNOMIAL, size, seed, folder),
        "circle": lambda: toy_job(circle, CIRCLE, size, seed, folder),
        "lorenz": lambda: lorenz_job(size, seed, folder),
    }


NAMES = {"polynomial": POLYNOMIAL, "circle": CIRCLE, "lorenz": LORENZ}


def measure_lines(kept: CommittedPieces, terminal: Terminal) -> None:
    """Count lines for the schedules that are missing."""
    for way in toy_line.SCHEDULES:
        key = f"line/{way}/0"
        if key not in kept.sections:
            with terminal.task(f"line, {way}"):
                kept.keep(key, toy_line.count_lines(way, LINE_SEEDS))
            terminal.say(f"{key}: {kept.sections[key]}")


def measure_seed(
    size: Size, seed: int, folder: Path, kept: CommittedPieces, terminal: Terminal
) -> None:
    """Measure the pieces `surface/variant/seed` of one seed that are missing."""
    for surface, make in jobs(size, seed, folder).items():
        keys = {name: f"{surface}/{name}/{seed}" for name in NAMES[surface]}
        missing = {name: key for name, key in keys.items() if key not in kept.sections}
        job = make() if missing else None
        for name, key in missing.items():
            assert job is not None
            with terminal.task(f"{surface}, {name}, seed {seed}"):
                found = measured_or_failed(
                    job.variants[name], job.events, seed, size.passes, job.measure
                )
            terminal.say(f"{key}: {found}")
            kept.keep(key, found)


def seed_of(piece: str) -> int:
    """Return the seed of a piece, 0 of those over many seeds."""
    return int(piece.rpartition("/")[2])


def finished_seeds(pieces: Mapping[str, Metrics], size: Size) -> list[int]:
    """Return the seeds of which all pieces are measured."""
    every = [f"{surface}/{name}" for surface, names in NAMES.items() for name in names]
    return [seed for seed in size.seeds if all(f"{piece}/{seed}" in pieces for piece in every)]


def summarise(pieces: Mapping[str, Metrics]) -> Metrics:
    """Return medians and worst over seeds, counts of failed seeds, <surface>_<variant>_<metric>.

    A seed that failed without a number has the worst one, infinite (auc: 0).  The polynomial
    surface goes without its name.
    """
    groups: dict[str, list[Metrics]] = {}
    summary: Metrics = {}
    for key, metrics in pieces.items():
        surface, variant, _ = key.split("/")
        if surface == "line":
            counts = {k: v for k, v in metrics.items() if k in ("recovered", "diverged")}
            summary |= {f"line_{variant}_{k}_seeds": v for k, v in counts.items()}
            summary[f"line_{variant}_largest_log_prob"] = metrics["largest_log_prob"]
            continue
        where = variant if surface == "polynomial" else f"{surface}_{variant}"
        groups.setdefault(where, []).append(metrics)
    for where, seeds in groups.items():
        for name, told in KEPT.items():
            if not any(name in metrics for metrics in seeds):
                continue
            absent, worst = (0.0, min) if name == "auc" else (np.inf, max)
            values = [metrics.get(name, absent) for metrics in seeds]
            summary[f"{where}_{told}"] = float(np.median(values))
            summary[f"{where}_{told}_worst"] = worst(values)
        summary[f"{where}_failed_seeds"] = sum(metrics["failed"] for metrics in seeds)
    if "pie_likelihood_re" in summary and "mflow_sequential_re" in summary:
        ratio = summary["pie_likelihood_re"] / summary["mflow_sequential_re"]
        summary["re_pie_over_mflow"] = ratio
        summary["re_pie_exceeds_30_times_mflow"] = float(ratio > BARS["re_pie_over_mflow"][1])
    return summary


def published_of(name: str) -> str:
    """Return the published number of a metric, if there is one."""
    variant, _, metric = name.rpartition("_")
    if metric not in PUBLISHED_NAMES or variant not in PUBLISHED:
        return ""
    value = PUBLISHED[variant][PUBLISHED_NAMES.index(metric)]
    return "" if value is None else f"{value:g}"


def table_rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    """Yield metric, median, worst seed, the published number, bar, whether it is reached."""
    for name, value in metrics.items():
        if name.endswith("_worst"):
            continue
        sign, limit = BARS.get(name, ("", 0.0))
        reached = value <= limit if sign == "<=" else value >= limit
        answer = (f"{sign} {limit:g}", "yes" if reached else "NO") if sign else ("", "")
        worst = metrics.get(f"{name}_worst")
        shown = "" if worst is None else f"{worst:.4g}"
        yield name, f"{value:.4g}", shown, published_of(name), *answer


def sources() -> list[Path]:
    """Return the files whose contents decide the numbers."""
    here, package = Path(__file__).parent, ROOT / "mflow_sbi"
    single = ("named_schedules", "default_schedules", "divergences", "pseudo_inverses", "recipe")
    names = ("polynomial_surface.py", "polynomial_cases.py", "toy_line.py")
    return [
        *toy_surfaces.sources(),
        *(package / f"{room}.py" for room in single),
        *(here / name for name in names),
    ]


def main() -> None:
    """Measure the missing pieces, write the record after every seed, print a table with bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="measure these only")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    if unknown := sorted(set(options.seeds or ()) - set(size.seeds)):
        parser.error(f"--seeds: {options.size} has the seeds {size.seeds}, got {unknown}")
    folder = ROOT / "quickstart" / "benchmark" / f"polynomial_surface_{options.size}"
    kept = CommittedPieces(RESULTS / f"polynomial_surface_{options.size}_pieces.json", sources())
    measure_lines(kept, terminal)
    metrics: Metrics = {}
    for seed in options.seeds or size.seeds:
        measure_seed(size, seed, folder, kept, terminal)
        done = finished_seeds(kept.sections, size)
        metrics = summarise({k: v for k, v in kept.sections.items() if seed_of(k) in (0, *done)})
        written = write_record(
            "polynomial_surface", options.size, metrics, done, options.out, commits=kept.commits
        )
        terminal.say(f"written: {written}, seeds {done}")
    header = ("metric", "median", "worst seed", "published", "bar", "reached")
    terminal.table(f"polynomial surface, {options.size}", header, list(table_rows(metrics)))


if __name__ == "__main__":
    main()
