"""A user's own LHE or HepMC3 file through shower, detector and jets: any process, no theta."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators import __version__
from simulators.chain.event_file import DetectorTable, reconstruction_settings
from simulators.chain.hepmc import read_hepmc
from simulators.chain.lhe import accepting_all, scan_lhe
from simulators.chain.reconstruction import DetectedEvents, Reconstruction, reconstruct
from simulators.chain.shower import Shower, stable_particles

__all__ = ["DetectedFile", "detect_hepmc", "detect_lhe"]

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DetectedFile:
    """A user's events as a detector sees them, and what happened on the way.

    Attributes:
        table: The events kept.
        weight_names: Names of the columns of `Weight.Weight`.
        n_read: Events in the file.
        n_given_up: Events that Pythia could not shower or hadronise.
        sum_before: Sum of event weights of all events in the file.
    """

    table: DetectorTable
    weight_names: tuple[str, ...]
    n_read: int
    n_given_up: int
    sum_before: float

    def metadata(
        self,
        source: Path,
        settings: Reconstruction,
        shower: Shower | None,
        seed: int,
        command: str,
    ) -> dict[str, Any]:
        """The record of the file; the named weights under simulator.settings.weight_names."""
        generator: dict[str, Any] = {"input": "hepmc" if shower is None else "lhe"}
        if shower is not None:
            generator["mpi"] = shower.multiparton_interactions
            generator["pythia"] = list(shower.commands)
        return {
            "process": "unknown",
            "layout": "delphes",
            "simulator": {
                "name": "detect",
                "version": __version__,
                "settings": {
                    **generator,
                    **reconstruction_settings(settings),
                    "weight_names": list(self.weight_names),
                },
                "statistics": {
                    "source": source.name,
                    "n_read": self.n_read,
                    "n_given_up": self.n_given_up,
                    "selection_efficiency": len(self.table) / self.n_read,
                },
            },
            "command": command,
            "seed": seed,
            "parameters": [],
            "n_events": len(self.table),
            "sum_of_weights": float(self.table.weight.sum()),
            "sum_of_weights_before_selection": self.sum_before,
            "observables": [],
        }


def detect_lhe(
    path: Path,
    shower: Shower,
    settings: Reconstruction,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> DetectedFile:
    """Shower the events of an LHE file, plain or compressed, and see them with the detector.

    Raises:
        InputFileError: A file that is absent, truncated, or not LHE.
        ChainError: Settings or events that Pythia does not take.
    """
    summary = scan_lhe(path)
    parts, n_made = [], 0
    with accepting_all(path) as copy:
        for rows, particles in stable_particles(copy, len(summary), shower):
            parts.append(reconstruct(rows, particles, settings, rng))
            n_made += len(rows)
            if progress:
                progress(int(rows[-1]) + 1, len(summary))
    events = DetectedEvents.concatenate(parts)
    table = DetectorTable(events, summary.weight[events.rows], summary.weights[events.rows])
    return DetectedFile(
        table, summary.names, len(summary), len(summary) - n_made, float(summary.weight.sum())
    )


def detect_hepmc(
    path: Path,
    settings: Reconstruction,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> DetectedFile:
    """See the stable particles of a HepMC3 file with the detector.

    The first of the named weights is the weight of the event.

    Raises:
        InputFileError: A file that is absent, truncated, or not HepMC.
    """
    parts, weights, names = [], [], ()
    for batch in read_hepmc(path):
        parts.append(reconstruct(batch.rows, batch.particles, settings, rng))
        weights.append(batch.weights)
        names = batch.names
        if progress:
            progress(int(batch.rows[-1]) + 1, 0)
    events, table = DetectedEvents.concatenate(parts), np.concatenate(weights)
    weight = table[:, 0] if names else np.ones(len(table))
    return DetectedFile(
        DetectorTable(events, weight[events.rows], table[events.rows]),
        names,
        len(table),
        0,
        float(weight.sum()),
    )
