"""Fiducial cross sections by Monte Carlo: the numbers behind the committed table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.wbf.adaptation import LEVELS, adapted_proposal
from simulators.wbf.proposals import CHUNK

__all__ = ["CrossSectionEstimate", "estimate_cross_section"]

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

PER_TEV2 = np.array([1.0, 1e-6, 1e-6, 1e-12, 1e-12, 1e-12])
REFLECTION_ODD = [2, 4]


@dataclass(frozen=True)
class CrossSectionEstimate:
    """C_k and standard errors in pb per powers of c/Lambda^2 in TeV^-2; C_2 = C_4 = 0 exactly.

    Attributes:
        value: (6,).
        error: (6,).
        odd_pull: Estimates of C_2 and C_4 over their errors, (2,): a check of the generator.
        n_proposed: Proposals used.
    """

    value: Array
    error: Array
    odd_pull: Array
    n_proposed: int


def estimate_cross_section(
    channel: str,
    n_proposals: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    level: str = "fiducial",
) -> CrossSectionEstimate:
    """C_k = mean over proposals of c_k/g: inside the cuts, or inclusive at parton level.

    Args:
        channel: "ud", "ww" or "full".
        n_proposals: Proposals, rounded up to whole chunks.
        rng: Random numbers.
        progress: Called with (proposals done, proposals).
        level: "fiducial" or "parton".
    """
    mixture = adapted_proposal(channel, level).mixture
    first, second = np.zeros(6), np.zeros(6)
    n_chunks = -(-n_proposals // CHUNK)
    for done in range(n_chunks):
        coefficients = LEVELS[level].draw(rng, mixture, channel).coefficients
        coefficients *= PER_TEV2[:, None]
        first += coefficients.sum(axis=1)
        second += (coefficients * coefficients).sum(axis=1)
        if progress:
            progress((done + 1) * CHUNK, n_chunks * CHUNK)
    n = n_chunks * CHUNK
    value = first / n
    error = np.sqrt((second / n - value * value) / n)
    pull = value[REFLECTION_ODD] / error[REFLECTION_ODD]
    value[REFLECTION_ODD] = 0.0
    error[REFLECTION_ODD] = 0.0
    return CrossSectionEstimate(value, error, pull, n)
