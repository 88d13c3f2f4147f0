"""What all samplers share: the problem they solve, and how draws become a recorded posterior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mflow_sbi.errors import ConfigurationError, SamplingError
from mflow_sbi.inference.exploration import Exploration, explore_prior
from mflow_sbi.inference.likelihood import CountsEvaluations, EvaluationCount, ObservedData
from mflow_sbi.inference.points import common_names, log_joint
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData, build_posterior
from mflow_sbi.interfaces import Array, Likelihood, Progress

__all__ = [
    "EXPLORED",
    "Draws",
    "Problem",
    "Sampler",
    "require_at_least",
    "require_library",
    "sample_posterior",
    "unheard",
]

EXPLORED = 2048
"""Weighted points per round with which single chains and grids are compared."""

_MAX_MISSED_SHARE = 0.02
_BLOCK = 512  # points per call of the likelihood


@runtime_checkable
class Sampler(Protocol):
    """Settings of a method that draws from a posterior, and the method."""

    def sample(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return draws from p(theta|x) proportional to L(theta) p(theta), with diagnostics.

        The same seed gives the same draws, bit for bit.  Poor convergence raises nothing: it is
        written in the attribute `diagnostics` (see `verdict_on`).

        Args:
            likelihood: log-likelihood of the observed events, whole batches of points.
            prior: prior on the same parameters.
            seed: of everything random.
            progress: called with (work done, all work).
            attributes: stored with the draws: recipe, digests of the files used, ...

        Raises:
            SamplingError: the sampler cannot start.
            ShapeError: likelihood and prior are not of the same parameters.
            LikelihoodError: the likelihood is NaN or +inf somewhere.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": name, ...}: the settings as plain JSON-ready values."""
        ...


def sample_posterior(
    likelihood: Likelihood,
    prior: RecordedPrior,
    sampler: Sampler,
    seed: int,
    progress: Progress | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> InferenceData:
    """Return draws from p(theta|x) by any sampler; see `Sampler.sample`."""
    return sampler.sample(likelihood, prior, seed, progress, attributes)


@dataclass(frozen=True, eq=False)
class Draws:
    """What a sampler found.

    Args:
        points: (ensembles, steps, walkers, p); walkers of an ensemble are not independent.
        log_joint: log L + log p(theta) of each, (ensembles, steps, walkers).
        diagnostics: as far as the sampler itself can tell.
        statistics: further numbers of each draw, (ensembles, steps, walkers), by name.
    """

    points: Array
    log_joint: Array
    diagnostics: Diagnostics
    statistics: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Problem:
    """A likelihood under a prior.

    Args:
        likelihood: log-likelihood of the observed events.
        prior: prior on the same parameters.
        before: evaluations made before sampling; None if the likelihood does not count them.
        elsewhere: evaluations made in other processes.

    Raises:
        ShapeError: likelihood and prior are not of the same parameters.
    """

    likelihood: Likelihood
    prior: RecordedPrior
    before: EvaluationCount | None = field(init=False)
    elsewhere: tuple[EvaluationCount, ...] = ()

    def __post_init__(self) -> None:
        common_names(self.likelihood, self.prior)
        known = self.likelihood
        before = known.evaluations if isinstance(known, CountsEvaluations) else None
        object.__setattr__(self, "before", before)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the p parameters."""
        return tuple(self.likelihood.parameter_names)

    @property
    def spent(self) -> EvaluationCount | None:
        """Evaluations made for this problem; None if the likelihood does not count them."""
        if self.before is None or not isinstance(self.likelihood, CountsEvaluations):
            return None
        return sum(self.elsewhere, self.likelihood.evaluations - self.before)

    def with_spent(self, elsewhere: Sequence[EvaluationCount]) -> "Problem":
        """Return the problem with evaluations that were made in other processes."""
        known = replace(self, elsewhere=tuple(elsewhere))
        object.__setattr__(known, "before", self.before)
        return known

    def log_joint(self, theta: Array) -> Array:
        """Return log L + log p(theta), (M, p) -> (M,), in blocks that bound the memory."""
        starts = range(0, len(theta), _BLOCK)
        blocks = [log_joint(self.likelihood, self.prior, theta[k : k + _BLOCK]) for k in starts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def explore(self, n: int, at_least: int, seeds: np.random.SeedSequence) -> Exploration:
        """Return n prior draws with their posterior, at least so many of them usable."""
        rng = np.random.default_rng(seeds)
        return explore_prior(self.log_joint, self.prior, n, at_least, rng)

    def posterior(
        self,
        draws: Draws,
        exploration: Exploration,
        sampler: Sampler,
        seed: int,
        attributes: Mapping[str, Any] | None,
    ) -> InferenceData:
        """Return the draws as InferenceData, checked for missed modes and for extrapolation."""
        diagnostics = self._with_missed_modes(draws, exploration)
        diagnostics = self._with_evaluations(draws.points, diagnostics)
        records = {
            **(attributes or {}),
            "seed": seed,
            "sampler": sampler.to_dict(),
            "n_events": self.likelihood.n_events,
            "version": version("mflow_sbi"),
        }
        return build_posterior(
            self.names,
            draws.points,
            draws.log_joint,
            diagnostics,
            self.prior.to_dict(),
            self.likelihood.observed if isinstance(self.likelihood, ObservedData) else {},
            records,
            draws.statistics,
        )

    def _with_missed_modes(self, draws: Draws, exploration: Exploration) -> Diagnostics:
        flat = draws.points.reshape(-1, len(self.names))
        missed = exploration.missed_share(flat, draws.log_joint.ravel())
        complaints = draws.diagnostics.complaints
        if missed > _MAX_MISSED_SHARE:
            words = (
                f"{missed:.0%} of the posterior mass that prior draws find lies where no draw "
                "came near: a mode is missed; sample with more chains, or take nested sampling"
            )
            complaints = (*complaints, words)
        return replace(draws.diagnostics, missed_share=missed, complaints=complaints)

    def _with_evaluations(self, draws: Array, diagnostics: Diagnostics) -> Diagnostics:
        spent = self.spent
        if spent is None or not isinstance(self.likelihood, CountsEvaluations):
            return diagnostics
        low, high = self.likelihood.parameter_ranges.T
        share = float(np.mean(np.any((draws < low) | (draws > high), axis=-1)))
        words = f"{share:.2%} of the draws lie outside the surrogate's training range"
        return replace(
            diagnostics,
            evaluated_points=spent.points,
            evaluated_outside_training_range=spent.outside_training_range,
            draws_outside_training_range=share,
            cautions=(*diagnostics.cautions, words) if share else diagnostics.cautions,
        )


def require_at_least(sampler: str, settings: object, least: Mapping[str, float]) -> None:
    """Refuse settings below their smallest sensible values.

    Raises:
        ConfigurationError: the message names the sampler and the setting.
    """
    for name, value in least.items():
        given = getattr(settings, name)
        if not given >= value:
            message = f"{sampler} {name}: expected at least {value}, got {given}"
            raise ConfigurationError(message)


def require_library(name: str, sampler: str) -> ModuleType:
    """Import an optional library at its first use.

    Raises:
        SamplingError: it is not installed; the message has the command.
    """
    try:
        return import_module(name)
    except ImportError as error:
        message = (
            f'the sampler {sampler} needs the library {name}: pip install "mflow_sbi[samplers]"'
        )
        raise SamplingError(message) from error


def unheard(progress: Progress | None) -> Progress:
    """Return the callback, or one that does nothing."""

    def ignore(done: int, of: int) -> None:
        pass

    return ignore if progress is None else progress
