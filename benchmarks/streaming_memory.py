r"""Memory of training on events larger than memory, and what several processes change.

    python benchmarks/streaming_memory.py --size small|medium|large

WBF events (channel ud, setting tuned, theta ~ prior) in files of one chunk each; a flow on the
known surface is trained on one and on ten of them, each time in a process of its own:

    streaming_rss_growth_mb      peak memory on ten files minus that on one, streamed
    in_memory_rss_growth_mb      the same with all events in memory
    sample_growth_mb             the observables of the nine files more, float64
    streaming_over_in_memory     time of the streamed training / that of the one in memory

and on one file, streamed, by torchrun with two processes and by one:

    ddp_loss_difference          |loss of two / loss of one - 1|, training, last epoch
    ddp_speedup_2_processes      time of the epochs of one / that of two

The buffer holds one chunk.  Peak memory is that of the system for the process (VmHWM), so that
this runs on Linux only.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import ROOT, write_record

SEED = 1
FILES = 10
FLOW = {"layers": 2, "hidden": 32}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TRAINING = """
import sys, time
from pathlib import Path
from mflow_sbi.config import read_config
from mflow_sbi.run_training import train_run

began = time.perf_counter()
train_run(read_config(sys.argv[1]), Path(sys.argv[2]))
peak = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM")]
print(int(peak[0].split()[1]) / 1024, time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Size:
    """Events of a chunk, and passes of each phase."""

    chunk_events: int
    epochs: int


SIZES = {"small": Size(20_000, 1), "medium": Size(50_000, 2), "large": Size(200_000, 2)}


@dataclass(frozen=True)
class Training:
    """Peak memory in MB, and seconds."""

    peak_mb: float
    seconds: float


def measure(size: str, folder: Path) -> dict[str, float]:
    """Return the metrics of a size; files and runs go to the folder, and are used again."""
    chosen = SIZES[size]
    files = [str(_simulated(chosen, number, folder)) for number in range(FILES)]
    streamed = [_trained(f"streamed_{n}", chosen, files[:n], folder) for n in (1, FILES)]
    whole = [_trained(f"whole_{n}", chosen, files[:n], folder) for n in (1, FILES)]
    growth_mb = (FILES - 1) * chosen.chunk_events * 40 * 8 / 2**20
    return {
        "streaming_rss_growth_mb": streamed[1].peak_mb - streamed[0].peak_mb,
        "in_memory_rss_growth_mb": whole[1].peak_mb - whole[0].peak_mb,
        "sample_growth_mb": growth_mb,
        "streaming_over_in_memory": streamed[1].seconds / whole[1].seconds,
        **_two_processes(chosen, files[0], folder),
    }


def _simulated(size: Size, number: int, folder: Path) -> Path:
    """Return a file of events, simulated once."""
    path = folder / f"events_{size.chunk_events}_{number}.root"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = ["--theta-prior", "normal", "--events", str(size.chunk_events)]
        place = ["--seed", str(100 * SEED + number), "--out", str(path)]
        _python("-m", "simulators", "wbf", *wanted, *place)
    return path


def _config(name: str, size: Size, files: Sequence[str], folder: Path) -> Path:
    """Return the file of a run's configuration."""
    phase = {"epochs": size.epochs}
    values: dict[str, Any] = {
        "name": name,
        "events": list(files),
        "recipe": "fom",
        "options": {"reference": FLOW, "density": FLOW},
        "phases": {"reference": phase, "density": phase},
        "seed": SEED,
    }
    if not name.startswith("whole"):
        values["streaming"] = {"chunk_events": size.chunk_events, "buffer_chunks": 1}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(values))
    return path


def _trained(name: str, size: Size, files: Sequence[str], folder: Path) -> Training:
    """Return what a training took, in a process of its own."""
    kept = folder / f"{name}_{size.chunk_events}.json"
    if not kept.exists():
        run = folder / "runs" / f"{name}_{size.chunk_events}"
        config = _config(name, size, files, folder)
        said = _python("-c", TRAINING, str(config), str(run)).split()
        kept.write_text(json.dumps([float(word) for word in said[-2:]]))
    return Training(*json.loads(kept.read_text()))


def _two_processes(size: Size, file: str, folder: Path) -> dict[str, float]:
    """Return how far two processes are from one."""
    rows = []
    for n in (1, 2):
        run = folder / "runs" / f"by_{n}_{size.chunk_events}"
        config = _config("together", size, [file], folder)
        if not (run / "training.json").exists():
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
            _python(*torchrun, "-m", "mflow_sbi", "train", str(config), "--folder", str(run))
        with (run / "history.csv").open(newline="") as table:
            rows.append(list(csv.DictReader(table)))
    losses = [float(history[-1]["train"]) for history in rows]
    seconds = [sum(float(row["seconds"]) for row in history) for history in rows]
    return {
        "ddp_loss_difference": abs(losses[1] / losses[0] - 1),
        "ddp_speedup_2_processes": seconds[0] / seconds[1],
    }


def _python(*arguments: str) -> str:
    """Return what a Python process says."""
    places = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": places}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done.stdout


def main() -> None:
    """Measure, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    folder = ROOT / "quickstart" / "benchmark" / f"streaming_memory_{options.size}"
    metrics = measure(options.size, folder)
    for name, value in metrics.items():
        print(f"{name:28s} {value:.4g}")
    print("written:", write_record("streaming_memory", options.size, metrics, [SEED], options.out))


if __name__ == "__main__":
    main()
