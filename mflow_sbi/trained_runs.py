"""Trained runs, one or the members of an ensemble, and where their results go."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mflow_sbi.analysis import AnalysisConfig
from mflow_sbi.calibration import LikelihoodOfSets, require_one_measure
from mflow_sbi.config import RunConfig
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import FlatLikelihood, RecordedPrior
from mflow_sbi.interfaces import Array, DifferentiableLikelihood
from mflow_sbi.recipes import find_recipe, load_surrogate
from mflow_sbi.run_files import file_digests, read_run_config
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = ["Folders", "TrainedRun", "load_runs", "output_folder", "title_of"]

Folders: TypeAlias = Path | Sequence[Path]
"""A run folder, or several of an ensemble."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run folder, read.

    Args:
        folder: of the run.
        config: of the run.
        surrogate: trained.
    """

    folder: Path
    config: RunConfig
    surrogate: TrainedSurrogate

    @property
    def prior(self) -> RecordedPrior:
        """The prior in the run's configuration."""
        return self.config.prior.build(tuple(self.surrogate.parameter_names))

    def likelihood(self, x: Array) -> DifferentiableLikelihood:
        """Return the likelihood of the shape of events (N, n); flat for none."""
        if len(x) == 0:
            return FlatLikelihood(tuple(self.surrogate.parameter_names))
        return find_recipe(self.config.recipe).likelihoods.of_set(self.surrogate, x)

    def likelihood_of_sets(self, sets: Sequence[Array]) -> LikelihoodOfSets:
        """Return the likelihoods of the shape of sets of events (N_s, n)."""
        return find_recipe(self.config.recipe).likelihoods.of_sets(self.surrogate, sets)

    def require_generator(self) -> None:
        """Refuse a surrogate that draws no events.

        Raises:
            ConfigurationError: there is no density to draw from; the message says why.
        """
        if not self.surrogate.generates:
            message = f"{self.folder}: {self.surrogate.lacks}; give simulated events instead"
            raise ConfigurationError(message)

    @property
    def weights_digest(self) -> str:
        """sha256 of the surrogate's weights."""
        (digest,) = file_digests(str(self.folder / "surrogate" / "weights.safetensors")).values()
        return digest

    @property
    def records(self) -> dict[str, Any]:
        """Return what an artefact says of the run it came from."""
        return {
            "recipe": self.config.recipe,
            "config": json.loads(self.config.to_json()),
            "surrogate": self.surrogate.record.to_dict()["digests"],
        }


def load_runs(folders: Folders) -> tuple[TrainedRun, ...]:
    """Return one trained run, or several that may be members of one ensemble.

    Raises:
        RunFolderError: no such run.
        ConfigurationError: the same run twice, or runs of other parameters, observables,
            selections, priors or measures.
    """
    several = [folders] if isinstance(folders, Path) else list(folders)
    if not several or len({folder.resolve() for folder in several}) < len(several):
        message = f"expected different run folders, at least one, got {[str(f) for f in several]}"
        raise ConfigurationError(message)
    runs = tuple(
        TrainedRun(folder, read_run_config(folder), load_surrogate(folder)) for folder in several
    )
    first = runs[0]
    for run in runs[1:]:
        mine, theirs = (one.surrogate.record.metadata for one in (first, run))
        unlike = {
            "parameters": mine.parameter_names != theirs.parameter_names,
            "observables": mine.observables != theirs.observables,
            "selection": first.config.cuts != run.config.cuts,
            "prior": first.config.prior != run.config.prior,
        }
        if any(unlike.values()):
            words = ", ".join(what for what, differs in unlike.items() if differs)
            message = (
                f"ensemble: expected runs that differ in training alone, got another {words} in "
                f"{run.folder} than in {first.folder}"
            )
            raise ConfigurationError(message)
    require_one_measure([run.surrogate for run in runs])
    return runs


def title_of(runs: Sequence[TrainedRun]) -> str:
    """Return what tables and figures call a run or an ensemble."""
    title = runs[0].config.shown_title
    return title if len(runs) == 1 else f"{title}, ensemble of {len(runs)}"


def output_folder(
    folders: Folders, output: Path | None, analysis: AnalysisConfig | None = None
) -> Path:
    """Return where results go: the run's own folder, if nothing else is said.

    Raises:
        ConfigurationError: several runs or observations, and no folder named for their results.
    """
    several = [folders] if isinstance(folders, Path) else list(folders)
    if output is not None:
        return output
    if len(several) != 1 or (analysis is not None and analysis.combine):
        message = (
            "results of several runs or observations belong to none of their folders; say where "
            "they go with --output FOLDER"
        )
        raise ConfigurationError(message)
    return several[0]
