r"""Whether ranks are uniform and regions cover: tests, bands and tables.

Expected coverage at level q is the share of sets whose highest-density region of level q holds
the truth; with S sets it is Binomial(S, q) / S if posteriors are calibrated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import beta, binom, binomtest, kstest

from mflow_sbi.calibration.ranks import Ranks
from mflow_sbi.errors import ConfigurationError, EventDataError
from mflow_sbi.interfaces import Array

__all__ = [
    "LEVELS",
    "CalibrationReport",
    "Coverage",
    "CoverageCurve",
    "RankHistogram",
    "Uniformity",
    "calibration_report",
    "coverage",
    "coverage_curve",
    "rank_histogram",
    "uniformity",
]

LEVELS = (0.5, 0.68, 0.9, 0.95)
"""Credibilities at which coverage is quoted."""

_ONE_SIGMA = float(ndtr(1.0) - ndtr(-1.0))


@dataclass(frozen=True)
class Uniformity:
    """Kolmogorov-Smirnov test of uniform ranks.

    Args:
        quantity: whose ranks.
        distance: sup |F - q|.
        p_value: of a distance as large, if calibrated.
    """

    quantity: str
    distance: float
    p_value: float


@dataclass(frozen=True, eq=False)
class RankHistogram:
    """Ranks in equal bins of [0, 1], and the band of calibrated ones.

    Args:
        quantity: whose ranks.
        edges: of the bins, (B + 1,).
        counts: sets in each bin, (B,).
        low: fewest sets inside the band of one bin.
        high: most sets inside it.
        level: chance of a calibrated bin to be inside, at least.
    """

    quantity: str
    edges: Array
    counts: NDArray[np.int64]
    low: int
    high: int
    level: float

    @property
    def outside(self) -> int:
        """Number of bins outside the band."""
        return int(((self.counts < self.low) | (self.counts > self.high)).sum())


@dataclass(frozen=True)
class Coverage:
    """How often regions of one nominal level hold the truth.

    Args:
        level: nominal.
        share: of the sets whose region holds the truth.
        low: lower end of the 68.3% Clopper-Pearson interval of the true coverage.
        high: its upper end.
        p_value: two-sided, of a share as far off, if the coverage is the nominal one.
    """

    level: float
    share: float
    low: float
    high: float
    p_value: float

    @property
    def row(self) -> tuple[str, str, str]:
        """Return a line of text: what, measured, p."""
        return (
            f"coverage of {self.level:.0%}",
            f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}]",
            f"{self.p_value:.3f}",
        )


@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """Coverage at many levels, with the band of calibrated posteriors.

    Args:
        levels: nominal, (Q,).
        shares: of the sets, (Q,).
        low: pointwise 95% band of calibrated shares, (Q,).
        high: its upper end, (Q,).
    """

    levels: Array
    shares: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class CalibrationReport:
    """What ranks say of posteriors.

    Args:
        n_sets: S.
        n_unresolved: sets whose grid was too coarse or narrow; they count like the others.
        uniformity: of every parameter's ranks, of the likelihood's, of the credibility.
        coverage: of highest-density regions at `LEVELS`.
        mean_log_prob: mean log p(theta_s|s), nats: higher is sharper; None from draws.
    """

    n_sets: int
    n_unresolved: int
    uniformity: tuple[Uniformity, ...]
    coverage: tuple[Coverage, ...]
    mean_log_prob: float | None

    @property
    def smallest_p(self) -> float:
        """Smallest p of the uniformity tests."""
        return min(test.p_value for test in self.uniformity)

    @property
    def p_value(self) -> float:
        """Smallest p times the number of tests (Bonferroni), at most one."""
        return min(1.0, self.smallest_p * len(self.uniformity))

    def rows(self) -> list[tuple[str, str, str]]:
        """Return lines of text: what, measured, p."""
        tests = [
            (f"ranks of {test.quantity}", f"KS {test.distance:.3f}", f"{test.p_value:.3f}")
            for test in self.uniformity
        ]
        return tests + [one.row for one in self.coverage]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


def uniformity(quantity: str, ranks: Array) -> Uniformity:
    """Return the Kolmogorov-Smirnov test of uniform ranks (S,).

    Raises:
        EventDataError: no ranks, or ranks outside [0, 1].

    Example:
        >>> uniformity("mu", (np.arange(100) + 0.5) / 100).distance
        0.005
    """
    result = kstest(_as_ranks(ranks), "uniform")
    return Uniformity(quantity, round(float(result.statistic), 12), float(result.pvalue))


def rank_histogram(
    quantity: str, ranks: Array, bins: int = 20, level: float = 0.95
) -> RankHistogram:
    """Return ranks (S,) in equal bins with the Binomial(S, 1/B) band.

    Raises:
        EventDataError: no ranks, or ranks outside [0, 1].
        ConfigurationError: no bins, or a level outside (0, 1).

    Example:
        >>> rank_histogram("mu", (np.arange(100) + 0.5) / 100, bins=10).counts.tolist()
        [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    """
    values = _as_ranks(ranks)
    if bins < 1 or not 0 < level < 1:
        message = f"rank histogram: expected bins and a level in (0, 1), got {bins}, {level}"
        raise ConfigurationError(message)
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    low, high = binom.ppf([0.5 - level / 2, 0.5 + level / 2], len(values), 1 / bins)
    return RankHistogram(quantity, edges, counts, int(low), int(high), level)


def coverage(credibility: Array, levels: Sequence[float] = LEVELS) -> tuple[Coverage, ...]:
    """Return how often regions of nominal levels hold the truth.

    Args:
        credibility: level of the smallest region with the truth, (S,).
        levels: nominal levels in (0, 1).

    Raises:
        EventDataError: no values, or values outside [0, 1].
        ConfigurationError: a level outside (0, 1).

    Example:
        >>> coverage((np.arange(100) + 0.5) / 100, [0.68])[0].share
        0.68
    """
    values = _as_ranks(credibility)
    if not all(0 < level < 1 for level in levels):
        message = f"coverage: expected levels in (0, 1), got {list(levels)}"
        raise ConfigurationError(message)
    n = len(values)
    result = []
    for level in levels:
        k = int((values <= level).sum())
        tail = (1 - _ONE_SIGMA) / 2
        low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
        p_value = float(binomtest(k, n, level).pvalue)
        result.append(Coverage(level, k / n, low, high, p_value))
    return tuple(result)


def coverage_curve(credibility: Array, n_levels: int = 99) -> CoverageCurve:
    """Return coverage at equally spaced levels, with the pointwise 95% binomial band."""
    values = np.sort(_as_ranks(credibility))
    levels = np.arange(1, n_levels + 1) / (n_levels + 1)
    shares = np.searchsorted(values, levels, side="right") / len(values)
    low, high = (binom.ppf(tail, len(values), levels) / len(values) for tail in (0.025, 0.975))
    return CoverageCurve(levels, shares, low, high)


def calibration_report(ranks: Ranks) -> CalibrationReport:
    """Return what ranks say of posteriors."""
    tests = tuple(uniformity(name, values) for name, values in ranks.quantities().items())
    log_prob = ranks.log_prob_at_truth
    return CalibrationReport(
        ranks.n_sets,
        int((~ranks.resolved).sum()),
        tests,
        coverage(ranks.credibility),
        None if np.isnan(log_prob).any() else float(log_prob.mean()),
    )


def _as_ranks(ranks: Array) -> Array:
    """Return (S,) ranks in [0, 1], S > 0, or say what came."""
    values = np.asarray(ranks, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        message = f"expected ranks (S,) in [0, 1], at least one, got {values}"
        raise EventDataError(message)
    return values
