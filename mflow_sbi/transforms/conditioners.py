"""Networks that give a coupling layer its parameters."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResidualConditioner"]


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

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        step = self.second(functional.silu(self.first(functional.silu(h))))
        if self.gate is not None and context is not None:
            step = step * (2.0 * torch.sigmoid(self.gate(context)))
        return h + step


class ResidualConditioner(nn.Module):
    """Residual network (N, in_features) and context (N, context_dim) -> (out_features, N).

    The output is transposed, so that what follows runs over contiguous events.

    The last layer starts at zero, so that a coupling layer starts at the map its biases name.
    The gate is written out instead of `F.glu`, which breaks `vmap` over tangents.
    """

    def __init__(
        self, in_features: int, out_features: int, *, context_dim: int, hidden: int, blocks: int
    ) -> None:
        super().__init__()
        self.has_inputs = in_features + context_dim > 0
        self.first = nn.Linear(max(1, in_features + context_dim), hidden)
        self.blocks = nn.ModuleList(_GatedBlock(hidden, context_dim) for _ in range(blocks))
        self.last = nn.Linear(hidden, out_features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters for identity features x, (out_features, N)."""
        inputs = x if context is None else torch.cat([x, context], dim=-1)
        if not self.has_inputs:  # one feature without parameters: free numbers, not a network
            inputs = torch.ones_like(x.sum(dim=-1, keepdim=True))
        h = self.first(inputs)
        for block in self.blocks:
            h = block(h, context)
        last = self.last
        return torch.addmm(last.bias[:, None], last.weight, functional.silu(h).T)
