"""Networks: those that give a coupling layer its parameters, and free ones."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mflow_sbi.transforms.elementwise import linear_columns

__all__ = ["ResidualConditioner", "ResidualNetwork"]


Carry: TypeAlias = Callable[[Tensor, slice], Tensor]
"""Takes tangents (h, t, n) of the events of a slice through a layer; may overwrite them."""


BLOCK_SHARE = 0.3
"""Size of a free network's blocks at the start, in units of what they are added to."""


def _silu_and_slope(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return h sigma(h) and its derivative sigma (1 + h (1 - sigma))."""
    sigma = torch.sigmoid(h)
    value = h * sigma
    return value, torch.lerp(value, torch.ones_like(sigma[:1]), sigma)


def _scaled(fresh: Tensor, factor: Tensor) -> Tensor:
    """Return fresh (h, t, N) times factor (h, N); in place where no gradient is recorded.

    `fresh` must be owned by the caller: an array of tangents is the largest thing there is.
    """
    if torch.is_grad_enabled():
        return fresh * factor[:, None]
    return fresh.mul_(factor[:, None])


def _added_product(fresh: Tensor, weight: Tensor, columns: Tensor) -> Tensor:
    """Return fresh + W columns, (h, t, N); in place where no gradient is recorded."""
    total, flat = fresh.flatten(1), columns.flatten(1)
    if torch.is_grad_enabled():
        return torch.addmm(total, weight, flat).unflatten(1, columns.shape[1:])
    total.addmm_(weight, flat)
    return fresh


class _GatedBlock(nn.Module):
    """h + gate(context) * W2 silu(W1 silu(h)), gate = 2 sigmoid(C context), 1 at the start."""

    def __init__(self, hidden: int, context_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(hidden, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.gate = nn.Linear(context_dim, hidden) if context_dim else None
        nn.init.normal_(self.second.weight, std=1e-2 / hidden**0.5)
        nn.init.zeros_(self.second.bias)
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def _opened(self, context: Tensor | None) -> Tensor | None:
        """Return half the gate (h, *context batch), or None without context."""
        if self.gate is None or context is None:
            return None
        return torch.sigmoid(linear_columns(self.gate.weight, context, self.gate.bias))

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        middle = linear_columns(self.first.weight, torch.nn.functional.silu(h), self.first.bias)
        step = linear_columns(
            self.second.weight, torch.nn.functional.silu(middle), self.second.bias
        )
        gate = self._opened(context)
        return h + step if gate is None else torch.addcmul(h, step, gate, value=2.0)

    def with_carrier(self, h: Tensor, context: Tensor | None) -> tuple[Tensor, Carry]:
        """Return the block's output (h, N) and what carries tangents through it."""
        value, slope = _silu_and_slope(h)
        middle = linear_columns(self.first.weight, value, self.first.bias)
        value, inner_slope = _silu_and_slope(middle)
        step = linear_columns(self.second.weight, value, self.second.bias)
        gate = self._opened(context)

        def carry(along: Tensor, events: slice) -> Tensor:
            inner = linear_columns(self.first.weight, along * slope[:, None, events])
            inner = _scaled(inner, inner_slope[:, events])
            if gate is None:
                return _added_product(along, self.second.weight, inner)
            moved = linear_columns(self.second.weight, inner)
            return torch.addcmul(along, moved, gate[:, None, events], value=2.0)

        image = h + step if gate is None else torch.addcmul(h, step, gate, value=2.0)
        return image, carry


class ResidualConditioner(nn.Module):
    """Residual network of identity features (in, *batch) and context (p, *batch').

    `activations` are the inputs (hidden, *batch) of the last layer; the elementwise map applies
    `last` itself, because it can contract it with its own derivatives.  Batches of features and
    context broadcast: what depends on the context alone is computed on the context's batch.

    The last layer starts at zero, so that a coupling layer starts at the map its biases name.
    The gate is written out instead of `F.glu`, which breaks `vmap` over tangents.
    """

    def __init__(
        self, in_features: int, out_features: int, *, context_dim: int, hidden: int, blocks: int
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.first = nn.Linear(max(1, in_features + context_dim), hidden)
        self.blocks = nn.ModuleList(_GatedBlock(hidden, context_dim) for _ in range(blocks))
        self.last = nn.Linear(hidden, out_features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def _first_layer(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return W (x, context) + b, (hidden, *batch)."""
        weight, bias = self.first.weight, self.first.bias
        if context is None and self.in_features == 0:  # free numbers, not a network
            return linear_columns(weight, torch.ones_like(x.sum(dim=0, keepdim=True)), bias)
        if context is None:
            return linear_columns(weight, x, bias)
        if x.shape[1:] == context.shape[1:]:
            return linear_columns(weight, torch.cat([x, context]), bias)
        of_x, of_context = weight.split([self.in_features, len(context)], dim=1)
        return linear_columns(of_context, context, bias) + linear_columns(of_x, x)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the activations for identity features x, (hidden, *batch)."""
        h = self._first_layer(x, context)
        for block in self.blocks:
            h = block(h, context)
        return torch.nn.functional.silu(h)

    def with_carrier(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Carry]:
        """Return the activations (hidden, N) and what carries tangents (in, t, n or 1) to them."""
        h = self._first_layer(x, context)
        carriers = []
        for block in self.blocks:
            assert isinstance(block, _GatedBlock)
            h, carrier = block.with_carrier(h, context)
            carriers.append(carrier)
        value, slope = _silu_and_slope(h)

        def carry(along: Tensor, events: slice) -> Tensor:
            moved = linear_columns(self.first.weight[:, : self.in_features], along)
            if moved.shape[-1] == 1:
                moved = moved.repeat(1, 1, slope[:, events].shape[-1])
            for carrier in carriers:
                moved = carrier(moved, events)
            return _scaled(moved, slope[:, events])

        return value, carry


class ResidualNetwork(nn.Module):
    """A free map R^in -> R^out: y = A x + b + C h_k,   h_0 = D x + c,   h_j+1 = h_j + F_j(h_j).

    F = W2 silu(W1 h): sums stay linear between blocks, so that fine corrections pass unchanged.
    (With activations on the sums themselves reconstruction was three times worse.)  A starts as
    the identity, padded with zeros, and C at zero.
    """

    def __init__(self, in_features: int, out_features: int, *, hidden: int, blocks: int) -> None:
        super().__init__()
        self.straight = nn.Linear(in_features, out_features)
        self.first = nn.Linear(in_features, hidden, bias=False)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(blocks))
        self.last = nn.Linear(hidden, out_features, bias=False)
        with torch.no_grad():
            self.straight.weight.copy_(torch.eye(out_features, in_features))
            self.straight.bias.zero_()
            self.last.weight.zero_()
            for _, outer in self._layers():
                nn.init.normal_(outer.weight, std=BLOCK_SHARE / hidden**0.5)

    def _layers(self) -> list[tuple[nn.Linear, nn.Linear]]:
        """Return W1 and W2 of the blocks."""
        pairs = zip(self.inner, self.outer, strict=True)
        return [(a, b) for a, b in pairs if isinstance(a, nn.Linear) and isinstance(b, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Return y, (N, in) -> (N, out)."""
        h = self.first(x)
        for inner, outer in self._layers():
            h = h + outer(torch.nn.functional.silu(inner(h)))
        return self.straight(x) + self.last(h)

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and dy/dx, tangents carried by hand, (N, in) -> (N, out), (N, out, in)."""
        h = self.first(x)
        along = self.first.weight.expand(len(x), -1, -1)
        for inner, outer in self._layers():
            value, slope = _silu_and_slope(inner(h))
            h = h + outer(value)
            along = along + outer.weight @ (slope[..., None] * (inner.weight @ along))
        y = self.straight(x) + self.last(h)
        return y, self.straight.weight + self.last.weight @ along
