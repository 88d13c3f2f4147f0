r"""Unweighted events at given parameter points, rounded to what an event file holds.

Every event asked for keeps its parameter point theta_i and is tried against fresh proposals, each
used for one event only, until one is accepted with probability w(theta_i).c / (g max weight).  So
the events follow p(x|theta_i) exactly (up to the recorded overweight fraction) and the parameter
points keep the distribution they were drawn from.

Momenta are rounded first (pT, eta, phi, mass in float32) and rebuilt in float64; components and
score belong to the rebuilt momenta, so that a reader of the file recomputes the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.wbf.acceptance import (
    WINDOW,
    Tally,
    acceptance_weights,
    parameter_points,
    try_proposals,
)
from simulators.wbf.adaptation import adapted_proposal
from simulators.wbf.event_model import (
    density_coefficients,
    fiducial_cross_section,
    inside_cuts,
    score,
)
from simulators.wbf.kinematics import invariant_mass2, transverse_momentum
from simulators.wbf.proposals import CHUNK, Proposals, draw_proposals

__all__ = ["SimulatedEvents", "generate_events", "momenta_from_coordinates"]

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]
Index = NDArray[np.intp]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulatedEvents:
    """Unweighted events with their truth.

    Attributes:
        jets: (N, 2, 4) as (pT, eta, phi, mass), leading pT first, GeV.
        photons: (N, 2, 3) as (pT, eta, phi), leading pT first.
        theta: (N, 2).
        components: c_k(x) of the density, chart `pole`, (N, 6).
        score: grad_theta log p(x|theta), (N, 2).
        n_proposed: Proposals tried.
        n_dropped: Accepted proposals that left the cuts by rounding.
        overweight_fraction: Share of the cross section lost to acceptance weights above 1.
    """

    jets: Array32
    photons: Array32
    theta: Array
    components: Array
    score: Array
    n_proposed: int
    n_dropped: int
    overweight_fraction: float

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def momenta(self) -> Array:
        """Four-momenta (N, 4, 4) of j1, j2, a1, a2 as (E, px, py, pz), GeV."""
        return momenta_from_coordinates(self.jets, self.photons)


def generate_events(
    theta: ArrayLike,
    rng: np.random.Generator,
    channel: str = "ud",
    setting: str = "tuned",
    progress: Progress | None = None,
) -> SimulatedEvents:
    """One event x_i ~ p(x|theta_i) for every parameter point.

    Args:
        theta: (N, 2).
        rng: Random numbers; the same state gives the same events.
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper": the unit of theta.
        progress: Called with (events done, events).

    Raises:
        InvalidRequest: Unknown channel or setting, theta of another shape, or so large that the
            density overflows.

    Example:
        >>> events = generate_events([[0.0, 0.0]] * 3, np.random.default_rng(1))
        >>> events.momenta.shape, events.components.shape
        ((3, 4, 4), (3, 6))
    """
    points = parameter_points(theta)
    tally = Tally()
    jets = np.empty((len(points), 2, 4), dtype=np.float32)
    photons = np.empty((len(points), 2, 3), dtype=np.float32)
    proposal = adapted_proposal(channel)
    acceptance = acceptance_weights(points, proposal, setting)
    waiting = WINDOW
    pending = np.arange(min(WINDOW, len(points)))
    n_done = 0
    while pending.size:
        proposals = draw_proposals(rng, proposal.mixture, channel)
        slots, accepted = try_proposals(proposals, acceptance[pending], rng, tally)
        chosen_jets, chosen_photons = _rounded(proposals, accepted)
        kept = inside_cuts(momenta_from_coordinates(chosen_jets, chosen_photons))
        tally.n_dropped += int(np.count_nonzero(~kept))
        slots = slots[kept]
        jets[pending[slots]], photons[pending[slots]] = chosen_jets[kept], chosen_photons[kept]
        admitted = np.arange(waiting, min(waiting + slots.size, len(points)))
        pending = np.concatenate([np.delete(pending, slots), admitted])
        waiting += slots.size
        n_done += slots.size
        if progress:
            progress(n_done, len(points))
    return _with_truth(jets, photons, points, channel, setting, tally)


def _rounded(proposals: Proposals, chosen: Index) -> tuple[Array32, Array32]:
    """PT-ordered jets (n, 2, 4) and photons (n, 2, 3) in float32."""
    j1, j2, a1, a2 = (_coordinates(p[:, chosen]) for p in proposals.momenta)
    jets, photons = np.stack([j1, j2], axis=1), np.stack([a1, a2], axis=1)[..., :3]
    return _leading_first(jets), _leading_first(photons)


def _coordinates(p: Array) -> Array32:
    pt = transverse_momentum(p)
    mass = np.sqrt(np.maximum(invariant_mass2(p), 0))
    columns = [pt, np.arcsinh(p[3] / pt), np.arctan2(p[2], p[1]), mass]
    return np.stack(columns, axis=1).astype(np.float32)


def _leading_first(objects: Array32) -> Array32:
    swap = objects[:, 0, 0] < objects[:, 1, 0]
    return np.where(swap[:, None, None], objects[:, ::-1], objects)


def momenta_from_coordinates(jets: Array32, photons: Array32) -> Array:
    """Four-momenta in float64: px = pT cos phi, pz = pT sinh eta, E = sqrt(m^2 + p^2).

    Args:
        jets: (N, 2, 4) as (pT, eta, phi, mass), GeV.
        photons: (N, 2, 3) as (pT, eta, phi); massless.

    Returns:
        (N, 4, 4): j1, j2, a1, a2 as (E, px, py, pz).
    """
    massless = np.concatenate([photons, np.zeros_like(photons[..., :1])], axis=-1)
    pt, eta, phi, mass = np.moveaxis(
        np.concatenate([jets, massless], axis=1).astype(np.float64), -1, 0
    )
    momentum = pt * np.cosh(eta)
    energy = np.sqrt(mass * mass + momentum * momentum)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)


def _with_truth(
    jets: Array32, photons: Array32, theta: Array, channel: str, setting: str, tally: Tally
) -> SimulatedEvents:
    components = np.concatenate(
        [
            density_coefficients(
                momenta_from_coordinates(jets[i : i + CHUNK], photons[i : i + CHUNK]),
                "pole",
                channel,
                setting,
            )
            for i in range(0, len(theta), CHUNK)
        ]
    )
    return SimulatedEvents(
        jets=jets,
        photons=photons,
        theta=theta,
        components=components,
        score=score(components, theta, fiducial_cross_section(channel, setting)),
        n_proposed=tally.n_proposed,
        n_dropped=tally.n_dropped,
        overweight_fraction=tally.overweight_fraction,
    )
