"""The record that travels with an event file: who made it, at which parameters, with what truth.

It is one JSON object, stored in the file as a `TObjString` named `mflow_sbi`; the dataclasses
below mirror it field by field. Reading is strict: an unknown key or version is refused, because
a misread cross section is a silently wrong posterior.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mflow_sbi.errors import MetadataError
from mflow_sbi.events.observables import Observable
from mflow_sbi.events.wording import listed, nearest
from mflow_sbi.interfaces import Array

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "Benchmarks",
    "EventMetadata",
    "Morphing",
    "Parameter",
    "Simulator",
    "ThetaSampling",
]

FORMAT = "mflow_sbi.events"
FORMAT_VERSION = 1
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Parameter:
    """One theory parameter theta_k; `low` and `high` bound its values in the file."""

    __pydantic_config__ = _STRICT

    name: str
    unit: str = "1"
    low: float | None = None
    high: float | None = None
    description: str = ""


@dataclass(frozen=True)
class Simulator:
    """The program that wrote the file.

    Attributes:
        name: Its name.
        version: Its version.
        settings: What determines the events; equal in files that belong together.
        statistics: What happened in this run (proposals, efficiencies); differs between files.
    """

    __pydantic_config__ = _STRICT

    name: str
    version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ThetaSampling:
    """How theta was drawn: normal(mean, std), uniform(low, high), or fixed at a value."""

    __pydantic_config__ = _STRICT

    kind: Literal["normal", "uniform", "fixed"]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    value: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        expected = {"normal": ("mean", "std"), "uniform": ("low", "high"), "fixed": ("value",)}
        needed = set(expected[self.kind])
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None} - {"kind"}
        if needed != given:
            msg = f"theta_sampling {self.kind!r} takes {sorted(needed)}; got {sorted(given)}."
            raise MetadataError(msg)


@dataclass(frozen=True)
class Morphing:
    """sigma p(x|theta) = sum_k c_k(x) prod_j theta_j^exponents[k, j], and C_k = integral of c_k.

    Attributes:
        branch: Where the K numbers c_k(x) of every event stand.
        exponents: Powers of the parameters in each monomial, (K, p).
        cross_section: C_k, pb.
        cross_section_error: Their Monte Carlo errors, pb.
        likelihood: "exact" if c_k is a density of x, "joint" if of x and latent variables.
        measure: The coordinates in which c_k is a density.
    """

    __pydantic_config__ = _STRICT

    branch: str
    exponents: tuple[tuple[int, ...], ...]
    cross_section: tuple[float, ...]
    cross_section_error: tuple[float, ...]
    likelihood: Literal["exact", "joint"]
    measure: str = ""

    def __post_init__(self) -> None:
        lengths = [len(self.exponents), len(self.cross_section), len(self.cross_section_error)]
        if len(set(lengths)) > 1 or not self.exponents:
            msg = (
                "morphing: exponents, cross_section and cross_section_error must be equally long "
                f"and not empty; got lengths {lengths}."
            )
            raise MetadataError(msg)
        if min(map(min, self.exponents)) < 0 or len(set(map(len, self.exponents))) > 1:
            msg = f"morphing: exponents must be K rows of p numbers >= 0; got {self.exponents}."
            raise MetadataError(msg)


@dataclass(frozen=True)
class Benchmarks:
    """Each event's weight w_ib had it been generated at benchmark b = 1..B, whatever theta it has.

    Attributes:
        branch: Where the B weights of every event stand.
        names: Names of the benchmarks; empty where the file does not tell.
        theta: Parameters of the benchmarks, (B, p); empty where the file does not tell.
    """

    __pydantic_config__ = _STRICT

    branch: str
    names: tuple[str, ...] = ()
    theta: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        n_names, n_points = len(self.names), len(self.theta)
        if n_names and n_points and n_names != n_points:
            msg = f"benchmarks: {n_names} names and {n_points} points theta; expected as many."
            raise MetadataError(msg)
        if len(set(self.names)) < n_names:
            msg = f"benchmarks: every name must be used once; got {listed(self.names)}."
            raise MetadataError(msg)

    @property
    def number(self) -> int | None:
        """B, or None where neither names nor parameters tell."""
        return len(self.names) or len(self.theta) or None


@dataclass(frozen=True)
class EventMetadata:
    """What an event file says of itself; fields as in the JSON record.

    Attributes:
        process: Short name, e.g. "wbf_h_aa"; "unknown" for foreign files.
        tree: Name of the TTree.
        layout: "delphes", "nanoaod", "flat", or "declared" by the reader.
        parameters: The p theory parameters, in the order of the columns of theta.
        observables: The columns of x, in order.
        simulator: Program and settings.
        command: Command line that wrote the file.
        seed: Its random seed.
        theta_sampling: How theta was drawn.
        n_events: Number of entries of the tree.
        sum_of_weights: Sum of event weights in the tree.
        sum_of_weights_before_selection: The same before the generator's own cuts.
        morphing: The exact or joint density of each event as a polynomial in theta.
        benchmarks: What `benchmark_weight` are the weights of.

    >>> m = EventMetadata(process="toy", tree="t", layout="flat", parameters=(Parameter("mu"),))
    >>> EventMetadata.from_json(m.to_json()) == m
    True
    """

    __pydantic_config__ = _STRICT

    process: str
    tree: str
    layout: Literal["delphes", "nanoaod", "flat", "declared"]
    parameters: tuple[Parameter, ...] = ()
    observables: tuple[Observable, ...] = ()
    simulator: Simulator | None = None
    command: str = ""
    seed: int | None = None
    theta_sampling: ThetaSampling | None = None
    n_events: int | None = None
    sum_of_weights: float | None = None
    sum_of_weights_before_selection: float | None = None
    morphing: Morphing | None = None
    benchmarks: Benchmarks | None = None

    def __post_init__(self) -> None:
        for kind, items in (("parameters", self.parameters), ("observables", self.observables)):
            names = [item.name for item in items]
            if len(set(names)) < len(names):
                msg = f"{kind}: every name must be used once; got {listed(names)}."
                raise MetadataError(msg)
        if self.morphing and len(self.morphing.exponents[0]) != len(self.parameters):
            msg = (
                f"morphing: exponents of {len(self.morphing.exponents[0])} parameters, "
                f"but {len(self.parameters)} parameters are declared."
            )
            raise MetadataError(msg)
        points = self.benchmarks.theta if self.benchmarks else ()
        if self.parameters and {len(point) for point in points} - {len(self.parameters)}:
            msg = (
                f"benchmarks: points theta of {sorted({len(point) for point in points})} numbers, "
                f"but {len(self.parameters)} parameters are declared."
            )
            raise MetadataError(msg)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the p parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def observable_names(self) -> tuple[str, ...]:
        """Names of the n observables."""
        return tuple(observable.name for observable in self.observables)

    @property
    def parameter_ranges(self) -> Array:
        """Lowest and highest value of each parameter, (p, 2); NaN where unknown."""
        ranges = [(parameter.low, parameter.high) for parameter in self.parameters]
        return np.array(ranges, dtype=np.float64).reshape(-1, 2)

    def with_observables(self, observables: Sequence[Observable]) -> "EventMetadata":
        """Return the record with these columns."""
        return replace(self, observables=tuple(observables))

    def with_ranges_of(self, theta: Array) -> "EventMetadata":
        """Return the record with the smallest and largest theta of these rows, (N, p)."""
        low, high = theta.min(axis=0), theta.max(axis=0)
        parameters = tuple(
            replace(parameter, low=float(low[k]), high=float(high[k]))
            for k, parameter in enumerate(self.parameters)
        )
        return replace(self, parameters=parameters)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        if sampling := record["theta_sampling"]:
            record["theta_sampling"] = {k: v for k, v in sampling.items() if v is not None}
        if self.simulator and not self.simulator.statistics:
            del record["simulator"]["statistics"]
        if self.benchmarks is None:
            del record["benchmarks"]
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "EventMetadata":
        """Return the record written in `text`.

        Raises:
            MetadataError: Not JSON, another format or version, an unknown or missing key, a
                value of the wrong type; the message names the place.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            msg = f"metadata is not JSON ({error}); expected the record of format {FORMAT!r}."
            raise MetadataError(msg) from error
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            msg = f"metadata is not of the format {FORMAT!r}; was the file written by a simulator?"
            raise MetadataError(msg)
        version = record.pop("format_version", None)
        if version != FORMAT_VERSION:
            msg = (
                f"metadata has format_version {version!r}; this mflow_sbi reads "
                f"{FORMAT_VERSION}. Simulate again, or install the mflow_sbi that fits."
            )
            raise MetadataError(msg)
        try:
            return _adapter().validate_json(json.dumps(record))
        except ValidationError as error:
            raise MetadataError(_sentence(error)) from error


@cache
def _adapter() -> TypeAdapter[EventMetadata]:
    return TypeAdapter(EventMetadata)


_CLASS_AT: dict[str, type] = {
    "parameters": Parameter,
    "observables": Observable,
    "simulator": Simulator,
    "theta_sampling": ThetaSampling,
    "morphing": Morphing,
    "benchmarks": Benchmarks,
}


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = EventMetadata if len(first["loc"]) == 1 else _CLASS_AT[str(first["loc"][0])]
        known = [f.name for f in fields(owner)]
        hint = nearest(str(first["loc"][-1]), known)
        return f"metadata: unknown key {place!r}; known keys: {listed(known, most=20)}.{hint}"
    return f"metadata: {place!r}: {first['msg']}; got {first['input']!r:.80}."
