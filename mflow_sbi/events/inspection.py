"""`inspect_file`: what is in an event file, what would be read, and what stands in the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events.columns import EventFile, EventTree
from mflow_sbi.events.files import open_events
from mflow_sbi.events.layouts import Layout
from mflow_sbi.events.metadata import Benchmarks, EventMetadata, Parameter
from mflow_sbi.events.particles import object_columns
from mflow_sbi.events.paths import resolve_paths
from mflow_sbi.events.plan import (
    ReadingPlan,
    choose_layout,
    choose_tree,
    plan_reading,
    read_metadata,
)
from mflow_sbi.events.reading import Progress, read_events
from mflow_sbi.events.request import Observables, ReadingRequest
from mflow_sbi.events.sample import EventSample, SelectionReport
from mflow_sbi.events.sources import Theta, as_point
from mflow_sbi.events.summary_rows import (
    benchmark_rows,
    metadata_rows,
    range_of,
    report_rows,
    weight_rows,
)
from mflow_sbi.events.wording import listed

__all__ = ["FileSummary", "inspect_file"]


@dataclass(frozen=True)
class FileSummary:
    """What `read_events` finds in one file.

    Attributes:
        path: The file.
        size: Its length in bytes.
        trees: Trees and their entries.
        kind: Its format: "ROOT", "Parquet" or "HDF5".
        tree: The tree that would be read, if one can be chosen.
        layout: "delphes", "nanoaod", "flat" or "declared", if a tree can be chosen.
        collections: Kinds of objects that are there, and what sentences may say of them.
        n_files: How many the path means; a campaign's manifest means several.
        branches: Branches of that tree.
        missing: Branches that the layout asks for and the tree does not have.
        metadata: The record in the file; None for foreign or malformed ones.
        observables: Columns of x that would be read.
        parameters: Theory parameters, with their range over the events kept.
        truth: What travels with the events: theta, weight, score, components, benchmark_weight.
        weights: Rows on weights and benchmark weights of the events kept.
        report: Events read, kept, and dropped by reason; None if the file cannot be read.
        problems: Why `read_events` would refuse the file; empty if it would not.
    """

    path: Path
    size: int
    trees: Mapping[str, int]
    kind: str = "ROOT"
    n_files: int = 1
    tree: str | None = None
    layout: str | None = None
    collections: tuple[tuple[str, str], ...] = ()
    branches: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    metadata: EventMetadata | None = None
    observables: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    truth: tuple[str, ...] = ()
    weights: tuple[tuple[str, str], ...] = ()
    report: SelectionReport | None = None
    problems: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether `read_events` would return a sample."""
        return not self.problems

    def rows(self) -> list[tuple[str, str]]:
        """Return the summary as (name, value) rows of a table."""
        trees = ", ".join(f"{name} ({n:,} events)" for name, n in self.trees.items())
        rows = [
            ("file", str(self.path)),
            *([("files", f"{self.n_files}, the first of them told")] if self.n_files > 1 else []),
            ("size", f"{self.size:,} bytes"),
            ("format", self.kind),
            ("trees", trees),
            ("tree to read", self.tree or "none"),
            ("layout", self.layout or "unknown"),
            *self.collections,
        ]
        rows += metadata_rows(self.metadata)
        rows += [(f"parameter {p.name}", range_of(p)) for p in self.parameters]
        if self.observables:
            rows.append(("observables", f"{len(self.observables)}: {listed(self.observables)}"))
        rows.append(("carries", ", ".join(self.truth) or "no truth"))
        rows += self.weights
        rows += [] if self.report is None else report_rows(self.report)
        if self.missing:
            rows.append(("missing branches", listed(self.missing)))
        if self.problems and self.branches:
            rows.append(("branches", listed(self.branches, most=60)))
        return rows + [("problem", problem) for problem in self.problems]


def inspect_file(
    path: str | PathLike[str],
    *,
    tree: str | None = None,
    observables: Observables | None = None,
    selection: str | Sequence[str] | None = None,
    objects: Mapping[str, str] | None = None,
    layout: str | Layout | Mapping[str, Any] | None = None,
    weight: str | None = None,
    benchmark_weights: str | Benchmarks | None = None,
    theta: Theta | None = None,
    progress: Progress | None = None,
) -> FileSummary:
    """Return what `read_events`, called with the same arguments, finds in a file.

    The whole file is read, so that counts and ranges are those of the events.  Of a campaign (its
    manifest, or its folder) the first file is told, and the events of all.

    Raises:
        EventFileError: The path is not a readable event file with a tree; anything that is
            wrong inside is told in `problems`.
    """
    path = Path(path)
    files = resolve_paths(path)
    asked: dict[str, Any] = {
        "tree": tree,
        "observables": observables if isinstance(observables, str | None) else [*observables],
        "selection": selection,
        "objects": objects,
        "layout": layout,
        "weight": weight,
        "benchmark_weights": benchmark_weights,
    }
    request = replace(ReadingRequest.of(**asked), theta=as_point(theta))
    with open_events(files[0]) as file:
        summary = {
            "path": path,
            "size": sum(one.stat().st_size for one in files),
            "n_files": len(files),
            "trees": dict(file.trees),
            "kind": file.kind,
        }
        record = _record(file)
        summary |= _chosen(file, record, request)
        try:
            plan = plan_reading(file, request)
        except MflowSbiError as error:
            return FileSummary(**summary, metadata=record, problems=(str(error),))
        summary |= _planned(plan, record)
    try:
        sample = read_events(files, **asked, theta=theta, progress=progress)
    except MflowSbiError as error:
        return FileSummary(**summary, problems=(str(error),))
    return FileSummary(**summary | _found(sample))


def _record(file: EventFile) -> EventMetadata | None:
    try:
        return read_metadata(file)
    except MflowSbiError:
        return None  # told among the problems, by plan_reading


def _chosen(file: EventFile, record: EventMetadata | None, request: ReadingRequest) -> dict:
    """Return what is known of the tree, whether or not a plan can be made."""
    try:
        tree = choose_tree(file, record, request)
        layout = choose_layout(record, tree, request)
    except MflowSbiError:
        return {}
    begun = [c for c in layout.collections if any(b in tree.branches for b in c.needed)]
    needed = (branch for objects in begun for branch in objects.needed)
    return {
        "tree": tree.name,
        "layout": layout.name,
        "collections": tuple(_collections(layout, tree)),
        "branches": tree.branches,
        "missing": tuple(branch for branch in needed if branch not in tree.branches),
    }


def _collections(layout: Layout, tree: EventTree) -> list[tuple[str, str]]:
    rows = []
    for objects in layout.found_in(tree.branches):
        further = [name for name in object_columns(objects, tree)]
        text = f"{objects.momentum[0]}, ...; selections may use {listed(further, most=8)}"
        rows.append((f"{objects.symbol}: {objects.name}s", text))
    missing = layout.missing_in(tree.branches)
    if missing is not None:
        rows.append(("met: missing momentum", ", ".join(missing.needed)))
    return rows


def _planned(plan: ReadingPlan, record: EventMetadata | None) -> dict:
    return {
        "metadata": record,
        "observables": plan.metadata.observable_names,
        "parameters": plan.metadata.parameters,
        "truth": plan.carries,
    }


def _found(sample: EventSample) -> dict:
    return {
        "parameters": sample.metadata.parameters,
        "report": sample.report,
        "weights": (*weight_rows(sample), *benchmark_rows(sample.metadata.benchmarks, sample)),
    }
