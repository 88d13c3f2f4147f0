r"""Posterior draws of many sets by vectorised chains, for more parameters than a grid bears.

Each set has its own ensemble of walkers; all sets take their stretch moves together, one call of
`at_own_points` for half of all walkers.  A walker x moves along the line to another one y of the
other half, x' = y + z (x - y), z from g(z) ~ 1/sqrt z on [1/2, 2], accepted with probability
min(1, z^(p-1) p(x')/p(x)).

References:
    | Ensemble samplers with affine invariance (Goodman and Weare, 2010), section 2
    | emcee: the MCMC hammer (Foreman-Mackey et al., 2012), arXiv:1202.3665, algorithm 3
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from mflow_sbi.calibration.sets import LikelihoodOfSets
from mflow_sbi.errors import ConfigurationError, SamplingError
from mflow_sbi.interfaces import Array, Prior, Progress

__all__ = ["ChainSettings", "SetDraws", "sample_sets"]

_STRETCH = 2.0


@dataclass(frozen=True)
class ChainSettings:
    """How long the chains of every set are.

    Args:
        walkers: per set, even, at least twice the number of parameters.
        burn_in: steps thrown away.
        steps: steps after it.
        thin: every thin-th step is kept.
        starts: draws of the prior among which walkers start by their likelihood.

    Raises:
        ConfigurationError: an odd number of walkers, or no steps.
    """

    walkers: int = 32
    burn_in: int = 200
    steps: int = 400
    thin: int = 20
    starts: int = 2000

    def __post_init__(self) -> None:
        if self.walkers < 4 or self.walkers % 2 or self.starts < self.walkers:
            message = f"chains: expected an even number of walkers >= 4 and as many starts, {self}"
            raise ConfigurationError(message)
        if self.burn_in < 0 or self.thin < 1 or self.steps < 4 * self.thin:
            message = f"chains: expected burn_in >= 0 and steps >= 4 thin > 0, got {self}"
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class SetDraws:
    """Draws of the posteriors of S sets.

    Args:
        draws: (S, L, p), thinned.
        log_likelihood: at the draws, (S, L).
        log_posterior: log L + log prior at the draws, (S, L).
        r_hat: split R-hat over walkers and halves of the chains, (S, p); near one if converged.
    """

    draws: Array
    log_likelihood: Array
    log_posterior: Array
    r_hat: Array

    @property
    def worst_r_hat(self) -> float:
        """Largest R-hat of all sets and parameters."""
        return float(self.r_hat.max())


def sample_sets(
    sets: LikelihoodOfSets,
    prior: Prior,
    settings: ChainSettings,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> SetDraws:
    """Return draws of the posteriors of all sets; see `SetDraws.r_hat` for convergence.

    Args:
        sets: their likelihoods.
        prior: common prior.
        settings: walkers and steps.
        rng: draws everything.
        progress: called with (steps done, all steps).

    Raises:
        ConfigurationError: too few walkers for the parameters.
        SamplingError: no start of positive posterior for some set.
    """
    if settings.walkers < 2 * len(prior.parameter_names):
        message = (
            f"chains: expected at least {2 * len(prior.parameter_names)} walkers for "
            f"{len(prior.parameter_names)} parameters, got {settings.walkers}"
        )
        raise ConfigurationError(message)
    walkers = _Walkers(sets, prior, rng)
    walkers.start(settings.walkers, settings.starts)
    kept, total = [], settings.burn_in + settings.steps
    for step in range(1, total + 1):
        walkers.move()
        if step > settings.burn_in and (step - settings.burn_in) % settings.thin == 0:
            kept.append((walkers.at.copy(), walkers.log_likelihood.copy(), walkers.log_joint()))
        if progress is not None:
            progress(step, total)
    at, log_likelihood, log_joint = (np.stack(part) for part in zip(*kept, strict=True))
    n_sets = sets.n_sets
    return SetDraws(
        at.transpose(2, 0, 1, 3).reshape(n_sets, -1, at.shape[3]),
        log_likelihood.transpose(2, 0, 1).reshape(n_sets, -1),
        log_joint.transpose(2, 0, 1).reshape(n_sets, -1),
        _split_r_hat(at),
    )


class _Walkers:
    """W walkers of every set: places (W, S, p) and their log likelihood and prior (W, S)."""

    def __init__(self, sets: LikelihoodOfSets, prior: Prior, rng: np.random.Generator) -> None:
        self.sets = sets
        self.prior = prior
        self.rng = rng

    def start(self, n_walkers: int, n_starts: int) -> None:
        """Place the walkers at different draws of the prior, chosen by likelihood.

        Temperatures make the choice soft: n_walkers draws are worth having.
        """
        points = self.prior.sample(n_starts, self.rng)
        values = self.sets(points)
        usable = (values > -np.inf).sum(axis=0)
        if usable.min() < n_walkers:
            message = (
                f"set {int(usable.argmin())}: the likelihood is positive at {usable.min()} of "
                f"{n_starts} draws of the prior, expected {n_walkers} or more to start from; take "
                "more starts or another prior"
            )
            raise SamplingError(message)
        noise = self.rng.gumbel(size=values.shape)
        chosen = np.argsort(-(_softened(values, n_walkers) + noise), axis=0)[:n_walkers]
        self.at = points[chosen]
        self.log_likelihood = np.take_along_axis(values, chosen, axis=0)
        self.log_prior = self.prior.log_prob(points)[chosen]

    def log_joint(self) -> Array:
        """Return log L + log prior, (W, S)."""
        return self.log_likelihood + self.log_prior

    def move(self) -> None:
        """Move each half of the walkers along lines to the other half."""
        half = len(self.at) // 2
        first, second = slice(0, half), slice(half, None)
        for moving, resting in ((first, second), (second, first)):
            self._stretch(moving, resting)

    def _stretch(self, moving: slice, resting: slice) -> None:
        own, others = self.at[moving], self.at[resting]
        partner = self.rng.integers(len(others), size=own.shape[:2])
        towards = np.take_along_axis(others, partner[..., None], axis=0)
        root = 1 + (_STRETCH - 1) * self.rng.random(own.shape[:2])
        z = np.square(root) / _STRETCH
        proposal = towards + z[..., None] * (own - towards)
        log_prior = self.prior.log_prob(proposal.reshape(-1, own.shape[2])).reshape(z.shape)
        inside = log_prior > -np.inf
        asked = np.where(inside[..., None], proposal, own)
        log_likelihood = np.where(inside, self.sets.at_own_points(asked), -np.inf)
        gain = log_likelihood + log_prior - self.log_joint()[moving]
        gain += (own.shape[2] - 1) * np.log(z)
        taken = np.log(self.rng.random(z.shape)) < gain
        self.at[moving] = np.where(taken[..., None], proposal, own)
        for name, new in (("log_likelihood", log_likelihood), ("log_prior", log_prior)):
            values = getattr(self, name)
            values[moving] = np.where(taken, new, values[moving])


def _softened(values: Array, wanted: int) -> Array:
    """Return log weights, of values tempered until they are worth `wanted` draws, (M, S)."""
    result = values - values.max(axis=0)
    for _ in range(60):
        log_weights = result - logsumexp(result, axis=0)
        effective = np.exp(-logsumexp(2 * log_weights, axis=0))
        cold = effective < wanted
        if not cold.any():
            break
        result[:, cold] *= 0.7
    return result


def _split_r_hat(at: Array) -> Array:
    """Return split R-hat of kept places (T, W, S, p), walkers and halves as chains, (S, p).

    Between-chain variance of means over mean within-chain variance, as in Gelman and Rubin.
    """
    half = len(at) // 2
    parts = np.concatenate([at[:half], at[half : 2 * half]], axis=1)
    within = parts.var(axis=0, ddof=1).mean(axis=0)
    between = parts.mean(axis=0).var(axis=0, ddof=1)
    return np.sqrt((half - 1) / half + between / within)
