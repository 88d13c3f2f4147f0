"""Speed of the WBF simulator: proposals and unweighted events per second on one core.

    python benchmarks/wbf_simulator.py --size small|medium|large

CPU seconds of this process, one thread; small takes seconds, large a few minutes.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: one thread is what is measured

import argparse
import time
from pathlib import Path

import numpy as np
from record import write_record
from rich.console import Console
from rich.progress import track
from rich.table import Table

from simulators.wbf.adaptation import adapted_proposal
from simulators.wbf.generator import generate_events
from simulators.wbf.proposals import CHUNK, draw_proposals

SIZES = {"small": 5_000, "medium": 50_000, "large": 400_000}
SEED = 20261121
POINTS = {"sm": (0.0, 0.0), "0.5_0": (0.5, 0.0), "-1_-1": (-1.0, -1.0), "prior": None}


def proposals_per_second(channel: str, n_proposals: int) -> float:
    """Proposals with all six coefficients, smearing and cuts included."""
    mixture = adapted_proposal(channel).mixture
    rng = np.random.default_rng(SEED)
    draw_proposals(rng, mixture, channel)
    n_chunks = -(-n_proposals // CHUNK)
    start = time.process_time()
    for _ in range(n_chunks):
        draw_proposals(rng, mixture, channel)
    return n_chunks * CHUNK / (time.process_time() - start)


def events_per_second(
    channel: str, setting: str, point: tuple[float, float] | None, n_events: int
) -> dict[str, float]:
    """Unweighted events with their components and score."""
    rng = np.random.default_rng(SEED)
    theta = rng.standard_normal((n_events, 2)) if point is None else np.tile(point, (n_events, 1))
    start = time.process_time()
    events = generate_events(theta, rng, channel, setting)
    seconds = time.process_time() - start
    return {
        "events_per_second": n_events / seconds,
        "efficiency": n_events / events.n_proposed,
        "overweight_fraction": events.overweight_fraction,
    }


def main() -> None:
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    n_events = SIZES[options.size]
    console = Console()
    metrics: dict[str, float] = {}
    cases = [
        (channel, setting, name)
        for channel in ("ud", "full")
        for setting in ("paper", "tuned")
        for name in POINTS
    ]
    for channel in ("ud", "full"):
        metrics[f"{channel}.proposals_per_second"] = proposals_per_second(channel, 40 * n_events)
    table = Table("channel", "setting", "theta", "events/s/core", "efficiency", "overweight")
    for channel, setting, name in track(cases, "unweighted events", console=console):
        numbers = events_per_second(channel, setting, POINTS[name], n_events)
        metrics |= {f"{channel}.{setting}.{name}.{key}": value for key, value in numbers.items()}
        rate, efficiency, overweight = numbers.values()
        row = (f"{rate:.0f}", f"{efficiency:.4f}", f"{overweight:.1e}")
        table.add_row(channel, setting, name, *row)
    console.print(table)
    for channel in ("ud", "full"):
        rate = metrics[f"{channel}.proposals_per_second"]
        console.print(f"{channel}: {rate:.3g} proposals/s/core")
    path = write_record("wbf_simulator", options.size, metrics, [SEED], options.out)
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
