"""What the caller of a reader asks for, checked before any file is opened."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mflow_sbi.errors import ExpressionError
from mflow_sbi.events.declared_layouts import as_layout
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.layouts import Layout
from mflow_sbi.events.metadata import Benchmarks
from mflow_sbi.events.observables import Observable, as_observables
from mflow_sbi.events.wording import listed

__all__ = ["NO_WEIGHT", "Observables", "ReadingRequest"]

Observables: TypeAlias = str | Iterable[str | Observable]
Point: TypeAlias = tuple[tuple[str, float], ...]

NO_WEIGHT = "none"


@dataclass(frozen=True)
class ReadingRequest:
    """What is asked for; see `read_events` for the meaning of each.

    Attributes:
        tree: Name of the tree.
        observables: Columns of x.
        selections: Sentences that events must satisfy.
        objects: Sentences that objects must satisfy, by symbol.
        layout: How the events are stored.
        weight: Branch of the event weight, or `NO_WEIGHT`.
        benchmarks: Branch, names and parameters of benchmark weights.
        theta: Parameters of all events, (name, value).
    """

    tree: str | None = None
    observables: tuple[Observable, ...] | None = None
    selections: tuple[str, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()
    layout: Layout | None = None
    weight: str | None = None
    benchmarks: Benchmarks | None = None
    theta: Point | None = None

    @classmethod
    def of(
        cls,
        *,
        tree: str | None = None,
        observables: Observables | None = None,
        selection: str | Sequence[str] | None = None,
        objects: Mapping[str, str] | None = None,
        layout: str | Layout | Mapping[str, Any] | None = None,
        weight: str | None = None,
        benchmark_weights: str | Benchmarks | None = None,
    ) -> "ReadingRequest":
        """Return the request in the words of `read_events`.

        Raises:
            ExpressionError: No observables, two of one name, or a sentence outside the language.
            EventFileError: An unknown layout.
        """
        for symbol, text in (objects or {}).items():
            _require_of_objects(symbol, text)
        given = benchmark_weights
        return cls(
            tree=tree,
            observables=None if observables is None else as_observables(observables),
            selections=(selection,) if isinstance(selection, str) else tuple(selection or ()),
            objects=tuple((objects or {}).items()),
            layout=None if layout is None else as_layout(layout),
            weight=weight,
            benchmarks=Benchmarks(given) if isinstance(given, str) else given,
        )


def _require_of_objects(symbol: str, text: str) -> None:
    sentence = Expression(text).require_kind("truth", f"selection of the objects {symbol!r}")
    others = [*sentence.objects, *sentence.planar]
    if others:
        msg = (
            f"selection of the objects {symbol!r}, {text!r}: names {listed(others)}; expected "
            "columns of one object, e.g. 'pt > 20 and abs(eta) < 2.5'."
        )
        raise ExpressionError(msg)
