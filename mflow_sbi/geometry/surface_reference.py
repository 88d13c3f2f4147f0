r"""Where the training events of a surrogate lie: what an observed event is compared with.

Three quantities, as far as the surrogate has them, each large where an event is foreign:

    reconstruction error     |x - project(x)|, standardised; +inf without a point on the surface
    low density              -log mean_k p(x|theta_k) over some training thetas theta_k
    largest observable       max_j |x_j - mean_j| / std_j; of surrogates without a density only

A surface that is solved for, not learned, gives training events back to rounding.  Then float32
numbers of another file would be far out in the tail, and mean nothing: an error below

    floor(x) = 2^-23 |x / std|_2

is what rounding the observables to float32 may do, and never foreign.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError, MflowSbiError, RunFolderError
from mflow_sbi.events import EventSample
from mflow_sbi.geometry.tails import TrainingTail
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = [
    "REFERENCE",
    "EventQuantities",
    "SurfaceReference",
    "load_reference",
    "save_reference",
    "surface_reference",
]

REFERENCE = "surface_reference.json"
"""Name of the file beside the surrogate."""

FORMAT = "mflow_sbi.surface_reference"
FORMAT_VERSION = 1
ERROR, DENSITY, OBSERVABLE = "reconstruction error", "low density", "largest observable"
_THETAS = 32
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class EventQuantities:
    """What a surrogate says of N events, whatever theta is.

    Args:
        has_point: whether the surface has a point for the event, (N,).
        extremities: quantity -> how foreign by it, (N,); +inf without a point.
        floor: error that rounding to float32 may cause, (N,).
    """

    has_point: NDArray[np.bool_]
    extremities: Mapping[str, Array]
    floor: Array


@dataclass(frozen=True)
class SurfaceReference:
    """Quantities of training events.

    Args:
        recipe: of the surrogate.
        training_digest: sha256 of its training events.
        thetas: training parameters over which the density is averaged, K rows of p.
        tails: quantity -> training events in its order.
    """

    recipe: str
    training_digest: str
    thetas: tuple[tuple[float, ...], ...]
    tails: Mapping[str, TrainingTail]

    @property
    def n_events(self) -> int:
        """Number of training events in the reference."""
        return next(iter(self.tails.values())).n_events

    def require_of(self, surrogate: TrainedSurrogate) -> None:
        """Refuse another surrogate.

        Raises:
            RunFolderError: the surrogate is of another recipe or other training events.
        """
        mine = (self.recipe, self.training_digest)
        theirs = (surrogate.record.recipe, surrogate.record.digests.get("training_events", ""))
        if mine != theirs:
            message = (
                f"the surface reference is of a surrogate {mine[0]!r} and training events "
                f"{mine[1][:12]}, not of {theirs[0]!r} and {theirs[1][:12]}; make it again"
            )
            raise RunFolderError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe,
            "training_digest": self.training_digest,
            "thetas": [list(theta) for theta in self.thetas],
            "tails": {name: tail.to_dict() for name, tail in self.tails.items()},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "SurfaceReference":
        """Return the reference written by `to_dict`.

        Raises:
            RunFolderError: another format or version, or fields that are missing or wrong.
        """
        kind = (record.get("format"), record.get("format_version"))
        if kind != (FORMAT, FORMAT_VERSION):
            message = f"surface reference: expected {FORMAT} version {FORMAT_VERSION}, got {kind}"
            raise RunFolderError(message)
        try:
            return cls(
                record["recipe"],
                record["training_digest"],
                tuple(tuple(theta) for theta in record["thetas"]),
                {name: TrainingTail.from_dict(tail) for name, tail in record["tails"].items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError, MflowSbiError) as error:
            message = f"surface reference: not a readable record ({error!r}); make it again"
            raise RunFolderError(message) from error


def surface_reference(
    surrogate: TrainedSurrogate, events: EventSample, n_events: int = 5000, seed: int = 0
) -> SurfaceReference:
    """Return where training events of a surrogate lie.

    Args:
        surrogate: trained.
        events: its training events, with theta.
        n_events: at most so many of them, chosen at random; the smallest p-value is
            1 / (n_events + 1).
        seed: chooses the events.

    Raises:
        EventDataError: no events.
        MissingReference: events without theta.
    """
    if not len(events) or n_events < 1:
        message = f"surface reference: expected training events, got {len(events)}"
        raise EventDataError(message)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(events))[:n_events])
    theta = events.require_theta()
    thetas = theta[rng.permutation(len(theta))[:_THETAS]]
    found = event_quantities(surrogate, events.x[chosen], thetas)
    return SurfaceReference(
        surrogate.record.recipe,
        surrogate.record.digests.get("training_events", ""),
        tuple(tuple(row) for row in thetas.tolist()),
        {name: TrainingTail.of(values) for name, values in found.extremities.items()},
    )


def event_quantities(surrogate: TrainedSurrogate, x: Array, thetas: Array) -> EventQuantities:
    """Return what a surrogate says of events (N, n) in physical units, thetas (K, p)."""
    scale = surrogate.record.observables
    floor = _EPSILON * np.linalg.norm(x / scale.std, axis=1)
    has_point = np.ones(len(x), dtype=np.bool_)
    extremities: dict[str, Array] = {}
    if not surrogate.generates:
        extremities[OBSERVABLE] = np.abs(scale.transform(x)).max(axis=1)
        return EventQuantities(has_point, extremities, floor)
    if surrogate.is_manifold:
        projected, has_point = surrogate.project_with_flags(x)
        errors = np.linalg.norm((x - projected) / scale.std, axis=1)
        extremities[ERROR] = _or_infinite(errors, has_point)
    if surrogate.surrogate.measure == "none":
        return EventQuantities(has_point, extremities, floor)
    values = np.full(len(x), np.nan)
    if has_point.any():
        values[has_point] = -_log_density(surrogate, x[has_point], thetas)
    extremities[DENSITY] = _or_infinite(values, has_point)
    return EventQuantities(has_point, extremities, floor)


def _log_density(surrogate: TrainedSurrogate, x: Array, thetas: Array) -> Array:
    """Return log mean_k p(x|theta_k), (N,): one density, and the ratios to the other thetas."""
    first = surrogate.log_prob(x, thetas[:1])
    with torch.no_grad():
        latents = surrogate.encode(x)
        points = torch.as_tensor(thetas, dtype=latents.dtype, device=latents.device)
        ratios = surrogate.latent_log_likelihood(latents, points[:, None]).double()
        mean = torch.logsumexp(ratios - ratios[:1], dim=0) - np.log(len(thetas))
    return first + mean.cpu().numpy()


def _or_infinite(values: Array, has_point: NDArray[np.bool_]) -> Array:
    """Return the values, +inf where there is no point or no number."""
    return np.where(has_point & ~np.isnan(values), values, np.inf)


def save_reference(reference: SurfaceReference, folder: str | Path) -> Path:
    """Write `surface_reference.json` into a surrogate's folder, beside and then renamed."""
    target = Path(folder) / REFERENCE
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".part")
    beside.write_text(json.dumps(reference.to_dict(), allow_nan=False) + "\n")
    beside.replace(target)
    return target


def load_reference(folder: str | Path) -> SurfaceReference:
    """Return the reference in a surrogate's folder.

    Raises:
        RunFolderError: there is none, or it cannot be read.
    """
    path = Path(folder) / REFERENCE
    if not path.is_file():
        message = f"{folder}: expected {REFERENCE}, found none; make it from the training events"
        raise RunFolderError(message)
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        message = f"{path}: not JSON ({error}); make it again"
        raise RunFolderError(message) from error
    if not isinstance(record, dict):
        message = f"{path}: expected a JSON object, got {type(record).__name__}; make it again"
        raise RunFolderError(message)
    return SurfaceReference.from_dict(record)
