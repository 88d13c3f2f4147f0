"""The objective of optimal transport: events of the surrogate next to those of the simulator."""

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from mflow_sbi.divergences import sinkhorn_divergence
from mflow_sbi.errors import TrainingError
from mflow_sbi.training.objectives import TrainingBatch

__all__ = ["SampleTransport"]


@dataclass(frozen=True)
class SampleTransport:
    r"""S({(decode(u_i), w theta_i)}, {(x_i, w theta_i)}), u_i ~ p(u|theta_i): Sinkhorn divergence.

    No likelihood: the surrogate is a generator whose events, one per theta of the batch, are moved
    onto those of the batch.  w > 0 lets an event travel in theta only at a cost, so that the
    minimum is p(x|theta); w = 0, as published, compares the events alone, and any theta-dependence
    with the right average is as good.

    Weighted events are transported by their weights, which have to be >= 0: mass is moved, and
    there is no negative mass.

    The noise behind u is drawn by a generator that the batch itself seeds: a resumed run repeats.
    Time and memory grow with the square of the number of events, so that large batches (the
    held-out events) are compared in parts.

    Args:
        parameter_weight: w, standardised parameters in units of standardised observables.
        blur: see `divergences`.
        scaling: likewise.
        rows: events that are compared at once, at most.

    References:
        | Brehmer and Cranmer (2020), arXiv:2003.13913, section 3.B
    """

    parameter_weight: float = 1.0
    blur: float = 0.05
    scaling: float = 0.7
    rows: int = 1000

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the divergence of generated events from those of the batch, a mean over parts.

        Raises:
            TrainingError: negative weights.
        """
        n_parts = math.ceil(len(batch.x) / self.rows)
        parts = torch.arange(len(batch.x), device=batch.x.device).tensor_split(n_parts)
        terms = [self._divergence(surrogate, batch.rows(index)) for index in parts]
        return torch.stack(terms).mean()

    def _divergence(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the divergence of generated events from those of the batch."""
        density = surrogate.density
        theta = batch.theta.to(density.whitening.mean)
        shape = (len(theta), density.features)
        noise = torch.randn(shape, generator=_generator_of(batch), dtype=torch.float64)
        latents = density.decode_noise(noise.to(theta), theta)
        events = [surrogate.decode(latents), batch.x]
        labels = self.parameter_weight * batch.theta
        generated, simulated = (torch.cat([x, labels.to(x)], dim=-1) for x in events)
        return sinkhorn_divergence(
            generated,
            simulated,
            blur=self.blur,
            scaling=self.scaling,
            weights=_masses(batch, generated),
        )


def _masses(batch: TrainingBatch, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the shares of generated and simulated events, (N,) each; None where all are equal."""
    if batch.weight is None:
        return None
    if bool((batch.weight < 0).any()):
        message = (
            "optimal transport needs event weights >= 0, got negative ones; take a schedule of "
            "likelihoods, or events without negative weights"
        )
        raise TrainingError(message)
    share = (batch.weight / batch.weight.sum()).to(like)
    return share, share


def _generator_of(batch: TrainingBatch) -> torch.Generator:
    """Return a generator seeded by the events of the batch."""
    digest = sha256(batch.x.detach().cpu().contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
