"""`inspect_file`: what is in a ROOT file, what would be read, and what stands in the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events.layouts import LAYOUTS, recognise
from mflow_sbi.events.metadata import EventMetadata, Parameter
from mflow_sbi.events.observables import Observable
from mflow_sbi.events.plan import (
    ReadingPlan,
    ReadingRequest,
    choose_tree,
    plan_reading,
    read_metadata,
)
from mflow_sbi.events.reading import Progress, read_events
from mflow_sbi.events.root_files import EventFile, open_events
from mflow_sbi.events.sample import EventSample, SelectionReport
from mflow_sbi.events.wording import listed

__all__ = ["FileSummary", "inspect_file"]


@dataclass(frozen=True)
class FileSummary:
    """What `read_events` finds in one file.

    Attributes:
        path: The file.
        size: Its length in bytes.
        trees: TTrees and their entries.
        tree: The tree that would be read, if one can be chosen.
        layout: "delphes" or "flat", if a tree can be chosen.
        branches: Branches of that tree.
        missing: Branches that the layout asks for and the tree does not have.
        metadata: The record in the file; None for foreign or malformed ones.
        observables: Columns of x that would be read.
        parameters: Theory parameters, with their range over the events kept.
        truth: What travels with the events: theta, weight, score, components.
        report: Events read, kept, and dropped by reason; None if the file cannot be read.
        problems: Why `read_events` would refuse the file; empty if it would not.
    """

    path: Path
    size: int
    trees: Mapping[str, int]
    tree: str | None = None
    layout: str | None = None
    branches: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    metadata: EventMetadata | None = None
    observables: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    truth: tuple[str, ...] = ()
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
            ("size", f"{self.size:,} bytes"),
            ("trees", trees),
            ("tree to read", self.tree or "none"),
            ("layout", self.layout or "unknown"),
        ]
        rows += _metadata_rows(self.metadata)
        rows += [(f"parameter {p.name}", _range(p)) for p in self.parameters]
        if self.observables:
            rows.append(("observables", f"{len(self.observables)}: {listed(self.observables)}"))
        rows.append(("carries", ", ".join(self.truth) or "no truth"))
        if self.report is not None:
            rows += [
                ("events read", f"{self.report.n_read:,}"),
                ("events kept", f"{self.report.n_kept:,}"),
            ]
            rows += [(f"dropped: {why}", f"{n:,}") for why, n in self.report.dropped.items()]
        if self.missing:
            rows.append(("missing branches", listed(self.missing)))
        if self.problems and self.branches:
            rows.append(("branches", listed(self.branches, most=60)))
        return rows + [("problem", problem) for problem in self.problems]


def inspect_file(
    path: str | PathLike[str],
    *,
    tree: str | None = None,
    observables: Iterable[str | Observable] | None = None,
    selection: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> FileSummary:
    """Return what `read_events`, called with the same arguments, finds in a file.

    The whole file is read, so that counts and ranges are those of the events.

    Raises:
        EventFileError: The path is not a readable ROOT file with a TTree; anything that is
            wrong inside is told in `problems`.
    """
    path = Path(path)
    request = ReadingRequest.of(tree=tree, observables=observables, selection=selection)
    with open_events(path) as file:
        summary = {"path": path, "size": path.stat().st_size, "trees": dict(file.trees)}
        record = _record(file)
        try:
            plan = plan_reading(file, request)
        except MflowSbiError as error:
            summary |= _chosen(file, record, tree)
            return FileSummary(**summary, metadata=record, problems=(str(error),))
        summary |= _planned(plan, record)
    try:
        sample = read_events(
            path,
            tree=request.tree,
            observables=request.observables,
            selection=request.selections,
            progress=progress,
        )
    except MflowSbiError as error:
        return FileSummary(**summary, problems=(str(error),))
    return FileSummary(**summary | _found(sample))


def _record(file: EventFile) -> EventMetadata | None:
    try:
        return read_metadata(file)
    except MflowSbiError:
        return None  # told among the problems, by plan_reading


def _chosen(file: EventFile, record: EventMetadata | None, tree: str | None) -> dict:
    """Return what is known of the tree where no plan can be made."""
    try:
        chosen = choose_tree(file, record, tree)
    except MflowSbiError:
        return {}
    layout = LAYOUTS[record.layout] if record else recognise(chosen.name, chosen.branches)
    needed = (branch for objects in layout.collections for branch in objects.needed)
    return {
        "tree": chosen.name,
        "layout": layout.name,
        "branches": chosen.branches,
        "missing": tuple(branch for branch in needed if branch not in chosen.branches),
    }


def _planned(plan: ReadingPlan, record: EventMetadata | None) -> dict:
    return {
        "tree": plan.tree.name,
        "layout": plan.layout.name,
        "branches": plan.tree.branches,
        "metadata": record,
        "observables": plan.metadata.observable_names,
        "parameters": plan.metadata.parameters,
        "truth": plan.carries,
    }


def _found(sample: EventSample) -> dict:
    return {"parameters": sample.metadata.parameters, "report": sample.report}


def _range(parameter: Parameter) -> str:
    unit = "" if parameter.unit == "1" else f" {parameter.unit}"
    about = f"  ({parameter.description})" if parameter.description else ""
    if parameter.low is None or parameter.high is None:
        return f"range unknown{about}"
    return f"{parameter.low:.4g} .. {parameter.high:.4g}{unit}{about}"


def _metadata_rows(record: EventMetadata | None) -> list[tuple[str, str]]:
    if record is None:
        return [("metadata", "no readable record (a file of another program?)")]
    rows = [("process", record.process)]
    if record.simulator is not None:
        settings = ", ".join(f"{key}={value}" for key, value in record.simulator.settings.items())
        name = f"{record.simulator.name} {record.simulator.version}".strip()
        rows.append(("simulator", f"{name} ({settings})" if settings else name))
    rows += [("command", record.command)] if record.command else []
    rows += [("seed", str(record.seed))] if record.seed is not None else []
    if record.theta_sampling is not None:
        parts = [
            f"{key} {value}"
            for key, value in vars(record.theta_sampling).items()
            if value is not None and key != "kind"
        ]
        rows.append(("theta sampling", f"{record.theta_sampling.kind}: {', '.join(parts)}"))
    if record.morphing is not None:
        rows.append(
            ("likelihood", f"{record.morphing.likelihood}, {len(record.morphing.exponents)} terms")
        )
    return rows
