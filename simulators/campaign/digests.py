r"""Digests of event files: of their contents, and of their bytes.

ROOT keeps time stamps in every key, so equal events made twice differ in bytes.  The content
digest is sha256 over what a reader gets, objects by name: of a TTree each branch by name as

    name, counts of the lists level by level (int64), flat values with their type, little-endian,

and of a TObjString its text.
"""

import hashlib
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from simulators.errors import OutputError

__all__ = ["byte_digest", "content_digest"]


def byte_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return the sha256 of the arrays and records of an event file, in hexadecimal.

    Raises:
        OutputError: The file is no readable ROOT file, or holds other objects than trees and text.
    """
    digest = hashlib.sha256()
    try:
        opened: Any = uproot.open(path)
        with opened as file:
            for name in sorted(file.keys(cycle=False)):
                digest.update(f"object {name}\n".encode())
                _feed_object(digest, path, name, file[name])
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        what = " ".join(str(error).split())[:200]
        msg = f"{path}: cannot be read back ({type(error).__name__}: {what}); make it again"
        raise OutputError(msg) from error
    return digest.hexdigest()


def _feed_object(digest: Any, path: Path, name: str, thing: Any) -> None:  # noqa: ANN401
    if isinstance(thing, str):  # uproot's TObjString
        digest.update(str(thing).encode())
        return
    if not isinstance(thing, uproot.TTree):
        msg = f"{path}: {name!r} is a {type(thing).__name__}; expected trees and text alone"
        raise OutputError(msg)
    leaves = {branch.name: branch for branch in thing.itervalues() if not branch.branches}
    for leaf, branch in sorted(leaves.items()):
        digest.update(f"branch {leaf}\n".encode())
        _feed_array(digest, branch.array(library="ak"))


def _feed_array(digest: Any, array: ak.Array) -> None:  # noqa: ANN401
    while array.ndim > 1:
        counts = ak.to_numpy(ak.num(array, axis=1)).astype("<i8")
        digest.update(b"counts\n" + counts.tobytes())
        array = ak.flatten(array, axis=1)
    values = np.asarray(ak.to_numpy(array))
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    digest.update(f"values {values.dtype.str}\n".encode() + values.tobytes())
