r"""log L(theta) = log q(theta|{x}) - log pi(theta) of one set of events: no sum over events.

Everything but the numbers of events is that of a likelihood of one event, the set.
"""

from collections.abc import Mapping, Sequence

import torch

from mflow_sbi.baselines.estimators import SbiSetPosterior
from mflow_sbi.calibration import LikelihoodOfSets
from mflow_sbi.calibration.sets import SeparateSets
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import CachedLikelihood, FlatLikelihood
from mflow_sbi.inference.checks import as_events
from mflow_sbi.inference.likelihood import EvaluationCount
from mflow_sbi.interfaces import Array, EncodedLikelihood, Latents, LogProbs, Parameters
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = ["SetLikelihood", "likelihoods_of_sets"]


class _OneSet:
    """A surrogate of sets as `CachedLikelihood` wants it: one event, which is the whole set."""

    def __init__(self, surrogate: TrainedSurrogate) -> None:
        if not isinstance(surrogate.surrogate, SbiSetPosterior):
            message = (
                "expected a posterior estimator of sets (recipe sbi_npe), got recipe "
                f"{surrogate.record.recipe!r}; take CachedLikelihood"
            )
            raise ConfigurationError(message)
        self._trained = surrogate
        self._estimator = surrogate.surrogate

    @property
    def parameter_names(self) -> Sequence[str]:
        return self._trained.parameter_names

    @property
    def parameter_ranges(self) -> Array:
        return self._trained.parameter_ranges

    def encode(self, x: Array) -> Latents:
        events = x.reshape(-1, self._estimator.ambient_dim)
        return self._estimator.embed(self._trained.standardise(events)[None])

    def latent_log_likelihood(self, u: Latents, theta: Parameters) -> LogProbs:
        scale = self._trained.record.parameters
        standardised = (theta - torch.as_tensor(scale.mean)) / torch.as_tensor(scale.std)
        return self._estimator.set_log_likelihood(u, standardised.to(u.dtype))


class SetLikelihood:
    """The likelihood of one observed set; satisfies `interfaces.DifferentiableLikelihood`.

    Args:
        surrogate: trained posterior estimator of sets.
        x_observed: observed events, (N, n), physical units.

    Raises:
        ConfigurationError: another surrogate, or more events than in any training set.
        ShapeError: x_observed is not (N, n), theta is not (M, p).
        EventDataError: no events, or non-finite observables.
    """

    def __init__(self, surrogate: TrainedSurrogate, x_observed: Array) -> None:
        self._x = as_events("x_observed", x_observed)
        one: EncodedLikelihood = _OneSet(surrogate)
        surrogate.standardise(self._x)  # refuses other observables
        self._set = CachedLikelihood(one, self._x.reshape(1, -1))

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self._set.parameter_names

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value seen in training, (p, 2)."""
        return self._set.parameter_ranges

    @property
    def n_events(self) -> int:
        """Number of observed events."""
        return len(self._x)

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events, {"x": (N, n)}."""
        return {"x": self._x}

    @property
    def evaluations(self) -> EvaluationCount:
        """Points evaluated so far, and those outside the training range."""
        return self._set.evaluations

    def __call__(self, theta: Array) -> Array:
        """Return log L up to a constant in theta, (M, p) -> (M,)."""
        return self._set(theta)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient in theta, (M, p) -> (M,), (M, p).

        The gradient is zero where log L is -inf.
        """
        return self._set.value_and_gradient(theta)


def likelihoods_of_sets(surrogate: TrainedSurrogate, sets: Sequence[Array]) -> LikelihoodOfSets:
    """Return the likelihoods of sets of events (N_s, n); sets without events say nothing."""
    flat = FlatLikelihood(tuple(surrogate.parameter_names))
    return SeparateSets([SetLikelihood(surrogate, x) if len(x) else flat for x in sets])
