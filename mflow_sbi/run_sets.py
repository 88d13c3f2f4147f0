"""Likelihoods of trained runs where the work is done: loaded from the run folder, once a process.

Networks do not travel to the workers of a cluster; the path of their folder does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.calibration import DrawnSets, EnsembleSets, LikelihoodOfSets
from mflow_sbi.errors import RunFolderError
from mflow_sbi.interfaces import Array, DifferentiableLikelihood
from mflow_sbi.trained_runs import TrainedRun, load_runs

__all__ = ["MixtureSource", "RunSource"]

_RUNS_KEPT = 16


@dataclass(frozen=True)
class RunSource:
    """A trained run by its folder, as a source of likelihoods.

    Args:
        folder: of the run, absolute.
        weights: sha256 of its surrogate's weights; a folder with others is refused.
    """

    folder: Path
    weights: str

    @classmethod
    def of(cls, run: TrainedRun) -> "RunSource":
        """Return the source that stands for a run."""
        return cls(run.folder.absolute(), run.weights_digest)

    @property
    def run(self) -> TrainedRun:
        """The run, read once by every process.

        Raises:
            RunFolderError: no such run here, or one with other weights.
        """
        return _loaded(self.folder, self.weights)

    def likelihood(self, x: Array) -> DifferentiableLikelihood:
        """Return the likelihood of the shape of events (N, n)."""
        return self.run.likelihood(x)

    def __call__(self, drawn: DrawnSets) -> LikelihoodOfSets:
        """Return the likelihoods of the sets, with the rate where sizes were drawn."""
        return drawn.with_rate(self.run.likelihood_of_sets(drawn.events))

    def take(self, sets: NDArray[np.intp]) -> "RunSource":  # noqa: ARG002
        """Return itself: it knows nothing of single sets."""
        return self


@dataclass(frozen=True, eq=False)
class MixtureSource:
    """An ensemble of runs with the weights of its members in every set, `EnsembleSets`.

    Args:
        members: K runs.
        log_weights: log w_ks, (K, S).
    """

    members: Sequence[RunSource]
    log_weights: Array

    def __call__(self, drawn: DrawnSets) -> LikelihoodOfSets:
        """Return the mixture's likelihoods of the sets."""
        return EnsembleSets([member(drawn) for member in self.members], self.log_weights)

    def take(self, sets: NDArray[np.intp]) -> "MixtureSource":
        """Return the source for some of the sets."""
        return replace(self, log_weights=self.log_weights[:, sets])


@lru_cache(maxsize=_RUNS_KEPT)
def _loaded(folder: Path, weights: str) -> TrainedRun:
    (run,) = load_runs(folder)
    if run.weights_digest != weights:
        message = (
            f"{folder}: expected the weights {weights[:12]}..., got {run.weights_digest[:12]}...; "
            "workers must see the run folder that the command was given"
        )
        raise RunFolderError(message)
    return run
