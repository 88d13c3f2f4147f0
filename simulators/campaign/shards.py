"""One shard, made by a worker: into a folder of its own, digested, then moved to its place."""

import io
import socket
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from simulators.campaign.digests import byte_digest, content_digest
from simulators.campaign.manifest import Made, ShardRecord, versions
from simulators.campaign.plan import Campaign, Shard
from simulators.errors import InvalidRequest, OutputError

__all__ = ["UNFINISHED", "FinishedShard", "ShardTask", "check_command", "make_shard"]

UNFINISHED = ".making_"
"""Beginning of the names of folders in which shards are made."""


@dataclass(frozen=True)
class ShardTask:
    """A shard to be made: of which campaign, and where."""

    campaign: Campaign
    shard: Shard
    folder: Path


@dataclass(frozen=True)
class FinishedShard:
    """A record, and the versions of the software of the worker that made it."""

    record: ShardRecord
    versions: dict[str, str]


def check_command(campaign: Campaign, folder: Path) -> None:
    """Refuse before the work a command that the simulators do not understand.

    Raises:
        InvalidRequest: An unknown simulator, option or value, one without events and seed, or an
            option that names a file: all shards would read or write the same one.
    """
    from simulators.__main__ import _parser

    options = vars(_parser().parse_args(campaign.words_of(campaign.shards[0], folder)))
    shared = [name for name, value in options.items() if isinstance(value, Path) and name != "out"]
    if shared:
        option = f"--{shared[0].replace('_', '-')}"
        msg = f"{option}: all shards of the campaign would share that file; leave it out"
        raise InvalidRequest(msg)


def make_shard(task: ShardTask) -> FinishedShard:
    """Run the simulator for one shard and return its record.

    Two workers may make the same shard, when one was thought lost: each does so in a folder of
    its own, and what the renames leave is one of two equal files.

    Raises:
        SimulatorError: The simulator refuses; trying again does not help.
        OutputError: The folder is not there, or cannot be written to.
    """
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=task.folder, prefix=UNFINISHED) as name:
            made = Path(name) / task.shard.file
            _simulate(task.campaign.words_of(task.shard, Path(name)))
            digest, size, sha256 = content_digest(made), made.stat().st_size, byte_digest(made)
            made.replace(task.folder / task.shard.file)
    except OSError as error:
        msg = f"{task.folder}: {error.strerror or error}; workers need the folder of the campaign"
        raise OutputError(msg) from error
    how = Made(round(time.perf_counter() - began, 3), socket.gethostname())
    shard = task.shard
    record = ShardRecord(shard.file, shard.events, shard.seed, digest, size, sha256, how)
    return FinishedShard(record, versions())


def _simulate(words: list[str]) -> None:
    """Run one command of the simulators in this process, without its progress bar."""
    from simulators.__main__ import _parser

    with redirect_stderr(io.StringIO()):
        options = _parser().parse_args(words)
        options.run(options, words)
