"""The command line `mflow-sbi`: thin verbs over the library.

Exit codes: 0 fine, 2 bad input (one line: what was expected, what came, what to do), 3 a sampler
that has not converged (its draws are written, and must not be used), 1 a bug.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mflow_sbi import __version__
from mflow_sbi.cli_options import (
    Analysis,
    Cluster,
    ExcludeOutside,
    Observed,
    Output,
    RunFolder,
    RunFolders,
    Simulated,
    Strict,
    analysis_of,
    numbers,
    whole_numbers,
)
from mflow_sbi.cluster import open_cluster
from mflow_sbi.comparison import HEADER
from mflow_sbi.config import read_config
from mflow_sbi.console import Terminal
from mflow_sbi.errors import ConfigurationError, MflowSbiError
from mflow_sbi.events import inspect_file
from mflow_sbi.feature_table import FEATURES_HEADER, feature_rows
from mflow_sbi.inference import diagnostics_of
from mflow_sbi.quickstart import QuickstartSettings, quickstart
from mflow_sbi.run_calibration import (
    CALIBRATION_HEADER,
    CalibrationSettings,
    calibrate_run,
    recalibrate_run,
)
from mflow_sbi.run_expected import (
    EXPECTED_HEADER,
    INFORMATION_HEADER,
    ExpectedSettings,
    expected_run,
)
from mflow_sbi.run_intervals import INTERVALS_HEADER, intervals_of_run
from mflow_sbi.run_prediction import PREDICTION_HEADER, predict_run
from mflow_sbi.run_seeds import train_seeds
from mflow_sbi.run_study import StudySettings, study_runs
from mflow_sbi.runs import (
    SUMMARY_HEADER,
    ObservationPolicy,
    compare_runs,
    evaluate_run,
    infer_run,
    summary_cells,
    train_run,
)
from mflow_sbi.trained_runs import output_folder
from mflow_sbi.training.processes import is_first_process

__all__ = ["app", "main"]

app = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Unbinned EFT posteriors from simulated collider events with manifold-learning flows.",
)

# The base of wrong options and missing arguments: typer's own class, or click's before 0.2x.
_UsageError: Any = typer.BadParameter.__bases__[0]

NOT_CONVERGED = 3


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
def inspect(
    file: Annotated[Path, typer.Argument(help="An event file: ROOT, Parquet or MadMiner HDF5.")],
    *,
    config: Annotated[
        Path | None, typer.Option(help="Read it as this run configuration (YAML) would.")
    ] = None,
    observable: Annotated[
        list[str] | None, typer.Option(help="A branch or sentence, e.g. '(a[0]+a[1]).m'.")
    ] = None,
    tree: Annotated[str | None, typer.Option(help="Name of the tree.")] = None,
) -> None:
    """Tell what is in an event file, what would be read, what is missing."""
    terminal = Terminal()
    reading = {} if config is None else read_config(config).reading()
    reading |= {"observables": observable} if observable else {}
    reading |= {} if tree is None else {"tree": tree}
    with terminal.task(f"reading {file.name}") as progress:
        summary = inspect_file(file, **reading, progress=progress)
    terminal.table(str(file), ("what", "value"), summary.rows())
    if not summary.readable:
        raise typer.Exit(code=2)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Run configuration (YAML).")],
    folder: Annotated[Path | None, typer.Option(help="Default: runs/NAME.")] = None,
    *,
    seeds: Annotated[
        str | None, typer.Option(help="Several trainings, e.g. 1,2,3: runs/NAME_seed1 ...")
    ] = None,
    cluster: Cluster = None,
) -> None:
    """Train a surrogate: runs/NAME with configuration, weights, history and figures."""
    terminal = Terminal()
    settings = read_config(config)
    run = folder or Path("runs") / settings.name
    if seeds is not None:
        with open_cluster(cluster) as tasks:
            train_seeds(settings, whole_numbers(seeds), run, terminal, tasks=tasks)
        return
    if cluster is not None:
        message = "train: --cluster needs --seeds, several trainings that are done at once"
        raise ConfigurationError(message)
    train_run(settings, run, terminal)
    if is_first_process():
        terminal.say(f"trained: {run}")


@app.command()
def infer(
    runs: RunFolders,
    observed: Observed,
    *,
    analysis: Analysis = None,
    exclude_outside: ExcludeOutside = False,
    strict: Strict = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep emcee's chain, and go on from it.")
    ] = False,
    recalibrated: Annotated[
        bool, typer.Option("--recalibrated", help="Apply what calibrate --recalibrate fitted.")
    ] = False,
    output: Output = None,
    cluster: Cluster = None,
) -> None:
    """Sample the posterior given observed events: posterior.nc, corner plot, intervals."""
    terminal, settings = Terminal(), analysis_of(analysis)
    folder = output_folder(runs, output, settings)
    with open_cluster(cluster) as tasks:
        posterior = infer_run(
            runs,
            observed,
            terminal,
            analysis=settings,
            policy=ObservationPolicy(exclude=exclude_outside, refuse=strict),
            output=folder,
            resume=resume,
            apply_recalibration=recalibrated,
            tasks=tasks,
        )
    terminal.table("posterior", SUMMARY_HEADER, summary_cells(posterior))
    terminal.say(f"draws: {folder / 'posterior.nc'}")
    if not diagnostics_of(posterior).converged:
        raise typer.Exit(code=NOT_CONVERGED)


@app.command()
def intervals(
    runs: RunFolders,
    observed: Observed,
    *,
    analysis: Analysis = None,
    exclude_outside: ExcludeOutside = False,
    strict: Strict = False,
    output: Output = None,
) -> None:
    """Maximise the likelihood of observed events; confidence intervals by MINOS and profiles."""
    terminal, settings = Terminal(), analysis_of(analysis)
    folder = output_folder(runs, output, settings)
    policy = ObservationPolicy(exclude=exclude_outside, refuse=strict)
    found = intervals_of_run(
        runs, observed, terminal, analysis=settings, policy=policy, output=folder
    )
    terminal.table("confidence intervals", INTERVALS_HEADER, found.rows())
    terminal.say(f"written: {folder / 'intervals.json'}")


@app.command()
def predict(
    runs: RunFolders,
    observed: Observed,
    *,
    simulated: Simulated = None,
    exclude_outside: ExcludeOutside = False,
    strict: Strict = False,
    sets: Annotated[int, typer.Option(min=19, help="Predicted sets.")] = 400,
    output: Output = None,
) -> None:
    """Compare observed events with those that the posterior predicts: p-values, a figure."""
    terminal, folder = Terminal(), output_folder(runs, output)
    found = predict_run(
        runs,
        observed,
        terminal,
        simulated_paths=simulated,
        policy=ObservationPolicy(exclude=exclude_outside, refuse=strict),
        output=folder,
        n_replicas=sets,
    )
    terminal.table(f"predicted by {found.source}", PREDICTION_HEADER, found.rows())
    terminal.say(found.check.statement)
    terminal.say(f"written: {folder / 'predictive.json'}")
    if not found.converged:
        terminal.warn("the posterior has NOT CONVERGED: its predictions must not be used")
        raise typer.Exit(code=NOT_CONVERGED)


@app.command()
def expected(
    run: RunFolder,
    theta: Annotated[str, typer.Option(help="Where data are expected, e.g. 0,0.")],
    luminosity: Annotated[list[float], typer.Option(help="fb^-1; may be given several times.")],
    *,
    simulated: Simulated = None,
    events: Annotated[int, typer.Option(min=100, help="Events that stand for data.")] = 5_000,
    analysis: Analysis = None,
    output: Output = None,
) -> None:
    """Tell which intervals to expect at a luminosity, and the Fisher information."""
    terminal, settings = Terminal(), analysis_of(analysis)
    folder = output_folder(run, output, settings)
    found = expected_run(
        run,
        ExpectedSettings(numbers(theta), tuple(luminosity), events),
        terminal,
        analysis=settings,
        simulated_paths=simulated,
        output=folder,
    )
    terminal.table(f"expected intervals at {theta}", EXPECTED_HEADER, found.rows())
    rows = found.information_rows()
    terminal.table(f"Fisher information at {theta}", INFORMATION_HEADER, rows)
    terminal.say(f"written: {folder / 'expected.json'}")


@app.command()
def calibrate(
    runs: RunFolders,
    test: Annotated[list[str], typer.Option(help="ROOT file(s) of test events, theta ~ prior.")],
    *,
    sets: Annotated[int, typer.Option(min=1, help="Sets of events.")] = 500,
    events: Annotated[int, typer.Option(min=1, help="Events per set.")] = 20,
    analysis: Analysis = None,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate", help="Fit a temperature on half of the sets, test the rest."
        ),
    ] = False,
    output: Output = None,
    cluster: Cluster = None,
) -> None:
    """Test posteriors of many sets of events: ranks, coverage; calibration.json, a figure."""
    terminal, settings = Terminal(), analysis_of(analysis)
    folder = output_folder(runs, output, settings)
    drawn, file = CalibrationSettings(sets, events), "calibration.json"
    with open_cluster(cluster) as tasks:
        if recalibrate:
            mended = recalibrate_run(
                runs, test, terminal, settings=drawn, analysis=settings, output=folder, tasks=tasks
            )
            rows, file = mended.rows(), "recalibration.json"
            terminal.say(mended.recalibration.temperature.statement)
            terminal.say(mended.recalibration.levels.statement)
        else:
            rows = calibrate_run(
                runs, test, terminal, settings=drawn, analysis=settings, output=folder, tasks=tasks
            ).rows()
    terminal.table("calibration", CALIBRATION_HEADER, rows)
    terminal.say(f"written: {folder / file}")


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
    runs: RunFolders,
    observed: Annotated[
        list[str], typer.Option(help="ROOT file(s) of observed events; with sets: one per truth.")
    ],
    *,
    exact: Annotated[
        bool, typer.Option(help="Compare with the exact posterior the file carries.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for table and figure.")] = Path(),
    set_events: Annotated[
        int | None, typer.Option(min=1, help="Compare over sets of this many events.")
    ] = None,
    sets: Annotated[int | None, typer.Option(min=1, help="Sets per file; default: all.")] = None,
    rank_by: Annotated[
        str, typer.Option(help="total_variation, log_prob, smeared or density; with sets.")
    ] = "total_variation",
    calibration: Annotated[
        list[str] | None,
        typer.Option(help="ROOT file(s) of test events, theta ~ prior; with sets."),
    ] = None,
    cluster: Cluster = None,
) -> None:
    """Compare trained runs on the same observed events: one table and one figure.

    With --set-events over many sets, truths and seeds: runs that differ by seed are one method.
    """
    terminal = Terminal()
    if set_events is None:
        if sets is not None or calibration or cluster:
            message = "compare: --sets, --calibration, --cluster need --set-events, events per set"
            raise ConfigurationError(message)
        compare_runs(runs, observed, output, terminal, with_exact=exact)
        return
    settings = StudySettings(set_events, sets, exact, rank_by)
    with open_cluster(cluster) as tasks:
        table = study_runs(
            runs,
            observed,
            output,
            terminal,
            settings=settings,
            calibration_paths=calibration or (),
            tasks=tasks,
        )
    terminal.table(table.caption, HEADER, [row.cells for row in table.rows])
    terminal.say(f"written: {output / 'study.html'}")


@app.command()
def recipes() -> None:
    """Tell which methods there are, and what each can do."""
    Terminal().table("recipes", FEATURES_HEADER, feature_rows())


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
