"""`EventSample`: a set of events in memory, with whatever truth their file carried."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.errors import EventDataError, MissingReference, ShapeError
from mflow_sbi.events.merging import merge
from mflow_sbi.events.metadata import EventMetadata
from mflow_sbi.events.weights import (
    WeightSummary,
    equal_weights,
    theta_weights,
    training_weights,
)
from mflow_sbi.interfaces import Array

__all__ = ["EventSample", "SelectionReport", "concatenate", "count_duplicates", "row_hashes"]

_ROWS = 16_384  # hashed at once
_OPTIONAL = ("theta", "weight", "score", "components", "benchmark_weight")


@dataclass(frozen=True)
class SelectionReport:
    """What became of the events read: n_read = n_kept + sum of the dropped.

    Attributes:
        n_read: Entries looked at.
        n_kept: Events in the sample.
        dropped: Number of events by reason, each event under the first reason that holds.
        selections: Sentences that events had to satisfy, also where none was dropped.
        dropped_objects: Number of objects that do not count, by kind and sentence.
        duplicates: Events kept that repeat an earlier one in every number.
    """

    n_read: int
    n_kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    selections: tuple[str, ...] = ()
    dropped_objects: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0

    @property
    def cuts(self) -> tuple[str, ...]:
        """What selected the events: sentences, and what else dropped some of them.

        Objects that do not count leave some events with too few: that is a selection too.

        >>> SelectionReport(9, 6, {"fewer than 2 jets": 3, "fewer than 1 muon": 0}).cuts
        ('not fewer than 2 jets',)
        """
        told = {f"selection {sentence}" for sentence in self.selections}
        others = (f"not {why}" for why, n in self.dropped.items() if n and why not in told)
        return (*self.selections, *others)

    def __add__(self, other: "SelectionReport") -> "SelectionReport":
        return SelectionReport(
            self.n_read + other.n_read,
            self.n_kept + other.n_kept,
            _added(self.dropped, other.dropped),
            tuple(dict.fromkeys((*self.selections, *other.selections))),
            _added(self.dropped_objects, other.dropped_objects),
            self.duplicates + other.duplicates,
        )


def _added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in {**first, **second}}


@dataclass(frozen=True, eq=False)
class EventSample:
    """N events: observables x_i, and where known theta_i, weight_i, score_i, c_k(x_i).

    Attributes:
        x: Observables in physical units, (N, n) float64.
        metadata: The record of the file(s) the events came from; its counts and sums of weights
            describe those files, also after `take` or `split`.
        theta: Parameters each event was generated at, (N, p).
        weight: Event weights, of either sign, (N,); see `events.weights`.
        score: grad_theta log p of each event at its own theta, (N, p).
        components: Morphing components c_k(x), (N, K).
        benchmark_weight: Weights of each event at the B benchmarks of the metadata, in units of
            `weight` (a weight of 1 where there is none), (N, B).
        report: How many events were read and dropped.

    Raises:
        ShapeError: The arrays do not fit each other or the metadata.
    """

    x: Array
    metadata: EventMetadata
    theta: Array | None = None
    weight: Array | None = None
    score: Array | None = None
    components: Array | None = None
    benchmark_weight: Array | None = None
    report: SelectionReport | None = None

    def __post_init__(self) -> None:
        for name in ("x", *_OPTIONAL):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.ascontiguousarray(value, dtype=np.float64))
        n_events = self.x.shape[0] if self.x.ndim else 0
        n_parameters = len(self.metadata.parameters)
        morphing = self.metadata.morphing
        n_components = len(morphing.exponents) if morphing else None
        self._require("x", (n_events, len(self.metadata.observables) or None))
        self._require("theta", (n_events, n_parameters))
        self._require("weight", (n_events,))
        self._require("score", (n_events, n_parameters))
        self._require("components", (n_events, n_components))
        benchmarks = self.metadata.benchmarks
        n_benchmarks = benchmarks.number if benchmarks else None
        self._require("benchmark_weight", (n_events, n_benchmarks))

    def _require(self, name: str, shape: tuple[int | None, ...]) -> None:
        value = getattr(self, name)
        if value is None:
            return
        fits = value.ndim == len(shape) and all(
            expected in (None, got) for expected, got in zip(shape, value.shape, strict=False)
        )
        if not fits:
            expected = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
            msg = (
                f"EventSample: {name} has shape {value.shape}, expected {expected} from x and the "
                "metadata (observables, parameters, morphing exponents, benchmarks)."
            )
            raise ShapeError(msg)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        has = [name for name in _OPTIONAL if getattr(self, name) is not None]
        return (
            f"EventSample({len(self)} events, {self.n_observables} observables, "
            f"process={self.metadata.process!r}, with {', '.join(has) or 'no truth'})"
        )

    @property
    def n_observables(self) -> int:
        """Number of columns of x."""
        return self.x.shape[1]

    @property
    def observable_names(self) -> tuple[str, ...]:
        """Names of the columns of x."""
        return self.metadata.observable_names

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the columns of theta."""
        return self.metadata.parameter_names

    @cached_property
    def digest(self) -> str:
        """sha256 of the record and of every array, in hexadecimal."""
        total = sha256(self.metadata.to_json().encode())
        for name in ("x", *_OPTIONAL):
            value = getattr(self, name)
            if value is not None:
                total.update(f"{name}{value.shape}".encode())
                total.update(value.astype("<f8", copy=False).tobytes())
        return total.hexdigest()

    def column(self, name: str) -> Array:
        """Return the values of one observable by name, (N,)."""
        if name not in self.observable_names:
            msg = f"no observable {name!r} in the sample; it has {list(self.observable_names)}."
            raise ShapeError(msg)
        return self.x[:, self.observable_names.index(name)]

    def take(self, indices: ArrayLike) -> "EventSample":
        """Return the events at `indices` (integers, or a mask of N booleans)."""
        indices = np.asarray(indices)
        if indices.size == 0 and indices.dtype != np.bool_:
            indices = indices.astype(np.intp)
        rows = {
            name: None if (value := getattr(self, name)) is None else value[indices]
            for name in ("x", *_OPTIONAL)
        }
        return replace(self, **rows)

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator
    ) -> tuple["EventSample", ...]:
        """Return disjoint random parts whose sizes are these fractions of N, all events used.

        Args:
            fractions: Positive, summing to 1.
            rng: Shuffles the events.

        Raises:
            EventDataError: The fractions are not positive or do not sum to 1, or a part would
                be empty.
        """
        if min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-9:
            msg = f"split: expected positive fractions that sum to 1; got {tuple(fractions)}."
            raise EventDataError(msg)
        ends = np.rint(np.cumsum(fractions) * len(self)).astype(int)
        parts = np.split(rng.permutation(len(self)), ends[:-1])
        if min(map(len, parts)) == 0:
            msg = (
                f"split: {len(self)} events are too few for fractions {tuple(fractions)}; "
                "a part would be empty. Read more events."
            )
            raise EventDataError(msg)
        return tuple(self.take(part) for part in parts)

    def batches(
        self, size: int, rng: np.random.Generator | None = None
    ) -> Iterator["EventSample"]:
        """Yield every event once, `size` at a time (the last batch may be smaller).

        Args:
            size: Events per batch.
            rng: Shuffles the events; without it they come in order.
        """
        if size < 1:
            msg = f"batches: expected a size of at least 1; got {size}."
            raise EventDataError(msg)
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        for start in range(0, len(self), size):
            yield self.take(order[start : start + size])

    def require_unweighted(self) -> None:
        """Refuse events of different weights, which are no draws from p(x|theta).

        Raises:
            EventDataError: The weights differ by more than 1e-6, or are not positive.
        """
        weight = self.weight
        if weight is not None and not equal_weights(weight):
            msg = (
                f"expected unweighted events, got weights from {weight.min():.3g} to "
                f"{weight.max():.3g}; unweight the file first."
            )
            raise EventDataError(msg)

    @cached_property
    def training_weight(self) -> Array | None:
        """Weights over their mean, (N,), by which training averages; None where all are equal.

        Raises:
            EventDataError: Weights that nothing can be trained on, see `events.weights`.
        """
        return training_weights(self.weight)

    @cached_property
    def theta_weight(self) -> Array | None:
        """Weights >= 0 of theta as draws from the prior pi of the training, (N,), or None.

        Raises:
            EventDataError: Weights that nothing can be trained on.
            MissingReference: Weighted events without theta.
        """
        weight = self.training_weight
        return None if weight is None else theta_weights(self.require_theta(), weight)

    @property
    def weight_notes(self) -> tuple[str, ...]:
        """What different weights leave of the statistics: one line, none where all are equal."""
        if self.weight is None or equal_weights(self.weight):
            return ()
        return (str(WeightSummary.of(self.weight)),)

    def require_theta(self) -> Array:
        """Return theta, (N, p), or raise `MissingReference`."""
        return self._reference(
            "theta", "the parameters of each event (branches theta.*); training needs them"
        )

    def require_score(self) -> Array:
        """Return the scores, (N, p), or raise `MissingReference`."""
        return self._reference("score", "the score of each event (branches score.*)")

    def require_components(self) -> Array:
        """Return the morphing components, (N, K), or raise `MissingReference`."""
        return self._reference(
            "components", "the morphing components of each event (`morphing` in the metadata)"
        )

    def require_benchmark_weight(self) -> Array:
        """Return the weights at the benchmarks, (N, B), or raise `MissingReference`."""
        return self._reference(
            "benchmark_weight",
            "the weights of each event at benchmark points (read_events(..., benchmark_weights=))",
        )

    def _reference(self, name: str, meaning: str) -> Array:
        value = getattr(self, name)
        if value is None:
            msg = (
                f"these events of process {self.metadata.process!r} do not carry {meaning}. "
                "Expected a file that has them; write one with `python -m simulators`, or leave "
                "out what asks for them."
            )
            raise MissingReference(msg)
        return value


def concatenate(samples: Sequence[EventSample]) -> EventSample:
    """Return all events of several samples as one, in order.

    Samples of one and the same record object (chunks, parts of a split) keep it; other records
    are merged.

    Raises:
        MetadataError: The samples are not of one process and one setting (see `merge`).
        EventDataError: No samples, or only some of them carry theta, weight, score, components
            or benchmark weights.
    """
    if not samples:
        msg = "concatenate: expected at least one sample; got none."
        raise EventDataError(msg)
    if len(samples) == 1:
        return samples[0]
    first = samples[0].metadata
    same = all(sample.metadata is first for sample in samples)
    metadata = first if same else merge([sample.metadata for sample in samples])
    reports = [sample.report for sample in samples if sample.report is not None]
    report = sum(reports[1:], reports[0]) if len(reports) == len(samples) else None
    return EventSample(**_stacked(samples), metadata=metadata, report=report)


def _stacked(samples: Sequence[EventSample]) -> dict[str, Array]:
    rows: dict[str, Array] = {}
    for name in ("x", *_OPTIONAL):
        values = [value for s in samples if (value := getattr(s, name)) is not None]
        if values and len(values) < len(samples):
            msg = (
                f"only {len(values)} of {len(samples)} samples carry {name}; expected all or "
                "none. Read the files with and those without it separately."
            )
            raise EventDataError(msg)
        if values:
            rows[name] = np.concatenate(values)
    return rows


def count_duplicates(sample: EventSample) -> int:
    """Return how many events repeat an earlier one in every number that they carry.

    Rows are told apart by hashes of 64 bits.  Where all observables are whole numbers, repetitions
    are natural and not counted.
    """
    if len(sample) < 2 or (sample.x == np.rint(sample.x)).all():
        return 0
    hashes = row_hashes(sample)
    return len(hashes) - len(np.unique(hashes))


def row_hashes(sample: EventSample) -> NDArray[np.uint64]:
    """Return a hash of all numbers that an event carries, (N,)."""
    total = np.zeros(len(sample), dtype=np.uint64)
    rng = np.random.default_rng(0)
    for name in ("x", *_OPTIONAL):
        if (array := getattr(sample, name)) is not None:
            rows = array.view(np.uint64).reshape(len(sample), -1)
            odd = rng.integers(0, 2**63, rows.shape[1], dtype=np.uint64) * 2 + 1
            for start in range(0, len(rows), _ROWS):
                part = slice(start, start + _ROWS)
                total[part] += (rows[part] ^ (rows[part] >> np.uint64(32))) @ odd
    return total
