r"""How close posteriors come to the exact ones, by density, by number of training events.

    python benchmarks/data_efficiency.py --size small|medium|large

Densities on the closed-form chart of WBF events (channel ud, setting tuned, theta ~ prior), all
from events and theta alone:

    morphing    reference x positive polynomial in theta, told the cross section
    residual    reference x normalised ratio for any dependence on theta
    flow        conditional flow

For each of the three truths of the published study, sets of 20 fresh events give

    tv_<density>_<n>k        total variation to the exact posterior, on a grid, mean over sets
    tv_error_<density>_<n>k  its standard error over sets and truths
    cpu_s_<density>_<n>k     CPU seconds of the phase that learns theta

Epochs shrink as events grow, so that no density sees an event less than `EPOCHS` says.  Besides
the record, `docs/data_efficiency.png` is drawn.  Finished pieces stay in
`quickstart/benchmark/data_efficiency_<size>/` and are used again while the code stays the same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from density import TRUTHS, posterior_distances, simulated, sources, trained
from density_cases import FLOW, MORPHING, RESIDUAL, TUNED, Case
from matplotlib.figure import Figure
from record import ROOT, write_record
from timing import KeptSections

from mflow_sbi.console import Terminal
from mflow_sbi.events import EventSample
from mflow_sbi.plots import save_figure

DENSITIES = {"morphing": MORPHING, "residual": RESIDUAL, "flow": FLOW}
EPOCHS: Mapping[int, int] = {10: 40, 30: 30, 100: 16, 300: 8, 1000: 4}
"""Thousands of events -> epochs of the phase that learns theta."""


@dataclass(frozen=True)
class Size:
    """Thousands of training events, and observed sets per truth."""

    thousands: tuple[int, ...]
    sets: int


SIZES = {
    "small": Size((10, 30), 5),
    "medium": Size((10, 30, 100, 300, 1000), 15),
    "large": Size((10, 30, 100, 300, 1000), 50),
}


def measure(
    density: str, thousands: int, size: Size, folder: Path, terminal: Terminal
) -> dict[str, float]:
    """Train one density on so many events; return its metrics."""
    case = Case("fom", DENSITIES[density], "samples", thousands, EPOCHS[thousands], 1, TUNED)
    prior, most = ("--theta-prior", "normal"), 1000 * max(size.thousands)
    events = simulated(folder, "tuned", prior, most, 1).take(np.arange(1000 * thousands))
    with terminal.task(f"{density}, {thousands:,} thousand events"):
        surrogate, spent = trained(case, events, 1)
    distances = []
    for truth in TRUTHS.values():
        words = ("--theta", *(str(value) for value in truth))
        pool: EventSample = simulated(folder, "tuned", words, 20 * size.sets, 1001)
        distances.append(posterior_distances(surrogate, pool, np.array([truth]), 20, size.sets)[0])
    every = np.concatenate(distances)
    return {
        f"tv_{density}_{thousands}k": float(every.mean()),
        f"tv_error_{density}_{thousands}k": float(every.std(ddof=1) / len(every) ** 0.5),
        f"cpu_s_{density}_{thousands}k": spent,
    }


def draw(metrics: Mapping[str, float], size: Size, path: Path) -> None:
    """Draw total variation against training events, one line per density."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    styles = {"morphing": "o-", "residual": "s--", "flow": "^:"}
    for density, style in styles.items():
        values = [metrics[f"tv_{density}_{n}k"] for n in size.thousands]
        errors = [metrics[f"tv_error_{density}_{n}k"] for n in size.thousands]
        events = [1000 * n for n in size.thousands]
        axes.errorbar(events, values, errors, fmt=style, capsize=2, label=density)
    axes.set(xscale="log", yscale="log", xlabel="training events")
    axes.set_ylabel("total variation to the exact posterior")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(title="20 events, known chart", frameon=False)
    save_figure(figure, path)


def main() -> None:
    """Measure the missing pieces, print a table, draw the figure, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / f"data_efficiency_{options.size}"
    kept = KeptSections(folder / "pieces.json", [*sources(), Path(__file__)])
    metrics: dict[str, float] = {}
    for thousands in size.thousands:
        for density in DENSITIES:
            key = f"{density}/{thousands}"
            if key not in kept.sections:
                kept.keep(key, measure(density, thousands, size, folder / "data", terminal))
            metrics |= kept.sections[key]
    rows = [
        (f"{n:,}k", *(f"{metrics[f'tv_{d}_{n}k']:.3f}" for d in DENSITIES)) for n in size.thousands
    ]
    terminal.table(f"total variation, {options.size}", ("events", *DENSITIES), rows)
    draw(metrics, size, folder / "data_efficiency.png")
    if options.size != "small":
        draw(metrics, size, ROOT / "docs" / "data_efficiency.png")
    written = write_record("data_efficiency", options.size, metrics, [1], options.out)
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
