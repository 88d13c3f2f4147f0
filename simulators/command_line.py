"""What commands of the simulators share: the parser, kinds of numbers, the progress bar."""

import argparse
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import Progress

from simulators.errors import InvalidRequest, OutputError

__all__ = [
    "Parser",
    "canonical",
    "check_folder",
    "finite",
    "natural",
    "not_negative",
    "positive",
    "progress_bar",
    "replace",
]


FILE_OPTIONS = ("--out", "--keep-lhe", "--lhe", "--hepmc")
"""Options whose values are files."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        # argparse takes -1e-3 for an option before Python 3.14.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

    def error(self, message: str) -> NoReturn:
        """Refuse a command line in one line."""
        msg = f"{message}; see '{self.prog} --help'"
        raise InvalidRequest(msg)


def finite(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"expected a finite number, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def not_negative(text: str) -> float:
    """A finite number >= 0."""
    if (value := finite(text)) < 0:
        msg = f"expected a number >= 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def natural(text: str) -> int:
    """An integer >= 0."""
    if not text.isascii() or not text.isdigit():
        msg = f"expected an integer >= 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def positive(text: str) -> int:
    """An integer >= 1."""
    if not natural(text):
        msg = "expected an integer >= 1, got 0"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def check_folder(path: Path) -> None:
    """Refuse before the work what would fail after it."""
    if path.is_dir():
        msg = f"{path} is a folder; give the name of a file"
        raise OutputError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"the folder {path.parent} does not exist; make it or choose another"
        raise OutputError(msg)


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside, then rename to `path`."""
    partial = path.with_name(f".{path.name}.part")
    write(partial)
    partial.replace(path)


def canonical(words: list[str]) -> str:
    """The command line with folders of files left out: the same for the same events."""
    parts = list(words)
    for i, word in enumerate(parts):
        name, equals, path = word.partition("=")
        if equals and name in FILE_OPTIONS:
            parts[i] = f"{name}={Path(path).name}"
        elif i and parts[i - 1] in FILE_OPTIONS:
            parts[i] = Path(word).name
    return shlex.join(["python", "-m", "simulators", *parts])


class progress_bar:  # noqa: N801 - reads as a function where it is used
    """A bar on stderr that is driven by a (done, total) callback."""

    def __init__(self, label: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._progress.start()
        return self._update

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def _update(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
