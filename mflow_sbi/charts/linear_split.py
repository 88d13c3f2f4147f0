"""Linear constraints among the others, solved once: x = origin + lift (pivots, unknowns)."""

from typing import Any, NamedTuple

import torch
from scipy.linalg import qr
from torch import Tensor, nn

from mflow_sbi.errors import ChartError

__all__ = ["LinearSplit", "linear_split"]

LINEAR_VARIATION = 1e-9
"""Relative change of a gradient over the sample below which its constraint is linear."""


class LinearSplit(NamedTuple):
    """Unknowns that remain, rows of their equations, and x = origin + lift (u, w)."""

    unknowns: list[int]
    rows: list[int]
    origin: Tensor
    lift: Tensor


@torch.no_grad()
def linear_split(constraints: nn.Module, x: Tensor, pivots: list[int]) -> LinearSplit:
    """Return the linear constraints solved for observables that are no pivots.

    Args:
        constraints: F with `with_jacobian`, some of them linear.
        x: standardised events on the surface, (N, n).
        pivots: observables that are to stay free.

    Raises:
        ChartError: the pivots do not determine the rest of the linear constraints.
    """
    value, slope = constraints.with_jacobian(x[:1000])  # pyright: ignore[reportCallIssue]
    size = slope.abs().amax(dim=(0, 2))
    varies = (slope - slope[:1]).abs().amax(dim=(0, 2)) > LINEAR_VARIATION * size
    matrix = slope[0, ~varies]
    constant = (value[:, ~varies] - x[:1000] @ matrix.T).mean(dim=0)
    others = [i for i in range(x.shape[1]) if i not in pivots]
    triangle, order = _pivoted_triangle(matrix[:, others])
    n_linear = len(matrix)
    if n_linear and abs(triangle[-1, n_linear - 1]) < 1e-9 * abs(triangle[0, 0]):
        message = f"the pivots {pivots} do not determine the rest of the linear constraints"
        raise ChartError(message)
    solved = sorted(others[i] for i in order[:n_linear])
    unknowns = [i for i in others if i not in solved]
    free = pivots + unknowns
    origin, lift = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], len(free))
    lift[free] = torch.eye(len(free), dtype=x.dtype, device=x.device)
    origin[solved] = -torch.linalg.solve(matrix[:, solved], constant)
    lift[solved] = -torch.linalg.solve(matrix[:, solved], matrix[:, free])
    return LinearSplit(unknowns, torch.nonzero(varies)[:, 0].tolist(), origin, lift)


def _pivoted_triangle(matrix: Tensor) -> tuple[Tensor, list[int]]:
    """Return R (m, n) and the order of columns of a QR factorisation with column pivoting."""
    result: Any = qr(matrix.cpu().numpy(), mode="r", pivoting=True)
    triangle, order = result
    return torch.from_numpy(triangle), order.tolist()
