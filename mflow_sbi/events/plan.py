"""Deciding what to read from a tree: layout, observables, selections, truth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mflow_sbi.errors import EventFileError, ExpressionError, MetadataError
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.layouts import (
    LAYOUTS,
    SCORE_PREFIX,
    THETA_PREFIX,
    Layout,
    ObjectBranches,
    recognise,
)
from mflow_sbi.events.metadata import EventMetadata, Parameter
from mflow_sbi.events.observables import WBF_OBSERVABLES, Observable, as_observables
from mflow_sbi.events.root_files import EventFile, EventTree
from mflow_sbi.events.wording import counted, listed

__all__ = ["ReadingPlan", "ReadingRequest", "choose_tree", "plan_reading", "read_metadata"]


@dataclass(frozen=True)
class ReadingRequest:
    """What the caller asks for; see `read_events` for the meaning of each."""

    tree: str | None = None
    observables: tuple[Observable, ...] | None = None
    selections: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        tree: str | None = None,
        observables: str | Iterable[str | Observable] | None = None,
        selection: str | Sequence[str] | None = None,
    ) -> "ReadingRequest":
        """Return the request in the words of `read_events`.

        Raises:
            ExpressionError: No observables, or two of one name.
        """
        return cls(
            tree=tree,
            observables=None if observables is None else as_observables(observables),
            selections=(selection,) if isinstance(selection, str) else tuple(selection or ()),
        )


@dataclass(frozen=True)
class ReadingPlan:
    """What is to be read from one tree.

    Attributes:
        tree: The open tree.
        layout: How its events are stored.
        metadata: The record of the resulting sample, observables included.
        objects: Collections needed, and how many leading objects of each.
        columns: Flat branches needed by observables and selections.
        selections: Sentences every event must satisfy, applied in order.
        theta: Branches of the parameters, all or none.
        score: Branches of the scores, all or none.
        weight: Branch of the event weight.
        components: Branch of the morphing components.
    """

    tree: EventTree
    layout: Layout
    metadata: EventMetadata
    objects: tuple[tuple[ObjectBranches, int], ...]
    columns: tuple[str, ...]
    selections: tuple[Expression, ...]
    theta: tuple[str, ...]
    score: tuple[str, ...]
    weight: str | None
    components: str | None

    @property
    def carries(self) -> tuple[str, ...]:
        """What travels with the events: theta, weight, score, components."""
        present = {
            "theta": self.theta,
            "weight": self.weight,
            "score": self.score,
            "components": self.components,
        }
        return tuple(name for name, branches in present.items() if branches)


def read_metadata(file: EventFile) -> EventMetadata | None:
    """Return the record in the file, or None for foreign files.

    Raises:
        MetadataError: There is a record, but a malformed one.
    """
    if file.metadata_text is None:
        return None
    try:
        return EventMetadata.from_json(file.metadata_text)
    except MetadataError as error:
        msg = f"{file.path}: {error}"
        raise MetadataError(msg) from error


def choose_tree(file: EventFile, record: EventMetadata | None, tree: str | None) -> EventTree:
    """Return the tree asked for, or that of the metadata, of a known layout, or the only one.

    Raises:
        EventFileError: No such tree; several and no way to choose; a number of entries that is
            not that of the metadata.
    """
    usual = [layout.tree for layout in LAYOUTS.values() if layout.tree in file.trees]
    name = tree or (record.tree if record else None) or next(iter(usual), None)
    if name is None and len(file.trees) > 1:
        msg = (
            f"{file.path}: several TTrees, {listed(file.trees)}; expected one, or one named "
            "'Delphes'. Choose by tree=..."
        )
        raise EventFileError(msg)
    chosen = file.tree(name or next(iter(file.trees)))
    if record and chosen.name == record.tree and record.n_events not in (None, chosen.n_entries):
        msg = (
            f"{file.path}: the metadata announce {record.n_events:,} events, tree "
            f"{chosen.name!r} holds {chosen.n_entries:,}; expected as many. The file was cut or "
            "merged (its cross sections no longer fit): simulate again, or give read_events "
            "the original files."
        )
        raise EventFileError(msg)
    return chosen


def plan_reading(file: EventFile, request: ReadingRequest) -> ReadingPlan:
    """Return what to read from a file.

    Raises:
        EventFileError: A missing tree or branch.
        ExpressionError: An observable or selection outside the language.
        MetadataError: A malformed record, or one that does not fit the branches.
    """
    record = read_metadata(file)
    chosen = choose_tree(file, record, request.tree)
    layout = LAYOUTS[record.layout] if record else recognise(chosen.name, chosen.branches)
    columns = _Columns(chosen, layout, request.observables, record)
    selections = tuple(
        columns.sentence(text).require_kind("truth", "selection") for text in request.selections
    )
    names = record.parameter_names if record else _names_of_parameters(chosen)
    theta, score = (_truth(chosen, names, prefix) for prefix in (THETA_PREFIX, SCORE_PREFIX))
    metadata = record or EventMetadata(
        process="unknown",
        tree=chosen.name,
        layout=layout.name,  # pyright: ignore[reportArgumentType]
        parameters=tuple(map(Parameter, names)),
        n_events=chosen.n_entries,
    )
    components = metadata.morphing.branch if metadata.morphing else None
    needed = [b for c in layout.collections if c.symbol in columns.objects for b in c.needed]
    for branch in [*needed, *columns.branches, *([components] if components else [])]:
        chosen.require(branch)
    return ReadingPlan(
        tree=chosen,
        layout=layout,
        metadata=metadata.with_observables(columns.observables),
        objects=tuple(
            (collection, columns.objects[collection.symbol])
            for collection in layout.collections
            if collection.symbol in columns.objects
        ),
        columns=tuple(columns.branches),
        selections=selections,
        theta=theta,
        score=score,
        weight=next((b for b in layout.weights if b in chosen.branches), None),
        components=components,
    )


class _Columns:
    """Resolves observables and selections to the objects and branches they need."""

    def __init__(
        self,
        tree: EventTree,
        layout: Layout,
        observables: tuple[Observable, ...] | None,
        record: EventMetadata | None,
    ) -> None:
        self.objects: dict[str, int] = {}
        self.branches: dict[str, None] = {}
        self._tree, self._layout = tree, layout
        if observables is None:
            observables = (record and record.observables) or self._default()
        self.observables = tuple(self._resolved(o) for o in as_observables(observables))

    def _default(self) -> tuple[Observable, ...]:
        if self._layout.collections:
            return WBF_OBSERVABLES
        missing = [o.name for o in WBF_OBSERVABLES if o.name not in self._tree.branches]
        if missing:
            msg = (
                f"{self._tree.path}: tree {self._tree.name!r} is flat and has "
                f"{40 - len(missing)} of the 40 default observables (missing: "
                f"{listed(missing, most=3)}). Name the branches to read by observables=[...]; "
                f"branches: {listed(self._tree.branches, most=60)}."
            )
            raise EventFileError(msg)
        return WBF_OBSERVABLES

    def _resolved(self, observable: Observable) -> Observable:
        if not self._layout.collections:
            existing = self._tree.branches
            if observable.source not in existing and observable.name in existing:
                observable = replace(observable, expression="")
            if observable.source in existing:
                self.branches[observable.source] = None
                return observable
        self.sentence(observable.source).require_kind("number", "observable")
        return observable

    def sentence(self, text: str) -> Expression:
        """Return the parsed text, its needs noted."""
        symbols = [collection.symbol for collection in self._layout.collections]
        try:
            expression = Expression(text)
        except ExpressionError:
            if not symbols and text.replace(".", "").replace("_", "").isalnum():
                self._tree.require(text)  # meant as a branch: name those that exist
            raise
        if symbols:
            expression.require_names(symbols, ())
        else:
            for name in expression.columns:
                self._tree.require(name)
            expression.require_names((), expression.columns)
        self.branches.update(dict.fromkeys(expression.columns))
        for symbol, n_needed in expression.objects.items():
            self.objects[symbol] = max(self.objects.get(symbol, 0), n_needed)
        return expression


def _names_of_parameters(tree: EventTree) -> tuple[str, ...]:
    prefixed = (branch for branch in tree.branches if branch.startswith(THETA_PREFIX))
    return tuple(branch.removeprefix(THETA_PREFIX) for branch in prefixed)


def _truth(tree: EventTree, names: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """Return the branches of one kind of truth in the order of the parameters, or none."""
    found = [branch for branch in tree.branches if branch.startswith(prefix)]
    expected = tuple(prefix + name for name in names)
    if found and set(found) != set(expected):
        msg = (
            f"{tree.path}: branches {listed(found)}, expected {listed(expected)} for the "
            f"{counted(len(names), 'parameter')} of the file. Write it again with parameters "
            "and branches that agree."
        )
        raise MetadataError(msg)
    return expected if found else ()
