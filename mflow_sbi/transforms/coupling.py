"""Coupling layers: half of the features set the map of the other half."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mflow_sbi.transforms.base import Transform, event_blocks
from mflow_sbi.transforms.conditioners import ResidualConditioner
from mflow_sbi.transforms.elementwise import ElementwiseMap

__all__ = ["Coupling"]


class Coupling(Transform):
    """y_a = x_a, y_b = m(x_b; net(x_a, context)): the first n_identity features set the others.

    log|det| = log|det dm/dx_b|.  Starts at the identity.
    """

    def __init__(
        self,
        features: int,
        n_identity: int,
        elementwise: ElementwiseMap,
        *,
        context_dim: int,
        hidden: int,
        blocks: int,
    ) -> None:
        super().__init__()
        self.n_identity = n_identity
        self.n_transformed = features - n_identity
        self.elementwise = elementwise
        self.conditioned = context_dim > 0
        self.conditioner = ResidualConditioner(
            n_identity,
            self.n_transformed * elementwise.n_parameters,
            context_dim=context_dim,
            hidden=hidden,
            blocks=blocks,
        )
        with torch.no_grad():
            bias = elementwise.identity_bias().repeat_interleave(self.n_transformed)
            self.conditioner.last.bias.copy_(bias)

    def _split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        identity, rest = columns.split([self.n_identity, self.n_transformed])
        return identity, rest

    def push(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image and log|det|, (d, *batch)."""
        identity, rest = self._split(x)
        activations = self.conditioner(identity, context if self.conditioned else None)
        image, log_det = self.elementwise.push(rest, self.conditioner.last, activations)
        return torch.cat([identity.expand(-1, *image.shape[1:]), image]), log_det

    def pull(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the preimage and log|det|, (d, *batch)."""
        identity, rest = self._split(y)
        activations = self.conditioner(identity, context if self.conditioned else None)
        preimage, log_det = self.elementwise.pull(rest, self.conditioner.last, activations)
        return torch.cat([identity.expand(-1, *preimage.shape[1:]), preimage]), log_det

    def pull_tangents(
        self, y: Tensor, tangents: Sequence[Tensor], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the preimage (d, N), log|det| (N,) and its tangents, blocks of (d, t, n)."""
        identity, rest = self._split(y)
        activations, carry = self.conditioner.with_carrier(
            identity, context if self.conditioned else None
        )
        pulled = self.elementwise.pull_with_carrier(rest, self.conditioner.last, activations)
        blocks = event_blocks(y.shape[1]) if len(tangents) > 1 else [slice(None)]
        moved = []
        for events, block in zip(blocks, tangents, strict=True):
            along_identity, along_rest = self._split(block)
            along = pulled.carry(along_rest, carry(along_identity, events), events)
            if torch.is_grad_enabled() or along.shape != along_rest.shape:
                moved.append(torch.cat([along_identity.expand(-1, *along.shape[1:]), along]))
            else:
                along_rest.copy_(along)  # the block belongs to this pass: identity rows stay
                moved.append(block)
        return torch.cat([identity, pulled.x]), pulled.log_det, moved
