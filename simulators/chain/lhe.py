"""Les Houches event files: written in one go from arrays, read and checked by pylhe.

Format: arXiv:hep-ph/0609017, version 3 (named weights in `<rwgt>`) arXiv:1405.1067.
"""

import gzip
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pylhe
from numpy.typing import NDArray

from simulators.chain.text_files import ends_of, open_text, opened
from simulators.errors import InputFileError

__all__ = ["LheEvents", "LheSummary", "accepting_all", "scan_lhe", "write_lhe"]

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

AS_THEY_COME = "-4"
"""Weighting strategy with which every event is used, whatever its weight."""


_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeWarning,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class LheEvents:
    """N events of n particles each.

    Attributes:
        pid: Particle numbers, (N, n).
        status: -1 incoming, 1 outgoing, (n,).
        mothers: First and last mother, counted from 1, (n, 2).
        colours: Colour and anticolour tags, (N, n, 2).
        momenta: (E, px, py, pz), (N, n, 4), GeV.
        mass: (n,), GeV.
        scale: Largest scale of the shower, GeV.
        cross_section: Of the sample and its error, pb.
        beam_energy: Of either proton, GeV.
        weights: Name -> (N,).
        descriptions: Name of a weight -> what it is.
        comments: One line for every event, or none at all.
    """

    pid: Numbers
    status: Numbers
    mothers: Numbers
    colours: Numbers
    momenta: Array
    mass: Array
    scale: float
    cross_section: tuple[float, float]
    beam_energy: float
    weights: dict[str, Array]
    descriptions: dict[str, str]
    comments: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pid)


def write_lhe(path: Path, events: LheEvents) -> None:
    """Write events of weight 1 to `path`, compressed if its name ends in .gz.

    The file is written beside and then renamed.
    """
    partial = path.with_name(f".{path.name}.part")
    compress = path.suffix == ".gz"
    try:
        with gzip.open(partial, "wt", 6) if compress else partial.open("w") as file:
            _write(file, events)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: Any, events: LheEvents) -> None:  # noqa: ANN401 - plain or compressed text
    value, error = events.cross_section
    file.write('<LesHouchesEvents version="3.0">\n<header>\n<initrwgt>\n')
    file.write('<weightgroup name="morphing" combine="none">\n')
    for name in events.weights:
        file.write(f'<weight id="{name}"> {events.descriptions[name]} </weight>\n')
    file.write("</weightgroup>\n</initrwgt>\n</header>\n<init>\n")
    energy = f"{events.beam_energy:.7e}"
    file.write(f"2212 2212 {energy} {energy} 0 0 247000 247000 3 1\n")
    file.write(f"{value:.9e} {error:.9e} 1.0 1\n</init>\n")
    template = _template(events)
    columns = _columns(events)
    comments = events.comments or [""] * len(events)
    for row, comment in zip(columns, comments, strict=True):
        file.write(template % (*row, comment and f"# {comment}\n"))
    file.write("</LesHouchesEvents>\n")


def _template(events: LheEvents) -> str:
    n = events.pid.shape[1]
    lines = [f"<event>\n{n} 1 1.0 {events.scale:.8e} 7.8186e-03 1.3000e-01\n"]
    for status, (first, last), mass in zip(
        events.status, events.mothers, events.mass, strict=True
    ):
        fixed = f"{status:d} {first:d} {last:d}"
        lines.append(f"%d {fixed} %d %d %.11e %.11e %.11e %.11e {mass:.11e} 0.0 9.0\n")
    lines.append("<rwgt>\n")
    lines += [f"<wgt id='{name}'> %.11e </wgt>\n" for name in events.weights]
    lines.append("</rwgt>\n%s</event>\n")
    return "".join(lines)


def _columns(events: LheEvents) -> Iterator[list[float]]:
    """Numbers of every event in the order of the template."""
    particle = np.concatenate(
        [events.pid[..., None], events.colours, events.momenta[..., [1, 2, 3, 0]]], axis=-1
    )
    rows = particle.reshape(len(events), -1)
    weights = np.stack(list(events.weights.values()), axis=1)
    return iter(np.concatenate([rows, weights], axis=1).tolist())


@dataclass(frozen=True)
class LheSummary:
    """What a user's LHE file holds beside its particles.

    Attributes:
        weight: Weight of every event (XWGTUP), (N,).
        weights: Named weights of `<rwgt>` or `<weights>`, (N, K).
        names: Their K names.
    """

    weight: Array
    weights: Array
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.weight)


def scan_lhe(path: Path) -> LheSummary:
    """Read an LHE file, plain or compressed, from end to end, and check it.

    Raises:
        InputFileError: No such file, not LHE, truncated, without events, with numbers that are
            not finite, or with other weights in some events than in the first.
    """
    _require_end(path)
    weight: list[float] = []
    rows: list[list[float]] = []
    names: tuple[str, ...] = ()
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pylhe warns and stops at broken XML
        for number, event in enumerate(_events(path, file)):
            found = tuple(event.weights)
            names = names if number else found
            if found != names:
                msg = (
                    f"{path}: event {number} has {len(found)} named weights, the first has "
                    f"{len(names)}; expected the same weights in all events"
                )
                raise InputFileError(msg)
            if not all(math.isfinite(p.px + p.py + p.pz + p.e) for p in event.particles):
                msg = f"{path}: event {number} has momenta that are not finite; make them again"
                raise InputFileError(msg)
            weight.append(event.eventinfo.weight)
            rows.append(list(event.weights.values()))
    if not weight:
        msg = f"{path}: no <event> in the file; expected a Les Houches event file with events"
        raise InputFileError(msg)
    table = np.array(rows, dtype=np.float64).reshape(len(weight), len(names))
    values = np.array(weight, dtype=np.float64)
    if not (np.isfinite(values).all() and np.isfinite(table).all()):
        msg = f"{path}: weights that are not finite; expected numbers, make the events again"
        raise InputFileError(msg)
    return LheSummary(values, table, names)


def _events(path: Path, file: Any) -> Iterator[Any]:  # noqa: ANN401 - pylhe's own classes
    """Events of an open file; whatever pylhe meets in a damaged one is an `InputFileError`."""
    number = 0
    try:
        for event in pylhe.LHEFile.frombuffer(file).events:
            yield event
            number += 1
    except _DAMAGE as e:
        reason = str(e).splitlines()[0] if str(e) else "no message"
        msg = (
            f"{path}: event {number} cannot be read ({type(e).__name__}: {reason}); expected a "
            "complete Les Houches event file, write or copy it again"
        )
        raise InputFileError(msg) from e


def _require_end(path: Path) -> None:
    """Refuse a file that does not begin and end as an LHE file."""
    first, last = ends_of(path, "a Les Houches event file")
    if not any("<LesHouchesEvents" in line for line in first):
        start = first[0][:40] if first else ""
        msg = f"{path} is no LHE file: it starts with {start!r}, expected <LesHouchesEvents>"
        raise InputFileError(msg)
    if "</LesHouchesEvents>" not in last:
        msg = f"{path} is truncated: </LesHouchesEvents> is missing at its end; copy it again"
        raise InputFileError(msg)


@contextmanager
def accepting_all(path: Path) -> Iterator[Path]:
    """A temporary, uncompressed copy of an LHE file of which Pythia takes every event.

    Weighting strategies 1 and 2 have Pythia accept events by their weights; the copy announces
    strategy -4, so that event i of the file stays event i and keeps its weight.

    Raises:
        InputFileError: There is no `<init>` block.
    """
    with TemporaryDirectory(prefix="mflow_sbi.") as folder:
        copy = Path(folder) / "events.lhe"
        with open_text(path) as lines, copy.open("w", encoding="utf-8") as target:
            for line in lines:
                target.write(line)
                if re.match(r"\s*<init[\s>]", line):
                    break
            else:
                msg = f"{path}: no <init> block; expected a Les Houches event file"
                raise InputFileError(msg)
            target.write(_with_strategy(path, next(lines, "")))
            target.writelines(lines)
        yield copy


def _with_strategy(path: Path, line: str) -> str:
    """The first line of `<init>` with its ninth number, the weighting strategy, replaced."""
    numbers = line.split()
    if len(numbers) != 10:
        msg = f"{path}: the first line of <init> has {len(numbers)} numbers, expected 10"
        raise InputFileError(msg)
    numbers[8] = AS_THEY_COME
    return " ".join(numbers) + "\n"
