"""The full chain: its speed beside Pythia's own, what it selects, and what the events look like.

    python benchmarks/chain.py --size small|medium|large

Weak-boson fusion, channel ud, setting paper, theta ~ N(0, 1)^2, no multiparton interactions, one
thread.  In every round the same LHE file goes through

    Pythia alone    `pythia.next()` until its end
    the chain       Pythia, detector, isolation, jets, ROOT file

with the same settings and after Pythia has started; CPU seconds are compared within the round.

    chain_over_pythia      throughput of the chain / of Pythia alone, median over rounds
    events_per_s_core      parton-level events per CPU second, partons and LHE included
    selection_efficiency   selected / parton-level events behind the generator cuts
    photon_pt_deviation    largest relative deviation of mean pt_a1 and pt_aa from `EXPECTED`
    mean_<observable>      of the selected events, error_<observable> its standard error

Further sections: campaigns on one and two workers, streaming and distributed training.  Finished
sections stay in `quickstart/benchmark/chain_<size>/` and are used again while the code stays the
same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before numpy

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from record import ROOT, write_record
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timing import KeptSections

import mflow_sbi
from simulators.chain.lhe import write_lhe
from simulators.chain.reconstruction import DetectedEvents, reconstruct
from simulators.chain.shower import Shower, batches_of, prepared_pythia
from simulators.file_format import write_event_file
from simulators.wbf.full_chain import (
    PYTHIA,
    ChainEvents,
    ChainSettings,
    chain_table,
    metadata,
    selected_cross_section,
)
from simulators.wbf.parton_events import PartonEvents, generate_parton_events, lhe_events

CHANNEL, SETTING = "ud", "paper"
SEED = 20261128
EXPECTED = {
    "pt_a1": (250.94, 2.91),
    "pt_a2": (76.49, 0.85),
    "pt_aa": (307.36, 3.19),
    "m_aa": (125.89, 0.35),
    "pt_j1": (274.64, 3.08),
    "pt_j2": (98.91, 1.34),
    "e_j2": (685.46, 11.70),
    "m_jj": (1066.21, 15.57),
    "pt_jj": (296.78, 3.15),
}
"""Means of a first implementation of the chain (3,200 selected events), and their errors."""
PHOTONS = ("pt_a1", "pt_aa")
BARS = {
    "chain_over_pythia": "at least 0.7",
    "selection_efficiency": "0.55 +- 0.03",
    "photon_pt_deviation": "at most 0.02",
}


@dataclass(frozen=True)
class Size:
    """Rounds, and parton-level events in each."""

    rounds: int
    events: int


SIZES = {"small": Size(2, 1_500), "medium": Size(6, 5_000), "large": Size(30, 10_000)}


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass
class Round:
    """CPU seconds of one round, by stage, and its events."""

    partons: float
    pythia: float
    chain: float
    efficiency: float
    file: Path


def one_round(number: int, n_events: int, folder: Path) -> Round:
    """Make partons, and take them through Pythia alone and through the chain."""
    seeds = np.random.SeedSequence([SEED, number]).spawn(3)
    theta = np.random.default_rng(seeds[0]).standard_normal((n_events, 2))
    rng = np.random.default_rng(seeds[1])
    path, out = folder / f"partons_{number}.lhe", folder / f"chain_{number}.root"
    made: list[PartonEvents] = []

    def partons() -> None:
        made.append(generate_parton_events(theta, rng, CHANNEL, SETTING))
        write_lhe(path, lhe_events(made[0], CHANNEL, SETTING))

    spent = cpu_seconds(partons)
    shower = Shower(SEED + number, commands=PYTHIA)
    alone = prepared_pythia(path, shower)
    pythia = cpu_seconds(lambda: [alone.next() for _ in range(n_events)])
    ready, detector = prepared_pythia(path, shower), np.random.default_rng(seeds[2])
    efficiency: list[float] = []
    chain = cpu_seconds(lambda: efficiency.append(_chain(ready, made[0], detector, number, out)))
    path.unlink()
    return Round(spent, pythia, chain, efficiency[0], out)


def _chain(
    pythia: object, partons: PartonEvents, rng: np.random.Generator, number: int, out: Path
) -> float:
    """Pythia, detector, jets, file; the efficiency."""
    settings = ChainSettings()
    parts = [
        reconstruct(rows, particles, settings.reconstruction, rng)
        for rows, particles in batches_of(pythia, len(partons))
    ]
    events = ChainEvents(partons, DetectedEvents.concatenate(parts), 0)
    cross_section = selected_cross_section(events, CHANNEL, SETTING)
    record = metadata(
        events,
        CHANNEL,
        SETTING,
        settings,
        cross_section,
        seed=SEED + number,
        command="benchmark",
        fixed_theta=None,
    )
    write_event_file(out, chain_table(events, cross_section[0]), record)
    return events.efficiency


def measure(size: Size, console: Console) -> dict[str, float]:
    """Speed and physics of the chain."""
    with tempfile.TemporaryDirectory(prefix="chain.") as name:
        one_round(size.rounds, 200, Path(name))  # imports, tables
        rounds = [
            one_round(number, size.events, Path(name))
            for number in track(range(size.rounds), "rounds", console=console)
        ]
        events = mflow_sbi.read_events([str(one.file) for one in rounds])
        names = list(events.metadata.observable_names)
    n = size.rounds * size.events
    pythia, chain, partons = (
        np.array([getattr(one, stage) for one in rounds])
        for stage in ("pythia", "chain", "partons")
    )
    efficiency = float(np.mean([one.efficiency for one in rounds]))
    metrics = {
        "chain_over_pythia": float(np.median(pythia / chain)),
        "chain_over_pythia_lowest": float(np.min(pythia / chain)),
        "events_per_s_core": n / float((partons + chain).sum()),
        "chain_events_per_s_core": n / float(chain.sum()),
        "pythia_events_per_s_core": n / float(pythia.sum()),
        "parton_events_per_s_core": n / float(partons.sum()),
        "selection_efficiency": efficiency,
        "selection_efficiency_error": float(np.sqrt(efficiency * (1 - efficiency) / n)),
        "selected_events": float(len(events)),
    }
    for observable in EXPECTED:
        values = events.x[:, names.index(observable)]
        metrics[f"mean_{observable}"] = float(values.mean())
        metrics[f"error_{observable}"] = float(values.std() / np.sqrt(len(values)))
    metrics["photon_pt_deviation"] = max(
        abs(metrics[f"mean_{name}"] / EXPECTED[name][0] - 1) for name in PHOTONS
    )
    return metrics


SECTIONS = ("campaign_scaling", "streaming_memory")
"""Other modules that measure a part of the chain's record: `measure(size, folder)`."""


def measure_section(name: str, size: str, folder: Path) -> dict[str, float]:
    """Metrics of another module."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    return importlib.import_module(name).measure(size, folder / name)


def tell(metrics: dict[str, float], console: Console) -> None:
    """Print what was measured beside what was expected."""
    table = Table("metric", "measured", "bar")
    for name, value in metrics.items():
        if not name.startswith(("mean_", "error_")):
            table.add_row(name, f"{value:.4g}", BARS.get(name, ""))
    console.print(table)
    table = Table("mean of", "measured", "expected", "deviation")
    for name, (value, error) in EXPECTED.items():
        mean, own = metrics[f"mean_{name}"], metrics[f"error_{name}"]
        off, pull = 100 * (mean / value - 1), (mean - value) / np.hypot(own, error)
        table.add_row(
            name,
            f"{mean:.2f} +- {own:.2f}",
            f"{value:.2f} +- {error:.2f}",
            f"{off:+.1f}% ({pull:+.1f} s.e.)",
        )
    console.print(table)


def main() -> None:
    """Measure the missing sections, print tables, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--only", choices=("chain", *SECTIONS), default=None)
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    console = Console()
    folder = ROOT / "quickstart" / "benchmark" / f"chain_{options.size}"
    sources = [Path(__file__), *(ROOT / "simulators").rglob("*.py")]
    kept = KeptSections(folder / "pieces.json", sources)
    present = [name for name in SECTIONS if find_spec(name)]
    for name in ("chain", *present):
        if name in kept.sections or options.only not in (None, name):
            continue
        if name == "chain":
            kept.keep(name, measure(SIZES[options.size], console))
        else:
            kept.keep(name, measure_section(name, options.size, folder))
    metrics: dict[str, float] = {}
    for name in ("chain", *present):
        metrics |= kept.sections.get(name, {})
    if "chain" in kept.sections:
        tell(metrics, console)
    written = write_record("chain", options.size, metrics, [SEED], options.out)
    console.print(f"written: {written}")


if __name__ == "__main__":
    main()
