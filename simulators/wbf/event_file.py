"""Simulated weak-boson-fusion events as columns and metadata of an event file."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators import __version__
from simulators.file_format import EventTable
from simulators.wbf.constants import EXPONENTS, PARAMETERS, SCALE_PER_TEV2
from simulators.wbf.event_model import fiducial_cross_section, fiducial_cross_section_error
from simulators.wbf.generator import SimulatedEvents

__all__ = ["event_table", "metadata"]

PROCESS = "wbf_h_aa"
MEASURE = "pole chart: d2pT_j dy_j dm_j (x2) d2pT_aa dy_aa dm_aa dOmega*"


def event_table(events: SimulatedEvents) -> EventTable:
    """Columns of the file; photon energies E = pT cosh eta of the rounded coordinates."""
    pt, eta = events.photons[..., 0].astype(np.float64), events.photons[..., 1].astype(np.float64)
    energy = (pt * np.cosh(eta)).astype(np.float32)
    return EventTable(
        jets=events.jets,
        photons=np.concatenate([events.photons, energy[..., None]], axis=-1),
        weight=np.ones(len(events), dtype=np.float32),
        components=events.components,
        theta=_by_parameter(events.theta),
        score=_by_parameter(events.score),
    )


def metadata(
    events: SimulatedEvents,
    channel: str,
    setting: str,
    *,
    seed: int,
    command: str,
    theta_sampling: dict[str, Any],
) -> dict[str, Any]:
    """The record of the file: process, simulator settings, parameters, cross section, basis.

    The cuts are part of the model, so the weights before selection are those of the accepted
    events before rounding to float32.

    Args:
        events: The events.
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".
        seed: Seed of the random numbers.
        command: The command line that makes the file.
        theta_sampling: {"kind": "fixed", "value": ...} or {"kind": "normal", "mean": ...,
            "std": ...}.
    """
    scale = SCALE_PER_TEV2[setting]
    return {
        "process": PROCESS,
        "layout": "delphes",
        "simulator": {
            "name": "wbf",
            "version": __version__,
            "settings": {
                "channel": channel,
                "setting": setting,
                "scale_per_tev2": scale,
            },
            "statistics": {
                "n_proposed": events.n_proposed,
                "n_dropped_by_rounding": events.n_dropped,
                "overweight_fraction": events.overweight_fraction,
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
            for name, values in _by_parameter(events.theta).items()
        ],
        "theta_sampling": theta_sampling,
        "n_events": len(events),
        "sum_of_weights": float(len(events)),
        "sum_of_weights_before_selection": float(len(events) + events.n_dropped),
        "morphing": {
            "branch": "Weight.Weight",
            "exponents": [list(powers) for powers in EXPONENTS],
            "cross_section": fiducial_cross_section(channel, setting).tolist(),
            "cross_section_error": fiducial_cross_section_error(channel, setting).tolist(),
            "likelihood": "exact",
            "measure": MEASURE,
        },
        "observables": [],
    }


def _by_parameter(values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(PARAMETERS)}
