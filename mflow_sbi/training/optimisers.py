r"""Optimisers: how a phase turns gradients into steps.

An optimiser is configuration (frozen, part of a `Phase`); `build` makes torch's object for some
parts of a surrogate.  Its groups share one learning rate, which the loop warms up and anneals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mflow_sbi.errors import ConfigurationError

__all__ = ["AdamW", "Muon", "Optimiser", "orthogonalised"]

ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""a + b s^2 + c s^4, applied to singular values s in (0, 1] again and again, lifts all of them to
0.7-1.2: steep at 0 rather than exact at 1, which is what a step needs."""


class Optimiser(Protocol):
    """How a phase makes its steps."""

    def build(
        self, parts: Sequence[nn.Module], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Return an optimiser of all parameters of the parts."""
        ...


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay: each number by the size of its own gradients.

    References:
        Decoupled weight decay regularization (Loshchilov and Hutter, 2017), arXiv:1711.05101.
    """

    def build(
        self, parts: Sequence[nn.Module], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Return an optimiser of all parameters of the parts."""
        parameters = [parameter for part in parts for parameter in part.parameters()]
        return torch.optim.AdamW(
            parameters, lr=learning_rate, weight_decay=weight_decay, fused=True
        )


@dataclass(frozen=True)
class Muon:
    r"""Orthogonal steps for matrices between hidden layers, AdamW for everything else.

        M <- mu M + G,   W <- W - k lr U V^T,   U S V^T = G + mu M

    Every direction of a matrix moves by the same amount, those with small gradients too: the
    fine structure of a regression is learned in a fraction of AdamW's steps.

    Args:
        matrix_rate: k, learning rate of the matrices / that of the phase.
        momentum: mu.

    Raises:
        ConfigurationError: matrix_rate not positive, or momentum outside [0, 1).

    References:
        | Old optimizer, new norm: an anthology (Bernstein and Newhouse, 2024), arXiv:2409.20325
        | Muon is scalable for LLM training (Liu et al., 2025), arXiv:2502.16982
    """

    matrix_rate: float = 25.0
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if not self.matrix_rate > 0 or not 0 <= self.momentum < 1:
            message = (
                "optimiser muon: expected a positive matrix_rate and a momentum in [0, 1), got "
                f"{self.matrix_rate} and {self.momentum}"
            )
            raise ConfigurationError(message)

    def build(
        self, parts: Sequence[nn.Module], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Return an optimiser of all parameters of the parts."""
        matrices = [matrix for part in parts for matrix in _hidden_matrices(part)]
        taken = {id(matrix) for matrix in matrices}
        every = [parameter for part in parts for parameter in part.parameters()]
        others = [parameter for parameter in every if id(parameter) not in taken]
        return _MuonAdamW(matrices, others, learning_rate, weight_decay, self)


def _hidden_matrices(part: nn.Module) -> list[Tensor]:
    """Return the weights of square linear layers, those between equal hidden layers."""
    return [
        module.weight
        for module in part.modules()
        if isinstance(module, nn.Linear) and module.in_features == module.out_features
    ]


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about U V^T of a matrix U S V^T, (a, b): singular values in 0.7-1.2.

    Newton-Schulz iterations: matrix products only.

    >>> import torch
    >>> sizes = torch.linalg.svdvals(orthogonalised(torch.diag(torch.tensor([5.0, 2.0, 0.1]))))
    >>> bool(((sizes > 0.6) & (sizes < 1.3)).all())
    True
    """
    a, b, c = QUINTIC
    x = matrix / torch.linalg.matrix_norm(matrix).clamp_min(1e-12)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class _MuonAdamW(torch.optim.AdamW):
    """AdamW that takes orthogonal steps with its second group."""

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float,
        options: Muon,
    ) -> None:
        groups = [{"params": list(others)}, {"params": list(matrices)}]
        super().__init__(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self.options = options

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Step with the matrices, then leave the rest to AdamW, which skips what has no slope."""
        group = self.param_groups[1]
        rate = self.options.matrix_rate * group["lr"]
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].mul_(self.options.momentum).add_(weight.grad)
            step = orthogonalised(torch.add(weight.grad, momentum, alpha=self.options.momentum))
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)
            weight.grad = None
        return super().step(closure)
