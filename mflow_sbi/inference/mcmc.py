r"""Draws from p(theta|x) by affine-invariant ensembles (emcee), started from the prior.

Several ensembles are run, independent of one another; each steps half of its walkers with one call
of the likelihood.  Two kinds of proposal alternate: stretch moves (Goodman and Weare, 2010) and
differential evolution along differences of two other walkers (ter Braak, 2006; Nelson et al.,
2014), now and then by the whole difference, which carries walkers from one mode to another.  The
snooker move of emcee 3.1.6 is not used: it does not leave the target invariant (a unit normal
comes out with variance 0.91).

Walkers of one ensemble help one another and are not independent chains.  So R-hat compares
ensembles, never walkers: all walkers of an ensemble, in order of steps, are one chain.  The
effective number of draws is steps x walkers / tau summed over ensembles, tau the integrated
autocorrelation time in steps of the walker-averaged autocorrelation function.

References:
    emcee: The MCMC Hammer (Foreman-Mackey et al., 2013), arXiv:1202.3665.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import emcee
import numpy as np
from emcee.moves import DEMove, Move, StretchMove

from mflow_sbi.errors import ConfigurationError, SamplingError
from mflow_sbi.inference.likelihood import CountsEvaluations, EvaluationCount, ObservedData
from mflow_sbi.inference.points import common_names, log_joint
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData, build_posterior, rank_r_hat
from mflow_sbi.interfaces import Array, Likelihood

__all__ = ["McmcSettings", "autocorrelation_time", "sample_posterior"]

_STARTING_ROUNDS = 100
_SOKAL_WINDOW = 5.0  # the autocorrelation function is summed up to this many tau
_MAX_R_HAT = 1.01  # both limits: Vehtari et al., 2021
_MIN_EFFECTIVE_DRAWS = 400.0
_MIN_ACCEPTANCE = 0.05

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class McmcSettings:
    """How long and how wide to sample.

    Args:
        ensembles: independent ensembles; R-hat compares them.
        walkers: walkers per ensemble, at least 8 and twice the number of parameters.
        burn_in: steps discarded at the start of every ensemble.
        steps: steps kept.

    Raises:
        ConfigurationError: a number below its smallest sensible value.
    """

    ensembles: int = 4
    walkers: int = 32
    burn_in: int = 300
    steps: int = 700

    def __post_init__(self) -> None:
        for name, least in (("ensembles", 2), ("walkers", 1), ("burn_in", 0), ("steps", 4)):
            if getattr(self, name) < least:
                message = f"mcmc {name}: expected at least {least}, got {getattr(self, name)}"
                raise ConfigurationError(message)


def sample_posterior(
    likelihood: Likelihood,
    prior: RecordedPrior,
    settings: McmcSettings,
    seed: int,
    progress: Progress | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> InferenceData:
    """Return draws from p(theta|x) proportional to L(theta) p(theta), with diagnostics.

    The same seed gives the same draws, bit for bit.  Poor convergence raises nothing and warns of
    nothing: it is written in the attribute `diagnostics` (see `diagnostics_of`).

    Args:
        likelihood: log-likelihood of the observed events, whole batches of points.
        prior: prior on the same parameters; starting points are drawn from it.
        settings: ensembles, walkers and steps.
        seed: of the starting points and of all moves.
        progress: called with (steps done, all steps).
        attributes: stored with the draws: recipe, digests of the files used, ...

    Raises:
        SamplingError: too few walkers, or no prior draw with a finite posterior.
        ShapeError: likelihood and prior are not of the same parameters.
        LikelihoodError: the likelihood is NaN or +inf somewhere.
    """
    names = common_names(likelihood, prior)
    fewest = max(8, 2 * len(names))
    if settings.walkers < fewest:
        message = (
            f"expected at least {fewest} walkers for {len(names)} parameters, got "
            f"{settings.walkers}; an ensemble with fewer cannot move in all directions"
        )
        raise SamplingError(message)
    before = likelihood.evaluations if isinstance(likelihood, CountsEvaluations) else None

    def log_posterior(points: Array) -> Array:
        return log_joint(likelihood, prior, points)

    per_ensemble = settings.burn_in + settings.steps
    runs = []
    for k, seeds in enumerate(np.random.SeedSequence(seed).spawn(settings.ensembles)):

        def advance(step: int, done_before: int = k * per_ensemble) -> None:
            if progress is not None:
                progress(done_before + step, settings.ensembles * per_ensemble)

        runs.append(_run_ensemble(log_posterior, prior, settings, seeds, advance))
    draws, lp, acceptance = (np.stack(parts) for parts in zip(*runs, strict=True))
    diagnostics = _diagnose(draws, acceptance, likelihood, before)
    records = {
        **(attributes or {}),
        "seed": seed,
        "mcmc": asdict(settings),
        "n_events": likelihood.n_events,
        "version": version("mflow_sbi"),
    }
    observed = likelihood.observed if isinstance(likelihood, ObservedData) else {}
    return build_posterior(names, draws, lp, diagnostics, prior.to_dict(), observed, records)


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


def _moves() -> list[tuple[Move, float]]:
    """Return proposals and their shares."""
    return [(StretchMove(), 0.4), (DEMove(), 0.45), (DEMove(gamma0=1.0), 0.15)]


def _run_ensemble(
    log_posterior: Callable[[Array], Array],
    prior: RecordedPrior,
    settings: McmcSettings,
    seeds: np.random.SeedSequence,
    advance: Callable[[int], None],
) -> tuple[Array, Array, float]:
    """Return draws (steps, walkers, p), their log posterior and the share of accepted moves."""
    rng = np.random.default_rng(seeds)
    start, lp = _starting_points(log_posterior, prior, settings.walkers, rng)
    generator = np.random.RandomState(seeds.generate_state(4))  # noqa: NPY002 (emcee's own kind)
    sampler = emcee.EnsembleSampler(
        settings.walkers, start.shape[1], log_posterior, moves=_moves(), vectorize=True
    )
    # Without emcee's wrapper, which prints every exception with its traceback.
    sampler.log_prob_fn = log_posterior  # pyright: ignore[reportAttributeAccessIssue]
    state = emcee.State(start, log_prob=lp, random_state=generator.get_state())
    burn_in = sampler.sample(state, iterations=settings.burn_in, store=False)
    for step, state in enumerate(burn_in, start=1):  # noqa: B007 (the last state goes on)
        advance(step)
    kept = sampler.sample(state, iterations=settings.steps, skip_initial_state_check=True)
    for step, _ in enumerate(kept, start=settings.burn_in + 1):
        advance(step)
    acceptance = float(np.mean(sampler.acceptance_fraction))
    return np.asarray(sampler.get_chain()), np.asarray(sampler.get_log_prob()), acceptance


def _starting_points(
    log_posterior: Callable[[Array], Array],
    prior: RecordedPrior,
    walkers: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Return prior draws (walkers, p) and their finite log posterior; others are drawn again."""
    points = prior.sample(walkers, rng)
    lp = log_posterior(points)
    for _ in range(_STARTING_ROUNDS):
        vanishing = ~np.isfinite(lp)
        if not vanishing.any():
            return points, lp
        points[vanishing] = prior.sample(int(vanishing.sum()), rng)
        lp[vanishing] = log_posterior(points[vanishing])
    message = (
        f"no finite starting points for {walkers} walkers in {_STARTING_ROUNDS} draws each from "
        "the prior; the likelihood vanishes where the prior lives: check units, the selection of "
        "the observed events, and the prior"
    )
    raise SamplingError(message)


def _diagnose(
    draws: Array, acceptance: Array, likelihood: Likelihood, before: EvaluationCount | None
) -> Diagnostics:
    """Measure convergence and say in words what fails."""
    ensembles, steps, walkers, parameters = draws.shape
    chains = draws.reshape(ensembles, steps * walkers, parameters)
    r_hat = [rank_r_hat(chains[..., k]) for k in range(parameters)]
    taus = np.array(
        [
            [autocorrelation_time(draws[e, ..., k]) for k in range(parameters)]
            for e in range(ensembles)
        ]
    )
    effective = (steps * walkers / taus).sum(axis=0)
    complaints = []
    if not max(r_hat) < _MAX_R_HAT:
        complaints.append(f"R-hat {max(r_hat):.3f}: the ensembles disagree, sample longer")
    if effective.min() < _MIN_EFFECTIVE_DRAWS:
        complaints.append(f"only {effective.min():.0f} effective draws: sample longer")
    if acceptance.min() < _MIN_ACCEPTANCE:
        complaints.append(f"an ensemble accepts only {acceptance.min():.1%} of its moves")
    asked = outside = share = None
    if before is not None and isinstance(likelihood, CountsEvaluations):
        spent = likelihood.evaluations - before
        asked, outside = spent.points, spent.outside_training_range
        low, high = likelihood.parameter_ranges.T
        share = float(np.mean(np.any((draws < low) | (draws > high), axis=-1)))
    if share:
        complaints.append(f"{share:.2%} of the draws lie outside the surrogate's training range")
    return Diagnostics(
        r_hat=tuple(r_hat),
        effective_draws=tuple(effective.tolist()),
        autocorrelation_steps=tuple(taus.mean(axis=0).tolist()),
        acceptance=tuple(acceptance.tolist()),
        evaluated_points=asked,
        evaluated_outside_training_range=outside,
        draws_outside_training_range=share,
        complaints=tuple(complaints),
    )
