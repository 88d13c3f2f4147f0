"""Opening an event file of whatever format; its first bytes tell which, not its name."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mflow_sbi.errors import EventFileError
from mflow_sbi.events.columns import EventFile
from mflow_sbi.events.hdf5_files import open_hdf5
from mflow_sbi.events.parquet_files import open_parquet
from mflow_sbi.events.root_files import open_root
from mflow_sbi.events.wording import nearest

__all__ = ["FORMATS", "open_events"]

FORMATS: dict[bytes, Callable[[Path], AbstractContextManager[EventFile]]] = {
    b"root": open_root,
    b"PAR1": open_parquet,
    b"\x89HDF": open_hdf5,
}
"""First bytes of a file -> who opens it."""


@contextmanager
def open_events(path: Path) -> Iterator[EventFile]:
    """Open a ROOT, Parquet or HDF5 file for reading, as a context.

    Raises:
        EventFileError: No such file, of no known format, truncated or damaged, or no events in it.
    """
    with _opener(path)(path) as file:
        yield file


def _opener(path: Path) -> Callable[[Path], AbstractContextManager[EventFile]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        folder = path.parent
        siblings = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        msg = f"{path} {what}; expected a ROOT file.{nearest(path.name, siblings)}"
        raise EventFileError(msg)
    try:
        with path.open("rb") as stream:
            header = stream.read(4)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); expected a readable ROOT file."
        raise EventFileError(msg) from error
    if not header:
        msg = f"{path} is an empty file (0 bytes); expected a ROOT file. Write or copy it again."
        raise EventFileError(msg)
    if header not in FORMATS:
        msg = (
            f"{path} is not a ROOT file (it starts with {header!r}, expected b'root'), nor "
            "Parquet or HDF5. Convert it to a TTree, or check the path."
        )
        raise EventFileError(msg)
    return FORMATS[header]
