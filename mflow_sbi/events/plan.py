"""Deciding what to read from a tree: layout, observables, selections, truth."""

from dataclasses import dataclass, replace

from mflow_sbi.errors import EventFileError, MetadataError
from mflow_sbi.events.columns import EventFile, EventTree
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.layouts import (
    LAYOUTS,
    SCORE_PREFIX,
    THETA_PREFIX,
    Layout,
    MissingBranches,
    ObjectBranches,
    ObjectUnion,
    recognise,
)
from mflow_sbi.events.metadata import EventMetadata, Parameter, ThetaSampling
from mflow_sbi.events.needs import Needs
from mflow_sbi.events.request import NO_WEIGHT, ReadingRequest
from mflow_sbi.events.wording import counted, listed

__all__ = [
    "CollectionPlan",
    "ReadingPlan",
    "UnionPlan",
    "choose_layout",
    "choose_tree",
    "plan_reading",
    "read_metadata",
]

BENCHMARK_PREFIX = "weight."


@dataclass(frozen=True)
class CollectionPlan:
    """One collection of objects to be read.

    Attributes:
        branches: Where the objects are.
        n_needed: How many every event must have.
        selection: What objects must satisfy to count.
        further: What else is asked of them, names of branches without the prefix.
    """

    branches: ObjectBranches
    n_needed: int
    selection: Expression | None
    further: tuple[str, ...]

    @property
    def symbol(self) -> str:
        """What the objects are called in sentences."""
        return self.branches.symbol

    @property
    def name(self) -> str:
        """What they are called in messages."""
        return self.branches.name


@dataclass(frozen=True)
class UnionPlan:
    """Collections to be taken together.

    Attributes:
        union: Which.
        n_needed: How many objects every event must have.
    """

    union: ObjectUnion
    n_needed: int

    @property
    def symbol(self) -> str:
        """What the objects are called in sentences."""
        return self.union.symbol

    @property
    def name(self) -> str:
        """What they are called in messages."""
        return self.union.name


@dataclass(frozen=True)
class ReadingPlan:
    """What is to be read from one tree.

    Attributes:
        tree: The open tree.
        layout: How its events are stored.
        metadata: The record of the resulting sample, observables included.
        objects: Collections needed.
        unions: Collections needed together.
        missing: Where missing transverse momentum is, if it is needed.
        columns: Branches of one number per event needed by observables and selections.
        selections: Sentences every event must satisfy, applied in order.
        theta: Branches of the parameters, all or none.
        point: The parameters of all events, where they are given and not in branches.
        score: Branches of the scores, all or none.
        weight: Branch of the event weight.
        components: Branch of the morphing components.
        relative: Whether the benchmark weights are ratios to the event weight.
    """

    tree: EventTree
    layout: Layout
    metadata: EventMetadata
    objects: tuple[CollectionPlan, ...]
    unions: tuple[UnionPlan, ...]
    missing: MissingBranches | None
    columns: tuple[str, ...]
    selections: tuple[Expression, ...]
    theta: tuple[str, ...]
    point: tuple[float, ...] | None
    score: tuple[str, ...]
    weight: str | None
    components: str | None
    relative: bool

    @property
    def carries(self) -> tuple[str, ...]:
        """What travels with the events: theta, weight, score, components, benchmark_weight."""
        present = {
            "theta": self.theta or self.point,
            "weight": self.weight,
            "score": self.score,
            "components": self.components,
            "benchmark_weight": self.metadata.benchmarks,
        }
        return tuple(name for name, there in present.items() if there)


def read_metadata(file: EventFile) -> EventMetadata | None:
    """Return the record in the file, or None for foreign files.

    Raises:
        MetadataError: There is a record, but a malformed one.
    """
    try:
        return file.read_record()
    except MetadataError as error:
        told = str(error)
        msg = told if told.startswith(str(file.path)) else f"{file.path}: {told}"
        raise MetadataError(msg) from error


def choose_tree(
    file: EventFile, record: EventMetadata | None, request: ReadingRequest
) -> EventTree:
    """Return the tree asked for or declared, that of the metadata or a layout, or the only one.

    Raises:
        EventFileError: No such tree; several and no way to choose; a number of entries that is
            not that of the metadata.
    """
    usual = [layout.tree for layout in LAYOUTS.values() if layout.tree in file.trees]
    of_record = record.tree if record and file.named else None
    layout = request.layout
    declared = layout.tree if layout is not None and layout.name not in LAYOUTS else None
    name = request.tree or declared or of_record or next(iter(usual), None)
    if name is None and len(file.trees) > 1:
        msg = (
            f"{file.path}: several TTrees, {listed(file.trees)}; expected one, or one named "
            "'Delphes'. Choose by tree=..."
        )
        raise EventFileError(msg)
    chosen = file.tree(name or next(iter(file.trees)))
    ours = record is not None and (not file.named or chosen.name == record.tree)
    if record and ours and record.n_events not in (None, chosen.n_entries):
        msg = (
            f"{file.path}: the metadata announce {record.n_events:,} events, tree "
            f"{chosen.name!r} holds {chosen.n_entries:,}; expected as many. The file was cut or "
            "merged (its cross sections no longer fit): simulate again, or give read_events "
            "the original files."
        )
        raise EventFileError(msg)
    return chosen


def choose_layout(
    record: EventMetadata | None, tree: EventTree, request: ReadingRequest
) -> Layout:
    """Return the layout asked for, or that of the metadata, or the one that the branches show.

    Raises:
        MetadataError: The file was written with a declared layout, and none is asked for.
    """
    if request.layout is not None:
        return request.layout
    if record is None:
        return recognise(tree.name, tree.branches)
    if record.layout not in LAYOUTS:
        msg = f"{tree.path}: its layout is {record.layout!r}; declare it by layout=..."
        raise MetadataError(msg)
    return LAYOUTS[record.layout]


def plan_reading(file: EventFile, request: ReadingRequest) -> ReadingPlan:
    """Return what to read from a file.

    Raises:
        EventFileError: A missing tree or branch.
        ExpressionError: An observable or selection outside the language.
        MetadataError: A malformed record, or one that does not fit the branches or the request.
    """
    record = read_metadata(file)
    tree = choose_tree(file, record, request)
    layout = choose_layout(record, tree, request)
    needs = Needs(tree, layout, request, record)
    metadata, branches, point = _parameters(tree, layout, request, record)
    metadata = metadata.with_observables(needs.observables)
    score = _truth(tree, metadata.parameter_names, SCORE_PREFIX)
    benchmarks = metadata.benchmarks
    weight = _weight(tree, layout, request, metadata)
    if point is None and not branches:
        point = _benchmark_point(metadata, weight)
    components = metadata.morphing.branch if metadata.morphing else None
    further = [b for b in (components, benchmarks and benchmarks.branch) if b]
    for branch in [*needs.all_branches, *further]:
        tree.require(branch)
    return ReadingPlan(
        tree=tree,
        layout=layout,
        metadata=_at_point(metadata, point),
        objects=tuple(
            CollectionPlan(
                collection,
                needs.objects.get(collection.symbol, 0),
                sentence,
                tuple(needs.further.get(collection.symbol, ())),
            )
            for collection, sentence in needs.collections
        ),
        unions=tuple(UnionPlan(union, needs.objects[union.symbol]) for union in needs.unions),
        missing=needs.missing,
        columns=tuple(needs.branches),
        selections=needs.selections,
        theta=branches,
        point=point,
        score=score,
        weight=weight,
        components=components,
        relative=bool(benchmarks and benchmarks.branch.startswith(layout.relative)),
    )


def _parameters(
    tree: EventTree, layout: Layout, request: ReadingRequest, record: EventMetadata | None
) -> tuple[EventMetadata, tuple[str, ...], tuple[float, ...] | None]:
    """Return the record, the branches of theta, and theta of all events where it was given."""
    given = request.theta
    names = record.parameter_names if record else _names_of_parameters(tree)
    branches = _truth(tree, names, THETA_PREFIX)
    if given is not None and branches:
        msg = (
            f"{tree.path}: carries the parameters of each event ({listed(branches)}), and theta "
            f"{dict(given)} was given for all of them; expected one of the two. Leave theta out."
        )
        raise MetadataError(msg)
    if given is not None and names and sorted(names) != sorted(name for name, _ in given):
        msg = f"{tree.path}: theta was given for {[n for n, _ in given]}; expected {list(names)}."
        raise MetadataError(msg)
    names = names or tuple(name for name, _ in given or ())
    metadata = record or EventMetadata(
        process="unknown",
        tree=tree.name,
        layout=layout.name,  # pyright: ignore[reportArgumentType]
        parameters=tuple(map(Parameter, names)),
        n_events=tree.n_entries,
    )
    if names and not metadata.parameters:  # a record without theory, of a shower or a detector
        metadata = replace(metadata, parameters=tuple(map(Parameter, names)))
    if request.benchmarks is not None:
        metadata = replace(metadata, benchmarks=request.benchmarks)
    point = None if given is None else tuple(dict(given)[name] for name in names)
    return metadata, branches, point


def _weight(
    tree: EventTree, layout: Layout, request: ReadingRequest, metadata: EventMetadata
) -> str | None:
    """Return the branch of the weight: as asked for, of the layout, or of the first benchmark."""
    if request.weight == NO_WEIGHT:
        return None
    if request.weight is not None:
        tree.require(request.weight)
        return request.weight
    labels = metadata.benchmarks.names if metadata.benchmarks else ()
    usual = (*layout.weights, *(BENCHMARK_PREFIX + name for name in labels))
    if layout.requires_weight:
        for branch in layout.weights:
            tree.require(branch)
    return next((branch for branch in usual if branch in tree.branches), None)


def _benchmark_point(metadata: EventMetadata, weight: str | None) -> tuple[float, ...] | None:
    """Return theta of the benchmark whose weights the events are weighted with."""
    benchmarks = metadata.benchmarks
    if benchmarks is None or weight is None or not (benchmarks.theta and benchmarks.names):
        return None
    label = weight.removeprefix(BENCHMARK_PREFIX)
    if label == weight or label not in benchmarks.names:
        return None
    return benchmarks.theta[benchmarks.names.index(label)]


def _at_point(metadata: EventMetadata, point: tuple[float, ...] | None) -> EventMetadata:
    if point is None or metadata.theta_sampling is not None:
        return metadata
    return replace(metadata, theta_sampling=ThetaSampling("fixed", value=point))


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
