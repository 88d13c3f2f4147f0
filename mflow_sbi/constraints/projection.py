r"""Projection of events onto the surface F(x) = 0 by steps of least length.

x <- x - J^T (J J^T)^-1 F(x)
"""

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["ConstraintFunction", "project"]


class ConstraintFunction(Protocol):
    """m constraints F of full rank on the data, in standardised observables, float64."""

    ambient_dim: int
    n_constraints: int

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return F(x) and dF/dx, (N, n) -> ((N, m), (N, m, n))."""
        ...


@torch.no_grad()
def project(
    constraints: ConstraintFunction, x: Tensor, steps: int = 10, tolerance: float = 1e-9
) -> tuple[Tensor, Tensor]:
    """Return events moved onto the surface and whether each has converged.

    Args:
        constraints: F.
        x: standardised events, (N, n).
        steps: largest number of Gauss-Newton steps.
        tolerance: an event has converged once its next step would be shorter, times 1 + |x|.

    Returns:
        x on the surface, (N, n) float64; converged, (N,) bool.  An event whose step is not finite
        stays where it was, not converged.
    """
    x = x.double().clone()
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step in range(steps + 1):
        active = torch.nonzero(~converged).squeeze(1)
        if not len(active):
            break
        move = least_step(constraints, x[active])
        length = torch.linalg.vector_norm(move, dim=1)
        size = 1 + torch.linalg.vector_norm(x[active], dim=1)
        done = length < tolerance * size
        if step < steps:
            finite = torch.isfinite(length)
            x[active[finite]] += move[finite]
        converged[active] = done
    return x, converged


def least_step(constraints: ConstraintFunction, x: Tensor) -> Tensor:
    """Return the shortest dx with F + J dx = 0, (N, n); NaN where J is rank deficient."""
    value, jacobian = constraints.with_jacobian(x)
    size = torch.linalg.vector_norm(jacobian, dim=2, keepdim=True)
    unit = jacobian / size
    factor, failed = torch.linalg.cholesky_ex(unit @ unit.mT)
    solved = torch.cholesky_solve(value[..., None] / size, factor)
    move = -(unit.mT @ solved).squeeze(-1)
    return torch.where((failed == 0)[:, None], move, torch.nan)
