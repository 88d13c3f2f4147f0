"""The main job at small size, in one go: simulate, train, infer, compare.

It calls what the other commands call, on events that `python -m simulators` writes.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mflow_sbi import plots
from mflow_sbi.config import RunConfig, parse_config
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.evaluation import Comparison
from mflow_sbi.evaluation.compare import EXACT
from mflow_sbi.events import read_events
from mflow_sbi.inference import EmceeSampler, draws_of, exact_likelihood, load_posterior
from mflow_sbi.interfaces import Reporter
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.run_files import HISTORY, POSTERIOR
from mflow_sbi.runs import (
    compare_runs,
    draw_events,
    evaluate_run,
    infer_run,
    infer_with,
    read_history,
    train_run,
)

__all__ = ["METHODS", "Method", "QuickstartSettings", "quickstart", "run_config", "simulate"]


class Method(NamedTuple):
    """A surrogate of the main job: title in tables, recipe and its options."""

    title: str
    recipe: str
    options: Mapping[str, Any]


_MORPHING = {
    "kind": "morphing",
    "inputs": "samples",
    "objects": ["aa", "j1", "j2"],
    "reflection": True,
    "exchange": True,
    "odd_parameters": ["CPWL2"],
}

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "morphing": Method(
            "morphing M-flow",
            "mflow",
            {"chart": "automatic", "density": _MORPHING},
        ),
        "mflow": Method("M-flow", "mflow", {"chart": "invertible"}),
        "af": Method("ambient flow", "af", {}),
    }
)
"""By the name of the run's folder: the default for events like these (surface from constraints
found in the data, density a positive polynomial in theta), the published M-flow (surface and
density learned, nothing known), and the ambient flow."""


@dataclass(frozen=True)
class QuickstartSettings:
    """Sizes and seeds of the main job.

    Args:
        training_events: simulated at theta drawn from the prior.
        test_events: the same, other seed.
        observed_events: simulated at the truth.
        truth: parameters behind the observed events.
        epochs: of the phases, by name.
        mcmc: steps discarded and steps kept of each of 2 x 64 walkers.
        seed: of the simulation; training and sampling use the same number.
        threads: torch threads of each training; as many as there are cores run side by side.
    """

    training_events: int = 150_000
    test_events: int = 5_000
    observed_events: int = 20
    truth: tuple[float, float] = (0.5, 0.0)
    epochs: Mapping[str, int] = field(
        default_factory=lambda: {"manifold": 3, "reference": 3, "density": 8, "ratio": 12}
    )
    mcmc: tuple[int, int] = (150, 250)
    seed: int = 1
    threads: int = 1

    def scaled(self, factor: float) -> "QuickstartSettings":
        """Return the same job with the numbers of simulated events scaled."""
        return replace(
            self,
            training_events=max(2000, round(factor * self.training_events)),
            test_events=max(500, round(factor * self.test_events)),
        )


def simulate(path: Path, n_events: int, seed: int, theta: Sequence[str]) -> None:
    """Write WBF events by the simulator's command line, unless the file is there already.

    Args:
        path: event file to write.
        n_events: number of events.
        seed: of the simulation.
        theta: words of the command line that choose theta.

    Raises:
        MflowSbiError: the simulator failed or is not installed.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "simulators", "wbf", "--setting", "tuned", "--channel", "ud"]
    command += [*theta, "--events", str(n_events), "--seed", str(seed), "--out", str(path)]
    finished = subprocess.run(command, check=False)  # noqa: S603
    if finished.returncode != 0:
        message = (
            f"the simulator ended with exit code {finished.returncode}; it comes with "
            "`pip install mflow_sbi[simulators]`"
        )
        raise MflowSbiError(message)


def run_config(name: str, train: Path, settings: QuickstartSettings) -> RunConfig:
    """Return the configuration of one of the main job's runs on the training events."""
    method = METHODS[name]
    burn_in, steps = settings.mcmc
    values = {
        "name": name,
        "title": method.title,
        "events": str(train),
        "recipe": method.recipe,
        "options": method.options,
        "seed": settings.seed,
        "threads": settings.threads,
        "mcmc": {"ensembles": 2, "walkers": 64, "burn_in": burn_in, "steps": steps},
    }
    phases = parse_config(values).training_schedule().phase_names
    return parse_config({**values, "phases": {k: {"epochs": settings.epochs[k]} for k in phases}})


def quickstart(folder: Path, settings: QuickstartSettings, reporter: Reporter) -> Comparison:
    """Run the main job into a folder and return the comparison.

    Events in `folder/data` and trained runs in `folder/runs` are used again if they are there.
    """
    data = folder / "data"
    train_path, test_path = data / "train.root", data / "test.root"
    observed_path = data / "observed.root"
    prior, truth = ("--theta-prior", "normal"), [str(value) for value in settings.truth]
    simulate(train_path, settings.training_events, settings.seed, prior)
    simulate(test_path, settings.test_events, settings.seed + 1, prior)
    simulate(observed_path, settings.observed_events, settings.seed + 2, ("--theta", *truth))
    runs = {method.title: folder / "runs" / name for name, method in METHODS.items()}
    configs = [run_config(name, train_path, settings) for name in METHODS]
    _train_side_by_side(configs, list(runs.values()), reporter)
    for run in runs.values():
        evaluate_run(run, str(test_path), reporter)
        infer_run(run, str(observed_path), reporter)
    comparison = compare_runs(list(runs.values()), str(observed_path), folder, reporter)
    _sample_exact(folder, observed_path, reporter, configs[0])
    _draw(folder, test_path, runs, comparison, reporter)
    reporter.say(f"table: {folder}/comparison.md   figures: {folder}/figures/")
    return comparison


def _train_quietly(config: RunConfig, run: Path) -> None:
    train_run(config, run)


def _train_side_by_side(
    configs: Sequence[RunConfig], runs: Sequence[Path], reporter: Reporter
) -> None:
    """Train runs in processes of their own, one per core; their histories tell how far."""
    if all((run / "surrogate").is_dir() for run in runs):
        for config, run in zip(configs, runs, strict=True):
            train_run(config, run, reporter)
        return
    total = sum(phase.epochs for config in configs for phase in config.training_schedule().phases)
    workers = min(len(runs), os.cpu_count() or 1)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with reporter.task(f"training {len(runs)} surrogates side by side") as progress, pool:
        futures = [
            pool.submit(_train_quietly, config, run)
            for config, run in zip(configs, runs, strict=True)
        ]
        while not all(future.done() for future in futures):
            wait(futures, timeout=0.5)
            done = sum(len(read_history(run)) for run in runs if (run / HISTORY).is_file())
            progress(done, total)
        for future in futures:
            future.result()


def _sample_exact(
    folder: Path, observed_path: Path, reporter: Reporter, config: RunConfig
) -> None:
    """Sample the exact posterior by the MCMC that the surrogates use, only longer."""
    observed = read_events(str(observed_path))
    likelihood = exact_likelihood(observed)
    records = {"recipe": "exact", "observed_digest": observed.digest}
    prior = config.prior.build(tuple(likelihood.parameter_names))
    path, sampler = folder / "posterior_exact.nc", EmceeSampler()
    infer_with(likelihood, prior, sampler, config.seed, path, "exact", reporter, records)


def _draw(
    folder: Path,
    test_path: Path,
    runs: Mapping[str, Path],
    comparison: Comparison,
    reporter: Reporter,
) -> None:
    """Draw the four figures of the main job."""
    test = read_events(str(test_path))
    figures = folder / "figures"
    with reporter.task("drawing") as progress:
        draws = {title: draws_of(load_posterior(run / POSTERIOR)) for title, run in runs.items()}
        table = comparison.table
        truth = None if table.truth is None else np.array(table.truth)
        exact = comparison.posteriors[EXACT]
        corner = plots.corner_plot(draws, exact, truth, table.parameter_names)
        plots.save_figure(corner, figures / "corner.png")
        progress(1, 3)
        theta, seed = test.require_theta(), comparison.table.n_events
        generated = {title: load_surrogate(run).sample(theta, seed) for title, run in runs.items()}
        draw_events(generated, test, figures)
        progress(2, 3)
        history = {title: read_history(run) for title, run in runs.items()}
        plots.save_figure(plots.history_plot(history), figures / "history.png")
        progress(3, 3)
