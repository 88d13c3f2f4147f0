r"""How far learned densities are from the exact one in the absolute, nats per event.

    python benchmarks/absolute_density.py --size small|medium|large

Recipes `fom` (closed-form chart) and `mflow` (implicit chart), density `morphing` from samples,
on WBF events (channel ud, setting tuned) at theta ~ prior; fresh events x at theta ~ prior:

    log_prob_gap_<recipe>        mean log p_exact(x|theta) - log p_learned(x|theta)
    log_prob_gap_error_<recipe>  its statistical error
    reference_gap_<recipe>       the part that is not the ratio's: gap minus information lost

Both are densities with respect to the volume of the surface in standardised observables.  The
file's exact density is one in the measure of two jets' (pT, y, m) and the photon pair's
(pT, y, m, direction); with y the 14 coordinates (E, p)_j1, (E, p)_j2, p_a1, p_a2,

    p(y) = p_file 2 / (m_j1 m_j2 E_a1 E_a2 m_aa),    p_surface = p(y) prod std |det Q[y]|,

Q an orthonormal frame of the tangent space (n, 14), Q[y] its rows of these observables.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import ROOT, write_record

from mflow_sbi.charts import ColliderChart
from mflow_sbi.console import Terminal
from mflow_sbi.events import EventSample, read_events
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section
from mflow_sbi.quickstart import METHODS, simulate
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.training import FitSettings

COORDINATES = (
    *(f"{c}_{jet}" for jet in ("j1", "j2") for c in ("e", "px", "py", "pz")),
    *(f"{c}_{photon}" for photon in ("a1", "a2") for c in ("px", "py", "pz")),
)
DENSITY = METHODS["morphing"].options["density"]
CASES: Mapping[str, Mapping[str, Any]] = {
    "fom": {"density": DENSITY},
    "mflow": {"chart": "implicit", "density": DENSITY},
}


@dataclass(frozen=True)
class Size:
    """Training and test events, seeds, and epochs of the reference flow."""

    training_events: int
    test_events: int
    seeds: tuple[int, ...]
    reference_epochs: int


SIZES = {
    "small": Size(20_000, 2000, (1,), 3),
    "medium": Size(300_000, 10_000, (1,), 6),
    "large": Size(1_000_000, 20_000, (1, 2, 3), 12),
}


def exact_log_prob(sample: EventSample, mean: Array, std: Array) -> Array:
    """Return log p(x|theta) with respect to the surface's volume, (N,)."""
    morphing, names = sample.metadata.morphing, list(sample.observable_names)
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    theta = sample.require_theta()
    density = (basis.weights(theta) * sample.require_components()).sum(axis=1)
    log_p = np.log(density / total_cross_section(basis, total, theta))
    value = {name: sample.x[:, names.index(name)] for name in names}
    for jet in ("j1", "j2"):
        squares = sum(value[f"p{c}_{jet}"] ** 2 for c in "xyz")
        log_p -= 0.5 * np.log(value[f"e_{jet}"] ** 2 - squares)
    log_p += np.log(2 / (value["e_a1"] * value["e_a2"] * value["m_aa"]))
    rows = [names.index(name) for name in COORDINATES]
    chart = ColliderChart.for_observables(names, mean, std)
    x = torch.from_numpy((sample.x - mean) / std)
    with torch.no_grad():
        _, jacobian = chart.decode_with_jacobian(chart.encode(x))
    frame = torch.linalg.qr(jacobian).Q
    change = torch.linalg.slogdet(frame[:, rows]).logabsdet.numpy()
    return log_p + np.log(std[rows]).sum() + change


def ratio_loss(trained: TrainedSurrogate, test: EventSample, training: Array) -> float:
    """Return mean log exact - log learned ratio to the average over the training thetas."""
    morphing, theta = test.metadata.morphing, test.require_theta()
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    average = (
        basis.weights(training) / total_cross_section(basis, total, training)[:, None]
    ).mean(axis=0)
    components = test.require_components()
    density = (basis.weights(theta) * components).sum(axis=1)
    exact = np.log(density / total_cross_section(basis, total, theta))
    exact -= np.log(components @ average)
    return float((exact - trained.log_likelihood(test.x, theta)).mean())


def measure(
    name: str, training: EventSample, test: EventSample, size: Size, seed: int, terminal: Terminal
) -> dict[str, float]:
    """Train one recipe; return its gaps and CPU minutes."""
    began, recipe = time.process_time(), RECIPES[name]
    options = dict(CASES[name])
    changes: dict[str, dict[str, object]] = {"reference": {"epochs": size.reference_epochs}}
    schedule = recipe.schedule_for(recipe.parse_options(options)).with_phases(**changes)
    with terminal.task(f"training {name} on {len(training):,} events, seed {seed}"):
        settings = FitSettings(seed=seed)
        trained = train(
            training, name, options=options, schedule=schedule, settings=settings
        ).surrogate
    spent = time.process_time() - began
    scale = trained.record.observables
    learned = trained.log_prob(test.x, test.require_theta())
    gaps = exact_log_prob(test, scale.mean, scale.std) - learned
    lost = ratio_loss(trained, test, training.require_theta())
    return {
        f"log_prob_gap_{name}": float(gaps.mean()),
        f"log_prob_gap_error_{name}": float(gaps.std() / len(gaps) ** 0.5),
        f"reference_gap_{name}": float(gaps.mean()) - lost,
        f"cpu_minutes_{name}": spent / 60,
    }


def events_of(folder: Path, n_events: int, seed: int, theta: Sequence[str]) -> EventSample:
    """Return simulated events, written once."""
    path = folder / f"{n_events}_{seed}.root"
    simulate(path, n_events, seed, theta)
    return read_events(str(path))


def main() -> None:
    """Run the benchmark, print its table and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / "absolute_density"
    prior = ("--theta-prior", "normal")
    test = events_of(folder, size.test_events, 999, prior)
    pieces = [
        measure(
            name, events_of(folder, size.training_events, seed, prior), test, size, seed, terminal
        )
        for seed in size.seeds
        for name in CASES
    ]
    names = dict.fromkeys(name for piece in pieces for name in piece)
    metrics = {name: float(np.mean([p[name] for p in pieces if name in p])) for name in names}
    rows = [(name, f"{value:.4g}") for name, value in metrics.items()]
    terminal.table(f"absolute density, {options.size}", ("metric", "value"), rows)
    write_record("absolute_density", options.size, metrics, list(size.seeds), options.out)


if __name__ == "__main__":
    main()
