r"""Unweighted parton-level events q q' -> q q' h at given parameter points, and their truth.

The latent variables z of an event are its momenta and flavours (q1, q2):

    p(z|theta) = w(theta).c(z) / w(theta).C,
    c(z) = x1 f_q1(x1) x2 f_q2(x2) |M_{q1 q2}|^2 ... ,

a polynomial in theta whose coefficients enter all later steps unchanged: the chain of shower and
detector does not know theta.  They are kept as morphing weights r_k = c_k/(w(theta_i).c),
normalised to w(theta_i).r = 1 at the parameter point theta_i that the event was drawn at, so that
w(theta).r reweights the event to theta.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.chain.lhe import LheEvents
from simulators.wbf.acceptance import (
    WINDOW,
    Tally,
    acceptance_weights,
    parameter_points,
    try_proposals,
)
from simulators.wbf.adaptation import adapted_proposal
from simulators.wbf.constants import (
    BEAM_ENERGY_SUM,
    EXPONENTS,
    FACTORISATION_SCALE,
    HIGGS_MASS,
    PARAMETERS,
)
from simulators.wbf.event_model import monomials, tabulated_cross_section
from simulators.wbf.flavours import choose_flavours
from simulators.wbf.parton_proposals import parton_proposals_at
from simulators.wbf.proposals import CHUNK

__all__ = ["PartonEvents", "generate_parton_events", "lhe_events", "parton_cross_section"]

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Progress = Callable[[int, int], None]

CROSS_SECTION_FILE = "parton_cross_section.json"
HIGGS = 25
WEIGHT_NAMES = tuple(f"morphing_{a}_{b}" for a, b in EXPONENTS)
"""Names of the morphing weights in `<rwgt>`: powers of (theta_0, theta_1)."""


@dataclass(frozen=True)
class PartonEvents:
    """Unweighted events with their truth.

    Attributes:
        flavours: q1, q2 of the lines from beam A and B, in and out: (N, 2, 2), (line, in/out).
        momenta: p1, p2, k1, k2, h as (E, px, py, pz), (N, 5, 4), GeV.
        theta: (N, 2).
        components: Morphing weights r_k, (N, 6), w(theta).r = 1.
        n_proposed: Proposals tried.
        overweight_fraction: Share of the cross section lost to acceptance weights above 1.
    """

    flavours: Numbers
    momenta: Array
    theta: Array
    components: Array
    n_proposed: int
    overweight_fraction: float

    def __len__(self) -> int:
        return len(self.theta)


def generate_parton_events(
    theta: ArrayLike,
    rng: np.random.Generator,
    channel: str = "ud",
    setting: str = "tuned",
    progress: Progress | None = None,
) -> PartonEvents:
    """One event z_i ~ p(z|theta_i) behind the generator cuts for every parameter point.

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
        >>> events = generate_parton_events([[0.0, 0.0]] * 3, np.random.default_rng(1))
        >>> events.components[:, 0].round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    points = parameter_points(theta)
    proposal = adapted_proposal(channel, "parton")
    acceptance = acceptance_weights(points, proposal, setting)
    outgoing = np.empty((len(points), 3, 4))
    tally = Tally()
    waiting, n_done = WINDOW, 0
    pending = np.arange(min(WINDOW, len(points)))
    while pending.size:
        u, g = proposal.mixture.sample(rng, CHUNK)
        proposals = parton_proposals_at(u, 1 / g, rng, channel)
        slots, accepted = try_proposals(proposals, acceptance[pending], rng, tally)
        outgoing[pending[slots]] = np.moveaxis(proposals.momenta[..., accepted], -1, 0)
        admitted = np.arange(waiting, min(waiting + slots.size, len(points)))
        pending = np.concatenate([np.delete(pending, slots), admitted])
        waiting += slots.size
        n_done += slots.size
        if progress:
            progress(n_done, len(points))
    momenta = np.concatenate([_incoming(outgoing), outgoing], axis=1)
    flavours, coefficients = _choose_flavours(momenta, points, channel, setting, rng)
    density = (monomials(points) * coefficients).sum(axis=1)
    return PartonEvents(
        flavours=flavours,
        momenta=momenta,
        theta=points,
        components=coefficients / density[:, None],
        n_proposed=tally.n_proposed,
        overweight_fraction=tally.overweight_fraction,
    )


def parton_cross_section(channel: str, setting: str = "tuned") -> tuple[Array, Array]:
    """C_k of sigma(theta) = w(theta).C behind the generator cuts, and errors: pb, each (6,).

    Without the branching ratio; C_2 = C_4 = 0 exactly (reflection symmetry).  From the committed
    table, made by `python -m simulators wbf-cross-section --level parton`.
    """
    return tabulated_cross_section(CROSS_SECTION_FILE, channel, setting)


def lhe_events(events: PartonEvents, channel: str, setting: str) -> LheEvents:
    """The events as Les Houches events: each quark line keeps a colour of its own.

    The parameter point is a comment of every event; `SCALUP` is the factorisation scale M_W.
    """
    n = len(events)
    pid = np.empty((n, 5), dtype=np.int64)
    pid[:, :2], pid[:, 2:4], pid[:, 4] = events.flavours[..., 0], events.flavours[..., 1], HIGGS
    colours = np.zeros((n, 5, 2), dtype=np.int64)
    for line, tag in enumerate((501, 502)):
        anti = (events.flavours[:, line, 0] < 0).astype(np.int64)
        for place in (line, line + 2):
            colours[np.arange(n), place, anti] = tag
    value, error = parton_cross_section(channel, setting)
    weights = monomials(events.theta)
    return LheEvents(
        pid=pid,
        status=np.array([-1, -1, 1, 1, 1]),
        mothers=np.array([[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]]),
        colours=colours,
        momenta=events.momenta,
        mass=np.array([0.0, 0.0, 0.0, 0.0, HIGGS_MASS]),
        scale=FACTORISATION_SCALE,
        cross_section=(
            float((weights @ value).mean()),
            float(np.sqrt((weights**2 @ error**2).mean())),
        ),
        beam_energy=BEAM_ENERGY_SUM / 2,
        weights={
            name: np.ascontiguousarray(events.components[:, k])
            for k, name in enumerate(WEIGHT_NAMES)
        },
        descriptions=dict(zip(WEIGHT_NAMES, map(_description, EXPONENTS), strict=True)),
        comments=[f"theta {a!r} {b!r}" for a, b in events.theta.tolist()],
    )


def _description(powers: tuple[int, int]) -> str:
    """Coefficient of a monomial, in words."""
    factors = [f"{name}^{power}" for name, power in zip(PARAMETERS, powers, strict=True)]
    return f"coefficient of {' '.join(factors)}"


def _choose_flavours(
    momenta: Array, theta: Array, channel: str, setting: str, rng: np.random.Generator
) -> tuple[Numbers, Array]:
    """`choose_flavours` in chunks of bounded memory."""
    chunks = [slice(i, i + WINDOW) for i in range(0, len(theta), WINDOW)]
    parts = [choose_flavours(momenta[c], theta[c], channel, setting, rng) for c in chunks]
    flavours, coefficients = zip(*parts, strict=True)
    return np.concatenate(flavours), np.concatenate(coefficients)


def _incoming(outgoing: Array) -> Array:
    """p1 = (E + pz)/2 (1, 0, 0, 1) and p2 = (E - pz)/2 (1, 0, 0, -1) of the sum: (N, 2, 4)."""
    total = outgoing.sum(axis=1)
    incoming = np.zeros((len(outgoing), 2, 4))
    for line, sign in enumerate((1.0, -1.0)):
        energy = 0.5 * (total[:, 0] + sign * total[:, 3])
        incoming[:, line, 0], incoming[:, line, 3] = energy, sign * energy
    return incoming
