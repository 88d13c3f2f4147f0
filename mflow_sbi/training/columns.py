"""Columns of events in files: written in parts, read in ranges of rows, never whole.

Each is one `.npy` file, which `numpy.load` opens as well.  Rows are read by plain reads, not by a
memory map: what was read stays in the system's cache, where it does not count as this process's
memory and is given up when memory is short.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

__all__ = ["Column", "ColumnWriter"]


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header, whose length is the same for any number of rows."""
    description = npy.dtype_to_descr(dtype)
    record = {"descr": description, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, record)


@dataclass(frozen=True)
class Column:
    """Rows in a file.

    Args:
        path: of the file.
        shape: (rows, numbers of each...).
        dtype: of the numbers.
        offset: bytes before the first row.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @classmethod
    def open(cls, path: Path) -> "Column":
        """Return the column in a file."""
        with path.open("rb") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            return cls(path, shape, dtype, file.tell())

    @classmethod
    def empty(cls, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> "Column":
        """Return a new column whose rows are yet to be written."""
        with path.open("wb") as file:
            _write_header(file, np.dtype(dtype), shape)
            offset = file.tell()
            file.truncate(offset + int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return cls(path, shape, np.dtype(dtype), offset)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows from start to stop."""
        n = (stop - start) * self.row_bytes // self.dtype.itemsize
        place = self.offset + start * self.row_bytes
        rows = np.fromfile(self.path, self.dtype, count=n, offset=place)
        return rows.reshape(stop - start, *self.shape[1:])

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Write rows in their place, the first at start."""
        with self.path.open("r+b") as file:
            file.seek(self.offset + start * self.row_bytes)
            file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())


class ColumnWriter:
    """Rows appended to a file beside its place, which is renamed there when all are written."""

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.path = path
        self._shape = row_shape
        self._dtype = np.dtype(dtype)
        self._rows = 0
        self._beside = path.with_name(path.name + ".part")
        self._file = self._beside.open("wb")
        _write_header(self._file, self._dtype, (0, *row_shape))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            self._file.seek(0)
            _write_header(self._file, self._dtype, (self._rows, *self._shape))
        if kind is None:
            self._beside.replace(self.path)
        else:
            self._beside.unlink()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows after those before."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._rows += len(rows)
