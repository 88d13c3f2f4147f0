r"""Polynomial constraints as a module: F(x) and its Jacobian, for standardised events.

    F_k(x) = sum_{t in k} c_t prod_s g_{a_ts}(y),     y = mean + std x,     g = (1, y, sinh y_i)

Few terms per constraint: gather, multiply, add; the Jacobian term by term likewise.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mflow_sbi.float64_buffers import Float64Buffers

__all__ = ["Constraints"]


class Constraints(Float64Buffers):
    """A minimal independent set of m vanishing polynomials, F(x) = 0 on the data.

    Always float64, whatever the network's dtype.  Built empty from its integers (for loading) or
    by `discover_constraints`.

    Args:
        ambient_dim: n.
        n_constraints: m.
        n_terms: T, terms of all constraints together.
        n_factors: largest number of factors of a term.
        n_sinh: S, observables with a sinh feature.
    """

    mean: Tensor
    std: Tensor
    sinh_of: Tensor
    factors: Tensor
    owner: Tensor
    coefficients: Tensor

    def __init__(
        self, ambient_dim: int, n_constraints: int, n_terms: int, n_factors: int, n_sinh: int
    ) -> None:
        super().__init__()
        self.ambient_dim = ambient_dim
        self.n_constraints = n_constraints
        self.shape: Mapping[str, int] = {
            "ambient_dim": ambient_dim,
            "n_constraints": n_constraints,
            "n_terms": n_terms,
            "n_factors": n_factors,
            "n_sinh": n_sinh,
        }
        self.register_buffer("mean", torch.zeros(ambient_dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(ambient_dim, dtype=torch.float64))
        self.register_buffer("sinh_of", torch.zeros(n_sinh, dtype=torch.int64))
        self.register_buffer("factors", torch.zeros(n_terms, n_factors, dtype=torch.int64))
        self.register_buffer("owner", torch.zeros(n_terms, dtype=torch.int64))
        self.register_buffer("coefficients", torch.zeros(n_terms, dtype=torch.float64))

    @classmethod
    def empty(cls, **shape: int) -> "Constraints":
        """Return constraints to be filled by `load_state_dict`, from a `shape`."""
        return cls(**shape)

    @property
    def latent_dim(self) -> int:
        """Dimension of the surface, n - m."""
        return self.ambient_dim - self.n_constraints

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return g and dg/dx, each (1 + n + S, N): features first, events contiguous."""
        y = torch.addcmul(self.mean[:, None], self.std[:, None], x.double().T)
        small = y[self.sinh_of]
        one = torch.ones_like(y[:1])
        g = torch.cat([one, y, torch.sinh(small)])
        slope = torch.cat(
            [
                torch.zeros_like(one),
                self.std[:, None].expand_as(y),
                torch.cosh(small) * self.std[self.sinh_of, None],
            ]
        )
        return g, slope

    def forward(self, x: Tensor) -> Tensor:
        """Return F(x), (N, n) -> (N, m) float64."""
        g, _ = self._features(x)
        return self._sum(self._factors_of(g)).T

    def _factors_of(self, g: Tensor) -> list[Tensor]:
        return [g[self.factors[:, s]] for s in range(self.factors.shape[1])]

    def _sum(self, factors: list[Tensor]) -> Tensor:
        """Return sum_{t in k} c_t prod_s factor_s, (m, N)."""
        terms = self.coefficients[:, None] * factors[0]
        for factor in factors[1:]:
            terms = terms * factor
        return terms.new_zeros(self.n_constraints, terms.shape[1]).index_add(0, self.owner, terms)

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return F(x) and dF/dx, (N, n) -> (N, m), (N, m, n), float64."""
        g, slope = self._features(x)
        factors = self._factors_of(g)
        n = self.ambient_dim
        observable = torch.cat(
            [self.sinh_of.new_zeros(1), torch.arange(n, device=x.device), self.sinh_of]
        )
        pieces, places = [], []
        for s, chosen in enumerate(self.factors.T):
            terms = self.coefficients[:, None] * slope[chosen]
            for r, factor in enumerate(factors):
                terms = terms if r == s else terms * factor
            pieces.append(terms)
            places.append(self.owner * n + observable[chosen])
        flat = g.new_zeros(self.n_constraints * n, g.shape[1])
        flat = flat.index_add_(0, torch.cat(places), torch.cat(pieces))
        jacobian = flat.T.reshape(-1, self.n_constraints, n)
        return self._sum(factors).T, jacobian
