r"""Training of the proposals, once per process; the result is committed as package data.

Command: `python -m simulators wbf-adapt`.

Separable densities are trained for `TARGETS`, parameter points in TeV^-2 that between them cover
the shapes of the standard model, of the interference and of both squared terms.  Each is trained
on half of phase space, pT1 < pT2, and mirrored: in the other half the two lines exchange their
roles, and a separable density cannot follow both.  Where photons are exchanged (`full`), a further
pair of densities is trained on the soft region pT1 < 7 GeV of their pole.

The largest acceptance weight w(theta).c at a parameter point is read from a table of
kappa = max weight/sigma on a polar grid in (rho, angle), rho = r/(r + r0), r = |c/Lambda^2|.
"Largest" means: all weights above it together exceed it by the fraction `OVERWEIGHT` of the cross
section.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from simulators.wbf.parton_level import check_process
from simulators.wbf.parton_proposals import parton_proposals_at
from simulators.wbf.phase_space import MixtureProposal, refine_separable
from simulators.wbf.proposals import CHUNK, proposals_at

__all__ = ["LEVELS", "AdaptedProposal", "Level", "Points", "adapt", "adapted_proposal"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Progress = Callable[[int, int], None]


class Points(Protocol):
    """Proposals of either level: coefficients (6, n) over g and places among those proposed."""

    @property
    def coefficients(self) -> Array: ...  # noqa: D102
    @property
    def position(self) -> Index: ...  # noqa: D102


@dataclass(frozen=True)
class Level:
    """Where events are proposed: behind the cuts of the event model, or before any cut.

    Attributes:
        data_file: Package data with the trained proposals.
        propose: (u, factor, rng, channel) -> proposals.
        is_soft: Whether the pole of photon exchange, at small pT1, lies inside.
    """

    data_file: str
    propose: Callable[[Array, Array, np.random.Generator, str], Points]
    is_soft: bool

    def draw(self, rng: np.random.Generator, mixture: MixtureProposal, channel: str) -> Points:
        """Propose `CHUNK` points from g."""
        u, g = mixture.sample(rng, CHUNK)
        return self.propose(u, 1 / g, rng, channel)


LEVELS = {
    "fiducial": Level("adapted_proposals.npz", proposals_at, is_soft=True),
    "parton": Level("parton_proposals.npz", parton_proposals_at, is_soft=False),
}
TARGETS = ((0.0, 0.0), (16.52, 0.0), (82.6, 0.0), (0.0, 82.6), (-165.2, -165.2))
SOFT_TARGET = (0.0, 82.6)
SOFT_LIMIT = 0.1
"""u1 = pT1/(pT1 + 60) of the soft region."""
OVERWEIGHT = 2e-4
RADIUS = 50.0
N_RHO, N_ANGLE = 17, 17
N_TOP = 100_000


@dataclass(frozen=True)
class AdaptedProposal:
    """A trained mixture, and the acceptance bound at every parameter point.

    Attributes:
        mixture: The proposal g(u).
        kappa: Max weight over cross section on the polar grid, (`N_RHO`, `N_ANGLE`).
        pilot: C_k of the pilot run, pb per powers of TeV^-2, (6,).
    """

    mixture: MixtureProposal
    kappa: Array
    pilot: Array

    def max_weight(self, f: Array) -> Array:
        """Acceptance bound for w(f).c at f = c/Lambda^2 in TeV^-2, (N, 2) -> (N,), pb."""
        radius, angle = np.hypot(f[:, 0], f[:, 1]), np.arctan2(np.abs(f[:, 1]), f[:, 0])
        table = RegularGridInterpolator(_axes(), np.log(self.kappa))
        kappa = np.exp(table(np.stack([radius / (radius + RADIUS), angle], axis=1)))
        powers = [np.ones_like(radius), f[:, 0], f[:, 1], f[:, 0] ** 2, f.prod(1), f[:, 1] ** 2]
        return kappa * (self.pilot @ np.stack(powers))


@functools.cache
def adapted_proposal(channel: str, level: str = "fiducial") -> AdaptedProposal:
    """The committed proposal of a process ("ud", "ww", "full") at one of `LEVELS`."""
    check_process(channel)
    name = LEVELS[level].data_file
    with (
        resources.as_file(resources.files("simulators.wbf").joinpath(name)) as path,
        np.load(path) as data,
    ):
        density, kappa, pilot = (data[f"{channel}_{name}"] for name in _FIELDS)
    return AdaptedProposal(MixtureProposal(density), kappa, pilot)


_FIELDS = ("density", "kappa", "pilot")


def adapt(
    channel: str,
    seed: int,
    n_iterations: int = 10,
    n_points: int = 400_000,
    n_pilot: int = 8_000_000,
    progress: Progress | None = None,
    level: str = "fiducial",
) -> dict[str, Array]:
    """Train a proposal: arrays under the names `adapted_proposal` reads.

    Args:
        channel: "ud", "ww" or "full".
        seed: Seed of the random numbers.
        n_iterations: Refinements per target.
        n_points: Points per refinement.
        n_pilot: Proposals of the run that fixes the acceptance bounds.
        progress: Called with (targets done, targets).
        level: One of `LEVELS`.
    """
    check_process(channel)
    place = LEVELS[level]
    rng = np.random.default_rng(seed)
    targets = [(target, 1.0) for target in TARGETS]
    if channel == "full" and place.is_soft:
        targets.append((SOFT_TARGET, SOFT_LIMIT))
    densities = []
    for done, (target, limit) in enumerate(targets):
        if progress:
            progress(done, len(targets) + 1)
        weight = _half_space_weight(place, channel, _homogeneous(1.0, *target), limit, rng)
        density = refine_separable(weight, rng, n_iterations, n_points)[0]
        densities += [density, _mirrored(density)]
    mixture = np.stack(densities).astype(np.float32).astype(np.float64)
    kappa, pilot = _acceptance_bounds(place, MixtureProposal(mixture), channel, rng, n_pilot)
    if progress:
        progress(len(targets) + 1, len(targets) + 1)
    values = (mixture, kappa, pilot)
    return {f"{channel}_{name}": v for name, v in zip(_FIELDS, values, strict=True)}


def _homogeneous(one: float, f: float, ft: float) -> Array:
    """(1, f, ft, f^2, f ft, ft^2) made homogeneous of degree 2 in (one, f, ft)."""
    return np.array([one * one, one * f, one * ft, f * f, f * ft, ft * ft])


_PER_TEV2 = _homogeneous(1.0, 1e-6, 1e-6)


def _half_space_weight(
    level: Level, channel: str, weights: Array, limit: float, rng: np.random.Generator
) -> Callable[[Array], Array]:
    def weight(u: Array) -> Array:
        half = np.where((u[0] < u[1]) & (u[0] < limit), 1.0, 0.0)
        proposals = level.propose(u, half, rng, channel)
        values = np.zeros(u.shape[1])
        values[proposals.position] = (weights * _PER_TEV2) @ proposals.coefficients
        return values

    return weight


def _mirrored(density: Array) -> Array:
    """Exchange the lines and the beams: u1 <-> u2, u3 <-> u4, Y -> -Y, phi2 - phi1 -> -."""
    mirrored = density[[1, 0, 3, 2, 4, 5]].copy()
    mirrored[4:] = mirrored[4:, ::-1]
    return mirrored


def _axes() -> tuple[Array, Array]:
    return np.linspace(0, 1, N_RHO), np.linspace(0, math.pi, N_ANGLE)


def _acceptance_bounds(
    level: Level,
    mixture: MixtureProposal,
    channel: str,
    rng: np.random.Generator,
    n_pilot: int,
) -> tuple[Array, Array]:
    chunks = -(-n_pilot // CHUNK)
    coefficients = np.concatenate(
        [level.draw(rng, mixture, channel).coefficients for _ in range(chunks)], axis=1
    )
    coefficients *= _PER_TEV2[:, None]
    pilot = cast(Array, coefficients.sum(axis=1)) / (chunks * CHUNK)
    pilot[[2, 4]] = 0.0
    kappa = np.empty((N_RHO, N_ANGLE))
    rhos, angles = _axes()
    for i, rho in enumerate(rhos):
        for j, angle in enumerate(angles):
            r = rho * RADIUS
            weights = _homogeneous(1 - rho, r * math.cos(angle), r * math.sin(angle))
            bound = _bound(weights @ coefficients, OVERWEIGHT)
            kappa[i, j] = bound / (weights @ pilot)
    return kappa, pilot


def _bound(weight: Array, fraction: float) -> float:
    """B with sum max(weight - B, 0) = fraction * sum weight."""
    allowed = fraction * weight.sum()
    n_top = min(N_TOP, weight.size)
    top = np.sort(np.partition(weight, weight.size - n_top)[-n_top:])[::-1]
    excess = np.cumsum(top) - top * np.arange(1, n_top + 1)
    return float(top[min(np.searchsorted(excess, allowed), n_top - 1)])
