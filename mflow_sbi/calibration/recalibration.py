r"""Repairs of posteriors that do not cover, as explicit steps that are reported and stored.

A temperature widens or narrows every posterior: L -> L^(1/T), with T such that the mean
credibility of the truth over calibration sets is 1/2, which is what it is if coverage is right.
Conformal levels leave the posterior alone and quote another credibility: the region of credibility

    q(level) = the ceil((S + 1) level)-th smallest credibility of the truth in S calibration sets

holds the truth of a new set with a probability of at least the level, whatever the posterior.

Both are fitted on sets at draws of the prior, hold on average over it, and for sets of the sizes
they were fitted on; test them on other sets.

References:
    | On calibration of modern neural networks (Guo et al., 2017), arXiv:1706.04599, section 4.2
    | A gentle introduction to conformal prediction (Angelopoulos and Bates, 2021),
      arXiv:2107.07511, section 1
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from mflow_sbi.calibration.interpolation import refined
from mflow_sbi.calibration.posteriors import (
    GridSettings,
    SetPosteriors,
    posteriors_of_sets,
    require_truth,
)
from mflow_sbi.calibration.sets import LikelihoodOfSets
from mflow_sbi.errors import ConfigurationError, EventDataError, LikelihoodError, SamplingError
from mflow_sbi.inference import Grid
from mflow_sbi.inference.composite import Composite
from mflow_sbi.inference.likelihood import ObservedData
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Likelihood

__all__ = [
    "ConformalLevels",
    "Temperature",
    "TemperedLikelihood",
    "TemperedSets",
    "fit_conformal_levels",
    "fit_temperature",
    "recalibration_from_dict",
]

_LOWEST, _HIGHEST = 1e-2, 1e3
_STEP = np.log(2.0)  # of log T that one set of grids bears
_SETTLED = 0.1  # change of log T below which the grids are right
_MAX_ROUNDS = 16
_ROUNDING = 1e-9


class TemperedLikelihood(Composite):
    """log L(theta) / T.

    Args:
        likelihood: log L.
        temperature: T > 0; above one posteriors become wider.
    """

    def __init__(self, likelihood: Likelihood, temperature: float) -> None:
        super().__init__(likelihood.parameter_names, (likelihood,))
        self.likelihood = likelihood
        self.temperature = _positive(temperature)

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return self.likelihood.n_events

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, if the likelihood shows them."""
        return self.likelihood.observed if isinstance(self.likelihood, ObservedData) else {}

    def __call__(self, theta: Array) -> Array:
        """Return log L / T, (M, p) -> (M,)."""
        return self.likelihood(self._counted(theta)) / self.temperature

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L / T and its gradient, (M, p) -> (M,), (M, p).

        Raises:
            LikelihoodError: log L has no gradient.
        """
        if not isinstance(self.likelihood, DifferentiableLikelihood):
            message = "the tempered likelihood has no gradient; sample without gradients"
            raise LikelihoodError(message)
        values, slopes = self.likelihood.value_and_gradient(self._counted(theta))
        return values / self.temperature, slopes / self.temperature


class TemperedSets:
    """log L_s(theta) / T of S sets.

    Args:
        sets: log L_s.
        temperature: T > 0.
    """

    def __init__(self, sets: LikelihoodOfSets, temperature: float) -> None:
        self.sets = sets
        self.temperature = _positive(temperature)

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self.sets.parameter_names

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return self.sets.n_sets

    def likelihood_of(self, index: int) -> TemperedLikelihood:
        """Return the likelihood of one set."""
        return TemperedLikelihood(self.sets.likelihood_of(index), self.temperature)

    def __call__(self, theta: Array) -> Array:
        """Return log L / T of every set at common points, (M, p) -> (M, S)."""
        return self.sets(theta) / self.temperature

    def at_own_points(self, theta: Array) -> Array:
        """Return log L / T of every set at its own points, (M, S, p) -> (M, S)."""
        return self.sets.at_own_points(theta) / self.temperature


@dataclass(frozen=True)
class Temperature:
    """The step L -> L^(1/T).

    Args:
        value: T; above one where posteriors were too narrow.
        error: its standard error from the number of calibration sets.
        n_sets: on which it was fitted.
        mean_credibility: of the truth before the step: 1/2 if calibrated, above if too narrow.

    Raises:
        ConfigurationError: T is not positive.
    """

    value: float
    error: float
    n_sets: int
    mean_credibility: float

    def __post_init__(self) -> None:
        _positive(self.value)

    def apply(self, likelihood: Likelihood) -> TemperedLikelihood:
        """Return the recalibrated likelihood of one set."""
        return TemperedLikelihood(likelihood, self.value)

    def apply_to_sets(self, sets: LikelihoodOfSets) -> TemperedSets:
        """Return the recalibrated likelihoods of many sets."""
        return TemperedSets(sets, self.value)

    @property
    def statement(self) -> str:
        """What was done, in words."""
        return (
            f"log likelihoods divided by T = {self.value:.3f} +- {self.error:.3f}, fitted on "
            f"{self.n_sets} sets (mean credibility of the truth before: "
            f"{self.mean_credibility:.3f}, calibrated: 0.5)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "temperature", ...} with plain numbers."""
        return {
            "kind": "temperature",
            "value": self.value,
            "error": self.error,
            "n_sets": self.n_sets,
            "mean_credibility": self.mean_credibility,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Temperature":
        """Return the step written by `to_dict`."""
        fields = ("value", "error", "n_sets", "mean_credibility")
        return cls(**_fields(record, "temperature", fields))


@dataclass(frozen=True)
class ConformalLevels:
    """The step from nominal levels to credibilities that cover as often.

    Args:
        credibilities: of the truth in the calibration sets, increasing.

    Raises:
        EventDataError: none, or numbers outside [0, 1].

    Example:
        >>> levels = ConformalLevels(tuple(np.linspace(0.3, 0.99, 99)))
        >>> round(levels.adjusted(0.68), 3)
        0.772
    """

    credibilities: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.sort(np.asarray(self.credibilities, dtype=np.float64))
        if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
            message = f"conformal levels: expected credibilities in [0, 1], got {values}"
            raise EventDataError(message)
        object.__setattr__(self, "credibilities", tuple(values.tolist()))

    def adjusted(self, level: float) -> float:
        """Return the credibility of the region that covers with at least this probability.

        One, the whole space, where the calibration sets are too few for the level.

        Raises:
            ConfigurationError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            message = f"conformal levels: expected a level in (0, 1), got {level}"
            raise ConfigurationError(message)
        place = int(np.ceil((len(self.credibilities) + 1) * level - _ROUNDING))
        return self.credibilities[place - 1] if place <= len(self.credibilities) else 1.0

    def cover(self, credibility: Array) -> Array:
        """Return the smallest level whose adjusted region holds each truth, (S,) -> (S,).

        To be handed to `coverage` in place of the credibility.
        """
        below = np.searchsorted(self.credibilities, credibility, side="left")
        return (below + 2 * _ROUNDING) / (len(self.credibilities) + 1)

    @property
    def statement(self) -> str:
        """What was done, in words."""
        pairs = ", ".join(f"{level:.0%} -> {self.adjusted(level):.1%}" for level in (0.68, 0.95))
        return f"credibilities adjusted on {len(self.credibilities)} sets: {pairs}"

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "conformal", "credibilities": [...]}."""
        return {"kind": "conformal", "credibilities": list(self.credibilities)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ConformalLevels":
        """Return the step written by `to_dict`."""
        fields = _fields(record, "conformal", ("credibilities",))
        return cls(tuple(fields["credibilities"]))


def fit_conformal_levels(credibility: Array) -> ConformalLevels:
    """Return the step fitted on the credibilities of the truth in S calibration sets, (S,)."""
    return ConformalLevels(tuple(np.asarray(credibility, dtype=np.float64).tolist()))


def fit_temperature(
    sets: LikelihoodOfSets,
    prior: RecordedPrior,
    theta: Array,
    settings: GridSettings | None = None,
    posteriors_at: Callable[[float], SetPosteriors] | None = None,
) -> Temperature:
    """Return T such that the mean credibility of the truth over calibration sets is 1/2.

    Posteriors are evaluated on grids of their own width, again while T still moves.

    Args:
        sets: likelihoods of S calibration sets.
        prior: common prior.
        theta: parameters behind each set, (S, p), draws of the prior.
        settings: of the grids.
        posteriors_at: T -> posteriors of the tempered likelihoods, where they are not made here.

    Raises:
        SamplingError: no temperature between 0.01 and 1000 does it.
        ShapeError: sets, prior and theta do not fit each other.
    """

    def made_here(temperature: float) -> SetPosteriors:
        return posteriors_of_sets(TemperedSets(sets, temperature), prior, settings)

    at = posteriors_at or made_here
    log_t, before = 0.0, float("nan")
    for step in range(_MAX_ROUNDS):
        credibility = _credibility(at(float(np.exp(log_t))), theta)
        if step == 0:
            before = float(credibility(0.0).mean())
        change = _root(lambda x, of=credibility: float(of(x).mean()) - 0.5)
        log_t += change
        if abs(change) < _SETTLED:
            values = credibility(change)
            slope = (credibility(change + 0.05) - credibility(change - 0.05)).mean() / 0.1
            error = float(values.std() / np.sqrt(len(values)) / abs(slope))
            return Temperature(
                float(np.exp(log_t)), float(np.exp(log_t)) * error, len(values), before
            )
        if not np.log(_LOWEST) < log_t < np.log(_HIGHEST):
            break
    message = (
        f"no temperature between {_LOWEST:g} and {_HIGHEST:g} gives the truth a mean credibility "
        f"of 1/2 (it is {before:.2f} at T = 1): the posteriors are off centre, not of wrong width"
    )
    raise SamplingError(message)


def recalibration_from_dict(record: Mapping[str, Any]) -> Temperature | ConformalLevels:
    """Return the step described by a plain record.

    Raises:
        ConfigurationError: unknown kind, missing or unknown fields.
    """
    kinds: Mapping[str, Callable[[Mapping[str, Any]], Temperature | ConformalLevels]] = {
        "temperature": Temperature.from_dict,
        "conformal": ConformalLevels.from_dict,
    }
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        message = f"recalibration kind: expected one of {sorted(kinds)}, got {kind!r}"
        raise ConfigurationError(message)
    return kinds[kind](record)


def _credibility(posteriors: SetPosteriors, theta: Array) -> Callable[[float], Array]:
    """Return x -> credibility of the truth under L^(1 / exp x), (S,), on fixed grids."""
    truth = require_truth(theta, posteriors)
    at_truth, prior_there = posteriors.log_likelihood_at(truth), posteriors.prior.log_prob(truth)
    cells = []
    for values, box in zip(posteriors.log_likelihood, posteriors.boxes, strict=True):
        fine = refined(values, posteriors.refinement)
        log_prior = posteriors.prior.log_prob(Grid.regular(box, fine.shape).points)
        cells.append((fine.ravel(), log_prior))

    def credibility(x: float) -> Array:
        cold = float(np.exp(-x))
        result = np.empty(len(truth))
        for s, (log_likelihood, log_prior) in enumerate(cells):
            joint = cold * log_likelihood + log_prior
            mass = np.exp(joint - joint.max())
            above = joint > cold * at_truth[s] + prior_there[s]
            result[s] = mass[above].sum() / mass.sum()
        return result

    return credibility


def _root(excess: Callable[[float], float]) -> float:
    """Return where a decreasing function vanishes in [-step, step], or the end nearer to it."""
    if excess(-_STEP) <= 0:
        return -_STEP
    if excess(_STEP) >= 0:
        return _STEP
    return float(brentq(excess, -_STEP, _STEP, xtol=1e-4))  # pyright: ignore[reportArgumentType]


def _positive(temperature: float) -> float:
    if not 0 < temperature < np.inf:
        message = f"temperature: expected a positive number, got {temperature}"
        raise ConfigurationError(message)
    return float(temperature)


def _fields(record: Mapping[str, Any], kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return exactly the named fields of a record of the given kind."""
    expected = {"kind", *names}
    if record.get("kind") != kind or set(record) != expected:
        message = f"recalibration: expected kind {kind!r} with {sorted(expected)}, got {record}"
        raise ConfigurationError(message)
    return {name: record[name] for name in names}
