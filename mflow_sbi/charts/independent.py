r"""Which whitened directions carry the others: elimination by quadratic regression.

    R_i^2 = share of the variance of z_i that a quadratic polynomial of the others explains

The direction of largest R^2 is removed, again and again; what is left last is least determined by
the rest.  Variance alone would order otherwise: on a thin surface directions of large spread are
often functions of others, and narrow ones (a resonance, a small mismatch) are free.  A learned
chart that starts at the wrong ones has to move whole latents, which gradient descent does late or
never.
"""

import torch
from torch import Tensor

from mflow_sbi.charts.linear_head import LinearHead
from mflow_sbi.interfaces import Events

__all__ = ["independent_first"]

PROBE_EVENTS = 10_000
EVENTS_PER_FEATURE = 4
CLIP = 5.0
RIDGE = 1e-4


@torch.no_grad()
def independent_first(head: LinearHead, x: Events) -> LinearHead:
    """Return the head with its directions reordered, the least determined ones first.

    Too few events for the regression (fewer than four per monomial) leave the order alone: by
    spread.

    Args:
        head: whitening of these events.
        x: standardised events, (N, n).
    """
    z = head(x[:PROBE_EVENTS]).clamp(-CLIP, CLIP)
    n_events, rank = z.shape
    if n_events < EVENTS_PER_FEATURE * (1 + rank) * (2 + rank) // 2:
        return head
    order = _elimination_order(z)
    ordered = LinearHead(head.ambient_dim, rank)
    ordered.mean.copy_(head.mean)
    ordered.basis.copy_(head.basis[:, order])
    ordered.spread.copy_(head.spread[order])
    return ordered


def _elimination_order(z: Tensor) -> Tensor:
    """Return the directions, last removed first, (r,)."""
    n_events, rank = z.shape
    first, second = torch.triu_indices(rank, rank, device=z.device)
    features = torch.cat([torch.ones_like(z[:, :1]), z, z[:, first] * z[:, second]], dim=1)
    made_of = torch.zeros(features.shape[1], rank, dtype=torch.bool, device=z.device)
    rows = torch.arange(rank, device=z.device)
    products = 1 + rank + torch.arange(len(first), device=z.device)
    made_of[1 + rows, rows] = True
    made_of[products, first] = True
    made_of[products, second] = True
    moments = features.mT @ features / n_events
    left, removed = list(range(rank)), []
    while left:
        usable = ~made_of[:, removed].any(dim=1)
        shares = [_explained(moments, usable & ~made_of[:, i], 1 + i) for i in left]
        removed.append(left.pop(int(torch.tensor(shares).argmax())))
    return torch.tensor(removed[::-1], device=z.device)


def _explained(moments: Tensor, usable: Tensor, target: int) -> float:
    """Return R^2 of a feature by ridge regression on the usable ones (the constant among them)."""
    chosen = torch.nonzero(usable).squeeze(1)
    normal, along = moments[chosen][:, chosen], moments[chosen, target]
    ridge = normal + RIDGE * torch.diag(torch.diagonal(normal))
    weight = torch.linalg.solve(ridge, along)
    mean = moments[0, target]
    explained = 2 * weight @ along - weight @ (normal @ weight) - mean.square()
    return float(explained / (moments[target, target] - mean.square()))
