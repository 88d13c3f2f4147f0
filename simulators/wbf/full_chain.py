r"""Weak-boson fusion through the full chain: partons, shower, hadrons, detector, jets.

The density of what is seen, p(x|theta) = integral of p(x|z) p(z|theta) over latent variables z, is
intractable.  What is known of every event is the joint density of x and z, up to a factor without
theta: w(theta).r, with the morphing weights r of its partons.  So its joint score is

    t(x, z|theta) = grad log [w(theta).r] - grad log [w(theta).C],

where C belongs to the events that are selected, sigma(theta) = w(theta).C.  It is the parton
level's cross section times the efficiency, both at as many parameter points as there are
components.  The efficiency at a point comes from all N events of the run, whatever their own
theta_j: with the mixture p(z) = mean over j of p(z|theta_j) as proposal,

    efficiency(theta) = sum over selected events of w(theta).r_i / W.r_i
                        / sum over all events of the same,     W = mean of w(theta_j)/sigma_j.

Large weights enter both sums, so that they disturb the ratio much less than either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators import __version__
from simulators.chain.event_file import DetectorTable, reconstruction_settings
from simulators.chain.lhe import write_lhe
from simulators.chain.reconstruction import DetectedEvents, Reconstruction, reconstruct
from simulators.chain.shower import Shower, pythia_seed, stable_particles
from simulators.wbf.constants import (
    EXPONENTS,
    HIGGS_RAPIDITY_MAX,
    PARAMETERS,
    PARTON_ETA_MAX,
    PARTON_PT_MIN,
    SCALE_PER_TEV2,
)
from simulators.wbf.event_model import monomials, score
from simulators.wbf.parton_events import (
    PartonEvents,
    generate_parton_events,
    lhe_events,
    parton_cross_section,
)

__all__ = [
    "ChainEvents",
    "ChainSettings",
    "chain_table",
    "detect_partons",
    "metadata",
    "selected_cross_section",
    "simulate_chain",
]

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

PROCESS = "wbf_h_aa"
MEASURE = "joint density of detector and parton level; 1 at the event's own theta"
PYTHIA = ("25:onMode = off", "25:onIfMatch = 22 22", "SpaceShower:dipoleRecoil = on")
"""Higgs bosons decay to two photons; each quark line recoils by itself in the initial state."""

GENERATOR_CUTS = {
    "quark_pt_min": PARTON_PT_MIN,
    "quark_eta_max": PARTON_ETA_MAX,
    "higgs_rapidity_max": HIGGS_RAPIDITY_MAX,
}

EVEN = [0, 1, 3, 5]
"""Components that reflections do not turn around; the others vanish in cross sections."""


@dataclass(frozen=True)
class ChainSettings:
    """What happens after the partons.

    Attributes:
        multiparton_interactions: Whether the rest of the protons interacts, too.
        reconstruction: Jets and selection; by default those of the published study.
    """

    multiparton_interactions: bool = False
    reconstruction: Reconstruction = field(
        default_factory=lambda: Reconstruction(n_photons=2, n_jets=2)
    )


@dataclass(frozen=True)
class ChainEvents:
    """Selected events and the partons that all events, selected or not, came from.

    Attributes:
        partons: N parton-level events.
        detected: The n events of the selection; `rows` are numbers of parton-level events.
        n_given_up: Events that Pythia could not shower or hadronise; they count as not selected.
    """

    partons: PartonEvents
    detected: DetectedEvents
    n_given_up: int

    @property
    def efficiency(self) -> float:
        """Selected over generated events."""
        return len(self.detected) / len(self.partons)


def simulate_chain(
    theta: Array,
    seeds: np.random.SeedSequence,
    channel: str,
    setting: str,
    settings: ChainSettings | None = None,
    keep_lhe: Path | None = None,
    progress: Progress | None = None,
) -> ChainEvents:
    """Simulate one event for every parameter point, and keep those of the selection.

    Args:
        theta: (N, 2).
        seeds: Of all random numbers; the same seeds give the same events.
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".
        settings: What happens after the partons.
        keep_lhe: Where to leave the parton-level events, if anywhere; compressed if .gz.
        progress: Called with (events done, events).

    Raises:
        InvalidRequest: Unknown channel or setting, or impossible parameter points.
        ChainError: Settings that the chain does not take, or no event is selected.
    """
    parton_seeds, chain_seeds = seeds.spawn(2)
    partons = generate_parton_events(theta, np.random.default_rng(parton_seeds), channel, setting)
    record = lhe_events(partons, channel, setting)
    with TemporaryDirectory(prefix="mflow_sbi.") as folder:
        path = Path(folder) / "partons.lhe"
        write_lhe(path, record)
        if keep_lhe is not None:
            write_lhe(keep_lhe, record)
        return detect_partons(path, partons, chain_seeds, settings, progress)


def detect_partons(
    path: Path,
    partons: PartonEvents,
    seeds: np.random.SeedSequence,
    settings: ChainSettings | None = None,
    progress: Progress | None = None,
) -> ChainEvents:
    """Shower the events of an uncompressed LHE file that holds `partons`, and detect them.

    Raises:
        ChainError: Settings that the chain does not take, or no event is selected.
    """
    settings = settings or ChainSettings()
    shower_seeds, detector_seeds = seeds.spawn(2)
    shower = Shower(pythia_seed(shower_seeds), settings.multiparton_interactions, PYTHIA)
    rng = np.random.default_rng(detector_seeds)
    parts: list[DetectedEvents] = []
    n_made = 0
    for rows, particles in stable_particles(path, len(partons), shower):
        parts.append(reconstruct(rows, particles, settings.reconstruction, rng))
        n_made += len(rows)
        if progress:
            progress(int(rows[-1]) + 1, len(partons))
    detected = DetectedEvents.concatenate(parts)
    return ChainEvents(partons, detected, len(partons) - n_made)


def selected_cross_section(events: ChainEvents, channel: str, setting: str) -> tuple[Array, Array]:
    """C_k of the selected events and their Monte Carlo errors, pb, each (6,).

    C_2 = C_4 = 0 exactly: the chain, too, is symmetric under reflections.
    """
    total, total_error = (c[EVEN] for c in parton_cross_section(channel, setting))
    points = monomials(_design_points(total))[:, EVEN]
    density = _over_mixture(events.partons, channel, setting)[:, EVEN] @ points.T
    selected = np.zeros(len(density))
    selected[events.detected.rows] = 1
    efficiency = (selected @ density) / density.sum(axis=0)
    parton_level = points @ total
    to_components = np.linalg.inv(points)
    influence = (selected[:, None] - efficiency) * density * (parton_level / density.mean(axis=0))
    value, error = np.zeros(6), np.zeros(6)
    value[EVEN] = to_components @ (efficiency * parton_level)
    scatter = (influence @ to_components.T).std(axis=0) / np.sqrt(len(density))
    error[EVEN] = np.hypot(scatter, total_error * events.efficiency)
    return value, error


def _design_points(total: Array) -> Array:
    """Four points at which the standard model and the squared operators are equally large."""
    first, second = np.sqrt(total[0] / total[2]), np.sqrt(total[0] / total[3])
    return np.array([[0.0, 0.0], [first, 0.0], [-first, 0.0], [0.0, second]])


def _over_mixture(partons: PartonEvents, channel: str, setting: str) -> Array:
    """C_k(z)/p(z) with the mixture of all parameter points as proposal, (N, 6), pb."""
    weights = monomials(partons.theta)
    sigma = weights @ parton_cross_section(channel, setting)[0]
    mixture = (weights / sigma[:, None]).mean(axis=0)
    return partons.components / (partons.components @ mixture)[:, None]


def chain_table(events: ChainEvents, cross_section: Array) -> DetectorTable:
    """Columns of the file, with theta, joint score and morphing weights of the events selected."""
    rows = events.detected.rows
    theta, components = events.partons.theta[rows], events.partons.components[rows]
    return DetectorTable(
        events=events.detected,
        weight=np.ones(len(rows)),
        weights=components,
        theta=_by_parameter(theta),
        score=_by_parameter(score(components, theta, cross_section)),
    )


def metadata(
    events: ChainEvents,
    channel: str,
    setting: str,
    settings: ChainSettings,
    cross_section: tuple[Array, Array],
    *,
    seed: int,
    command: str,
    fixed_theta: Sequence[float] | None,
) -> dict[str, Any]:
    """The record of the file: process, settings, parameters, cross section of the selection.

    Args:
        events: The events.
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".
        settings: What happened after the partons.
        cross_section: C_k of the selected events and errors, pb.
        seed: Seed of the random numbers.
        command: The command line that makes the file.
        fixed_theta: The parameter point of all events, if there is one.  Drawn parameter points
            are not declared: those of selected events no longer follow the prior.
    """
    scale = SCALE_PER_TEV2[setting]
    n_selected, n_generated = len(events.detected), len(events.partons)
    theta = events.partons.theta[events.detected.rows]
    sampling = {"kind": "fixed", "value": fixed_theta}
    return {
        "process": PROCESS,
        "layout": "delphes",
        "simulator": {
            "name": "wbf-chain",
            "version": __version__,
            "settings": {
                "channel": channel,
                "setting": setting,
                "scale_per_tev2": scale,
                "generator_cuts": GENERATOR_CUTS,
                "mpi": settings.multiparton_interactions,
                "pythia": list(PYTHIA),
                **reconstruction_settings(settings.reconstruction),
            },
            "statistics": {
                "n_generated": n_generated,
                "n_given_up": events.n_given_up,
                "selection_efficiency": events.efficiency,
                "n_proposed": events.partons.n_proposed,
                "overweight_fraction": events.partons.overweight_fraction,
            },
        },
        "command": command,
        "seed": seed,
        "parameters": [
            {
                "name": name,
                "unit": "1",
                "low": float(values.min()),
                "high": float(values.max()),
                "description": f"c/Lambda^2 = {scale} TeV^-2 x theta",
            }
            for name, values in _by_parameter(theta).items()
        ],
        **({"theta_sampling": sampling} if fixed_theta is not None else {}),
        "n_events": n_selected,
        "sum_of_weights": float(n_selected),
        "sum_of_weights_before_selection": float(n_generated),
        "morphing": {
            "branch": "Weight.Weight",
            "exponents": [list(powers) for powers in EXPONENTS],
            "cross_section": cross_section[0].tolist(),
            "cross_section_error": cross_section[1].tolist(),
            "likelihood": "joint",
            "measure": MEASURE,
        },
        "observables": [],
    }


def _by_parameter(values: Array) -> dict[str, Array]:
    return {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(PARAMETERS)}
