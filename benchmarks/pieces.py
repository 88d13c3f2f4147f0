"""Pieces of a long benchmark, committed beside its record: each names the commit that measured it.

A benchmark of hours is measured over several days and machines.  Its pieces stay in
`results/<name>_<size>_pieces.json` and are used again until they are measured again; the record
tells the commit of each, and which were measured by code that has changed since.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from record import ROOT, commit_of_the_code

__all__ = ["CommittedPieces"]


class CommittedPieces:
    """Metrics of the pieces finished so far, by name.

    Args:
        path: the file.
        sources: files whose contents, with torch's version, the metrics depend on.
        again: names of pieces to be measured again.

    Attributes:
        code: digest of the sources.
    """

    def __init__(self, path: Path, sources: Sequence[Path], again: Sequence[str] = ()) -> None:
        digest = sha256(torch.__version__.encode())
        for source in sorted(sources):
            digest.update(str(source.relative_to(ROOT)).encode() + source.read_bytes())
        self._path, self.code = path, digest.hexdigest()
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._pieces: dict[str, dict[str, Any]] = {k: v for k, v in kept.items() if k not in again}

    @property
    def sections(self) -> dict[str, Any]:
        """Metrics by name of the piece."""
        return {name: piece["metrics"] for name, piece in self._pieces.items()}

    @property
    def commits(self) -> dict[str, str]:
        """Commit that measured each piece."""
        return {name: piece["commit"] for name, piece in sorted(self._pieces.items())}

    @property
    def of_earlier_code(self) -> list[str]:
        """Pieces measured by code that has changed since."""
        return [name for name, piece in self._pieces.items() if piece["code"] != self.code]

    def keep(self, name: str, metrics: Mapping[str, Any]) -> None:
        """Add a piece and write the file, whole or not at all."""
        self._pieces[name] = {
            "commit": commit_of_the_code(),
            "code": self.code,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": dict(metrics),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        partial.write_text(json.dumps(self._pieces, indent=1, sort_keys=True) + "\n", "utf-8")
        partial.replace(self._path)
