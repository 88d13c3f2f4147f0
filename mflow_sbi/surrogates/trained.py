r"""A trained surrogate in physical units: GeV in, GeV out.

Observables and parameters are standardised on the way in.  Densities are quoted with respect to
the volume of the *standardised* observables: physical ones mix GeV with pseudorapidities, so
that a volume in them would mean nothing.  Ratios in theta do not depend on this choice.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mflow_sbi.errors import RunFolderError, ShapeError
from mflow_sbi.events import EventMetadata, Standardizer
from mflow_sbi.interfaces import (
    Array,
    CondensingSurrogate,
    Latents,
    LogProbs,
    ManifoldSurrogate,
    SurfacePerTheta,
    Surrogate,
)
from mflow_sbi.surrogates.without_density import WithoutDensity

__all__ = ["SurrogateRecord", "TrainedSurrogate", "read_record"]

RECORD = "surrogate.json"
WEIGHTS = "weights.safetensors"
FORMAT = "mflow_sbi.surrogate"
FORMAT_VERSION = 1
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class SurrogateRecord:
    """All that is not a weight: how to rebuild the surrogate and where it came from.

    Args:
        recipe: name of the recipe.
        shape: dimensions the recipe needs to rebuild the modules.
        options: architecture options of the recipe.
        seed: seed of initialisation, shuffles and split.
        observables: standardizer of the n observables.
        parameters: standardizer of the p parameters.
        metadata: record of the training events.
        digests: sha256 of the training events.
        notes: what was found in the training events, e.g. which constraints, one line each.
    """

    recipe: str
    shape: Mapping[str, int]
    options: Mapping[str, Any]
    seed: int
    observables: Standardizer
    parameters: Standardizer
    metadata: EventMetadata
    digests: Mapping[str, str]
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with versions."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe,
            "shape": dict(self.shape),
            "options": dict(self.options),
            "seed": self.seed,
            "observables": self.observables.to_dict(),
            "parameters": self.parameters.to_dict(),
            "metadata": json.loads(self.metadata.to_json()),
            "digests": dict(self.digests),
            "notes": list(self.notes),
            "versions": {
                "mflow_sbi": version("mflow_sbi"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


def _rows(value: ArrayLike, columns: int, what: str) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 1 and array.shape[0] == columns:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != columns:
        message = f"{what}: expected an array (N, {columns}), got shape {array.shape}"
        raise ShapeError(message)
    return array


class TrainedSurrogate:
    """A surrogate, its standardizers and its record; satisfies `EncodedLikelihood`.

    Args:
        surrogate: trained module on standardised observables and parameters.
        record: how it was made.
    """

    def __init__(self, surrogate: Surrogate, record: SurrogateRecord) -> None:
        self.surrogate = surrogate
        self.record = record

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the p parameters."""
        return self.record.metadata.parameter_names

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value seen in training, (p, 2)."""
        return self.record.metadata.parameter_ranges

    @property
    def is_manifold(self) -> bool:
        """Whether events lie on a learned surface, so that projections exist."""
        return isinstance(self.surrogate, ManifoldSurrogate)

    @property
    def has_surface(self) -> bool:
        """Whether it draws events on a surface: one, or one of every theta (PIE)."""
        return self.is_manifold or isinstance(self.surrogate, SurfacePerTheta)

    @property
    def generates(self) -> bool:
        """Whether it draws events: all but those without a density and without a surface."""
        return self.is_manifold or self.surrogate.measure != "none"

    @property
    def lacks(self) -> str:
        """What there is not of a surrogate without a density, and why; empty otherwise."""
        return self.surrogate.lacks if isinstance(self.surrogate, WithoutDensity) else ""

    @property
    def n_parameters(self) -> int:
        """How many numbers the training moved."""
        assert isinstance(self.surrogate, nn.Module)
        return sum(parameter.numel() for parameter in self.surrogate.parameters())

    def standardise(self, x: ArrayLike) -> Tensor:
        """Return standardised observables of physical events, (N, n) float64, on the device."""
        rows = _rows(x, self.surrogate.ambient_dim, "events")
        return torch.from_numpy(self.record.observables.transform(rows)).to(self.device)

    def _physical(self, x: Tensor) -> Array:
        return self.record.observables.inverse(x.double().cpu().numpy())

    def _paired(self, n: int, theta: ArrayLike) -> Tensor:
        rows = _rows(theta, self.surrogate.parameter_dim, "theta")
        if len(rows) == 1:
            rows = np.broadcast_to(rows, (n, rows.shape[1]))
        if len(rows) != n:
            message = f"theta: expected one row or one per event ({n}), got {len(rows)}"
            raise ShapeError(message)
        return torch.from_numpy(self.record.parameters.transform(rows)).to(self.device)

    @torch.no_grad()
    def encode(self, x: ArrayLike) -> Latents:
        """Return what the theta-dependence needs of physical events, (N, n) -> (N, d).

        The latents, or what a `CondensingSurrogate` makes of them.
        """
        encode = self.surrogate.encode
        if isinstance(self.surrogate, CondensingSurrogate):
            encode = self.surrogate.condense
        return torch.cat([encode(part) for part in self.standardise(x).split(CHUNK_ROWS)])

    def latent_log_likelihood(self, u: Latents, theta: Tensor) -> LogProbs:
        """Return log p(u|theta) up to a constant in theta; theta physical.

        Leading dimensions broadcast, (..., d), (..., p) -> (...).
        """
        mean = torch.as_tensor(self.record.parameters.mean, device=theta.device)
        std = torch.as_tensor(self.record.parameters.std, device=theta.device)
        standardised = (theta - mean) / std
        if isinstance(self.surrogate, CondensingSurrogate):
            return self.surrogate.condensed_log_likelihood(u, standardised.to(u.dtype))
        return self.surrogate.latent_log_prob(u, standardised.to(u.dtype))

    def _log(self, name: str, x: ArrayLike, theta: ArrayLike) -> Array:
        events = self.standardise(x)
        parameters = self._paired(len(events), theta)
        function = getattr(self.surrogate, name)
        pieces = [
            function(part, at.to(self._dtype)).double()
            for part, at in zip(
                events.split(CHUNK_ROWS), parameters.split(CHUNK_ROWS), strict=True
            )
        ]
        return torch.cat(pieces).cpu().numpy()

    @property
    def _dtype(self) -> torch.dtype:
        return self._some_tensor.dtype

    @property
    def device(self) -> torch.device:
        """Device of the surrogate; move it with `surrogate.to(...)`."""
        return self._some_tensor.device

    @property
    def _some_tensor(self) -> Tensor:
        """A parameter, or a number that was counted where none was trained."""
        assert isinstance(self.surrogate, nn.Module)
        tensors = chain(self.surrogate.parameters(), self.surrogate.buffers())
        return next(tensor for tensor in tensors if tensor.is_floating_point())

    @torch.no_grad()
    def log_prob(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """Return the exact log density in standardised units, (N,); see `surrogate.measure`."""
        return self._log("log_prob", x, theta)

    @torch.no_grad()
    def log_likelihood(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        return self._log("log_likelihood", x, theta)

    @torch.no_grad()
    def sample(self, theta: ArrayLike, seed: int) -> Array:
        """Return one event in physical units per row of theta, (N, p) -> (N, n)."""
        return self.sample_counted(theta, seed)[0]

    @torch.no_grad()
    def sample_counted(self, theta: ArrayLike, seed: int) -> tuple[Array, int]:
        """Return `sample`, and how many latents had no point on the surface and were redrawn."""
        rows = _rows(theta, self.surrogate.parameter_dim, "theta")
        standardised = torch.from_numpy(self.record.parameters.transform(rows)).to(self.device)
        if isinstance(self.surrogate, ManifoldSurrogate):
            events, again = self.surrogate.sample_counted(standardised, seed)
        else:
            events, again = self.surrogate.sample(standardised, seed), 0
        return self._physical(events), again

    @torch.no_grad()
    def project(self, x: ArrayLike) -> Array:
        """Return the nearest events on the surface, physical units, (N, n).

        Ambient flows: x itself, encoded and decoded.

        Raises:
            ChartError: events without a point on the surface; see `project_with_flags`.
        """
        parts = [self._projected(part) for part in self.standardise(x).split(CHUNK_ROWS)]
        return self._physical(torch.cat(parts))

    def _projected(self, x: Tensor) -> Tensor:
        """Return projections of standardised events, (N, n)."""
        if isinstance(self.surrogate, ManifoldSurrogate):
            return self.surrogate.project(x)
        return self.surrogate.decode(self.surrogate.encode(x))

    @torch.no_grad()
    def project_with_flags(self, x: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
        """Return projected events (N, n), NaN where there is none, and whether there is one, (N,).

        Ambient flows: x itself.
        """
        events = self.standardise(x)
        if not isinstance(self.surrogate, ManifoldSurrogate):
            return self.project(x), np.ones(len(events), dtype=np.bool_)
        parts = [self.surrogate.project_with_flags(part) for part in events.split(CHUNK_ROWS)]
        points, found = (torch.cat(column) for column in zip(*parts, strict=True))
        return self._physical(points), found.cpu().numpy()

    @torch.no_grad()
    def project_at(self, x: ArrayLike, theta: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
        """Return `project_with_flags`, onto the surface of theta where every theta has its own.

        Args:
            x: events in physical units, (N, n).
            theta: their parameters, (N, p).

        Raises:
            ShapeError: events and parameters are not paired.
        """
        events = self.standardise(x)
        at = self._paired(len(events), theta)
        if not isinstance(self.surrogate, SurfacePerTheta):
            return self.project_with_flags(x)
        chunks = zip(events.split(CHUNK_ROWS), at.split(CHUNK_ROWS), strict=True)
        parts = [
            self.surrogate.project_at(part, thetas.to(self._dtype)) for part, thetas in chunks
        ]
        return self._physical(torch.cat(parts)), np.ones(len(events), dtype=np.bool_)

    @torch.no_grad()
    def reconstruction_error(self, x: ArrayLike) -> Array:
        """Return |x - project(x)|_2 in standardised units, (N,)."""
        events = self.standardise(x)
        parts = [
            torch.linalg.vector_norm(part - self._projected(part), dim=-1)
            for part in events.split(CHUNK_ROWS)
        ]
        return torch.cat(parts).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """Write `surrogate.json` and `weights.safetensors`, each beside and then renamed."""
        assert isinstance(self.surrogate, nn.Module)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            k: v.detach().cpu().contiguous() for k, v in self.surrogate.state_dict().items()
        }
        weights = folder / WEIGHTS
        save_file(tensors, weights.with_suffix(".part"))
        weights.with_suffix(".part").replace(weights)
        record = self.record.to_dict()
        record["weights_sha256"] = sha256(weights.read_bytes()).hexdigest()
        target = folder / RECORD
        target.with_suffix(".part").write_text(json.dumps(record, indent=1) + "\n")
        target.with_suffix(".part").replace(target)


def read_record(folder: Path) -> tuple[SurrogateRecord, dict[str, Tensor]]:
    """Return the record and the weights of a surrogate folder, checked against their digest.

    Raises:
        RunFolderError: a file is missing, unreadable, of another version, or altered.
    """
    path = folder / RECORD
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        message = f"{folder}: expected a surrogate folder with {RECORD} and {WEIGHTS}"
        raise RunFolderError(message)
    try:
        raw = json.loads(path.read_text())
        if (raw["format"], raw["format_version"]) != (FORMAT, FORMAT_VERSION):
            message = (
                f"{path}: expected {FORMAT} version {FORMAT_VERSION}, got "
                f"{raw['format']} version {raw['format_version']}"
            )
            raise RunFolderError(message)
        digest = sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        if digest != raw["weights_sha256"]:
            message = f"{folder / WEIGHTS}: does not match the digest in {RECORD}; train again"
            raise RunFolderError(message)
        record = SurrogateRecord(
            recipe=raw["recipe"],
            shape=raw["shape"],
            options=raw["options"],
            seed=raw["seed"],
            observables=Standardizer.from_dict(raw["observables"]),
            parameters=Standardizer.from_dict(raw["parameters"]),
            metadata=EventMetadata.from_json(json.dumps(raw["metadata"])),
            digests=raw["digests"],
            notes=tuple(raw.get("notes", ())),
        )
        _require_fitting(record)
    except (KeyError, ValueError, TypeError) as error:
        message = f"{path}: not a readable surrogate record ({error!r})"
        raise RunFolderError(message) from error
    return record, _load_weights(folder / WEIGHTS)


def _require_fitting(record: SurrogateRecord) -> None:
    """Raise ValueError where the parts of a record are not of one surrogate."""
    n, p = record.shape["ambient_dim"], record.shape["parameter_dim"]
    counts = {
        "observables": (len(record.observables.mean), len(record.metadata.observables), n),
        "parameters": (len(record.parameters.mean), len(record.metadata.parameters), p),
    }
    for what, numbers in counts.items():
        if len(set(numbers)) > 1:
            message = f"numbers of {what} differ: {numbers}"
            raise ValueError(message)


def _load_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        message = f"{path}: not a readable safetensors file ({error})"
        raise RunFolderError(message) from error
