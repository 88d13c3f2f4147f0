"""Reading event files: from ROOT branches to observables, with the truth that travels along."""

from mflow_sbi.events.chunks import EventChunks, open_chunks
from mflow_sbi.events.inspection import FileSummary, inspect_file
from mflow_sbi.events.layouts import (
    DELPHES,
    FLAT,
    NANOAOD,
    Layout,
    MissingBranches,
    ObjectBranches,
)
from mflow_sbi.events.metadata import (
    Benchmarks,
    EventMetadata,
    Morphing,
    Parameter,
    Simulator,
    ThetaSampling,
)
from mflow_sbi.events.observables import (
    CLOSURE_TERMS,
    WBF_OBSERVABLES,
    Observable,
    closure,
    closure_violations,
    compute,
)
from mflow_sbi.events.reading import read_events
from mflow_sbi.events.sample import EventSample, SelectionReport, concatenate
from mflow_sbi.events.sources import EventSource
from mflow_sbi.events.standardize import Standardizer

__all__ = [
    "CLOSURE_TERMS",
    "DELPHES",
    "FLAT",
    "NANOAOD",
    "WBF_OBSERVABLES",
    "Benchmarks",
    "EventChunks",
    "EventMetadata",
    "EventSample",
    "EventSource",
    "FileSummary",
    "Layout",
    "MissingBranches",
    "Morphing",
    "ObjectBranches",
    "Observable",
    "Parameter",
    "SelectionReport",
    "Simulator",
    "Standardizer",
    "ThetaSampling",
    "closure",
    "closure_violations",
    "compute",
    "concatenate",
    "inspect_file",
    "open_chunks",
    "read_events",
]
