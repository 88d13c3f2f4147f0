"""The nflows `Transform` interface over maps of columns.

Layers work on columns, numbers first and events last, (d, *batch): every product with a weight
is then one matrix product, every elementwise operation runs over contiguous events, and the
context of many parameter points may broadcast against the events.  nflows' rows (*batch, d) are
turned once at the door.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from nflows.transforms.base import Transform as NflowsTransform
from torch import Tensor

__all__ = ["TANGENT_BLOCK", "Transform", "event_blocks"]

TANGENT_BLOCK = 100
"""Events whose tangents are carried together: 14 tangents of 100 numbers then fit the cache."""


def event_blocks(n_events: int) -> list[slice]:
    """Return the blocks of events in which tangents are carried: all at once while tracing.

    >>> event_blocks(250)
    [slice(0, 100, None), slice(100, 200, None), slice(200, 250, None)]
    """
    if torch.compiler.is_compiling():
        return [slice(None)]
    starts = range(0, n_events, TANGENT_BLOCK)
    return [slice(start, min(start + TANGENT_BLOCK, n_events)) for start in starts]


def _keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 31 MiB instead of returning them.

    glibc adapts its thresholds to the largest block freed so far; until then every temporary of
    more than 128 KiB is handed back and faulted in again page by page, which took about 30% of
    a decode.  One block, freed untouched, settles it; elsewhere it does nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


_keep_freed_memory()


def _columns(inputs: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return rows (*batch, k) as columns (k, *batch), batches with equal numbers of axes."""
    if context is None:
        return inputs.movedim(-1, 0), None
    n_axes = max(inputs.dim(), context.dim())
    rows = [r.reshape(*[1] * (n_axes - r.dim()), *r.shape) for r in (inputs, context)]
    return rows[0].movedim(-1, 0), rows[1].movedim(-1, 0)


class Transform(NflowsTransform):
    """An invertible map T of R^d: `forward` is T, `inverse` is T^-1, both with log|det|."""

    @abstractmethod
    def push(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return T(x) and log|det|; x (d, *batch), context (p, *batch'), batches broadcast.

        log|det| broadcasts against the batch of the result.
        """

    @abstractmethod
    def pull(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return T^-1(y) and its log|det|, columns as in `push`."""

    @abstractmethod
    def pull_tangents(
        self, y: Tensor, tangents: Sequence[Tensor], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return T^-1(y) (d, N), its log|det|, and its tangents along the given ones.

        Tangents come in blocks of `TANGENT_BLOCK` events, (d, t, n); those that are common to
        the events of a block may come as (d, t, 1).  Blocks may be overwritten where no gradient
        is recorded.
        """

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return T(x; context) and log|det dT/dx|, (*batch, d) -> ((*batch, d), (*batch,)).

        Batches of inputs and context broadcast.
        """
        image, log_det = self.push(*_columns(inputs, context))
        return image.movedim(0, -1), log_det.expand(image.shape[1:])

    def inverse(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return T^-1(y; context) and log|det dT^-1/dy|, shapes as in `forward`."""
        image, log_det = self.pull(*_columns(inputs, context))
        return image.movedim(0, -1), log_det.expand(image.shape[1:])

    def inverse_with_tangents(
        self, inputs: Tensor, tangents: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return x = T^-1(u) and J V, J = dT^-1/du; u (N, d), V (N, d, t) -> (N, d), (N, d, t).

        Tangents are propagated by hand through every layer, all t of them in one pass.  Tangents
        common to all events may come as (1, d, t).
        """
        columns = tangents.permute(1, 2, 0)
        blocks = [
            (columns if len(tangents) == 1 else columns[..., events]).clone()
            for events in event_blocks(inputs.shape[0])
        ]
        image, _, moved = self.pull_tangents(
            inputs.T, blocks, None if context is None else context.T
        )
        whole = [
            block.expand(-1, -1, image[:, events].shape[1])
            for events, block in zip(event_blocks(inputs.shape[0]), moved, strict=True)
        ]
        rows = [block.flatten(0, 1).T.contiguous() for block in whole]  # plain transposes are fast
        return image.T, torch.cat(rows).unflatten(1, moved[0].shape[:2])
