"""The door to Parquet files: one table of numbers, lists of numbers, and lists of records.

Only this room knows pyarrow (`pip install "mflow_sbi[parquet]"`). A field of a list of records is
a branch "Photon.PT"; the record of metadata stands in the schema under the key `mflow_sbi`. Row
groups are read whole: write them no larger than what should be in memory at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from mflow_sbi.errors import EventFileError
from mflow_sbi.events.columns import EventFile, EventTree, damage_named
from mflow_sbi.events.metadata import EventMetadata

__all__ = ["open_parquet"]

_METADATA_KEY = b"mflow_sbi"
_TABLE = "table"


@contextmanager
def open_parquet(path: Path) -> Iterator[EventFile]:
    """Open a Parquet file for reading, as a context.

    Raises:
        EventFileError: pyarrow is not installed; the file is truncated or damaged.
    """
    parquet = _pyarrow_parquet(path)
    with damage_named(path, "its footer"):
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    with file:
        yield EventFile(
            path,
            kind="Parquet",
            trees={_TABLE: int(file.metadata.num_rows)},
            read_record=lambda: _record(path, file),
            open_tree=lambda _: _tree(path, file),
            named=False,
        )


def _pyarrow_parquet(path: Path) -> Any:  # noqa: ANN401
    try:
        import pyarrow.parquet
    except ImportError as error:
        msg = f'{path} is a Parquet file, read by pyarrow: pip install "mflow_sbi[parquet]".'
        raise EventFileError(msg) from error
    return pyarrow.parquet


def _record(path: Path, file: Any) -> EventMetadata | None:  # noqa: ANN401
    with damage_named(path, "its metadata"):
        text = (file.schema_arrow.metadata or {}).get(_METADATA_KEY)
        return None if text is None else EventMetadata.from_json(text.decode())


def _tree(path: Path, file: Any) -> EventTree:  # noqa: ANN401
    fields = dict(_fields(file.schema_arrow))
    groups = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    ends = np.cumsum([0, *groups])
    leaves = [file.schema.column(k).path for k in range(len(file.schema))]

    def leaf(branch: str) -> list[str]:
        """Return the path of a field of records, with the writer's names of lists between."""
        column, field = fields[branch]
        begun = (path for path in leaves if path.startswith(f"{column}."))
        return [path for path in begun if path.endswith(f".{field}")]

    def read(branch: str, start: int, stop: int) -> ak.Array:
        column, field = fields[branch]
        first, last = np.searchsorted(ends, (start, max(start, stop - 1)), side="right") - 1
        wanted = list(range(first, min(last, len(groups) - 1) + 1))
        table = file.read_row_groups(wanted, columns=[column] if field is None else leaf(branch))
        rows = table.slice(start - int(ends[first]), stop - start)
        array = ak.from_arrow(rows[column])
        array = array if field is None else array[field]
        return ak.fill_none(array, np.nan, axis=None)  # pyright: ignore[reportArgumentType]

    return EventTree(path, _TABLE, int(ends[-1]), tuple(fields), read)


def _fields(schema: Any) -> Iterator[tuple[str, tuple[str, str | None]]]:  # noqa: ANN401
    """Yield branch -> (column, field of its records)."""
    for column in schema:
        inner = getattr(column.type, "value_type", column.type)
        n_fields = getattr(inner, "num_fields", 0)
        if str(inner).startswith("struct"):
            for k in range(n_fields):
                name = inner.field(k).name
                yield f"{column.name}.{name}", (column.name, name)
        else:
            yield column.name, (column.name, None)
