"""How close the main job's posteriors come to the exact ones, over many sets of observed events.

    python benchmarks/main_job.py --size small|medium|large

The quickstart's training (tuned setting, channel ud) for several seeds; then, for each of the
three truths of the published study, sets of 20 fresh events: total variation to the exact
posterior and log posterior at the truth, of M-flow, ambient flow, prior and exact posterior.
Trained runs stay in `quickstart/benchmark/` and are used again.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import ROOT, write_record

from mflow_sbi.console import Terminal
from mflow_sbi.evaluation import ComparisonTable, compare_posteriors
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.inference import CachedLikelihood, NormalPrior, exact_likelihood
from mflow_sbi.quickstart import METHODS, QuickstartSettings, run_config, simulate
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.runs import evaluate_run, train_run

TRUTHS = {"sm": (0.0, 0.0), "half": (0.5, 0.0), "minus": (-1.0, -1.0)}
N_OBSERVED = 20
FOLDER = ROOT / "quickstart" / "benchmark"


@dataclass(frozen=True)
class Size:
    """Training events, seeds of the training, and observed sets per truth."""

    training_events: int
    seeds: tuple[int, ...]
    sets: int


SIZES = {
    "small": Size(20_000, (1,), 2),
    "medium": Size(300_000, (1, 2), 10),
    "large": Size(1_000_000, (1, 2, 3), 30),
}


def trained(
    seed: int, size: Size, folder: Path, terminal: Terminal
) -> tuple[dict[str, Path], dict[str, float]]:
    """Train and evaluate all methods; the run folders by name, and the surfaces' metrics."""
    settings = QuickstartSettings(training_events=size.training_events, seed=seed)
    train, test = folder / "train.root", folder / "test.root"
    prior = ("--theta-prior", "normal")
    simulate(train, settings.training_events, seed, prior)
    simulate(test, settings.test_events, seed + 1, prior)
    runs, metrics = {}, {}
    for name in METHODS:
        run = folder / name
        train_run(run_config(name, train, settings), run, terminal)
        measured = evaluate_run(run, str(test), terminal)
        metrics[f"closure_{name}"] = measured["closure_generated"]
        if measured["reconstruction_error"] is not None:
            metrics[f"re_{name}"] = measured["reconstruction_error"]
        runs[name] = run
    return runs, metrics


def compare_set(runs: dict[str, Path], events: EventSample, truth: np.ndarray) -> ComparisonTable:
    """Return the table of one set of observed events."""
    likelihoods = {k: CachedLikelihood(load_surrogate(run), events.x) for k, run in runs.items()}
    prior = NormalPrior(events.parameter_names, (0, 0), (1, 1))
    return compare_posteriors(likelihoods, prior, exact_likelihood(events), truth, cells=40).table


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    size, terminal = SIZES[options.size], Terminal()
    numbers: dict[str, list[float]] = {}
    for seed in size.seeds:
        folder = FOLDER / options.size / f"seed_{seed}"
        runs, surfaces = trained(seed, size, folder, terminal)
        for name, value in surfaces.items():
            numbers.setdefault(name, []).append(value)
        for label, truth in TRUTHS.items():
            path = folder / f"observed_{label}.root"
            words = ("--theta", *(str(value) for value in truth))
            simulate(path, N_OBSERVED * size.sets, 1000 + seed, words)
            pool = read_events(str(path))
            with terminal.task(f"posteriors of {size.sets} sets at {truth}") as progress:
                for k in range(size.sets):
                    events = pool.take(np.arange(N_OBSERVED * k, N_OBSERVED * (k + 1)))
                    for row in compare_set(runs, events, np.array(truth)).rows:
                        name = row.label.split()[0]
                        tv, at = row.posterior.total_variation, row.posterior.log_prob_at_truth
                        assert tv is not None
                        assert at is not None
                        numbers.setdefault(f"tv_{name}_{label}", []).append(tv)
                        numbers.setdefault(f"log_prob_truth_{name}_{label}", []).append(at)
                    progress(k + 1, size.sets)
    metrics = summarise(numbers)
    rows = [(name, f"{value:.4g}") for name, value in metrics.items()]
    terminal.table(f"main job, {options.size}", ("metric", "value"), rows)
    write_record("main_job", options.size, metrics, list(size.seeds), options.out)


def summarise(numbers: dict[str, list[float]]) -> dict[str, float]:
    """Return means, standard errors where there are several numbers, and averages over truths."""
    metrics: dict[str, float] = {}
    for quantity in ("tv", "log_prob_truth"):
        for name in ("exact", *METHODS, "prior"):
            everywhere = [v for label in TRUTHS for v in numbers[f"{quantity}_{name}_{label}"]]
            numbers[f"{quantity}_{name}"] = everywhere
    for name, values in sorted(numbers.items()):
        metrics[name] = float(np.mean(values))
        if len(values) > 1:
            metrics[f"{name}_error"] = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return metrics


if __name__ == "__main__":
    main()
