r"""How close posteriors come to the exact ones, by density, by what the events tell, by setting.

    python benchmarks/density.py --size small|medium|large

Densities, all on WBF events (channel ud) at theta ~ prior, for several random seeds:

    fom             closed-form chart, morphing ratio
    fom_residual    the same chart, residual ratio
    fom_flow        the same chart, conditional flow
    mflow           implicit chart, morphing ratio
    nre             no chart, ratio estimator from events and theta
    alices          no chart, ratio estimator from joint ratios and scores

Each learns from `samples` (events and theta), `score` (joint scores too) or `components` (morphing
components), and from as many events as `Size` says; the morphing ratio is also told the cross
section and the polynomial form, which flow and residual are not.  For each of the three truths of
the published study, sets of 20 fresh events (and of 200) give

    tv_<recipe>_<inputs>_<setting>     total variation to the exact posterior, on a grid
    gap_...                            log p(truth) of the learned posterior minus the exact one's
    tv_..._<truth>, gap_..._<truth>    by truth: sm (0, 0), half (0.5, 0), minus (-1, -1)
    tv_..._200                         with sets of 200 events
    worst_...                          largest truth's total variation / their mean
    cpu_s_...                          CPU seconds of the ratio's (or flow's) training
    sbc_p_...                          smallest Kolmogorov-Smirnov p over parameters of the ranks
                                       of theta ~ prior in its posterior, given 20 events each
    information_...                    nats per event lost: mean log exact - log learned ratio

and standard errors over seeds as `_error`.  Posteriors under a ratio need no reference flow, so
that none is trained.  A flow's likelihood costs a thousand times a ratio's: it gets a quarter of
the sets of 20 events and neither ranks nor sets of 200.  Events of one setting and seed are made
once: densities learning from fewer take the first ones.  Finished pieces stay in
`quickstart/benchmark/density_<size>/` and are used again while the code stays the same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from density_cases import SIZES, Case, Size
from record import ROOT, write_record
from scipy.stats import kstest
from timing import KeptSections

from mflow_sbi.console import Terminal
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.inference import (
    CachedLikelihood,
    NormalPrior,
    common_grid,
    exact_likelihood,
    grid_posterior,
)
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, HistoryRecord, Schedule
from simulators.__main__ import main as simulate

TRUTHS = {"sm": (0.0, 0.0), "half": (0.5, 0.0), "minus": (-1.0, -1.0)}
CELLS = 40
INFORMATION_EVENTS = 20_000
POOL_EVENTS = 100_000
BARS: Mapping[str, tuple[str, float]] = {
    "tv_fom_samples_tuned": ("<=", 0.03),
    "gap_fom_samples_tuned": (">=", -0.03),
    "tv_fom_components_tuned": ("<=", 0.01),
    "gap_fom_components_tuned": (">=", -0.01),
    "worst_fom_samples_tuned": ("<=", 1.5),
    "worst_fom_components_tuned": ("<=", 1.5),
    "tv_fom_samples_paper": ("<=", 0.08),
    "tv_fom_components_paper": ("<=", 0.03),
    "tv_fom_samples_tuned_200": ("<=", 0.15),
    "tv_fom_components_tuned_200": ("<=", 0.05),
    "sbc_p_fom_samples_tuned": (">=", 0.01),
    "sbc_p_fom_components_tuned": (">=", 0.01),
    "cpu_minutes": ("<=", 30),
}

Metrics = dict[str, float]


def simulated(folder: Path, setting: str, theta: Sequence[str], n: int, seed: int) -> EventSample:
    """Return events of the simulator's command line, written once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{setting}_{'_'.join(theta).strip('-')}_{n}_{seed}.root"
    words = ["--setting", setting, *theta, "--events", str(n), "--seed", str(seed)]
    if not path.is_file() and simulate(["wbf", *words, "--out", str(path)]) != 0:
        message = f"the simulator refused {words}"
        raise RuntimeError(message)
    return read_events(str(path))


def trained(case: Case, events: EventSample, seed: int) -> tuple[TrainedSurrogate, float]:
    """Train; return the surrogate and the CPU seconds of the phase that learns theta."""
    options, density = dict(case.options), dict(case.density)
    if density and case.phase == "ratio":
        density["inputs"] = case.inputs
    if density:
        options["density"] = density
    recipe = RECIPES[case.recipe]
    schedule = recipe.schedule_for(recipe.parse_options(options))
    changes: dict[str, dict[str, object]] = {case.phase: {"epochs": case.epochs}}
    schedule = schedule.with_phases(**changes)
    if case.phase == "ratio":  # posteriors need no reference
        schedule = Schedule(tuple(p for p in schedule.phases if p.name == "ratio"))
    ends: dict[str, list[float]] = {}

    def on_epoch(record: HistoryRecord) -> None:
        ends.setdefault(record.phase, []).append(time.process_time())

    surrogate = train(
        events,
        case.recipe,
        options=options,
        schedule=schedule,
        settings=FitSettings(seed=seed),
        on_epoch=on_epoch,
    ).surrogate
    marks = ends[case.phase]
    return surrogate, (marks[-1] - marks[0]) * len(marks) / max(1, len(marks) - 1)


def posterior_distances(
    surrogate: TrainedSurrogate, pool: EventSample, truth: Array, n_events: int, sets: int
) -> tuple[Array, Array]:
    """Return total variations and gaps in log p(truth) of sets of n_events, (sets,) each.

    The grid resolves the exact posterior and covers the prior.
    """
    prior = NormalPrior(pool.parameter_names, (0, 0), (1, 1))
    found = np.empty((2, sets))
    for k in range(sets):
        events = pool.take(np.arange(n_events * k, n_events * (k + 1)))
        exact = exact_likelihood(events)
        grid = common_grid([exact], prior, CELLS)
        true = grid_posterior(exact, prior, grid)
        learned = grid_posterior(CachedLikelihood(surrogate, events.x), prior, grid)
        gap = learned.log_prob_at(truth) - true.log_prob_at(truth)
        found[:, k] = true.total_variation(learned), gap[0]
    return found[0], found[1]


def information_lost(surrogate: TrainedSurrogate, test: EventSample, training: Array) -> float:
    """Return mean log exact - log learned ratio, nats per event; only of ratios."""
    theta, components = test.require_theta(), test.require_components()
    morphing = test.metadata.morphing
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    weights, sigma = basis.weights(theta), total_cross_section(basis, total, theta)
    few = training[:INFORMATION_EVENTS]
    average = (basis.weights(few) / total_cross_section(basis, total, few)[:, None]).mean(axis=0)
    density = (weights * components).sum(axis=1) / sigma
    exact = np.log(density) - np.log(components @ average)
    return float((exact - surrogate.log_likelihood(test.x, theta)).mean())


def measure(
    case: Case, setting: str, seed: int, size: Size, folder: Path, terminal: Terminal
) -> Metrics:
    """Return the metrics of one density, setting and seed."""
    began, prior = time.process_time(), ("--theta-prior", "normal")
    data, n = folder / "data", 1000 * case.thousands
    most = 1000 * max(c.thousands for c in size.cases if setting in c.settings and seed <= c.seeds)
    events = simulated(data, setting, prior, most, seed).take(np.arange(n))
    with terminal.task(f"{case.name}, {setting}, {n:,} events, seed {seed}"):
        surrogate, spent = trained(case, events, seed)
    name = f"{case.name}_{setting}"
    metrics: Metrics = {f"cpu_s_{name}": spent}
    few = simulated(data, setting, prior, INFORMATION_EVENTS, 500)
    if case.density and case.phase == "ratio":
        lost = information_lost(surrogate, few, events.require_theta())
        metrics[f"information_{name}"] = lost
    is_flow = case.phase == "density"
    if seed == 1 and not is_flow:
        pool = simulated(data, setting, prior, POOL_EVENTS, 600)
        metrics[f"sbc_p_{name}"] = rank_uniformity(surrogate, pool, size.calibration_sets)
    kinds = ((20, size.sets // 4),) if is_flow else ((20, size.sets), (200, size.large_sets))
    for n_events, sets in kinds:
        suffix = "" if n_events == 20 else f"_{n_events}"
        found = []
        for label, truth in TRUTHS.items():
            words = ("--theta", *(str(value) for value in truth))
            pool = simulated(data, setting, words, n_events * sets, 1000 + seed)
            point = np.array([truth])
            results = posterior_distances(surrogate, pool, point, n_events, sets)
            found.append([float(values.mean()) for values in results])
            metrics[f"tv_{name}{suffix}_{label}"] = found[-1][0]
            metrics[f"gap_{name}{suffix}_{label}"] = found[-1][1]
        distances, gaps = np.transpose(found)
        metrics[f"tv_{name}{suffix}"] = float(distances.mean())
        metrics[f"gap_{name}{suffix}"] = float(gaps.mean())
        metrics[f"worst_{name}{suffix}"] = float(distances.max() / distances.mean())
    return metrics | {"cpu_minutes": (time.process_time() - began) / 60}


def rank_uniformity(surrogate: TrainedSurrogate, pool: EventSample, sets: int) -> float:
    """Return the smallest p of flat ranks of theta_s ~ N(0, 1) given 20 events at theta_s.

    Events at theta_s are drawn from a pool at theta ~ prior with weights p(x|theta_s) / p(x).
    """
    rng, prior = np.random.default_rng(1), NormalPrior(pool.parameter_names, (0, 0), (1, 1))
    components, morphing = pool.require_components(), pool.metadata.morphing
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    others = pool.require_theta()[:INFORMATION_EVENTS]
    rates = total_cross_section(basis, total, others)
    average = (basis.weights(others) / rates[:, None]).mean(axis=0)
    normalised = components / (components @ average)[:, None]
    ranks = np.empty((sets, 2))
    for s, theta in enumerate(prior.sample(sets, rng)):
        weights = normalised @ basis.weights(theta[None])[0]
        chosen = rng.choice(len(pool), 20, p=weights / weights.sum())
        likelihood = CachedLikelihood(surrogate, pool.x[chosen])
        posterior = grid_posterior(likelihood, prior, common_grid([likelihood], prior, CELLS))
        for k in range(2):
            cumulative = np.concatenate([[0.0], np.cumsum(posterior.marginal(k))])
            ranks[s, k] = np.interp(theta[k], posterior.grid.edges[k], cumulative)
    return float(min(kstest(ranks[:, k], "uniform").pvalue for k in range(2)))


def summarise(pieces: Sequence[Metrics]) -> Metrics:
    """Return means over seeds with standard errors, and the CPU minutes of all."""
    summary: Metrics = {}
    for name in dict.fromkeys(name for piece in pieces for name in piece):
        values = [piece[name] for piece in pieces if name in piece]
        if name == "cpu_minutes":
            summary[name] = float(np.sum(values))
            continue
        summary[name] = float(np.mean(values))
        if len(values) > 1 and not name.endswith(tuple(TRUTHS)):
            summary[f"{name}_error"] = float(np.std(values, ddof=1) / len(values) ** 0.5)
    return summary


def table_rows(metrics: Metrics) -> list[tuple[str, str, str, str]]:
    """Return metric, measured, bar and whether it is reached, without the breakdowns."""
    rows = []
    for name, value in metrics.items():
        if name.endswith((*TRUTHS, "error")):
            continue
        sign, limit = BARS.get(name, ("", 0.0))
        reached = value >= limit if sign == ">=" else value <= limit
        answer = (f"{sign} {limit:g}", "yes" if reached else "NO") if sign else ("", "")
        rows.append((name, f"{value:.4g}", *answer))
    return rows


def sources() -> list[Path]:
    """Return the files whose contents decide the numbers."""
    package, wbf = ROOT / "mflow_sbi", ROOT / "simulators" / "wbf"
    rooms = ("densities", "events", "surrogates", "training", "transforms")
    single = (
        "beginnings",
        "default_schedules",
        "estimating",
        "flows",
        "morphing",
        "options",
        "recipes",
        "tilting",
    )
    files = [package / f"{room}.py" for room in single]
    folders = [*(package / room for room in rooms), wbf]
    own = [Path(__file__), Path(__file__).with_name("density_cases.py")]
    return [*files, *(path for folder in folders for path in folder.rglob("*.py")), *own]


def main() -> None:
    """Measure the missing pieces, print a table with the bars, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / f"density_{options.size}"
    kept = KeptSections(folder / "pieces.json", sources())
    pieces, seeds = [], max(case.seeds for case in size.cases)
    for seed in range(1, seeds + 1):
        for case in (case for case in size.cases if seed <= case.seeds):
            for setting in case.settings:
                key = f"{case.name}/{setting}/{seed}"
                if key not in kept.sections:
                    kept.keep(key, measure(case, setting, seed, size, folder, terminal))
                pieces.append(kept.sections[key])
    metrics = summarise(pieces)
    header = ("metric", "measured", "bar", "reached")
    terminal.table(f"densities, {options.size}", header, table_rows(metrics))
    written = write_record(
        "density", options.size, metrics, list(range(1, seeds + 1)), options.out
    )
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
