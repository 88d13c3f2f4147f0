r"""Local classifier two-sample test: is q(theta|s) the posterior of this very set?

A classifier d(theta, y) tells pairs (theta_s, y_s) of truths and summaries of their events from
pairs of posterior draws and the same summaries.  Where q is the posterior nothing can be told,
d = 1/2, and for one set o

    T(o) = mean over theta ~ q(theta|o) of [d(theta, y_o) - 1/2]^2

is as small as for classifiers trained on labels swapped at random within each set, which are
exchangeable if q is calibrated.  The classifier is a logistic regression on all products of two
of the standardised theta and y: exact for normal posteriors whose means are linear in y.  Events
enter through a summary of fixed size, so that sets may be of any size; what is not in the summary
is not tested.

References:
    | L-C2ST: local diagnostics for posterior approximations in simulation-based inference
      (Linhart et al., 2023), arXiv:2306.03580, section 3 and algorithm 1
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["LocalTest", "TestResult", "fit_local_test"]

_RIDGE = 1.0  # prior precision of the weights of standardised products
_STEPS = 12  # of Newton's method, at most
_SETTLED = 1e-4


@dataclass(frozen=True)
class TestResult:
    """A statistic beside its values under the null hypothesis.

    Args:
        statistic: T.
        null_quantile: what 5% of the null values exceed.
        p_value: share of null values as large, the measured one counted in.
    """

    __test__ = False  # no test of pytest's

    statistic: float
    null_quantile: float
    p_value: float


@dataclass(frozen=True, eq=False)
class LocalTest:
    """A classifier of truths against posterior draws, and its like on swapped labels.

    Args:
        location: of theta and y, (p + k,).
        scale: theirs, (p + k,).
        products: mean and standard deviation of the products, (2, F).
        weights: of the classifier, then of those on swapped labels, (1 + H, F + 1).
        calibration: standardised pairs it was fitted on, (2 S, F + 1).
    """

    location: Array
    scale: Array
    products: Array
    weights: Array
    calibration: Array

    def everywhere(self) -> TestResult:
        """Return the test averaged over the sets it was fitted on."""
        return _result(self._statistics(self.calibration))

    def at(self, draws: Array, summary: Array) -> TestResult:
        """Return the test of one posterior.

        Args:
            draws: of the posterior given the events, (L, p).
            summary: of the events, (k,), as those of the fit.

        Raises:
            ShapeError: the arrays do not fit those of the fit.
        """
        draws, summary = np.asarray(draws, dtype=np.float64), np.asarray(summary)
        columns = len(self.location)
        if draws.ndim != 2 or summary.ndim != 1 or draws.shape[1] + len(summary) != columns:
            message = (
                f"expected draws (L, p) and a summary (k,) with p + k = {columns}, got "
                f"{draws.shape} and {summary.shape}"
            )
            raise ShapeError(message)
        pairs = np.column_stack([draws, np.broadcast_to(summary, (len(draws), len(summary)))])
        products = _products((pairs - self.location) / self.scale)
        return _result(
            self._statistics(_with_one((products - self.products[0]) / self.products[1]))
        )

    def _statistics(self, table: Array) -> Array:
        """Return T of every classifier, (1 + H,)."""
        return np.square(expit(table @ self.weights.T) - 0.5).mean(axis=0)


def fit_local_test(
    draws: Array, theta: Array, summaries: Array, n_null: int, rng: np.random.Generator
) -> LocalTest:
    """Return the test fitted on S calibration sets.

    Args:
        draws: one posterior draw of each set, (S, p).
        theta: parameters behind each set, (S, p).
        summaries: a few numbers of each set's events, (S, k): posterior means, means of
            observables, the number of events.
        n_null: classifiers on swapped labels; p-values are multiples of 1 / (n_null + 1).
        rng: swaps the labels.

    Raises:
        ShapeError: the arrays do not fit each other.
        EventDataError: too few sets for a classifier of so many products, or columns that do not
            vary.
    """
    draws, theta, summaries = (np.asarray(a, dtype=np.float64) for a in (draws, theta, summaries))
    if draws.shape != theta.shape or summaries.ndim != 2 or len(summaries) != len(theta):
        message = (
            f"expected draws and truths (S, p) and summaries (S, k), got {draws.shape}, "
            f"{theta.shape} and {summaries.shape}"
        )
        raise ShapeError(message)
    n = len(theta)
    pairs = np.concatenate([np.column_stack([part, summaries]) for part in (theta, draws)])
    location, scale = pairs.mean(axis=0), pairs.std(axis=0)
    _require_varying(scale)
    products = _products((pairs - location) / scale)
    if n < 2 * products.shape[1]:
        message = (
            f"expected at least {2 * products.shape[1]} sets for a classifier of "
            f"{products.shape[1]} products, got {n}; draw more sets or take fewer summaries"
        )
        raise EventDataError(message)
    moments = np.stack([products.mean(axis=0), products.std(axis=0)])
    _require_varying(moments[1])
    table = _with_one((products - moments[0]) / moments[1])
    labels = np.repeat([1.0, 0.0], n)
    weights = [_logistic(table, labels)]
    for _ in range(n_null):
        swapped = rng.random(n) < 0.5
        one = np.where(swapped, 0.0, 1.0)
        weights.append(_logistic(table, np.concatenate([one, 1 - one])))
    return LocalTest(location, scale, moments, np.array(weights), table)


def _logistic(table: Array, labels: Array) -> Array:
    """Return weights w of the largest sum log sigmoid(+-x.w) - ridge |w|^2 / 2, by Newton."""
    weights = np.zeros(table.shape[1])
    ridge = np.full(table.shape[1], _RIDGE)
    ridge[0] = 0.0  # the constant is free
    for _ in range(_STEPS):
        chance = expit(table @ weights)
        slope = table.T @ (labels - chance) - ridge * weights
        curvature = table.T @ ((chance * (1 - chance))[:, None] * table) + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if np.abs(step).max() < _SETTLED:
            break
    return weights


def _products(pairs: Array) -> Array:
    """Return the columns and all products of two of them, (N, c) -> (N, F)."""
    first, second = np.triu_indices(pairs.shape[1])
    return np.column_stack([pairs, pairs[:, first] * pairs[:, second]])


def _with_one(table: Array) -> Array:
    return np.column_stack([np.ones(len(table)), table])


def _require_varying(spread: Array) -> None:
    if not (spread > 0).all():
        message = "expected parameters and summaries that vary over the sets; leave out constants"
        raise EventDataError(message)


def _result(statistics: Array) -> TestResult:
    """Return the first statistic beside the others."""
    measured, null = statistics[0], statistics[1:]
    p_value = (1 + int((null >= measured).sum())) / (1 + len(null))
    quantile = float(np.quantile(null, 0.95)) if len(null) else float("nan")
    return TestResult(float(measured), quantile, float(p_value))
