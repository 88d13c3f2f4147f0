r"""Ensembles of likelihoods: the mixture of their posteriors, and how much they disagree.

    log L(theta) = log sum_k w_k L_k(theta) - log sum_k w_k

over whole sets of events, not event by event: one member is right for all events or for none.
Members trained alike differ by chance, and where they do the mixture is wider than any of them.

Likelihoods are known up to constants in theta, and the weights are what these constants do:

- equal weights, w_k = 1, suit ratios to one reference density and normalised densities of one
  measure, whose constants are comparable;
- equal evidence, w_k = 1 / Z_k, makes the posterior the mean of the members' posteriors,
  whatever the constants.  Log densities of one set in many dimensions differ by many nats between
  equally good members, so that equal weights there mean one member; this is the safer choice.

References:
    | A trust crisis in simulation-based inference? (Hermans et al., 2021), arXiv:2110.06581,
      section 3.3: ensembles average posteriors
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from mflow_sbi.calibration.posteriors import SetPosteriors, posteriors_of_sets
from mflow_sbi.calibration.sets import LikelihoodOfSets, SeparateSets, learned_sets
from mflow_sbi.errors import ConfigurationError, LikelihoodError, ShapeError
from mflow_sbi.inference import CachedLikelihood, GridPosterior
from mflow_sbi.inference.composite import Composite, ranges_of
from mflow_sbi.inference.likelihood import ObservedData
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import (
    Array,
    DifferentiableLikelihood,
    EncodedLikelihood,
    Likelihood,
)

__all__ = [
    "EnsembleLikelihood",
    "EnsembleSets",
    "EnsembleSpread",
    "ensemble_likelihood",
    "ensemble_sets",
    "ensemble_spread",
    "mean_spread",
    "members_posteriors",
    "require_one_measure",
]


class EnsembleLikelihood(Composite):
    r"""log L(theta) = logsumexp_k [log w_k + log L_k(theta)] - logsumexp_k log w_k of one set.

    Args:
        members: K likelihoods of the same events and parameters.
        log_weights: log w_k, (K,); zero by default.

    Raises:
        ConfigurationError: no members, or weights that are not finite.
        ShapeError: members of other parameters or numbers of events, or other weights.
    """

    def __init__(
        self, members: Sequence[Likelihood], log_weights: Sequence[float] | Array | None = None
    ) -> None:
        _require_members(members)
        _require_common("numbers of events", [member.n_events for member in members])
        self.members = tuple(members)
        self.log_weights = _normalised(log_weights, (len(self.members),))
        super().__init__(members[0].parameter_names, members[:1])
        self._ranges = ranges_of(self._names, members)

    @classmethod
    def of_equal_evidence(
        cls, members: Sequence[Likelihood], prior: RecordedPrior
    ) -> "EnsembleLikelihood":
        """Return the ensemble whose posterior is the mean of the members' posteriors.

        Raises:
            ConfigurationError: no members, or more than three parameters.
        """
        _require_members(members)
        return cls(members, [-one.log_evidence for one in members_posteriors(members, prior)])

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return self.members[0].n_events

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, if the members show them."""
        return self.members[0].observed if isinstance(self.members[0], ObservedData) else {}

    def of_members(self, theta: Array) -> Array:
        """Return log w_k + log L_k, weights normalised, (M, p) -> (K, M)."""
        values = np.stack([member(theta) for member in self.members])
        return values + self.log_weights[:, None]

    def shares(self, theta: Array) -> Array:
        """Return each member's share of the mixture, sum_k = 1, (M, p) -> (K, M)."""
        return softmax(self.of_members(theta), axis=0)

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, p) -> (M,)."""
        return _mixed(self.of_members(self._counted(theta)))

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, p) -> (M,), (M, p).

        grad log L = sum_k r_k grad log L_k, r_k the member's share of the mixture at theta.

        Raises:
            LikelihoodError: a member without gradient.
        """
        self._counted(theta)
        values, slopes = [], []
        for k, member in enumerate(self.members):
            if not isinstance(member, DifferentiableLikelihood):
                message = f"member {k} of the ensemble has no gradient; sample without gradients"
                raise LikelihoodError(message)
            value, slope = member.value_and_gradient(theta)
            values.append(value + self.log_weights[k])
            slopes.append(slope)
        total = _mixed(np.array(values))
        shares = softmax(np.where(np.isneginf(total), 0.0, np.array(values)), axis=0)
        gradient = np.einsum("km,kmp->mp", shares, np.array(slopes))
        gradient[np.isneginf(total)] = 0.0
        return total, gradient


class EnsembleSets:
    r"""log L_s(theta) of an ensemble for S sets at once, weights by member and set.

    Args:
        members: K likelihoods of the same S sets.
        log_weights: log w_ks, (K, S); zero by default.

    Raises:
        ConfigurationError: no members, or weights that are not finite.
        ShapeError: members of other parameters or numbers of sets, or other weights.
    """

    def __init__(
        self, members: Sequence[LikelihoodOfSets], log_weights: Array | None = None
    ) -> None:
        _require_members(members)
        _require_common("numbers of sets", [member.n_sets for member in members])
        self.members = tuple(members)
        self.log_weights = _normalised(log_weights, (len(self.members), self.n_sets))

    @classmethod
    def of_equal_evidence(cls, posteriors: Sequence[SetPosteriors]) -> "EnsembleSets":
        """Return the ensemble whose posteriors are the means of the members' posteriors.

        Args:
            posteriors: of each member, of the same sets and under one prior.
        """
        _require_members([member.sets for member in posteriors])
        evidences = np.stack([_log_evidences(member) for member in posteriors])
        return cls([member.sets for member in posteriors], -evidences)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self.members[0].parameter_names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return self.members[0].n_sets

    def likelihood_of(self, index: int) -> EnsembleLikelihood:
        """Return the ensemble's likelihood of one set."""
        members = [member.likelihood_of(index) for member in self.members]
        return EnsembleLikelihood(members, self.log_weights[:, index])

    def __call__(self, theta: Array) -> Array:
        """Return log L of every set at common points, (M, p) -> (M, S)."""
        values = np.stack([member(theta) for member in self.members])
        return _mixed(values + self.log_weights[:, None])

    def at_own_points(self, theta: Array) -> Array:
        """Return log L of every set at its own points, (M, S, p) -> (M, S)."""
        values = np.stack([member.at_own_points(theta) for member in self.members])
        return _mixed(values + self.log_weights[:, None])


@dataclass(frozen=True)
class EnsembleSpread:
    """How much the posteriors of an ensemble's members disagree.

    Args:
        parameter_names: the p names.
        mean: of the members' posterior means, (p,).
        within: root mean square of the members' posterior widths, (p,).
        between: standard deviation of the members' posterior means, (p,).
    """

    parameter_names: tuple[str, ...]
    mean: tuple[float, ...]
    within: tuple[float, ...]
    between: tuple[float, ...]

    @property
    def width(self) -> tuple[float, ...]:
        """Standard deviation of the mean of the posteriors: both spreads together, (p,)."""
        return tuple(
            float(np.hypot(*pair)) for pair in zip(self.within, self.between, strict=True)
        )

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return lines of text: parameter, mean, width within members, spread between them."""
        table = zip(self.parameter_names, self.mean, self.within, self.between, strict=True)
        return [(name, f"{m:+.3f}", f"{w:.3f}", f"{b:.3f}") for name, m, w, b in table]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


def members_posteriors(members: Sequence[Likelihood], prior: RecordedPrior) -> list[GridPosterior]:
    """Return the posterior of each member; log w_k = -log evidence makes them weigh the same.

    Raises:
        ConfigurationError: no members, or more than three parameters.
    """
    _require_members(members)
    return list(posteriors_of_sets(SeparateSets(members), prior))


def ensemble_spread(posteriors: Sequence[GridPosterior]) -> EnsembleSpread:
    """Return how much the members' posteriors of one set disagree.

    Raises:
        ConfigurationError: fewer than two members.
    """
    if len(posteriors) < 2:
        message = f"ensemble: expected at least two members, got {len(posteriors)}"
        raise ConfigurationError(message)
    means = np.stack([posterior.mean for posterior in posteriors])
    widths = np.stack([posterior.std for posterior in posteriors])
    return EnsembleSpread(
        posteriors[0].parameter_names,
        tuple(means.mean(axis=0).tolist()),
        tuple(np.sqrt(np.square(widths).mean(axis=0)).tolist()),
        tuple(means.std(axis=0).tolist()),
    )


def mean_spread(posteriors: Sequence[Sequence[GridPosterior]]) -> EnsembleSpread:
    """Return how much members disagree on S sets: means, and root mean squares of both spreads.

    Args:
        posteriors: of every member, of the same sets, K of S.

    Raises:
        ConfigurationError: fewer than two members.
    """
    each = [ensemble_spread(one) for one in zip(*posteriors, strict=True)]

    def rms(values: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(np.sqrt(np.square(values).mean(axis=0)).tolist())

    return EnsembleSpread(
        each[0].parameter_names,
        tuple(np.mean([one.mean for one in each], axis=0).tolist()),
        rms([one.within for one in each]),
        rms([one.between for one in each]),
    )


def ensemble_likelihood(
    surrogates: Sequence[EncodedLikelihood], x_observed: Array, prior: RecordedPrior
) -> EnsembleLikelihood:
    """Return the ensemble of equal evidence of trained surrogates, given observed events.

    Args:
        surrogates: trained on the same parameters; those with a density, of one measure.
        x_observed: observed events, (N, n), physical units.
        prior: under which the members' posteriors weigh the same.

    Raises:
        ConfigurationError: none, of different measures, or of more than three parameters.
        ShapeError: surrogates of other parameters.
    """
    require_one_measure(surrogates)
    members = [CachedLikelihood(surrogate, x_observed) for surrogate in surrogates]
    return EnsembleLikelihood.of_equal_evidence(members, prior)


def ensemble_sets(
    surrogates: Sequence[EncodedLikelihood], sets: Sequence[Array], prior: RecordedPrior
) -> EnsembleSets:
    """Return the ensemble of equal evidence of trained surrogates for S sets of events (N_s, n).

    Arguments and errors are those of `ensemble_likelihood`.
    """
    require_one_measure(surrogates)
    posteriors = [posteriors_of_sets(learned_sets(one, sets), prior) for one in surrogates]
    return EnsembleSets.of_equal_evidence(posteriors)


def _mixed(values: Array) -> Array:
    """Return logsumexp over members (K, ...) -> (...), -inf where all are."""
    return np.asarray(logsumexp(values, axis=0))


def _log_evidences(posteriors: SetPosteriors) -> Array:
    return np.array([posterior.log_evidence for posterior in posteriors])


def _normalised(log_weights: Sequence[float] | Array | None, shape: tuple[int, ...]) -> Array:
    """Return log weights that sum to one over the members, (K,) or (K, S)."""
    given = np.zeros(shape) if log_weights is None else np.asarray(log_weights, dtype=np.float64)
    if given.shape != shape:
        message = f"log_weights: expected shape {shape}, got {given.shape}"
        raise ShapeError(message)
    if not np.isfinite(given).all():
        message = f"log_weights: expected finite numbers, got {given.tolist()}"
        raise ConfigurationError(message)
    return given - logsumexp(given, axis=0)


def _require_members(members: Sequence[Likelihood] | Sequence[LikelihoodOfSets]) -> None:
    if not members:
        message = "ensemble: expected at least one member, got none"
        raise ConfigurationError(message)
    _require_common("parameters", [tuple(member.parameter_names) for member in members])


def _require_common(what: str, values: Sequence[object]) -> None:
    if len(set(values)) > 1:
        message = f"ensemble: expected members of the same {what}, got {list(values)}"
        raise ShapeError(message)


def require_one_measure(surrogates: Sequence[EncodedLikelihood]) -> None:
    """Refuse densities of different measures; ratio estimators have none.

    Raises:
        ConfigurationError: the message names the measures.
    """
    modules = [getattr(surrogate, "surrogate", surrogate) for surrogate in surrogates]
    measures = {getattr(module, "measure", "none") for module in modules} - {"none"}
    if len(measures) > 1:
        message = (
            f"ensemble: expected densities of one measure, got {sorted(measures)}; they are not "
            "estimates of one thing"
        )
        raise ConfigurationError(message)
