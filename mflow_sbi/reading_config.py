"""`events:`, `observables:` and what else a run configuration says of reading event files.

    events: data/train.root              # a path, a glob, or a list of them; with theta, where the
    events:                              #   files do not say at which parameters they were made
      - {path: sm_*.root, theta: {CWL2: 0, CPWL2: 0}}
      - {path: eft_*.root, theta: {CWL2: 0.5, CPWL2: 0}}
    observables: wbf40                   # a set by name, or a list of names, sentences, records:
    observables: [m_aa, met.pt, {name: dphi, expression: "deltaphi(j[0], j[1])", periodic: true}]
    selection: ["(a[0]+a[1]).m > 115", "n(j) >= 2"]
    objects: {a: "pt > 20 and abs(eta) < 2.5", j: "pt > 30"}
    layout: nanoaod                      # or declared, see `events.declared_layouts`
    weight: genWeight                    # or none; default: that of the layout
    benchmark_weights: LHEReweightingWeight   # or {branch: ..., names: [...], theta: [[...], ...]}

Words of the run's configuration become the arguments of `events.read_events` here.
"""

from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, Tag

from mflow_sbi.config_records import StrictConfig
from mflow_sbi.errors import ConfigurationError, MflowSbiError
from mflow_sbi.events import Benchmarks, EventSource, Observable
from mflow_sbi.events.request import ReadingRequest

__all__ = ["BenchmarksConfig", "ObservableConfig", "ReadingConfig", "SourceConfig"]


class SourceConfig(StrictConfig):
    """Files, and the parameters at which all of their events were generated."""

    path: str
    theta: dict[str, float] | None = None

    def build(self) -> EventSource:
        """Return the source for `read_events`."""
        return EventSource(self.path, self.theta)


class ObservableConfig(StrictConfig):
    """An observable with its name, unit and period."""

    name: str = Field(min_length=1)
    expression: str = ""
    unit: str = "1"
    periodic: bool = False

    def build(self) -> Observable:
        """Return the observable."""
        return Observable(self.name, self.expression, self.unit, self.periodic)


class BenchmarksConfig(StrictConfig):
    """Branch of the weights at benchmark points, with their names and parameters."""

    branch: str
    names: tuple[str, ...] = ()
    theta: tuple[tuple[float, ...], ...] = ()

    def build(self) -> Benchmarks:
        """Return the benchmarks for `read_events`."""
        return Benchmarks(self.branch, self.names, self.theta)


def _form(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list | tuple) else "record"


_Path: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[SourceConfig, Tag("record")], Discriminator(_form)
]
Events: TypeAlias = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[SourceConfig, Tag("record")]
    | Annotated[tuple[_Path, ...], Tag("list")],
    Discriminator(_form),
]
_Observable: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[ObservableConfig, Tag("record")], Discriminator(_form)
]
Observables: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[_Observable, ...], Tag("list")],
    Discriminator(_form),
]
BenchmarkWeights: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[BenchmarksConfig, Tag("record")], Discriminator(_form)
]


class ReadingConfig(StrictConfig):
    """What a run says of its event files and of how they are read; see the text above."""

    events: Events
    tree: str | None = None
    layout: str | dict[str, Any] | None = None
    observables: Observables | None = None
    selection: str | tuple[str, ...] | None = None
    objects: dict[str, str] = Field(default_factory=dict)
    weight: str | None = None
    benchmark_weights: BenchmarkWeights | None = None
    max_events: int | None = Field(default=None, ge=1)

    @property
    def cuts(self) -> tuple[Any, ...]:
        """What decides which events there are: runs compare only where these are equal."""
        one = isinstance(self.selection, str)
        sentences = (self.selection,) if one else tuple(self.selection or ())
        return sentences, tuple(sorted(self.objects.items()))

    def event_sources(self) -> list[str | EventSource]:
        """Return the event files, with their parameters where these are given."""
        items = self.events if isinstance(self.events, tuple) else (self.events,)
        return [item.build() if isinstance(item, SourceConfig) else item for item in items]

    def event_paths(self) -> list[str]:
        """Return the event files as a list of paths and patterns."""
        return [
            str(item.path) if isinstance(item, EventSource) else item
            for item in self.event_sources()
        ]

    def reading(self) -> dict[str, Any]:
        """Return the arguments of `read_events` and `open_chunks`, without the files."""
        observables, benchmarks = self.observables, self.benchmark_weights
        if isinstance(observables, tuple):
            observables = tuple(
                item.build() if isinstance(item, ObservableConfig) else item
                for item in observables
            )
        return {
            "tree": self.tree,
            "layout": self.layout,
            "observables": observables,
            "selection": self.selection,
            "objects": self.objects or None,
            "weight": self.weight,
            "benchmark_weights": benchmarks.build()
            if isinstance(benchmarks, BenchmarksConfig)
            else benchmarks,
        }

    def require_readable(self, where: str) -> None:
        """Refuse sentences, layouts and benchmarks that cannot be, before any file is opened.

        Raises:
            ConfigurationError: there is one.
        """
        try:
            ReadingRequest.of(**self.reading())
        except MflowSbiError as error:
            msg = f"{where}: {error}"
            raise ConfigurationError(msg) from error
