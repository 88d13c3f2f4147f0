r"""Whether posteriors and intervals are what they claim, exact and learned ones.

    python benchmarks/calibration.py --size small|medium|large

WBF events (channel ud, setting tuned).  Sets of events at theta ~ N(0, 1) are drawn from a pool by
their morphing weights: 20 events each (shape), or a Poisson number at 0.02 fb^-1 (rate).  They are
drawn three times (seeds 1, 2, 3) and counted together.

    exact_shape_sbc_ks_p_min, exact_rate_...   smallest Kolmogorov-Smirnov p of parameters' ranks
    exact_shape_coverage_68, exact_rate_...    coverage of 68% highest-density regions (50, 90,
                                               95), and its binomial error; _worst_pull: largest
                                               |coverage - level| of the four in such errors
    mflow_...                                  the same of a learned posterior (recipe mflow,
                                               implicit chart, morphing ratio from samples)
    mflow_ensemble_..., mflow_tempered_...     three of them averaged; with a fitted temperature
    mflow_conformal_...                        tempered, with levels adjusted on other sets, whose
                                               number counts in the errors
    mflow_temperature                          the temperature, fitted on other sets
    mflow_spread_over_width                    between members / within them, root mean squares
    tarp_p_exact, tarp_p_mflow                 TARP, arXiv:2302.03026
    posteriors_per_minute                      learned posteriors of 20 events, wall time, 1 thread
    toy_coverage_68, toy_coverage_95           contours of the profile likelihood (Wilks; levels
                                               0.6827, 0.95), exact, 200 events at (0, 0)
    toy_coverage_68_2000_events, ..._95_...    the same with 2000 events, nearer to the asymptotics
    toy_coverage_68_neyman, ..._95_neyman      CWL2 alone, 20 events at (0.5, 0), Neyman's belt;
                                               errors with those of the belt's own toys
    minos_over_grid                            largest |MINOS - dense grid profile| / width
    fisher_over_hessian                        mean outer product of scores and mean Hessian at
                                               (0, 0): largest difference of an entry, in units of
                                               the diagonal entries' geometric mean; the same
                                               events of the pool, morphing weights; _error: of it
    fisher_over_hessian_plain                  the same of unweighted events at (0, 0), where few
                                               events of tiny density carry much of both
    joint_difference                           |log L of two sets - sum of their log L|
    width_ratio_4_luminosity                   posterior width at 4 L / width at L (Asimov): 1/2
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from density import simulated
from density_cases import MORPHING
from fisher_on_events import fisher_metrics, mixture_weights
from record import ROOT, write_record

from mflow_sbi.calibration import (
    Coverage,
    DrawnSets,
    EnsembleSets,
    LikelihoodOfSets,
    Ranks,
    SetPosteriors,
    TemperedSets,
    coverage,
    crossfitted_means,
    draw_counted_sets,
    draw_sets,
    fit_conformal_levels,
    fit_temperature,
    informed_references,
    mean_spread,
    posteriors_of_sets,
    ranks_of,
    tarp,
    uniformity,
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
    maximise,
    neyman_belt,
    toy_coverage,
)
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings, Schedule

LUMINOSITY = 0.02
SUMMARIES = ("pt_j1", "pt_j2", "pt_aa", "m_jj", "deltaeta_jj")
PRIOR = ("--theta-prior", "normal")
SEEDS = (1, 2, 3)  # of the sets of events
BARS: Mapping[str, tuple[str, float]] = {
    "exact_shape_sbc_ks_p_min": (">=", 0.01),
    "exact_rate_sbc_ks_p_min": (">=", 0.01),
    "exact_shape_coverage_worst_pull": ("<=", 2.5),
    "exact_rate_coverage_worst_pull": ("<=", 2.5),
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
    "medium": Size(500, 4000, 300_000, 300_000, 8, 3, 400_000),
    "large": Size(2000, 10_000, 1_000_000, 1_000_000, 10, 5, 400_000),
}
BELT = {"small": 0.1, "medium": 0.05, "large": 0.05}  # steps of Neyman's belt


def coverage_metrics(label: str, found: Sequence[Coverage], n_sets: float) -> Metrics:
    """Return coverage and its binomial error at every level, and the largest pull."""
    metrics: Metrics = {}
    pulls = []
    for one in found:
        error = (one.level * (1 - one.level) / n_sets) ** 0.5
        name = f"{label}_coverage_{100 * one.level:.0f}"
        metrics |= {name: one.share, f"{name}_error": error}
        pulls.append(abs(one.share - one.level) / error)
    return metrics | {f"{label}_coverage_worst_pull": max(pulls)}


def rank_metrics(label: str, several: Sequence[Ranks]) -> Metrics:
    """Return what the ranks in all sets say: smallest p of the parameters', and coverage."""
    parameters = np.concatenate([ranks.parameters for ranks in several])
    names = several[0].parameter_names
    p_values = [uniformity(name, parameters[:, k]).p_value for k, name in enumerate(names)]
    credibility = np.concatenate([ranks.credibility for ranks in several])
    found = coverage_metrics(label, coverage(credibility), len(credibility))
    return {f"{label}_sbc_ks_p_min": min(p_values)} | found


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


@dataclass(frozen=True)
class Drawn:
    """Sets of one seed: for the shape, for fitting recalibrations, and counted ones."""

    shape: DrawnSets
    others: DrawnSets
    counted: DrawnSets


def drawn_sets(pool: EventSample, prior: NormalPrior, n_sets: int, seed: int) -> Drawn:
    """Return sets at theta ~ prior."""
    rng = np.random.default_rng(seed)
    shape = draw_sets(pool, prior, n_sets, 20, rng)
    others = draw_sets(pool, prior, n_sets, 20, rng)
    expected = RateModel(CrossSection.from_metadata(pool.metadata), LUMINOSITY)
    return Drawn(shape, others, draw_counted_sets(pool, prior, n_sets, expected, rng))


def calibration_metrics(size: Size, folder: Path, terminal: Terminal) -> Metrics:
    """Return calibration of exact, learned, averaged and recalibrated posteriors."""
    pool = simulated(folder, "tuned", PRIOR, size.pool, 600)
    prior = NormalPrior(pool.parameter_names, (0, 0), (1, 1))
    everything = [drawn_sets(pool, prior, size.sets, seed) for seed in SEEDS]
    effective = min(float(one.shape.effective_events.min()) for one in everything)
    metrics: Metrics = {"smallest_effective_events": effective}
    with terminal.task("exact posteriors"):
        exact = [posteriors_of_sets(one.shape.exact(), prior) for one in everything]
        ranks = [ranks_of(x, one.shape.theta) for x, one in zip(exact, everything, strict=True)]
        metrics |= rank_metrics("exact_shape", ranks)
        metrics["tarp_p_exact"] = tarp_p(exact[0], everything[0].shape, 2)
        ranks = [ranks_at(one.counted.exact(), one.counted, prior) for one in everything]
        metrics |= rank_metrics("exact_rate", ranks)
        for seed, one in zip(SEEDS, ranks, strict=True):
            shares = {f"{100 * c.level:.0f}": c.share for c in coverage(one.credibility)}
            metrics |= {f"exact_rate_coverage_{k}_seed_{seed}": v for k, v in shares.items()}
    members = []
    for seed in range(1, size.members + 1):
        events = simulated(folder, "tuned", PRIOR, size.training_events, seed)
        with terminal.task(f"training on {len(events):,} events, seed {seed}"):
            members.append(trained(events, size, seed))
    with terminal.task("learned posteriors"):
        return metrics | learned_metrics(members, everything, prior)


def ranks_at(sets: LikelihoodOfSets, drawn: DrawnSets, prior: NormalPrior) -> Ranks:
    """Return where the truth stands in the posteriors of all sets."""
    return ranks_of(posteriors_of_sets(sets, prior), drawn.theta)


def learned_metrics(
    members: Sequence[TrainedSurrogate], everything: Sequence[Drawn], prior: NormalPrior
) -> Metrics:
    """Return calibration of learned posteriors: of one member, of all, recalibrated."""
    first, seconds = members[0], 0.0
    ranks: dict[str, list[Ranks]] = {}
    spreads, conformal = [], []
    sets = everything[0].others.learned(first)
    temperature = fit_temperature(sets, prior, everything[0].others.theta)
    cooled = ranks_at(temperature.apply_to_sets(sets), everything[0].others, prior)
    levels = fit_conformal_levels(cooled.credibility)
    metrics: Metrics = {
        "mflow_temperature": temperature.value,
        "mflow_temperature_error": temperature.error,
    }
    for k, one in enumerate(everything):
        began = time.perf_counter()
        posteriors = posteriors_of_sets(one.shape.learned(first), prior)
        alone = [ranks_of(posteriors, one.shape.theta)]
        seconds += time.perf_counter() - began
        if k == 0:
            metrics["tarp_p_mflow"] = tarp_p(posteriors, one.shape, 3)
        others = [posteriors_of_sets(one.shape.learned(x), prior) for x in members[1:]]
        everyone = [posteriors, *others]
        spreads.append(mean_spread([list(member) for member in everyone]))
        mixture = EnsembleSets.of_equal_evidence(everyone)
        tempered = TemperedSets(one.shape.learned(first), temperature.value)
        after = ranks_at(tempered, one.shape, prior)
        conformal.append(levels.cover(after.credibility))
        for label, found in {
            "mflow": alone[0],
            "mflow_rate": ranks_at(one.counted.learned(first), one.counted, prior),
            "mflow_ensemble": ranks_at(mixture, one.shape, prior),
            "mflow_tempered": after,
        }.items():
            ranks.setdefault(label, []).append(found)
    for label, several in ranks.items():
        metrics |= rank_metrics(label, several)
    shares = np.concatenate(conformal)
    n_sets = 1 / (1 / len(shares) + 1 / len(levels.credibilities))  # both halves fluctuate
    metrics |= coverage_metrics("mflow_conformal", coverage(shares), n_sets)
    ratios = [np.array(spread.between) / np.array(spread.within) for spread in spreads]
    metrics["mflow_spread_over_width"] = float(np.mean(ratios))
    metrics["posteriors_per_minute"] = 60 * sum(r.n_sets for r in ranks["mflow"]) / seconds
    return metrics


def interval_metrics(size: Size, step: float, folder: Path, terminal: Terminal) -> Metrics:
    """Return coverage of toys, MINOS against a dense grid, Fisher against Hessian, combination."""
    sample = simulated(folder, "tuned", PRIOR, size.pool, 600)
    pool = EventPool(sample)
    names, rng = pool.parameter_names, np.random.default_rng(5)
    limits = dict.fromkeys(names, (-4.0, 4.0))
    sure = {"rng": rng, "names": names, "n_toys": size.toys}
    with terminal.task("toys"):
        wilks, many = (
            toy_coverage(pool.simulator(n_events=n), [0.0, 0.0], limits, **sure)
            for n in (200, 2000)
        )
        simulate = pool.simulator(n_events=20)
        axis = np.arange(0.3, 0.7 + 1e-9, step)
        points = np.stack([axis, np.zeros_like(axis)], axis=1)
        belt = neyman_belt(simulate, {names[0]: axis}, limits, points=points, **sure)
        sure["construction"], sure["parameters"] = belt, names[:1]
        neyman = toy_coverage(simulate, [0.5, 0.0], limits, **sure)
    metrics: Metrics = {}
    studies = {"": (wilks, 0), "_2000_events": (many, 0), "_neyman": (neyman, 1)}
    for suffix, (study, belts) in studies.items():
        errors = study.error * np.sqrt(1 + belts)  # a belt has as many toys
        for level, share, error in zip((68, 95), study.fraction, errors, strict=True):
            metrics[f"toy_coverage_{level}{suffix}"] = float(share)
            metrics[f"toy_coverage_{level}{suffix}_error"] = float(error)
    metrics |= fisher_metrics("fisher_over_hessian", sample, mixture_weights(sample, [0.0, 0.0]))
    plain = simulated(folder, "tuned", ("--theta", "0", "0"), size.fisher_events, 700)
    metrics |= fisher_metrics("fisher_over_hessian_plain", plain, np.ones(len(plain)))
    return metrics | _likelihood_metrics(plain)


def _likelihood_metrics(events: EventSample) -> Metrics:
    """Return MINOS against a dense grid, combination, law of luminosity."""
    likelihood = exact_likelihood(events.take(np.arange(20)))
    names = tuple(likelihood.parameter_names)
    best = maximise(likelihood, np.zeros((1, 2)))
    worst = 0.0
    for k in range(2):
        width = best.minos[k, 1] - best.minos[k, 0]
        low, high = _profile_on_grid(likelihood, best.values, best.std, best.log_likelihood, k)
        ends = best.values[k] + best.minos[k]
        worst = max(worst, float(np.abs(ends - [low, high]).max() / width))
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
    metrics = interval_metrics(size, BELT[options.size], folder, terminal)
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
    seeds = list(range(1, max(size.members, len(SEEDS)) + 1))
    written = write_record("calibration", options.size, metrics, seeds, options.out)
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
