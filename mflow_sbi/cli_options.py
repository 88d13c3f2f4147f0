"""Options that several verbs of the command line share, and how their words are read."""

from pathlib import Path
from typing import Annotated

import typer

from mflow_sbi.analysis_config import AnalysisConfig, read_analysis
from mflow_sbi.errors import ConfigurationError

__all__ = [
    "Analysis",
    "Cluster",
    "ExcludeOutside",
    "Observed",
    "Output",
    "RunFolder",
    "RunFolders",
    "Simulated",
    "Strict",
    "analysis_of",
    "numbers",
    "whole_numbers",
]

RunFolder = Annotated[Path, typer.Argument(help="Run folder, runs/NAME.")]
RunFolders = Annotated[
    list[Path],
    typer.Argument(help="Run folder, runs/NAME; several, trained alike, are an ensemble."),
]
Output = Annotated[
    Path | None,
    typer.Option(help="Folder of the results; for several runs or observations to be named."),
]
Observed = Annotated[list[str], typer.Option(help="ROOT file(s) of observed events.")]
Analysis = Annotated[
    Path | None,
    typer.Option(
        help="Analysis (YAML): luminosity, background, nuisances, prior, sampler, more data sets."
    ),
]
ExcludeOutside = Annotated[
    bool, typer.Option("--exclude-outside", help="Leave out events unlike the training events.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse events unlike the training events.")
]
Simulated = Annotated[
    list[str] | None,
    typer.Option(help="ROOT file(s) of simulated events; default: the run's own."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Work on local[:N] processes, or on a Dask scheduler, tcp://host:port.",
    ),
]


def analysis_of(path: Path | None) -> AnalysisConfig | None:
    """Return the analysis in a file, if one is given."""
    return None if path is None else read_analysis(path)


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers in "0,0.5".

    Raises:
        ConfigurationError: other words.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"theta: expected numbers with commas between them, e.g. 0,0.5, got {text!r}"
        raise ConfigurationError(message) from error


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers in "1,2,3".

    Raises:
        ConfigurationError: other words.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        message = f"seeds: expected whole numbers with commas between them, got {text!r}"
        raise ConfigurationError(message) from error
