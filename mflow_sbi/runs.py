"""Run folders: train, evaluate, infer, compare, each one call that the command line also makes.

runs/<name>/  config.json  surrogate/  history.csv  metrics.json  posterior.nc  figures/
"""

from collections.abc import Sequence
from pathlib import Path

from mflow_sbi import plots
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.evaluation import (
    Comparison,
    SurfaceMetrics,
    compare_posteriors,
)
from mflow_sbi.inference import exact_likelihood, truth_of
from mflow_sbi.interfaces import Quiet, Reporter
from mflow_sbi.recipes import likelihood_of, load_surrogate
from mflow_sbi.run_evaluation import draw_events, evaluate_run
from mflow_sbi.run_files import (
    read_history,
    read_like_training,
    read_run_config,
    stored_surface,
    write_text,
)
from mflow_sbi.run_inference import (
    SUMMARY_HEADER,
    ObservationPolicy,
    infer_run,
    infer_with,
    summary_cells,
)
from mflow_sbi.run_training import train_run
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = [
    "SUMMARY_HEADER",
    "ObservationPolicy",
    "compare_runs",
    "draw_events",
    "evaluate_run",
    "infer_run",
    "infer_with",
    "read_history",
    "read_run_config",
    "summary_cells",
    "train_run",
]


def _require_comparable(folders: Sequence[Path], configs: Sequence[RunConfig]) -> None:
    names = [config.name for config in configs]
    if len({folder.resolve() for folder in folders}) < len(folders) or len(set(names)) < len(
        names
    ):
        message = f"comparison: expected different runs of different names, got {names}"
        raise ConfigurationError(message)
    for config in configs[1:]:
        if config.prior != configs[0].prior or config.cuts != configs[0].cuts:
            message = (
                f"comparison: runs {names[0]} and {config.name} have another prior or selection; "
                "posteriors compare only under one"
            )
            raise ConfigurationError(message)


def _surface_of(surrogate: TrainedSurrogate, folder: Path) -> SurfaceMetrics:
    if not surrogate.generates:
        return SurfaceMetrics(reason=surrogate.lacks)
    return stored_surface(folder)


def compare_runs(
    folders: Sequence[Path],
    observed_paths: str | Sequence[str],
    output: Path,
    reporter: Reporter | None = None,
    *,
    with_exact: bool = True,
) -> Comparison:
    """Compare trained runs on the same observed events; writes a table (md, csv, json), a figure.

    Closure and reconstruction error come from each run's `metrics.json` (see `evaluate_run`).

    Raises:
        MissingReference: the exact posterior was asked for and the file does not carry it.
        ConfigurationError: the same run twice, or runs of different priors.
    """
    reporter = reporter or Quiet()
    configs = [read_run_config(folder) for folder in folders]
    _require_comparable(folders, configs)
    surrogates = [load_surrogate(folder) for folder in folders]
    samples = [
        read_like_training(
            surrogate.record.metadata, config, observed_paths, "reading observed events", reporter
        )
        for surrogate, config in zip(surrogates, configs, strict=True)
    ]
    observed = samples[0]
    exact = exact_likelihood(observed) if with_exact else None
    titles = [config.shown_title for config in configs]
    labels = [
        title if titles.count(title) == 1 else f"{title} ({config.name})"
        for title, config in zip(titles, configs, strict=True)
    ]
    likelihoods = {
        label: likelihood_of(surrogate, sample.x)
        for label, surrogate, sample in zip(labels, surrogates, samples, strict=True)
    }
    surfaces = {
        label: _surface_of(surrogate, folder)
        for label, surrogate, folder in zip(labels, surrogates, folders, strict=True)
    }
    prior = configs[0].prior.build(tuple(surrogates[0].parameter_names))
    with reporter.task("posteriors on one grid") as progress:
        comparison = compare_posteriors(
            likelihoods, prior, exact, truth_of(observed), surfaces, progress=progress
        )
    table = comparison.table
    write_text(output / "comparison.md", table.to_markdown())
    write_text(output / "comparison.csv", table.to_csv())
    write_text(output / "comparison.json", table.to_json())
    figure = plots.posterior_comparison_plot(table)
    plots.save_figure(figure, output / "comparison.png")
    reporter.table(table.caption, table.header, table.cells())
    return comparison
