"""Parton-level phase space of h j j: a map from the unit cube, and adaptive proposals on it.

Map of u in [0, 1]^7: pT_i = 60 u_i/(1 - u_i); D1 = y1 - yh, D2 = yh - y2 uniform on an interval;
the total rapidity Y = (2 u_5 - 1) ln(sqrt(S)/M), so that x1, x2 < 1 automatically; phi2 - phi1 and
phi1 uniform.  Jacobian: prod_i [60/(1 - u_i)^2 pT_i] (D range)^2 2 ln(sqrt(S)/M) (2 pi)^2.

Proposal: a mixture of separable densities, each piecewise constant on `N_BINS` equal bins per
dimension (phi1 stays uniform), trained on w^2 as in VEGAS:
p_new ~ sqrt(p_old sum_bin w^2) minimises the variance among separable densities.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.wbf.constants import BEAM_ENERGY_SUM, HIGGS_MASS

__all__ = [
    "N_BINS",
    "N_DIMENSIONS",
    "MixtureProposal",
    "PartonPoint",
    "SamplingMap",
    "refine_separable",
]

Array = NDArray[np.float64]

N_DIMENSIONS = 7
N_ADAPTED = 6
N_BINS = 128
PT_SCALE = 60.0


@dataclass(frozen=True)
class PartonPoint:
    """Parton-level configurations; transverse momenta of h balance the quarks'.

    Attributes:
        pt1: px, py of the quark of the line from beam A, (2, N), GeV.
        pt2: px, py of the other quark, (2, N).
        exp_rapidity: e^y of quark 1, quark 2, Higgs boson, (3, N).
        jacobian: d(y1, y2, yh, pT1, pT2)/du, (N,); zero outside the physical region.
    """

    pt1: Array
    pt2: Array
    exp_rapidity: Array
    jacobian: Array


@dataclass(frozen=True)
class SamplingMap:
    """u in [0, 1]^7 -> `PartonPoint`, with D1, D2 in [`low`, `high`]."""

    low: float = -6.0
    high: float = 12.0

    def __call__(self, u: Array) -> PartonPoint:
        """Map unit-cube points (7, N)."""
        width = self.high - self.low
        rest = 1 - u[:2]
        pt = PT_SCALE * u[:2] / rest
        exp_d1 = np.exp(self.low + width * u[2])
        exp_d2 = np.exp(-(self.low + width * u[3]))
        phi1 = (2 * math.pi) * u[6]
        phi2 = phi1 + (2 * math.pi) * u[5]
        pt1 = pt[0] * np.stack([np.cos(phi1), np.sin(phi1)])
        pt2 = pt[1] * np.stack([np.cos(phi2), np.sin(phi2)])
        higgs2 = HIGGS_MASS**2 + ((pt1 + pt2) ** 2).sum(axis=0)
        higgs = np.sqrt(higgs2)
        forward = pt[0] * exp_d1 + pt[1] * exp_d2 + higgs
        backward = pt[0] / exp_d1 + pt[1] / exp_d2 + higgs
        room = np.log(BEAM_ENERGY_SUM / np.sqrt(forward * backward))
        exp_higgs = np.exp((2 * u[4] - 1) * room) * np.sqrt(backward / forward)
        jacobian = (PT_SCALE * PT_SCALE * width * width * 2 * (2 * math.pi) ** 2) * np.where(
            room > 0, room * pt[0] * pt[1] / (rest[0] * rest[1]) ** 2, 0.0
        )
        exp_rapidity = np.stack([exp_d1 * exp_higgs, exp_d2 * exp_higgs, exp_higgs])
        return PartonPoint(pt1, pt2, exp_rapidity, jacobian)


class MixtureProposal:
    """g(u) = mean over components of prod_d p_jd(u_d) on the unit cube.

    Args:
        density: (J, `N_ADAPTED`, `N_BINS`), positive, each row averaging to 1.
    """

    def __init__(self, density: Array) -> None:
        rows = np.asarray(density, dtype=np.float64)
        self.density = rows / rows.mean(axis=-1, keepdims=True)
        self.n_components = len(rows)
        flat = self.density.reshape(-1, N_BINS)
        aliases = [_alias_table(row / N_BINS) for row in flat]
        self._keep = np.concatenate([keep for keep, _ in aliases])
        self._alias = np.concatenate([alias for _, alias in aliases])
        self._lookup = np.ascontiguousarray(self.density.transpose(1, 2, 0))

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        """Draw points (7, n) and their density g (n,)."""
        component = rng.integers(self.n_components, size=n)
        scaled = rng.random((N_ADAPTED, n)) * N_BINS
        bins = scaled.astype(np.intp)
        rows = component * N_ADAPTED + np.arange(N_ADAPTED)[:, None]
        cell = rows * N_BINS + bins
        bins = np.where(scaled - bins < self._keep[cell], bins, self._alias[cell])
        u = rng.random((N_DIMENSIONS, n))
        u[:N_ADAPTED] = (u[:N_ADAPTED] + bins) / N_BINS
        return u, self._mean_density(bins)

    def _mean_density(self, bins: NDArray[np.intp]) -> Array:
        product = self._lookup[0][bins[0]]
        for dimension in range(1, N_ADAPTED):
            product *= self._lookup[dimension][bins[dimension]]
        return product.sum(axis=1) / self.n_components


def _alias_table(probability: Array) -> tuple[Array, NDArray[np.intp]]:
    """Walker's alias table: keep bin b with probability keep[b], else take alias[b]."""
    n = probability.size
    keep, alias = probability * n, np.arange(n)
    small = [b for b in range(n) if keep[b] < 1]
    large = [b for b in range(n) if keep[b] >= 1]
    while small and large:
        b, donor = small.pop(), large[-1]
        alias[b] = donor
        keep[donor] -= 1 - keep[b]
        if keep[donor] < 1:
            small.append(large.pop())
    return keep, alias


def refine_separable(
    weight: Callable[[Array], Array],
    rng: np.random.Generator,
    n_iterations: int = 8,
    n_points: int = 100_000,
) -> Array:
    """Train one separable density on w^2: p_new ~ sqrt(p_old sum_bin (w/g)^2), smoothed.

    Args:
        weight: Integrand on the cube, points (7, n) -> (n,).
        rng: Random numbers.
        n_iterations: Refinements.
        n_points: Points per refinement.

    Returns:
        (1, `N_ADAPTED`, `N_BINS`), each row averaging to 1.
    """
    density = np.ones((1, N_ADAPTED, N_BINS))
    for _ in range(n_iterations):
        proposal = MixtureProposal(density)
        second_moment = np.zeros((N_ADAPTED, N_BINS))
        for _ in range(max(1, n_points // CHUNK)):
            u, g = proposal.sample(rng, CHUNK)
            squares = (weight(u) / g) ** 2
            bins = (u[:N_ADAPTED] * N_BINS).astype(np.intp)
            for dimension in range(N_ADAPTED):
                second_moment[dimension] += np.bincount(
                    bins[dimension], weights=squares, minlength=N_BINS
                )
        density = _smooth(np.sqrt(density[0] * second_moment))[None]
    return density


CHUNK = 8192
FLOOR = 0.02


def _smooth(rows: Array) -> Array:
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    smooth = 0.25 * padded[:, :-2] + 0.5 * rows + 0.25 * padded[:, 2:]
    smooth /= smooth.mean(axis=-1, keepdims=True)
    return (1 - FLOOR) * smooth + FLOOR
