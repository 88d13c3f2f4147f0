r"""Every method on the same WBF events, the exact posterior beside them.

    python benchmarks/wbf_comparison.py --size small|medium|large [--only NAME ...]

All methods (see `wbf_methods.py`) learn from the same events at theta ~ prior and are asked for
the posteriors of the same sets of 20 fresh events at the three truths of the published study, on
the same grids.  For each method and setting of the simulator (prefix tuned_ or paper_):

    tv_<method>             total variation to the exact posterior
    logp_<method>           log p(truth), on the grid
    smeared_<method>        the same smeared with 0.15, as published
    gap_<method>            log p(truth) minus the exact posterior's
    calibration_<method>    mean |coverage - level| of highest-density regions, theta ~ prior
    closure_<method>        published closure of generated events
    re_<method>             reconstruction error
    cpu_minutes_<method>    CPU minutes of a training
    posterior_s_<method>    CPU seconds of a posterior
    parameters_<method>     trainable numbers
    failed_<method>         trainings that ended without a surrogate

with standard errors over sets and seeds as `_error`, and logp_exact, logp_prior.  Finished methods
stay in `results/wbf_comparison_<size>_pieces.json`, each with the commit that measured it, until
`--again`; runs in `quickstart/benchmark/wbf_comparison_<size>/<digest of the code>/`.  Without all
methods the record says how many are missing.  The tables and figures of docs/benchmark.md are
written from the same pieces: `--docs docs/benchmark.md` (`--only` without names: nothing new).
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pieces import CommittedPieces
from record import RESULTS, ROOT, write_record
from wbf_methods import METHODS, SIZES, Method, Size
from wbf_page import SET_EVENTS, Flat, table_of, write_docs

from mflow_sbi.comparison import StudyRow
from mflow_sbi.config import parse_config
from mflow_sbi.console import Terminal
from mflow_sbi.errors import TrainingError
from mflow_sbi.evaluation import EXACT, PRIOR
from mflow_sbi.run_study import StudySettings, study_runs
from mflow_sbi.runs import evaluate_run, train_run
from simulators.__main__ import main as simulate

TRUTHS = ((0.0, 0.0), (0.5, 0.0), (-1.0, -1.0))
POOL_EVENTS = 50_000
NAMES = {
    "total_variation": "tv",
    "log_prob": "logp",
    "smeared": "smeared",
    "gap": "gap",
    "calibration_error": "calibration",
    "closure": "closure",
    "reconstruction_error": "re",
    "training_cpu_minutes": "cpu_minutes",
    "seconds": "posterior_s",
}


def simulated(folder: Path, setting: str, theta: Sequence[str], n: int, seed: int) -> str:
    """Return the path of events of the simulator's command line, written once."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{setting}_{'_'.join(theta).strip('-')}_{n}_{seed}.root"
    words = ["--setting", setting, *theta, "--events", str(n), "--seed", str(seed)]
    if not path.is_file() and simulate(["wbf", *words, "--out", str(path)]) != 0:
        message = f"the simulator refused {words}"
        raise RuntimeError(message)
    return str(path)


def measure(
    name: str, setting: str, size: Size, folder: Path, terminal: Terminal
) -> Mapping[str, Flat]:
    """Return the rows of one method, with those of exact posterior and prior."""
    method, data, prior = METHODS[name], folder / "data", ("--theta-prior", "normal")
    train = simulated(data, setting, prior, size.events, 1)
    test = simulated(data, setting, prior, size.test, 400)
    pool = simulated(data, setting, prior, POOL_EVENTS, 600)
    observed = [
        simulated(data, setting, ("--theta", *map(str, truth)), SET_EVENTS * size.sets, 1000 + k)
        for k, truth in enumerate(TRUTHS)
    ]
    runs = []
    for seed in range(1, 1 + min(method.seeds, size.seeds[setting])):
        run = folder / setting / f"{name}_{seed}"
        values = {"name": run.name, "title": method.title, "events": train, "seed": seed}
        config = parse_config({**values, "threads": 1, **method.run})
        runs.append(run)
        try:
            train_run(config, run, terminal)
        except TrainingError as error:
            terminal.warn(f"{name}, seed {seed}: {error}")
            continue
        evaluate_run(run, [test], terminal)
    settings = StudySettings(SET_EVENTS, size.sets, calibration_sets=size.calibration, cells=24)
    output = folder / setting / f"study_{name}"
    if all((run / "failure.json").is_file() for run in runs):
        return {method.title: as_flat(StudyRow(method.title, 0, len(runs), {}))}
    table = study_runs(
        runs, observed, output, terminal, settings=settings, calibration_paths=[pool]
    )
    return {row.label: as_flat(row) for row in table.rows}


def as_flat(row: StudyRow) -> Flat:
    """Return a row as JSON values."""
    return {
        "label": row.label,
        "seeds": row.seeds,
        "failed": row.failed,
        "numbers": {name: list(value) for name, value in row.numbers.items() if value},
        "by_truth": {name: dict(values) for name, values in row.by_truth.items()},
        "measure": row.measure,
        "parameters": row.parameters,
    }


def metrics_of(pieces: Mapping[str, Mapping[str, Flat]]) -> dict[str, float]:
    """Return flat metrics of all finished methods, by "<setting>/<method>"."""
    metrics: dict[str, float] = {}
    for key, rows in pieces.items():
        setting, name = key.split("/")
        row = rows[METHODS[name].title]
        for number, short in NAMES.items():
            if number in row["numbers"]:
                mean, error = row["numbers"][number]
                metrics[f"{setting}_{short}_{name}"] = mean
                metrics[f"{setting}_{short}_{name}_error"] = error
        metrics[f"{setting}_failed_{name}"] = row["failed"]
        metrics[f"{setting}_seeds_{name}"] = row["seeds"]
        if row["parameters"] is not None:
            metrics[f"{setting}_parameters_{name}"] = row["parameters"]
        for label, short in ((EXACT, "exact"), (PRIOR, "prior")):
            for number in ("log_prob", "smeared", "total_variation"):
                if label in rows:
                    mean = rows[label]["numbers"][number][0]
                    metrics[f"{setting}_{NAMES[number]}_{short}"] = mean
    return metrics


def sources() -> list[Path]:
    """Return the files whose contents decide the numbers."""
    package, wbf = ROOT / "mflow_sbi", ROOT / "simulators" / "wbf"
    rooms = ("baselines", "charts", "comparison", "constraints", "densities", "events")
    rooms += ("surrogates", "training", "transforms")
    folders = [*(package / room for room in rooms), wbf]
    own = [Path(__file__), Path(__file__).with_name("wbf_methods.py")]
    names = ("beginnings", "charting", "default_schedules", "estimating", "flows", "tilting")
    files = [package / f"{name}.py" for name in names]
    return [*own, *files, *(path for folder in folders for path in folder.rglob("*.py"))]


def chosen(size: Size, only: Sequence[str] | None) -> list[tuple[str, str, Method]]:
    """Return (setting, name, method) of all that is to be measured."""
    names = (size.methods or tuple(METHODS)) if only is None else only
    return [
        (setting, name, METHODS[name])
        for setting in size.seeds
        for name in names
        if setting in METHODS[name].settings
    ]


def main() -> None:
    """Measure the missing methods, print tables, write the record and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--only", nargs="*", default=None, choices=tuple(METHODS), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="measure them once more")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    parser.add_argument("--docs", type=Path, default=None, help="write this Markdown page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, terminal = SIZES[options.size], Terminal()
    folder = ROOT / "quickstart" / "benchmark" / f"wbf_comparison_{options.size}"
    wanted = chosen(size, options.only)
    again = [f"{setting}/{name}" for setting, name, _ in wanted] if options.again else []
    path = RESULTS / f"wbf_comparison_{options.size}_pieces.json"
    kept = CommittedPieces(path, sources(), again)
    for setting, name, _ in wanted:
        if f"{setting}/{name}" not in kept.sections:
            found = measure(name, setting, size, folder / kept.code[:12], terminal)
            kept.keep(f"{setting}/{name}", json.loads(json.dumps(found)))
    pieces: Any = kept.sections
    for setting in size.seeds:
        if any(key.startswith(f"{setting}/") for key in pieces):
            table = table_of(pieces, setting, size)
            terminal.say(f"{setting}\n{table.to_markdown()}")
    metrics = metrics_of(pieces)
    missing = [f"{s}/{n}" for s, n, _ in chosen(size, None) if f"{s}/{n}" not in pieces]
    metrics["missing_methods"] = len(missing)
    if missing:
        terminal.warn(f"not measured: {missing}")
    if kept.of_earlier_code:
        terminal.say(f"measured by earlier code: {kept.of_earlier_code}")
    seeds = list(range(1, 1 + max(size.seeds.values())))
    commits = kept.commits
    written = write_record(
        "wbf_comparison", options.size, metrics, seeds, options.out, commits=commits
    )
    terminal.say(f"written: {written}")
    if options.docs is not None:
        command = f"python benchmarks/wbf_comparison.py --size {options.size}"
        write_docs(options.docs, pieces, size, command, chosen(size, None))


if __name__ == "__main__":
    main()
