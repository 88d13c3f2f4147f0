r"""Projections of a learned chart, moved onto constraints that the data obey exactly.

    Q(x) = P_F(decode(encode(x))),   P_F(y): y <- y - J^T (J J^T)^-1 F(y) until F(y) = 0

The learned surface is right to its reconstruction error, the constraints to the precision of the
data: Q closes to rounding whatever was learned.  What the chart has lost of an event stays lost.
Steps are of least length, so only the part of the error across the surface goes: the distance to
the event shrinks by at most about sqrt(d / n), that along the surface remains.  So closure says
nothing of Q; report the reconstruction error beside it, and apart from the chart's own numbers.
Polynomials vanish on more branches than the data have (a length may come out negative): a point
that was learned badly may land on another one, and obeys F but not the redundancy behind it.
Q has no density: volumes and `log_prob` are those of the chart.
"""

import torch
from torch import Tensor

from mflow_sbi.charts.base import Chart
from mflow_sbi.constraints import ConstraintFunction, project
from mflow_sbi.errors import ChartError
from mflow_sbi.interfaces import Events

__all__ = ["project_onto_constraints"]


@torch.no_grad()
def project_onto_constraints(
    chart: Chart, constraints: ConstraintFunction, x: Events
) -> tuple[Events, Tensor]:
    """Return P_F(decode(encode(x))) and whether each has converged, (N, n) float64, (N,) bool.

    Args:
        chart: any chart, learned on the same standardised observables.
        constraints: F, as found by `discover_constraints`.
        x: standardised events, (N, n).

    Raises:
        ChartError: constraints on another number of observables.
    """
    if constraints.ambient_dim != chart.ambient_dim:
        message = (
            f"constraints: expected those of the chart's {chart.ambient_dim} observables, got "
            f"{constraints.ambient_dim}; discover them in the events the chart was trained on"
        )
        raise ChartError(message)
    return project(constraints, chart.project(x))
