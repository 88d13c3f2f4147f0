"""Whether draws can be trusted: autocorrelation, complaints in words, and a verdict to show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mflow_sbi.inference.result import Diagnostics, InferenceData, diagnostics_of
from mflow_sbi.interfaces import Array

__all__ = ["Verdict", "autocorrelation_time", "chain_complaints", "verdict_on"]

MIN_EFFECTIVE_DRAWS = 400.0  # this and both limits below: Vehtari et al., 2021
_MAX_R_HAT = 1.01
_MIN_EFFECTIVE_PER_CHAIN = 100.0
_SOKAL_WINDOW = 5.0  # the autocorrelation function is summed up to this many tau


def autocorrelation_time(chains: Array) -> float:
    r"""Return tau = 1 + 2 sum_{t=1}^{W} rho_t, W the smallest lag with W >= 5 tau(W).

    rho_t is the autocorrelation at lag t about the mean of all walkers, averaged over walkers; a
    walker that stays aside therefore lengthens tau.

    Args:
        chains: one parameter, (steps, walkers).

    Returns:
        Integrated autocorrelation time in steps, at least 1; the number of steps if nothing moved.

    References:
        Monte Carlo methods in statistical mechanics (Sokal, 1996), section 3.

    Example:
        >>> white = np.random.default_rng(1).normal(size=(1000, 16))
        >>> round(autocorrelation_time(white))
        1
    """
    steps = len(chains)
    away = chains - chains.mean()
    power = np.abs(np.fft.rfft(away, n=2 * steps, axis=0)) ** 2
    covariance = np.fft.irfft(power, n=2 * steps, axis=0)[:steps].mean(axis=1)
    if covariance[0] <= 0:
        return float(steps)
    taus = 2.0 * np.cumsum(covariance / covariance[0]) - 1.0
    closed = np.arange(steps) >= _SOKAL_WINDOW * taus
    window = int(np.argmax(closed)) if closed.any() else steps - 1
    return float(np.clip(taus[window], 1.0, steps))


def chain_complaints(r_hat: Sequence[float], total: Array, by_chain: Array) -> Iterator[str]:
    """Yield in words what independent chains lack.

    Args:
        r_hat: rank-normalised split R-hat of each parameter.
        total: effective draws of each parameter, (p,).
        by_chain: effective draws of each chain (or ensemble) alone, (C, p).
    """
    if not max(r_hat) < _MAX_R_HAT:
        yield (
            f"R-hat {max(r_hat):.3f}: the chains disagree (different modes, or too short); sample "
            "longer, or take nested sampling for several modes"
        )
    if not total.min() >= MIN_EFFECTIVE_DRAWS:
        yield f"only {total.min():.0f} effective draws: sample longer"
    if not by_chain.min() >= _MIN_EFFECTIVE_PER_CHAIN:
        yield f"a chain of {by_chain.min():.0f} effective draws: it is stuck, or too short"


@dataclass(frozen=True)
class Verdict:
    """What to tell about the draws of a sampler.

    Args:
        converged: whether the draws can be trusted.
        banner: lines to show, loudly if not converged; empty if there is nothing to say.
    """

    converged: bool
    banner: str


def verdict_on(posterior: InferenceData, title: str = "posterior") -> Verdict:
    """Return whether the draws of a sampler can be trusted, and the banner that says so.

    Args:
        posterior: the draws, with their diagnostics.
        title: what the banner calls them.
    """
    diagnostics = diagnostics_of(posterior)
    return Verdict(diagnostics.converged, "\n".join(_lines(diagnostics, title)))


def _lines(diagnostics: Diagnostics, title: str) -> Iterator[str]:
    if not diagnostics.converged:
        yield f"NOT CONVERGED: {title}. Do not use these draws:"
        yield from (f"  - {complaint}" for complaint in diagnostics.complaints)
    if diagnostics.cautions:
        yield f"CAUTION: {title}:"
        yield from (f"  - {caution}" for caution in diagnostics.cautions)
