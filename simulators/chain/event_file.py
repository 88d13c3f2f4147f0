"""Detected events as branches of an event file, named as Delphes names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.chain.jagged import Jagged
from simulators.chain.reconstruction import DetectedEvents, Reconstruction

__all__ = ["DetectorTable", "reconstruction_settings"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DetectorTable:
    """Columns of a file of detected events.

    Branches: lists `Photon`, `Electron`, `Muon`, `Jet`, `MissingET` and `Event` (of length one),
    `Weight` (K named weights or morphing components); flat `theta.<name>`, `score.<name>`.

    Attributes:
        events: What was seen.
        weight: (N,), 1 for unweighted events.
        weights: (N, K).
        theta: Parameter name -> (N,).
        score: Parameter name -> (N,).
    """

    events: DetectedEvents
    weight: Array
    weights: Array
    theta: Mapping[str, Array] = field(default_factory=dict)
    score: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.events)

    def branches(self, start: int, stop: int) -> dict[str, Any]:
        """Events start:stop, by branch."""
        lists = dict(self.events.collections)
        lists["MissingET"] = _lists_of(1, self.events.missing)
        lists["Event"] = _lists_of(1, {"Weight": self.weight.astype(np.float32)})
        if n_weights := self.weights.shape[1]:
            lists["Weight"] = _lists_of(n_weights, {"Weight": self.weights.ravel()})
        columns: dict[str, Any] = {k: v.records(start, stop) for k, v in lists.items()}
        columns |= {f"theta.{name}": v[start:stop] for name, v in self.theta.items()}
        columns |= {f"score.{name}": v[start:stop] for name, v in self.score.items()}
        return columns


def _lists_of(n: int, columns: Mapping[str, NDArray[Any]]) -> Jagged:
    """Every event has n entries."""
    size = len(next(iter(columns.values())))
    return Jagged(np.arange(0, size + 1, n), columns)


def reconstruction_settings(settings: Reconstruction) -> dict[str, Any]:
    """What of the reconstruction tells files apart, for the metadata."""
    return {
        "detector": "Delphes-like, formulas of the CMS card, particle by particle",
        "jet_algorithm": "anti-kT",
        "jet_radius": settings.jet_radius,
        "selection": {
            "photons": settings.n_photons,
            "jets": settings.n_jets,
            "jet_pt_min": settings.jet_pt_min,
        },
    }
