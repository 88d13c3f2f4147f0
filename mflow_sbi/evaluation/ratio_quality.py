r"""How right a learned ratio r(x, theta) = p(x|theta) / p_ref(x) is, without knowing the truth.

*Normalisation.*  Z(theta) = E_ref r(x, theta) = int p(x|theta) dx must be 1 at every theta; it is
measured on events drawn from the reference itself.

*Effective sample size* of those events at theta, as a share: (E r)^2 / E r^2, at most 1.  What is
left of the reference where it stands for p(.|theta); small means that the reference hardly covers
theta, and that normalisation and samples there are uncertain.

*Reliability.*  Pairs (x_i, theta_i) as simulated against the same events with thetas of others:
the odds of the first are r, so that among pairs of predicted probability s = r / (1 + r) a share
of s should be simulated ones.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from mflow_sbi.errors import ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import TiltedFlow, TrainedSurrogate

__all__ = [
    "ReferenceCover",
    "Reliability",
    "estimator_quality",
    "ratio_quality",
    "reference_cover",
    "reliability",
]

MOST_REFERENCE_EVENTS = 20_000
REFERENCE_PER_EVENT = 4
"""Reference events drawn for each test event, up to the number above."""

TYPICAL_POINTS = 20
CHUNK_EVENTS = 4096


@dataclass(frozen=True)
class ReferenceCover:
    """What events of the reference say at one theta.

    Args:
        theta: the point, (p,).
        normalisation: Z(theta), 1 if exact.
        normalisation_error: its Monte Carlo error.
        effective_share: effective sample size / number of events.
    """

    theta: tuple[float, ...]
    normalisation: float
    normalisation_error: float
    effective_share: float


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed shares of simulated pairs, by bins of the prediction.

    Args:
        predicted: mean prediction of each bin that has pairs.
        observed: share of simulated pairs in it.
        error: binomial error of that share.
        pairs: pairs in it.
        calibration_error: mean of |predicted - observed| over pairs.
    """

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    error: tuple[float, ...]
    pairs: tuple[int, ...]
    calibration_error: float


def reference_cover(log_ratios: Array, theta: Array) -> list[ReferenceCover]:
    """Return Z, its error and the effective share at every theta.

    Args:
        log_ratios: log r of N reference events at M points, (M, N).
        theta: the points, (M, p).

    Raises:
        ShapeError: the arrays do not fit, or fewer than two events.

    >>> reference_cover(np.zeros((1, 100)), np.array([[0.5]]))[0].effective_share
    1.0
    """
    if log_ratios.ndim != 2 or len(log_ratios) != len(theta) or log_ratios.shape[1] < 2:
        message = (
            f"expected log ratios (M, N) of N >= 2 events and theta (M, p), got "
            f"{log_ratios.shape} and {theta.shape}"
        )
        raise ShapeError(message)
    covers = []
    for point, values in zip(theta, np.exp(log_ratios), strict=True):
        mean = float(values.mean())
        covers.append(
            ReferenceCover(
                theta=tuple(float(v) for v in point),
                normalisation=mean,
                normalisation_error=float(values.std(ddof=1) / np.sqrt(len(values))),
                effective_share=mean**2 / float(np.square(values).mean()),
            )
        )
    return covers


def reliability(simulated: Array, shuffled: Array, bins: int = 10) -> Reliability:
    """Return how often pairs of each predicted probability r / (1 + r) are simulated ones.

    Args:
        simulated: log r of pairs (x_i, theta_i), (N,).
        shuffled: log r of as many pairs (x_i, theta_j), (N,).
        bins: equal bins of the prediction in [0, 1].

    Raises:
        ShapeError: not two vectors of one length.
    """
    if simulated.ndim != 1 or simulated.shape != shuffled.shape:
        message = (
            f"expected two vectors of log ratios of one length, got {simulated.shape} and "
            f"{shuffled.shape}"
        )
        raise ShapeError(message)
    log_odds = np.concatenate([simulated, shuffled])
    predicted = 0.5 * (1.0 + np.tanh(0.5 * log_odds))
    is_simulated = np.arange(len(log_odds)) < len(simulated)
    which = np.minimum((predicted * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    filled = count > 0
    count = count[filled]
    mean = np.bincount(which, predicted, bins)[filled] / count
    share = np.bincount(which, is_simulated, bins)[filled] / count
    return Reliability(
        predicted=tuple(mean.tolist()),
        observed=tuple(share.tolist()),
        error=tuple(np.sqrt(mean * (1 - mean) / count).tolist()),
        pairs=tuple(count.tolist()),
        calibration_error=float(count @ np.abs(mean - share) / count.sum()),
    )


@torch.no_grad()
def ratio_quality(
    surrogate: TrainedSurrogate,
    x: Array,
    theta: Array,
    seed: int,
    points: Sequence[Sequence[float]] = (),
) -> dict[str, Any]:
    """Return normalisation, cover of the reference and reliability as plain values.

    Args:
        surrogate: with a tilted density.
        x: test events, (N, n), physical units.
        theta: theirs, (N, p).
        seed: of the reference events and the shuffle.
        points: parameter points to look at beside some of the tests'.

    Raises:
        ShapeError: the surrogate's density is not a ratio.
    """
    tilted = surrogate.surrogate
    if not isinstance(tilted, TiltedFlow):
        message = "ratio quality: expected a surrogate of density morphing or residual"
        raise ShapeError(message)
    few = theta[:: max(1, len(theta) // TYPICAL_POINTS)][:TYPICAL_POINTS]
    asked = np.concatenate([np.reshape(points, (-1, theta.shape[1])), few])
    n_reference = min(MOST_REFERENCE_EVENTS, REFERENCE_PER_EVENT * len(x))
    log_ratios = _log_ratios_of_reference(surrogate, tilted, asked, n_reference, seed)
    covers = reference_cover(log_ratios, asked)
    return {
        "reference_events": log_ratios.shape[1],
        "normalisation_error_mean": float(np.mean([abs(c.normalisation - 1) for c in covers])),
        "normalisation_error_worst": max(abs(c.normalisation - 1) for c in covers),
        "effective_share_least": min(c.effective_share for c in covers),
        "cover": [asdict(cover) for cover in covers],
        **estimator_quality(surrogate, x, theta, seed),
    }


@torch.no_grad()
def estimator_quality(
    surrogate: TrainedSurrogate, x: Array, theta: Array, seed: int
) -> dict[str, Any]:
    """Return the reliability of a ratio to p(x), normalised or not, as plain values.

    Args:
        surrogate: whose `log_likelihood` is a log ratio: of a tilted density, or an estimator.
        x: test events, (N, n), physical units.
        theta: theirs, (N, p).
        seed: of the shuffle.
    """
    shuffle = np.random.default_rng(seed).permutation(len(x))
    simulated = surrogate.log_likelihood(x, theta)
    shuffled = surrogate.log_likelihood(x, theta[shuffle])
    return {"reliability": asdict(reliability(simulated, shuffled))}


def _log_ratios_of_reference(
    surrogate: TrainedSurrogate, tilted: TiltedFlow, theta: Array, n_events: int, seed: int
) -> Array:
    """Return log r of reference events at theta (M, p), (M, N)."""
    scaled = torch.from_numpy(surrogate.record.parameters.transform(theta)).to(surrogate.device)
    anywhere = scaled[:1].expand(n_events, -1)
    columns = []
    for k, part in enumerate(anywhere.split(CHUNK_EVENTS)):
        events = tilted.reference.sample(part, 1000 * seed + k)
        condensed = tilted.condense(events)
        columns.append(tilted.condensed_log_likelihood(condensed, scaled[:, None]).double())
    return torch.cat(columns, dim=1).cpu().numpy()
