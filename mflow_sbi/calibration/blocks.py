r"""Posteriors of many sets, block by block: what may be done in any order and in any process.

A block of 25 sets is evaluated by itself wherever it is done, so that the numbers of a cluster are
those of one process, bit for bit.  What travels is the events of the block and a *source*: a small
object that makes likelihoods of them there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.calibration.drawing import DrawnSets
from mflow_sbi.calibration.posteriors import GridSettings, SetPosteriors, posteriors_of_sets
from mflow_sbi.calibration.recalibration import TemperedSets
from mflow_sbi.calibration.sets import LikelihoodOfSets
from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.errors import LikelihoodError, SamplingError
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, Progress

__all__ = ["BLOCK", "ExactSource", "SourceOfSets", "TemperedSource", "posteriors_in_blocks"]

BLOCK = 25
"""Sets of a block: enough to share the cost of a call, few enough for many workers."""


class SourceOfSets(Protocol):
    """What makes likelihoods of drawn sets; pickled, it stays small."""

    def __call__(self, drawn: DrawnSets) -> LikelihoodOfSets:
        """Return the likelihoods of the sets."""
        ...

    def take(self, sets: NDArray[np.intp]) -> "SourceOfSets":
        """Return the source for some of the sets."""
        ...


@dataclass(frozen=True)
class ExactSource:
    """The exact likelihoods that the events carry."""

    def __call__(self, drawn: DrawnSets) -> LikelihoodOfSets:
        """Return the exact likelihoods of the sets."""
        return drawn.exact()

    def take(self, sets: NDArray[np.intp]) -> "ExactSource":  # noqa: ARG002
        """Return itself: it knows nothing of single sets."""
        return self


@dataclass(frozen=True)
class TemperedSource:
    """The likelihoods of another source, log L / T."""

    source: SourceOfSets
    temperature: float

    def __call__(self, drawn: DrawnSets) -> LikelihoodOfSets:
        """Return the tempered likelihoods of the sets."""
        return TemperedSets(self.source(drawn), self.temperature)

    def take(self, sets: NDArray[np.intp]) -> "TemperedSource":
        """Return the source for some of the sets."""
        return replace(self, source=self.source.take(sets))


@dataclass(frozen=True, eq=False)
class _Block:
    """Some of the sets, with no more events than theirs."""

    first: int
    source: SourceOfSets
    drawn: DrawnSets
    prior: RecordedPrior
    settings: GridSettings | None


def posteriors_in_blocks(
    source: SourceOfSets,
    drawn: DrawnSets,
    prior: RecordedPrior,
    tasks: TaskMap | None = None,
    *,
    settings: GridSettings | None = None,
    progress: Progress | None = None,
) -> SetPosteriors:
    """Return the posteriors of all sets, as `posteriors_of_sets` of every block.

    Args:
        source: of the likelihoods.
        drawn: the sets.
        prior: common prior.
        tasks: who does the blocks; this process by default.
        settings: of the grids.
        progress: called with (blocks done, all blocks).

    Raises:
        SamplingError: a posterior vanishes on the whole coarse grid.
        LikelihoodError: a likelihood is NaN somewhere.
    """
    order = np.arange(drawn.n_sets)
    blocks = [
        _Block(int(rows[0]), source.take(rows), _compact(drawn.take(rows)), prior, settings)
        for rows in np.split(order, range(BLOCK, drawn.n_sets, BLOCK))
    ]
    done = (tasks or SerialMap()).map(_posteriors, blocks, progress)
    return SetPosteriors(
        source(drawn),
        prior,
        np.concatenate([boxes for boxes, _, _ in done]),
        tuple(values for _, parts, _ in done for values in parts),
        done[0][2],
    )


def _posteriors(block: _Block) -> tuple[Array, tuple[Array, ...], int]:
    """Return boxes, log likelihoods and refinement of a block's posteriors."""
    try:
        found = posteriors_of_sets(block.source(block.drawn), block.prior, block.settings)
    except (SamplingError, LikelihoodError) as error:
        if block.first == 0:
            raise
        message = f"sets from {block.first} on, counted from there: {error}"
        raise type(error)(message) from error
    return found.boxes, found.log_likelihood, found.refinement


def _compact(drawn: DrawnSets) -> DrawnSets:
    """Return the sets with a pool of their own events alone."""
    sizes = [len(rows) for rows in drawn.members]
    used, places = np.unique(np.concatenate(drawn.members), return_inverse=True)
    if not len(used):
        return replace(drawn, pool=drawn.pool.take(np.arange(1)))
    members: Sequence[NDArray[np.intp]] = np.split(places.reshape(-1), np.cumsum(sizes)[:-1])
    return replace(drawn, pool=drawn.pool.take(used), members=tuple(members))
