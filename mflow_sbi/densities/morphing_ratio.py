r"""The ratio of an effective theory: a positive polynomial in theta, known to the last monomial.

Amplitudes that are polynomials in theta, of half the degree, make

    sigma(theta) p(x|theta) = sum_k w_k(theta) c_k(x) = phi(theta)^T Q(x) phi(theta),  Q >= 0,

phi the monomials of an amplitude, and the density of the training sample is its average over the
training thetas, p_ref(x) = V . c(x), V_k = mean_theta w_k(theta) / sigma(theta).  So the ratio

    r(x, theta) = p(x|theta) / p_ref(x) = [w(theta) . c(x) / sigma(theta)] / [V . c(x)]

needs c(x) only, up to a factor.  A network gives a lower triangular L(x), and c is read off
Q = L L^T: positive at every theta, also far outside the training.  V and sigma are numbers.
Three laws hold exactly, whatever the weights (where symmetries are declared, "training thetas"
means those and their images: then V is even, and r(g x, g theta) = r(x, theta)):

    r > 0,   mean_theta r(x, theta) = 1 over the training thetas,
    r(x, theta) <= phi^T M^-1 phi / sigma,   M = mean_theta phi phi^T / sigma,

the last because r = phi^T Q phi / (sigma tr Q M), whose largest value over Q >= 0 is reached at
Q ~ M^-1 phi phi^T M^-1.  The bound makes rejection sampling from p_ref exact.

sigma(theta) = w(theta) . C comes with the events, or is learned: r is the posterior of theta over
its prior for any positive sigma, so -mean log r is a proper objective of c and C together; at its
minimum w . c / sigma is right at every theta, which fixes C up to the factor that V cancels.

A share FLOOR of the reference itself is mixed in, c <- (1 - FLOOR) c + FLOOR C (V . C = 1): r
stays above FLOOR in float32 too, and all three laws survive.

Where training thetas have weights, every mean over them is weighted: V, M, the second law.

References:
    Mining gold from implicit models (Brehmer et al., 2018), arXiv:1805.12244, section II.C.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mflow_sbi.densities.base import PairWeights, Ratio
from mflow_sbi.densities.networks import LayeredNetwork
from mflow_sbi.densities.symmetries import SymmetryGroup
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events.weights import spread_rows
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import Array, LogProbs, Parameters
from mflow_sbi.morphing import MorphingBasis

__all__ = ["MorphingRatio", "MorphingShape", "amplitude_monomials"]

FLOOR = 1e-5
STORED_POINTS = 2048
"""Training thetas kept for V where sigma is learned."""
ASYMMETRY = 0.02
"""Monte Carlo error of a cross section that is taken for zero."""


class MorphingShape(NamedTuple):
    """Sizes that rebuild a ratio.

    Args:
        feature_dim: F, inputs of the network.
        parameter_dim: p.
        n_components: K, monomials of the density.
        n_amplitudes: m, monomials of an amplitude.
        group: elements of the symmetry group.
        hidden: width of the hidden layers.
        layers: their number.
        members: networks averaged.
        points: thetas kept for V where sigma is learned; 0: sigma is known.
    """

    feature_dim: int
    parameter_dim: int
    n_components: int
    n_amplitudes: int
    group: int
    hidden: int
    layers: int
    members: int = 1
    points: int = 0


def amplitude_monomials(exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the monomials phi_i (m, p) whose products phi_i phi_j are the monomials w_k (K, p).

    >>> amplitude_monomials(np.array([[0], [1], [2]])).tolist()
    [[0], [1]]

    Raises:
        ConfigurationError: the w_k are not all the products of some monomials.
    """
    rows = {tuple(row) for row in exponents.tolist()}
    half = [row for row in exponents.tolist() if tuple(2 * e for e in row) in rows]
    products = {tuple(a + b for a, b in zip(x, y, strict=True)) for x in half for y in half}
    if products != rows or (0,) * exponents.shape[1] not in rows:
        message = (
            "a morphing density needs the monomials of a squared amplitude, all products of some "
            f"phi_i with 1 among them; got exponents {exponents.tolist()}. Take `density: "
            "residual` for other dependences on theta"
        )
        raise ConfigurationError(message)
    return np.array(half)


def _even(exponents: NDArray[np.int64], cross_section: Array, theta: Array, signs: Array) -> Array:
    """Return the even part of C, (K,), under sign changes (G, p) of the parameters.

    Raises:
        ConfigurationError: sigma at the training thetas and at their images differs.
    """
    basis = MorphingBasis(exponents)
    factors = np.prod(signs[:, None] ** exponents, axis=2).mean(axis=0)
    sigma, even = (basis.weights(theta) @ c for c in (cross_section, cross_section * factors))
    worst = float(np.abs(even / sigma - 1).max())
    if worst > ASYMMETRY:
        message = (
            f"the cross section changes by up to {worst:.1%} under the declared symmetries, "
            f"expected less than {ASYMMETRY:.0%}; check which parameters are odd"
        )
        raise ConfigurationError(message)
    return cross_section * factors


class _Theory(Float64Buffers):
    """The numbers of the theory, in float64: monomials, their scales, sigma and V."""

    exponents: Tensor
    amplitudes: Tensor
    products: Tensor
    unit: Tensor
    theta_mean: Tensor
    theta_std: Tensor
    cross_section: Tensor
    average: Tensor
    points: Tensor

    def __init__(self, shape: MorphingShape) -> None:
        super().__init__()
        p, k, m = shape.parameter_dim, shape.n_components, shape.n_amplitudes
        self.register_buffer("exponents", torch.zeros(k, p, dtype=torch.int64))
        self.register_buffer("amplitudes", torch.zeros(m, p, dtype=torch.int64))
        sizes = {"products": (m * m, k), "unit": (k,), "theta_mean": (p,), "theta_std": (p,)}
        sizes |= {"cross_section": (k,), "average": (k,), "points": (shape.points, k)}
        for name, size in sizes.items():
            self.register_buffer(name, torch.ones(size, dtype=torch.float64))

    def fill(
        self,
        exponents: NDArray[np.int64],
        theta: Array,
        cross_section: Array | None,
        theta_weight: Array | None,
    ) -> None:
        """Take the monomials (K, p) and training thetas (N, p), physical; set the scales.

        Weights (N,) enter V, not the scales.
        """
        basis = MorphingBasis(exponents)
        amplitudes = amplitude_monomials(exponents)
        self.exponents.copy_(torch.from_numpy(exponents))
        self.amplitudes.copy_(torch.from_numpy(amplitudes))
        weights = basis.weights(theta)
        pairs = (amplitudes[:, None] + amplitudes[None]).reshape(-1, exponents.shape[1])
        index = [exponents.tolist().index(row) for row in pairs.tolist()]
        if cross_section is None:  # as if every amplitude contributed alike on average
            squares = weights[:, index[:: len(amplitudes) + 1]]
            cross_section = np.zeros(len(exponents))
            cross_section[index[:: len(amplitudes) + 1]] = 1.0 / squares.mean(axis=0)
        weights = weights / (weights @ cross_section)[:, None]
        unit = np.sqrt(np.square(weights).mean(axis=0))
        spread = spread_rows(len(theta), len(self.points), theta_weight)
        self.points.copy_(torch.from_numpy(basis.weights(theta[spread]) / unit))
        size = np.sqrt(unit[index[:: len(amplitudes) + 1]])
        table = np.zeros((len(pairs), len(exponents)))
        table[np.arange(len(pairs)), index] = unit[index] / np.outer(size, size).ravel()
        self.products.copy_(torch.from_numpy(table))
        self.unit.copy_(torch.from_numpy(unit))
        self.cross_section.copy_(torch.from_numpy(cross_section * unit))
        self.average.copy_(
            torch.from_numpy(np.average(weights, axis=0, weights=theta_weight) / unit)
        )

    def physical(self, theta: Parameters) -> Tensor:
        """Return theta in physical units, float64."""
        return theta.double() * self.theta_std + self.theta_mean

    def monomials(self, points: Tensor) -> Tensor:
        """Return w_k(theta) / unit_k, (..., p) -> (..., K)."""
        return points.unsqueeze(-2).pow(self.exponents).prod(dim=-1) / self.unit

    def slopes(self, points: Tensor) -> Tensor:
        """Return d w_k / d theta_j / unit_k, (..., p) -> (..., K, p)."""
        spread = points.unsqueeze(-2)
        columns = []
        for j in range(points.shape[-1]):
            lowered = self.exponents.clone()
            lowered[:, j] = (lowered[:, j] - 1).clamp_min(0)
            columns.append(spread.pow(lowered).prod(dim=-1) * self.exponents[:, j])
        return torch.stack(columns, dim=-1) / self.unit[:, None]

    def components_of(self, lower: Tensor) -> Tensor:
        """Return c of Q = L L^T in the scaled monomials, (..., m, m) -> (..., K)."""
        square = lower @ lower.mT
        return square.flatten(-2) @ self.products.to(square.dtype)


def _network(shape: MorphingShape) -> LayeredNetwork:
    """Return F -> m (m + 1) / 2 numbers; at the start L is about the unit matrix."""
    rows, columns = torch.tril_indices(shape.n_amplitudes, shape.n_amplitudes)
    network = LayeredNetwork(shape.feature_dim, shape.hidden, shape.layers, len(rows))
    with torch.no_grad():
        network.last.bias.copy_((rows == columns).float())
    return network


class MorphingRatio(Ratio):
    """r(x, theta) = [w . c(x) / sigma] / [V . c(x)], c(x) from a network; see the room's laws.

    `encode` gives c(x) / (V . c(x)) in scaled monomials, float64: then r at any theta is one
    product with w(theta) / sigma(theta).  Rebuild with a shape and `load_state_dict`.
    """

    tril: Tensor
    rate: nn.Parameter | None

    def __init__(self, shape: MorphingShape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.parameter_dim = shape.parameter_dim
        self.theory = _Theory(shape)
        self.group = SymmetryGroup(shape.group, shape.feature_dim, shape.parameter_dim)
        m = shape.n_amplitudes
        self.register_buffer("tril", torch.tril_indices(m, m), persistent=False)
        with seeded(seed):
            self.networks = nn.ModuleList(_network(shape) for _ in range(shape.members))
        self.rate = nn.Parameter(torch.eye(m)) if shape.points else None

    def fill(
        self,
        exponents: NDArray[np.int64],
        theta: Array,
        cross_section: Array | None,
        group: SymmetryGroup,
        theta_weight: Array | None = None,
    ) -> Self:
        """Take the theory and the symmetries.

        Args:
            exponents: powers of theta in every monomial w_k, (K, p).
            theta: of the training events, (N, p), physical units.
            cross_section: C_k of sigma = w . C, (K,); None: learned.
            group: of as many elements as the shape says.
            theta_weight: of the thetas as draws from the prior, >= 0, (N,); equal if left out.

        Raises:
            ConfigurationError: the monomials are not those of a squared amplitude, or the cross
                section does not have the symmetries.
        """
        self.group.load_state_dict(group.state_dict())
        signs = np.unique(group.parameter_signs.numpy(), axis=0)
        if cross_section is not None:
            cross_section = _even(np.asarray(exponents), cross_section, theta, signs)
        images = np.concatenate([theta * row for row in signs])
        chances = None if theta_weight is None else np.tile(theta_weight, len(signs))
        self.theory.fill(np.asarray(exponents), images, cross_section, chances)
        self.theory.theta_mean.copy_(torch.from_numpy(theta.mean(axis=0)))
        self.theory.theta_std.copy_(torch.from_numpy(theta.std(axis=0)))
        return self

    def rates(self) -> tuple[Tensor, Tensor]:
        """Return C and V in scaled monomials, with V . C = 1, (K,) and (K,) float64."""
        if self.rate is None:
            return self.theory.cross_section, self.theory.average
        total = self.theory.components_of(torch.tril(self.rate).double())
        even = self.component_signs().mean(dim=0)
        weights = self.theory.points
        average = (weights / (weights @ (total * even))[:, None]).mean(dim=0)
        return total * even, average * even

    def normalised(self, components: Tensor) -> Tensor:
        """Return c / (V . c) in scaled monomials of physical components, (N, K) -> (N, K)."""
        scaled = components.double() * self.theory.unit
        average = self.rates()[1].detach()
        return (scaled / (scaled @ average)[:, None]).to(components.dtype)

    @property
    def least(self) -> float:
        """The smallest value of r at any x and theta; float32 rounding alone goes below."""
        return FLOOR

    @property
    def learns_rate(self) -> bool:
        """Whether sigma(theta) is learned too."""
        return self.rate is not None

    def _components(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """Return c / (V . c) of every network, averaged, (N, F) -> (N, K)."""
        total, average = (value.to(dtype) for value in self.rates())
        m, mean = self.shape.n_amplitudes, torch.zeros_like(total)
        for network in self.networks:
            numbers = network(features).to(dtype)
            lower = numbers.new_zeros(len(features), m, m)
            lower[:, self.tril[0], self.tril[1]] = numbers
            c = self.theory.components_of(lower)
            mean = mean + c / (c @ average)[:, None]
        return (1.0 - FLOOR) / len(self.networks) * mean + FLOOR * total

    def component_signs(self) -> Tensor:
        """Return the signs of c_k under the group, (G, K): those of w_k."""
        signs = self.group.parameter_signs.unsqueeze(-2).pow(self.theory.exponents)
        return signs.prod(dim=-1)

    def encode(self, features: Tensor) -> Tensor:
        """Return c(x) / (V . c(x)), averaged over the group, (N, F) -> (N, K) float64."""
        mean = torch.zeros((), device=features.device)
        for signs, back in zip(self.group.feature_signs, self.component_signs(), strict=True):
            mean = mean + self._components(features * signs.to(features), torch.float64) * back
        return mean / self.group.order

    def encode_in_turn(self, features: Tensor) -> Tensor:
        """Return c / (V . c) of events turned by element i mod G, turned back, (N, K)."""
        element = self.group.in_turn(len(features))
        turned = features * self.group.feature_signs.to(features)[element]
        back = self.component_signs().to(features)[element]
        return self._components(turned, features.dtype) * back

    def weights(self, theta: Parameters) -> Tensor:
        """Return w_k / sigma in scaled monomials, (..., p) -> (..., K) float64."""
        monomials = self.theory.monomials(self.theory.physical(theta))
        return monomials / (monomials @ self.rates()[0]).unsqueeze(-1)

    def log_ratio(self, encoded: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., K), (..., p) -> (...)."""
        weights = self.weights(theta).to(encoded.dtype)
        if encoded.dim() == 2 and theta.dim() == 3 and theta.shape[1] == 1:
            ratio = weights[:, 0] @ encoded.T
        else:
            ratio = (weights * encoded).sum(dim=-1)
        return torch.log(ratio.clamp_min(self.least))

    def score(self, encoded: Tensor, theta: Parameters) -> Tensor:
        """Return grad_theta log r, theta standardised, rows paired, (N, K), (N, p) -> (N, p)."""
        points = self.theory.physical(theta)
        monomials = self.theory.monomials(points)
        slopes = self.theory.slopes(points) * self.theory.theta_std
        total = self.rates()[0]
        of_rate = torch.einsum("nkp,k->np", slopes, total) / (monomials @ total)[:, None]
        weights, slopes = monomials.to(encoded.dtype), slopes.to(encoded.dtype)
        density = (weights * encoded).sum(dim=-1, keepdim=True)
        return torch.einsum("nkp,nk->np", slopes, encoded) / density - of_rate.to(encoded.dtype)

    def log_ratio_in_turn(
        self,
        features: Tensor,
        theta: Parameters,
        weights: PairWeights | None = None,  # noqa: ARG002
    ) -> LogProbs:
        """Return log r of pairs turned by element i mod G, (N,); V is that of all thetas."""
        return self.log_ratio(self.encode_in_turn(features), theta)

    def score_in_turn(
        self,
        features: Tensor,
        theta: Parameters,
        weights: PairWeights | None = None,  # noqa: ARG002
    ) -> tuple[LogProbs, Tensor]:
        """Return the same and its gradient in standardised theta, (N,) and (N, p)."""
        encoded = self.encode_in_turn(features)
        return self.log_ratio(encoded, theta), self.score(encoded, theta)

    def log_bound(self, theta: Parameters) -> Tensor:
        """Return log[phi^T M^-1 phi / sigma], reached by some c, (N, p) -> (N,) float64."""
        total, average = self.rates()
        m = self.shape.n_amplitudes
        matrix = (self.theory.products @ average).reshape(m, m)
        points = self.theory.physical(theta)
        phi = points.unsqueeze(-2).pow(self.theory.amplitudes).prod(dim=-1)
        phi = phi * self._amplitude_scale()
        sigma = self.theory.monomials(points) @ total
        solved = torch.linalg.solve(matrix, phi.T).T
        peak = (phi * solved).sum(dim=-1) / sigma
        return torch.log((1.0 - FLOOR) * peak + FLOOR)

    def _amplitude_scale(self) -> Tensor:
        """Return 1 / s_i, the units in which `products` takes phi_i, (m,)."""
        squares = 2 * self.theory.amplitudes
        index = [int((self.theory.exponents == row).all(dim=-1).nonzero()[0]) for row in squares]
        return self.theory.unit[index].rsqrt()
