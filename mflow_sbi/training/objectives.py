r"""Objectives: what a training phase minimises, one scalar each, averaged over a batch.

Configuration in the fields, tensors in the call.  An objective may be an approximation of a
likelihood; a surrogate's `log_prob` never is.

Events may have weights w_i of mean one, of either sign: then every average over events is

    mean l = (1 / N) sum_i w_i l_i

(`TrainingBatch.mean`), in a batch an unbiased estimate of that over all events, linear in the
weights: an event of integer weight counts as so many events, and opposite weights of the same
event cancel.  Thetas of other events stand for the prior pi: they are averaged with weights
v_m >= 0 of their own (`mean_of_pairs`, see `mflow_sbi.events.weights`).  Joint scores and
components belong to their event, whatever its weight.

The surface is where events are, however many they stand for: reconstruction takes no weights.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from mflow_sbi.densities import PairWeights
from mflow_sbi.errors import TrainingError

__all__ = [
    "LatentNegativeLogProb",
    "Objective",
    "Reconstruction",
    "ReconstructionDistance",
    "ReferenceNegativeLogProb",
    "TrainingBatch",
]


class TrainingBatch(NamedTuple):
    """Standardised events (N, n), parameters (N, p), and what of the encoding rests, (N, d).

    `resting` is computed once per phase: the latents while the density trains, the chart's own
    coordinates while the reference trains, None while the chart itself moves.  Where the events
    tell: scores of the standardised parameters (N, p), morphing components up to a factor (N, K).
    Weights of events, and of thetas as draws from the prior, (N,), have mean one over all events.
    """

    x: Tensor
    theta: Tensor
    resting: Tensor | None = None
    score: Tensor | None = None
    components: Tensor | None = None
    weight: Tensor | None = None
    theta_weight: Tensor | None = None

    @property
    def pair_weights(self) -> PairWeights | None:
        """Weights of events and of thetas, or None where there are none."""
        if self.weight is None or self.theta_weight is None:
            return None
        return PairWeights(self.weight, self.theta_weight)

    def mean(self, values: Tensor) -> Tensor:
        """Return the average of numbers of events, (N, ...) -> scalar, weighted where they are."""
        if self.weight is None:
            return values.mean()
        weight = self.weight.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
        return (weight * values).mean()

    def mean_of_pairs(self, values: Tensor, weights: Tensor | None) -> Tensor:
        """Return the average of numbers of events at thetas of others, (N, M) -> scalar.

        Args:
            values: of event i at theta m, (N, M).
            weights: of these thetas, (M,) or (N, M); None where there are none.
        """
        if weights is None:
            return self.mean(values)
        return self.mean(weights.to(values.dtype) * values)

    def rows(self, index: Tensor | slice) -> "TrainingBatch":
        """Return the events of these rows."""
        return TrainingBatch(*(None if part is None else part[index] for part in self))  # pyright: ignore[reportArgumentType]

    def require_resting(self) -> Tensor:
        """Return the resting part of the encoding, or say what the phase lacks."""
        if self.resting is None:
            message = (
                "this objective trains a density at fixed chart; train the chart in a phase of "
                "its own"
            )
            raise TrainingError(message)
        return self.resting

    def require_score(self) -> Tensor:
        """Return the joint scores, or say that the events carry none."""
        return self._require(self.score, "joint scores")

    def require_components(self) -> Tensor:
        """Return the morphing components, or say that the events carry none."""
        return self._require(self.components, "morphing components")

    def _require(self, value: Tensor | None, what: str) -> Tensor:
        if value is None:
            message = (
                f"this objective needs the {what} of every event, which the training events do "
                "not carry; train on events and their parameters alone"
            )
            raise TrainingError(message)
        return value


class Objective(Protocol):
    """A scalar to minimise.

    A class that has `of_single_events = True` declares that it is a mean over events, each for
    itself: processes that train together then share out the events of a batch.  One that compares
    the events of a batch with each other may have a method `share(surrogate, batch, rows)`, the
    summand that the events of these rows (a slice, its start a multiple of 8) contribute to the
    objective of the whole batch.  Without either, all processes evaluate it on whole batches.
    """

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the batch average of the objective, a scalar."""
        ...


@dataclass(frozen=True)
class Reconstruction:
    """mean |x - decode(encode(x))|^2 + r mean |(u, v)|^2: the manifold phase of the M-flow.

    Standardised units.  The second term, r = `coordinate_norm`, keeps the chart's coordinates
    near the origin.  Weights of events do not enter: they are no statement about the surface.

    References:
        | Brehmer and Cranmer (2020), arXiv:2003.13913, section 3.A
    """

    coordinate_norm: float = 1e-3
    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean squared reconstruction error, regularised."""
        u, v = surrogate.chart.coordinates(batch.x)
        error = (batch.x - surrogate.chart.decode(u)).square().sum(dim=-1)
        norm = u.square().sum(dim=-1) + v.square().sum(dim=-1)
        return error.mean() + self.coordinate_norm * norm.mean()


@dataclass(frozen=True)
class ReconstructionDistance:
    """mean |x - x'| + w mean |S^-1 B^T (x - x')|, x' = decode(encode(x)): the reported error.

    Standardised units.  Distances, not their squares: every event pulls alike.  The second term,
    w = `whitened`, measures in spreads of the linear head's directions: a free direction that is
    narrow (what two wide observables fail to cancel) then asks for its latent from the start,
    when in the first term it is still lost under the errors of wide ones.  s = `softening`,
    |e| = (e^2 + s^2)^(1/2), keeps gradients smooth at events that are reached.  Weights of events
    do not enter: they are no statement about the surface.
    """

    whitened: float = 0.3
    softening: float = 1e-3
    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean distance of the events from their projections."""
        chart = surrogate.chart
        error = batch.x - chart.project(batch.x)
        distance = self._mean_length(error)
        if not self.whitened:
            return distance
        white = (error @ chart.head.basis) / chart.head.spread
        return distance + self.whitened * self._mean_length(white)

    def _mean_length(self, rows: Tensor) -> Tensor:
        """Return the softened mean length, (N, k) -> scalar."""
        return torch.sqrt(rows.square().sum(dim=-1) + self.softening**2).mean()


@dataclass(frozen=True)
class ReferenceNegativeLogProb:
    """-mean log p_ref(s): maximum likelihood of the reference flow, which knows no theta."""

    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log density of the chart's resting coordinates."""
        return -batch.mean(surrogate.reference_log_prob(batch.require_resting()))


@dataclass(frozen=True)
class LatentNegativeLogProb:
    """-mean log p(u|theta): maximum likelihood of the latent density at fixed chart."""

    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log density of the latents."""
        return -batch.mean(surrogate.latent_log_prob(batch.require_resting(), batch.theta))
