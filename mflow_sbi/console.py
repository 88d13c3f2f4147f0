"""What a person sees at the terminal: progress bars and tables.  The only rich door."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

__all__ = ["Terminal"]

WIDTH_OF_FILES = 160


class Terminal:
    """Reports to the terminal: a bar for each task, one line when it is done."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out = Console(highlight=False, width=WIDTH_OF_FILES)
        self._err = Console(stderr=True, highlight=False)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar for a block of work; yields the callback (done, total)."""
        began = time.perf_counter()
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        quiet = not self._err.is_terminal
        with Progress(*columns, console=self._err, transient=True, disable=quiet) as progress:
            handle = progress.add_task(title, total=None)

            def callback(done: int, total: int) -> None:
                progress.update(handle, completed=done, total=total)

            yield callback
        self._err.print(f"  [green]done[/] {title} [dim]({time.perf_counter() - began:.1f} s)")

    def say(self, text: str) -> None:
        """Print one line of text."""
        self._out.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print one line that asks for attention, on the error stream."""
        self._err.print(f"warning: {text}", style="yellow", markup=False)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; numbers to the right, the first column and lists of two to the left."""
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(header):
            table.add_column(name, justify="left" if index == 0 or len(header) == 2 else "right")
        for row in rows:
            table.add_row(*row)
        self._out.print(table)
