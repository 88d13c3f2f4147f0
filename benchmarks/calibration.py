r"""Whether posteriors and intervals are what they claim, exact and learned ones.

    python benchmarks/calibration.py --size small|medium|large

WBF events (channel ud, setting tuned).  Sets of events at theta ~ N(0, 1) are drawn from a pool by
their morphing weights: 20 events each (shape), or a Poisson number at 0.02 fb^-1 (rate).

    exact_shape_sbc_ks_p_min, exact_rate_...   smallest Kolmogorov-Smirnov p of parameters' ranks
    exact_shape_coverage_68, exact_rate_...    coverage of 68% highest-density regions (50, 90, 95)
    mflow_...                                  the same of a learned posterior (recipe mflow,
                                               implicit chart, morphing ratio from samples)
    mflow_ensemble_..., mflow_tempered_...     three of them averaged; with a fitted temperature
    mflow_temperature                          the temperature, fitted on other sets
    tarp_p_exact, tarp_p_mflow                 TARP, arXiv:2302.03026
    posteriors_per_minute                      learned posteriors of 20 events, wall time, 1 thread
    toy_coverage_68, toy_coverage_95           contours of the profile likelihood (Wilks), exact,
                                               200 events at (0, 0)
    toy_coverage_68_neyman, ..._95_neyman      CWL2 alone, 20 events at (0.5, 0), Neyman's belt
    minos_over_grid                            largest |MINOS - dense grid profile| / width
    fisher_over_hessian                        largest difference of an entry, events at (0, 0), in
                                               units of the diagonal entries' geometric mean
    joint_difference                           |log L of two sets - sum of their log L|
    width_ratio_4_luminosity                   posterior width at 4 L / width at L (Asimov): 1/2
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from density import simulated
from density_cases import MORPHING
from record import ROOT, write_record

from mflow_sbi.calibration import (
    CalibrationReport,
    DrawnSets,
    LikelihoodOfSets,
    SetPosteriors,
    TemperedSets,
    calibration_report,
    crossfitted_means,
    draw_counted_sets,
    draw_sets,
    ensemble_sets,
    fit_temperature,
    informed_references,
    posteriors_of_sets,
    ranks_of,
    tarp,
)
from mflow_sbi.console import Terminal
from mflow_sbi.events import EventSample
from mflow_sbi.inference import (
    CrossSection,
    Grid,
    JointLikelihood,
    NormalPrior,
    RateModel,
    common_grid,
    exact_likelihood,
    grid_posterior,
)
from mflow_sbi.interfaces import Array, Likelihood
from mflow_sbi.intervals import (
    EventPool,
    hessian_information,
    maximise,
    neyman_belt,
    score_information,
    toy_coverage,
)
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, Schedule

LUMINOSITY = 0.02
SUMMARIES = ("pt_j1", "pt_j2", "pt_aa", "m_jj", "deltaeta_jj")
PRIOR = ("--theta-prior", "normal")
BARS: Mapping[str, tuple[str, float]] = {
    "exact_shape_sbc_ks_p_min": (">=", 0.01),
    "exact_rate_sbc_ks_p_min": (">=", 0.01),
    "posteriors_per_minute": (">=", 500),
    "minos_over_grid": ("<=", 0.01),
    "fisher_over_hessian": ("<=", 0.02),
    "joint_difference": ("<=", 1e-8),
}

Metrics = dict[str, float]


@dataclass(frozen=True)
class Size:
    """Sets, toys, pool and training events, epochs, members of the ensemble."""

    sets: int
    toys: int
    pool: int
    training_events: int
    epochs: int
    members: int
    fisher_events: int


SIZES = {
    "small": Size(100, 200, 50_000, 20_000, 4, 2, 20_000),
    "medium": Size(500, 1000, 300_000, 300_000, 8, 3, 400_000),
    "large": Size(2000, 4000, 1_000_000, 1_000_000, 10, 5, 100_000),
}


def report_metrics(label: str, report: CalibrationReport) -> Metrics:
    """Return smallest p over the parameters, and coverage at every level."""
    p_values = [u.p_value for u in report.uniformity if u.quantity.startswith("C")]
    coverage = {f"{label}_coverage_{100 * c.level:.0f}": c.share for c in report.coverage}
    error = {f"{label}_coverage_68_error": (0.68 * 0.32 / report.n_sets) ** 0.5}
    return {f"{label}_sbc_ks_p_min": min(p_values)} | coverage | error


def posterior_metrics(
    label: str, sets: LikelihoodOfSets, drawn: DrawnSets, prior: NormalPrior
) -> tuple[Metrics, SetPosteriors]:
    """Return what ranks and coverage say of the posteriors of all sets."""
    posteriors = posteriors_of_sets(sets, prior)
    return report_metrics(label, calibration_report(ranks_of(posteriors, drawn.theta))), posteriors


def trained(events: EventSample, size: Size, seed: int) -> TrainedSurrogate:
    """Return an M-flow on the discovered surface with a morphing ratio learned from samples."""
    options = {"chart": "implicit", "density": {**MORPHING, "inputs": "samples"}}
    recipe = RECIPES["mflow"]
    schedule = recipe.schedule_for(recipe.parse_options(options))
    schedule = schedule.with_phases(ratio={"epochs": size.epochs})
    ratio = Schedule(tuple(p for p in schedule.phases if p.name == "ratio"))  # for posteriors
    return train(
        events, "mflow", options=options, schedule=ratio, settings=FitSettings(seed=seed)
    ).surrogate


def tarp_p(posteriors: SetPosteriors, drawn: DrawnSets, seed: int) -> float:
    """Return the p-value of TARP with references near the truth, informed by the events."""
    rng = np.random.default_rng(seed)
    draws = posteriors.draws(500, rng)
    names = list(drawn.pool.observable_names)
    columns = [names.index(name) for name in SUMMARIES]
    summaries = np.stack([x[:, columns].mean(axis=0) for x in drawn.events])
    references = informed_references(
        crossfitted_means(summaries, drawn.theta, rng), drawn.theta, rng
    )
    return float(tarp(draws, drawn.theta, references, rng).test.p_value)


def calibration_metrics(size: Size, folder: Path, terminal: Terminal) -> Metrics:
    """Return calibration of exact, learned, averaged and tempered posteriors."""
    rng = np.random.default_rng(1)
    pool = simulated(folder, "tuned", PRIOR, size.pool, 600)
    prior = NormalPrior(pool.parameter_names, (0, 0), (1, 1))
    drawn = draw_sets(pool, prior, size.sets, 20, rng)
    others = draw_sets(pool, prior, size.sets, 20, rng)
    expected = RateModel(CrossSection.from_metadata(pool.metadata), LUMINOSITY)
    counted = draw_counted_sets(pool, prior, size.sets, expected, rng)
    metrics: Metrics = {"smallest_effective_events": float(drawn.effective_events.min())}
    found, exact = posterior_metrics("exact_shape", drawn.exact(), drawn, prior)
    metrics |= found | {"tarp_p_exact": tarp_p(exact, drawn, 2)}
    metrics |= posterior_metrics("exact_rate", counted.exact(), counted, prior)[0]
    members = []
    for seed in range(1, size.members + 1):
        events = simulated(folder, "tuned", PRIOR, size.training_events, seed)
        with terminal.task(f"training on {len(events):,} events, seed {seed}"):
            members.append(trained(events, size, seed))
    began = time.perf_counter()
    learned = drawn.learned(members[0])
    found, posteriors = posterior_metrics("mflow", learned, drawn, prior)
    metrics |= found
    metrics["posteriors_per_minute"] = 60 * size.sets / (time.perf_counter() - began)
    metrics["tarp_p_mflow"] = tarp_p(posteriors, drawn, 3)
    metrics |= posterior_metrics("mflow_rate", counted.learned(members[0]), counted, prior)[0]
    together = ensemble_sets(members, drawn.events, prior)
    metrics |= posterior_metrics("mflow_ensemble", together, drawn, prior)[0]
    temperature = fit_temperature(others.learned(members[0]), prior, others.theta)
    metrics["mflow_temperature"] = temperature.value
    tempered = TemperedSets(learned, temperature.value)
    return metrics | posterior_metrics("mflow_tempered", tempered, drawn, prior)[0]


def interval_metrics(size: Size, folder: Path, terminal: Terminal) -> Metrics:
    """Return coverage of toys, MINOS against a dense grid, Fisher against Hessian, combination."""
    pool = EventPool(simulated(folder, "tuned", PRIOR, size.pool, 600))
    names, rng = pool.parameter_names, np.random.default_rng(5)
    limits = dict.fromkeys(names, (-4.0, 4.0))
    sure = {"rng": rng, "names": names, "n_toys": size.toys}
    with terminal.task("toys"):
        wilks = toy_coverage(pool.simulator(n_events=200), [0.0, 0.0], limits, **sure)
        simulate, axis = pool.simulator(n_events=20), np.array([0.3, 0.4, 0.5, 0.6, 0.7])
        points = np.stack([axis, np.zeros_like(axis)], axis=1)
        belt = neyman_belt(simulate, {names[0]: axis}, limits, points=points, **sure)
        sure["construction"], sure["parameters"] = belt, names[:1]
        neyman = toy_coverage(simulate, [0.5, 0.0], limits, **sure)
    metrics: Metrics = {}
    for suffix, study in (("", wilks), ("_neyman", neyman)):
        for level, share, error in zip((68, 95), study.fraction, study.error, strict=True):
            metrics[f"toy_coverage_{level}{suffix}"] = float(share)
            metrics[f"toy_coverage_{level}{suffix}_error"] = float(error)
    return metrics | _likelihood_metrics(size, folder)


def _likelihood_metrics(size: Size, folder: Path) -> Metrics:
    """Return MINOS against a dense grid, Fisher information, combination, law of luminosity."""
    events = simulated(folder, "tuned", ("--theta", "0", "0"), size.fisher_events, 700)
    likelihood = exact_likelihood(events.take(np.arange(20)))
    names = tuple(likelihood.parameter_names)
    best = maximise(likelihood, np.zeros((1, 2)))
    worst = 0.0
    for k in range(2):
        width = best.minos[k, 1] - best.minos[k, 0]
        low, high = _profile_on_grid(likelihood, best.values, best.std, best.log_likelihood, k)
        ends = best.values[k] + best.minos[k]
        worst = max(worst, float(np.abs(ends - [low, high]).max() / width))
    scores = score_information(names, EventPool(events).scores([0, 0]), np.random.default_rng(4))
    hessian = hessian_information(exact_likelihood(events), [0, 0]).matrix / len(events)
    scale = np.sqrt(np.outer(np.diag(hessian), np.diag(hessian)))
    second = exact_likelihood(events.take(np.arange(20, 60)))
    joint = JointLikelihood({"first": likelihood, "second": second})
    points = np.random.default_rng(3).normal(size=(100, 2))
    difference = np.abs(joint(points) - likelihood(points) - second(points)).max()
    prior = NormalPrior(names, (0, 0), (1, 1))
    widths, pool = [], EventPool(events.take(np.arange(20_000)))
    for n in (1000, 4000):
        asimov = pool.asimov([0, 0], n_events=n)
        widths.append(grid_posterior(asimov, prior, common_grid([asimov], prior, 40)).std)
    ratio = float(np.mean(widths[1] / widths[0]))
    return {
        "minos_over_grid": worst,
        "fisher_over_hessian": float(np.abs((scores.matrix - hessian) / scale).max()),
        "joint_difference": float(difference),
        "width_ratio_4_luminosity": ratio,
    }


def _profile_on_grid(
    likelihood: Likelihood, centre: Array, std: Array, top: float, k: int
) -> tuple[float, float]:
    """Return the ends of Delta log L <= 1/2 of one parameter on a dense grid."""
    box = [(c - 4 * s, c + 4 * s) for c, s in zip(centre, std, strict=True)]
    grid = Grid.regular(box, (800, 800))
    values = np.concatenate(
        [likelihood(part) for part in np.array_split(grid.points, 64)]
    ).reshape(grid.shape)
    profile, axis = values.max(axis=1 - k), grid.centres[k]
    inside = np.flatnonzero(profile >= top - 0.5)
    ends = []
    for i, step in ((inside[0], -1), (inside[-1], 1)):
        pair = [i, i + step]
        heights = profile[pair] - (top - 0.5)
        ends.append(float(np.interp(0.0, heights[::-1], axis[pair][::-1])))
    return ends[0], ends[1]


def main() -> None:
    """Run the benchmark, print its table with the bars and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal, began = SIZES[options.size], Terminal(), time.process_time()
    folder = ROOT / "quickstart" / "benchmark" / "calibration"
    metrics = interval_metrics(size, folder, terminal)
    metrics |= calibration_metrics(size, folder, terminal)
    metrics["cpu_minutes"] = (time.process_time() - began) / 60
    rows = []
    for name, value in metrics.items():
        sign, limit = BARS.get(name, ("", 0.0))
        reached = value >= limit if sign == ">=" else value <= limit
        rows.append(
            (name, f"{value:.4g}", f"{sign} {limit:g}" if sign else "", "yes" if reached else "NO")
            if sign
            else (name, f"{value:.4g}", "", "")
        )
    header = ("metric", "measured", "bar", "reached")
    terminal.table(f"calibration, {options.size}", header, rows)
    seeds = list(range(1, size.members + 1))
    written = write_record("calibration", options.size, metrics, seeds, options.out)
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
