"""The command line `mflow-sbi`: thin verbs over the library.

Exit codes: 0 fine, 2 bad input (one line: what was expected, what came, what to do), 3 a sampler
that has not converged (its draws are written, and must not be used), 1 a bug.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mflow_sbi import __version__
from mflow_sbi.analysis import AnalysisConfig, read_analysis
from mflow_sbi.config import read_config
from mflow_sbi.console import Terminal
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events import inspect_file
from mflow_sbi.inference import diagnostics_of
from mflow_sbi.quickstart import QuickstartSettings, quickstart
from mflow_sbi.run_statistics import (
    CALIBRATION_HEADER,
    INTERVALS_HEADER,
    CalibrationSettings,
    calibrate_run,
    intervals_of_run,
)
from mflow_sbi.runs import (
    SUMMARY_HEADER,
    ObservationPolicy,
    compare_runs,
    evaluate_run,
    infer_run,
    summary_cells,
    train_run,
)

__all__ = ["app", "main"]

app = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Unbinned EFT posteriors from simulated collider events with manifold-learning flows.",
)

# The base of wrong options and missing arguments: typer's own class, or click's before 0.2x.
_UsageError: Any = typer.BadParameter.__bases__[0]

NOT_CONVERGED = 3

RunFolder = Annotated[Path, typer.Argument(help="Run folder, runs/NAME.")]
Observed = Annotated[list[str], typer.Option(help="ROOT file(s) of observed events.")]
Analysis = Annotated[
    Path | None,
    typer.Option(help="Analysis (YAML): luminosity, background, nuisances, prior, sampler."),
]
ExcludeOutside = Annotated[
    bool, typer.Option("--exclude-outside", help="Leave out events unlike the training events.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse events unlike the training events.")
]


def _show_version(value: bool) -> None:  # noqa: FBT001
    if value:
        Terminal().say(f"mflow-sbi {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Learn p(x|theta) on a manifold from ROOT files; infer; compare honestly."""


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="A ROOT file.")]) -> None:
    """Tell what is in a ROOT file, what would be read, what is missing."""
    terminal = Terminal()
    with terminal.task(f"reading {file.name}") as progress:
        summary = inspect_file(file, progress=progress)
    terminal.table(str(file), ("what", "value"), summary.rows())
    if not summary.readable:
        raise typer.Exit(code=2)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Run configuration (YAML).")],
    folder: Annotated[Path | None, typer.Option(help="Default: runs/NAME.")] = None,
) -> None:
    """Train a surrogate: runs/NAME with configuration, weights, history and figures."""
    terminal = Terminal()
    settings = read_config(config)
    run = folder or Path("runs") / settings.name
    train_run(settings, run, terminal)
    terminal.say(f"trained: {run}")


def _analysis(path: Path | None) -> AnalysisConfig | None:
    return None if path is None else read_analysis(path)


@app.command()
def infer(
    run: RunFolder,
    observed: Observed,
    *,
    analysis: Analysis = None,
    exclude_outside: ExcludeOutside = False,
    strict: Strict = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep emcee's chain, and go on from it.")
    ] = False,
) -> None:
    """Sample the posterior given observed events: posterior.nc, corner plot, intervals."""
    terminal = Terminal()
    policy = ObservationPolicy(exclude=exclude_outside, refuse=strict)
    posterior = infer_run(
        run,
        observed,
        terminal,
        analysis=_analysis(analysis),
        policy=policy,
        chain_file=run / "chain.h5" if resume else None,
    )
    terminal.table("posterior", SUMMARY_HEADER, summary_cells(posterior))
    terminal.say(f"draws: {run / 'posterior.nc'}")
    if not diagnostics_of(posterior).converged:
        raise typer.Exit(code=NOT_CONVERGED)


@app.command()
def intervals(
    run: RunFolder,
    observed: Observed,
    *,
    analysis: Analysis = None,
    exclude_outside: ExcludeOutside = False,
    strict: Strict = False,
) -> None:
    """Maximise the likelihood of observed events; confidence intervals by MINOS and profiles."""
    terminal = Terminal()
    policy = ObservationPolicy(exclude=exclude_outside, refuse=strict)
    found = intervals_of_run(run, observed, terminal, analysis=_analysis(analysis), policy=policy)
    terminal.table("confidence intervals", INTERVALS_HEADER, found.rows())
    terminal.say(f"written: {run / 'intervals.json'}")


@app.command()
def calibrate(
    run: RunFolder,
    test: Annotated[list[str], typer.Option(help="ROOT file(s) of test events, theta ~ prior.")],
    *,
    sets: Annotated[int, typer.Option(min=1, help="Sets of events.")] = 500,
    events: Annotated[int, typer.Option(min=1, help="Events per set.")] = 20,
    analysis: Analysis = None,
) -> None:
    """Test posteriors of many sets of events: ranks, coverage; calibration.json, a figure."""
    terminal = Terminal()
    settings = CalibrationSettings(sets, events)
    found = calibrate_run(run, test, terminal, settings=settings, analysis=_analysis(analysis))
    terminal.table("calibration", CALIBRATION_HEADER, found.rows())
    terminal.say(f"written: {run / 'calibration.json'}")


@app.command()
def evaluate(
    run: RunFolder,
    test: Annotated[list[str], typer.Option(help="ROOT file(s) of test events with theta.")],
) -> None:
    """Measure a trained run on test events: metrics.json and figures."""
    terminal = Terminal()
    metrics = evaluate_run(run, test, terminal)
    rows = [(k, f"{v:.5g}" if isinstance(v, float) else str(v)) for k, v in metrics.items()]
    terminal.table(str(run), ("metric", "value"), [r for r in rows if r[0] != "marginals"])


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    observed: Annotated[list[str], typer.Option(help="ROOT file(s) of observed events.")],
    *,
    exact: Annotated[
        bool, typer.Option(help="Compare with the exact posterior the file carries.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for table and figure.")] = Path(),
) -> None:
    """Compare trained runs on the same observed events: one table and one figure."""
    compare_runs(runs, observed, output, Terminal(), with_exact=exact)


@app.command(name="quickstart")
def quickstart_command(
    folder: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 1,
    size: Annotated[float, typer.Option(min=1e-3, help="Scales events and epochs.")] = 1.0,
) -> None:
    """Simulate, train an M-flow and an ambient flow, infer, compare: the main job, small."""
    quickstart(folder, QuickstartSettings(seed=seed).scaled(size), Terminal())


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except _UsageError as error:
        complaint = f"{error.format_message()} See 'mflow-sbi --help'."
    except MflowSbiError as error:
        complaint = str(error)
    except OSError as error:
        complaint = f"{error.filename}: {error.strerror}; choose another place or make room"
        if error.filename is None or error.strerror is None:
            raise
    sys.stderr.write(f"mflow-sbi: {' '.join(complaint.split())}\n")
    sys.exit(2)
