"""The manifest of a campaign: the files of one simulation that was cut into shards.

    {"format": "mflow_sbi.campaign", "format_version": 1,
     "command": ["wbf", "--theta-prior", "normal"], "events": 1000000, "seed": 1, "n_shards": 64,
     "shards": [{"file": "shard_0000.root", "events": 15625, "size": 4893112, "sha256": "a0...",
                 ...}, ...], ...}

`shards` are the finished ones, named relative to the manifest's folder; there are `n_shards` of
them when the campaign is complete.  `events` are those simulated; where the simulator selects, the
files have fewer.  What else is in it is for who wrote it (`python -m
simulators.campaign`).  Sizes and sha256 are those of the bytes, and are checked at every reading.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from mflow_sbi.errors import EventFileError, MetadataError

__all__ = ["MANIFEST", "is_manifest", "read_manifest"]

MANIFEST = "manifest.json"
FORMAT = "mflow_sbi.campaign"
FORMAT_VERSION = 1
_AGAIN = "run the campaign's command again: it verifies all shards and makes what is missing"
_SHOWN = 3


@dataclass(frozen=True)
class _Shard:
    file: str
    events: int
    size: int
    sha256: str


def is_manifest(path: str | PathLike[str]) -> bool:
    """Return whether a path means a manifest: a file *.json, or a folder with manifest.json."""
    path = Path(path)
    return (path / MANIFEST).is_file() if path.is_dir() else path.suffix == ".json"


def read_manifest(path: str | PathLike[str], *, incomplete: bool = False) -> list[Path]:
    """Return the files of a campaign, in order, each checked against its size and sha256.

    Args:
        path: The manifest, or the campaign's folder.
        incomplete: Take what is there where shards are missing from the manifest.

    Raises:
        MetadataError: No manifest, or one that is malformed or of another version.
        EventFileError: A campaign that is not complete, a shard that is not there or that changed
            since its digest.
    """
    path = Path(path)
    path = path / MANIFEST if path.is_dir() else path
    values = _read(path)
    shards, n_shards = _shards(values, path), _whole(values, "n_shards", path)
    if len(shards) != n_shards and not (incomplete and shards):
        choice = f", or name its files ({path.parent / 'shard_*.root'}) to read what is there"
        message = (
            f"{path}: the campaign has {len(shards)} of {n_shards} shards"
            f"{_failures(values)}; {_AGAIN}{choice}."
        )
        raise EventFileError(message)
    total = sum(shard.events for shard in shards)
    if len(shards) == n_shards and total != _whole(values, "events", path):
        message = (
            f"{path}: 'events' is {values['events']}, but those of the shards are {total}; "
            f"{_AGAIN}."
        )
        raise MetadataError(message)
    files = [path.parent / shard.file for shard in shards]
    for file, shard in zip(files, shards, strict=True):
        _check(file, shard, path)
    return files


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); expected a campaign's manifest."
        raise EventFileError(message) from error
    except ValueError as error:
        message = f"{path}: not readable JSON ({error}); it was cut or altered: {_AGAIN}."
        raise MetadataError(message) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        message = (
            f"{path}: expected a campaign's manifest ('format': {FORMAT!r}); name ROOT files, a "
            "pattern, or the manifest that `python -m simulators.campaign` writes."
        )
        raise MetadataError(message)
    if values.get("format_version") != FORMAT_VERSION:
        message = (
            f"{path}: is a manifest of version {values.get('format_version')!r}, this package "
            f"reads version {FORMAT_VERSION}; take matching versions of simulators and package."
        )
        raise MetadataError(message)
    return values


def _whole(values: Mapping[str, Any], key: str, path: Path) -> int:
    value = values.get(key)
    if type(value) is not int or value < 1:
        message = f"{path}: {key!r}: expected a whole number >= 1, got {value!r}; {_AGAIN}."
        raise MetadataError(message)
    return value


def _shards(values: Mapping[str, Any], path: Path) -> list[_Shard]:
    listed = values.get("shards")
    if not isinstance(listed, list):
        message = f"{path}: 'shards': expected a list, got {type(listed).__name__}; {_AGAIN}."
        raise MetadataError(message)
    shards = [_shard(one, f"shards[{k}]", path) for k, one in enumerate(listed)]
    names = [shard.file for shard in shards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{path}: {twice[0]} is listed twice; its events would count twice; {_AGAIN}."
        raise MetadataError(message)
    return shards


def _shard(values: object, where: str, path: Path) -> _Shard:
    expected = {"file": str, "events": int, "size": int, "sha256": str}
    if not isinstance(values, dict) or any(
        type(values.get(key)) is not kind for key, kind in expected.items()
    ):
        words = ", ".join(f"{key} ({kind.__name__})" for key, kind in expected.items())
        message = f"{path}: {where}: expected {words}, got {values!r}; {_AGAIN}."
        raise MetadataError(message)
    if Path(values["file"]).name != values["file"]:
        message = (
            f"{path}: {where}: expected the name of a file beside the manifest, got "
            f"{values['file']!r}; keep a campaign in one folder."
        )
        raise MetadataError(message)
    return _Shard(**{key: values[key] for key in expected})


def _failures(values: Mapping[str, Any]) -> str:
    failures = values.get("failures")
    if not isinstance(failures, dict) or not failures:
        return ""
    shown: Sequence[str] = [str(name) for name in failures][:_SHOWN]
    more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    return f" ({', '.join(shown)}{more} failed)"


def _check(file: Path, shard: _Shard, path: Path) -> None:
    if not file.is_file():
        message = f"{file}: is not there, but listed in {path}; {_AGAIN}."
        raise EventFileError(message)
    with file.open("rb") as opened:
        same = file.stat().st_size == shard.size and (
            hashlib.file_digest(opened, "sha256").hexdigest() == shard.sha256
        )
    if not same:
        message = f"{file}: changed since its digest in {path} was taken; {_AGAIN}."
        raise EventFileError(message)
