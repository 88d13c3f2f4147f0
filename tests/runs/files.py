"""Committed event files, and the command line called from within."""

from pathlib import Path

from typer.testing import CliRunner

from mflow_sbi.cli import app

DATA = Path(__file__).parents[2] / "data"
TRAIN = DATA / "wbf_tuned_train_small.root"
OBSERVED = DATA / "wbf_tuned_observed_theta_0_0.root"
FURTHER = DATA / "wbf_tuned_observed_theta_0.5_0.root"


def invoke(*arguments: object, code: int = 0) -> str:
    """Return what a command says; errors of bad input pass through."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def written(folder: Path, text: str) -> Path:
    """Return an analysis file."""
    path = folder / "analysis.yaml"
    path.write_text(text)
    return path
