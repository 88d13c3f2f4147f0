r"""In which coordinates are the data simplest?  The likelihood of a plain density decides.

Coordinates u = (z_i, i in S) of one surface are compared by how well a product of marginals with
Gaussian dependence (a Gaussian copula) describes the data in them, as a density with respect to
the surface's own volume, which all S share:

    mean log p(x) = mean tilt_S - sum_i h_i - 1/2 log det R_S

h_i: differential entropies of the marginals; R: correlations of normal scores; tilt = - log
volume, see `pivots`.  A narrow resonance, a thin layer at an edge, a circle: each makes the
density sharp in the one set of coordinates that contains it, and nats are what that is worth.

References:
    Vasicek (1976), A test for normality based on sample entropy, J. R. Stat. Soc. B 38, 54.
"""

import torch
from torch import Tensor

__all__ = ["Simplicity"]

RIDGE = 1e-6
"""Added to the diagonal of R: observables may be linearly dependent."""


class Simplicity:
    """Entropies and correlations of observables, and what sets of them cost in nats.

    Args:
        z: standardised observables, (N, n).
    """

    def __init__(self, z: Tensor) -> None:
        self.entropy = _entropies(z)
        ranks = z.argsort(dim=0).argsort(dim=0).double()
        scores = torch.special.ndtri((ranks + 0.5) / len(z))
        self.correlation = torch.corrcoef(scores.T) + RIDGE * torch.eye(z.shape[1]).to(scores)

    def cost(self, sets: Tensor) -> Tensor:
        """Return sum_i h_i + 1/2 log det R of sets of indices, (..., d) int -> (...)."""
        correlation = self.correlation[sets[..., :, None], sets[..., None, :]]
        return self.entropy[sets].sum(dim=-1) + 0.5 * torch.logdet(correlation)


def _entropies(z: Tensor) -> Tensor:
    """Return the differential entropy of each column from its spacings, (N, n) -> (n,)."""
    n = len(z)
    m = max(1, round(n**0.5))
    ordered = z.sort(dim=0).values
    index = torch.arange(n, device=z.device)
    above, below = (index + m).clamp_max(n - 1), (index - m).clamp_min(0)
    gap = (ordered[above] - ordered[below]).clamp_min(1e-300)
    return (gap * n / (above - below)[:, None]).log().mean(dim=0)
