"""The manifest of a campaign: what was asked for, which shards there are, and their digests.

    {"format": "mflow_sbi.campaign", "format_version": 1,
     "command": ["wbf", "--theta-prior", "normal"], "events": 1000000, "seed": 1, "n_shards": 64,
     "versions": {"simulators": "0.1.0", "numpy": "2.3.1", ...},
     "shards": [{"file": "shard_0000.root", "events": 15625, "seed": 5130, "digest": "3f...",
                 "size": 4893112, "sha256": "a0...",
                 "made": {"seconds": 21.3, "machine": "node7", "attempts": 1}}, ...],
     "failures": {"shard_0007.root": "why"}}

`shards` are the finished ones, in order: a campaign is complete when they are `n_shards`.  Their
`events` are those simulated: where a simulator selects, the file has fewer.
`digest` is of the content, size and `sha256` of the bytes.  Apart from `made` and `sha256` (ROOT
keeps time stamps) the manifest depends on nothing but the campaign.  It is written beside its
name and renamed after every shard.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version_tuple
from typing import Any

from simulators import __version__
from simulators.campaign.digests import byte_digest
from simulators.campaign.plan import Campaign, Shard
from simulators.errors import OutputError

__all__ = ["MANIFEST", "Made", "Manifest", "ShardRecord", "read_manifest", "versions"]

MANIFEST = "manifest.json"
FORMAT = "mflow_sbi.campaign"
FORMAT_VERSION = 1
_LIBRARIES = ("numpy", "uproot", "awkward", "pythia8mc", "fastjet")


@dataclass(frozen=True)
class Made:
    """How a shard came to be: seconds it took, on which machine, at which attempt."""

    seconds: float
    machine: str
    attempts: int = 1


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        file: Its name in the folder.
        events: How many were simulated.
        seed: It was made with.
        digest: sha256 of its content.
        size: In bytes.
        sha256: Of its bytes.
        made: How.
    """

    file: str
    events: int
    seed: int
    digest: str
    size: int
    sha256: str
    made: Made

    def is_in(self, folder: Path) -> bool:
        """Return whether the file in the folder is still that shard, byte for byte."""
        path = folder / self.file
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        return byte_digest(path) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """What a campaign has so far.

    Attributes:
        campaign: What was asked for.
        versions: Of the software that makes the shards.
        records: Of the finished shards, by file.
        failures: Why shards failed, by file.
    """

    campaign: Campaign
    versions: Mapping[str, str]
    records: Mapping[str, ShardRecord] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[Shard, ...]:
        """The shards that are not finished."""
        return tuple(s for s in self.campaign.shards if s.file not in self.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON-ready values."""
        finished = [self.records.get(shard.file) for shard in self.campaign.shards]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "command": list(self.campaign.command),
            "events": self.campaign.events,
            "seed": self.campaign.seed,
            "n_shards": self.campaign.n_shards,
            "versions": dict(self.versions),
            "shards": [asdict(record) for record in finished if record is not None],
            "failures": dict(sorted(self.failures.items())),
        }

    def write(self, folder: Path) -> None:
        """Write it beside its place in the folder, then rename it there.

        Raises:
            OutputError: The folder cannot be written to.
        """
        partial = folder / f".{MANIFEST}.part"
        try:
            partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            partial.replace(folder / MANIFEST)
        except OSError as error:
            msg = f"cannot write {folder / MANIFEST}: {error.strerror}; choose another folder"
            raise OutputError(msg) from error


def versions() -> dict[str, str]:
    """Return the versions of what makes events here, of those libraries that are installed."""
    found = {"simulators": __version__, "python": ".".join(python_version_tuple()[:2])}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a folder, None if there is none.

    Raises:
        OutputError: It is cut, altered, or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (values["format"], values["format_version"]) != (FORMAT, FORMAT_VERSION):
            msg = f"{path}: is no manifest of a campaign of version {FORMAT_VERSION}"
            raise OutputError(msg)
        campaign = Campaign(
            tuple(values["command"]), values["events"], values["seed"], values["n_shards"]
        )
        records = [ShardRecord(**{**s, "made": Made(**s["made"])}) for s in values["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path}: unreadable ({error}); remove it to begin the campaign again"
        raise OutputError(msg) from error
    planned = {(s.file, s.events, s.seed) for s in campaign.shards}
    stray = [r.file for r in records if (r.file, r.events, r.seed) not in planned]
    if stray:
        msg = f"{path}: {stray[0]} is no shard of this campaign; the manifest was altered"
        raise OutputError(msg)
    by_file = {record.file: record for record in records}
    return Manifest(campaign, values["versions"], by_file, values.get("failures", {}))
