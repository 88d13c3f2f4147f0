"""A campaign, run: what is there is verified, what is missing is made, what failed is told."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from simulators.campaign.manifest import Manifest, read_manifest, versions
from simulators.campaign.plan import Campaign
from simulators.campaign.shards import (
    UNFINISHED,
    FinishedShard,
    ShardTask,
    check_command,
    make_shard,
)
from simulators.campaign.workers import Outcome, Workers
from simulators.errors import OutputError, SimulatorError, WorkerError

__all__ = ["CampaignResult", "OnShard", "run_campaign"]

OnShard: TypeAlias = Callable[[Outcome], None]

_LOCK = ".campaign.lock"


@dataclass(frozen=True)
class CampaignResult:
    """What a run of a campaign came to.

    Attributes:
        manifest: As it is now.
        kept: Files that were there and verified.
        redone: Files that were in the manifest, but changed or gone.
        retried: Attempts that failed and were made again.
    """

    manifest: Manifest
    kept: tuple[str, ...]
    redone: tuple[str, ...]
    retried: int


def run_campaign(
    campaign: Campaign,
    folder: Path,
    workers: Workers,
    *,
    retries: int = 3,
    on_begin: Callable[[Manifest], None] | None = None,
    on_shard: OnShard | None = None,
    make: Callable[[ShardTask], FinishedShard] = make_shard,
) -> CampaignResult:
    """Make the shards that the folder does not hold yet, and keep its manifest.

    Args:
        campaign: What is wanted.
        folder: Made if absent; one with the manifest of the same campaign is gone on with.
        workers: Who makes the shards.
        retries: Attempts after a failed one; what the simulator refuses is not tried again.
        on_begin: Called with what is there, before the work.
        on_shard: Called with what became of each shard.
        make: Makes one shard.

    Raises:
        InvalidRequest: The simulators do not understand the command.
        OutputError: The folder holds another campaign, one made by other versions, or one that
            is running.
    """
    folder = folder.absolute()
    check_command(campaign, folder)
    with _locked(folder):
        stored = _stored(campaign, folder)
        manifest, redone = _verified(stored, folder)
        kept = tuple(manifest.records)
        manifest.write(folder)
        if on_begin is not None:
            on_begin(manifest)
        tasks = [ShardTask(campaign, shard, folder) for shard in manifest.missing]
        retried = 0
        for outcome in workers.outcomes(make, tasks, retries) if tasks else ():
            manifest, checked = _with(manifest, outcome, folder, redone)
            retried += outcome.attempts - 1
            manifest.write(folder)
            if on_shard is not None:
                on_shard(checked)
    return CampaignResult(manifest, kept, tuple(redone), retried)


def _stored(campaign: Campaign, folder: Path) -> Manifest:
    """Return the manifest to go on with."""
    here = versions()
    stored = read_manifest(folder)
    if stored is None:
        return Manifest(campaign, here)
    names = ("command", "events", "seed", "n_shards")
    other = [n for n in names if getattr(stored.campaign, n) != getattr(campaign, n)]
    if other:
        was = ", ".join(f"{n} {getattr(stored.campaign, n)!r}" for n in other)
        msg = f"{folder}: holds another campaign ({was}); choose another folder, or remove it"
        raise OutputError(msg)
    if stored.records and stored.versions != here:
        msg = (
            f"{folder}: was begun with {_difference(dict(stored.versions), here)}; go on with "
            "those versions, or choose another folder"
        )
        raise OutputError(msg)
    return replace(stored, versions=here)


def _verified(stored: Manifest, folder: Path) -> tuple[Manifest, dict[str, str]]:
    """Return the manifest of the shards that are still what they were, and digests of the rest."""
    records = {file: record for file, record in stored.records.items() if record.is_in(folder)}
    gone = {f: r.digest for f, r in stored.records.items() if f not in records}
    return replace(stored, records=records, failures={}), gone


def _with(
    manifest: Manifest, outcome: Outcome, folder: Path, before: Mapping[str, str]
) -> tuple[Manifest, Outcome]:
    """Return the manifest with what became of a shard, and that once it was checked from here."""
    file = outcome.task.shard.file
    if outcome.error is None:
        fault = _fault(outcome.result, manifest, folder, before.get(file))
        if fault is None:
            record = outcome.result.record
            made = replace(record.made, attempts=outcome.attempts)
            records = {**manifest.records, file: replace(record, made=made)}
            return replace(manifest, records=records), outcome
        outcome = replace(outcome, result=None, error=fault)
    failures = {**manifest.failures, file: _in_words(outcome)}
    return replace(manifest, failures=failures), outcome


def _fault(
    finished: FinishedShard, manifest: Manifest, folder: Path, before: str | None
) -> WorkerError | None:
    """Return why a shard cannot be kept: other software, not where it should be, not as before."""
    record, where = finished.record, finished.record.made.machine
    if finished.versions != manifest.versions:
        words = _difference(finished.versions, dict(manifest.versions))
        return WorkerError(f"the worker on {where} has {words}")
    path = folder / record.file
    if not path.is_file() or path.stat().st_size != record.size:
        return WorkerError(f"made on {where}, but not seen here; workers need the same folder")
    if before not in (None, record.digest):
        return WorkerError(
            f"made again on {where} with the digest {record.digest}, was {before}: this machine "
            "computes otherwise than the one before; begin again in another folder"
        )
    return None


def _difference(theirs: dict[str, str], ours: dict[str, str]) -> str:
    names = sorted(n for n in {*theirs, *ours} if theirs.get(n) != ours.get(n))
    return ", ".join(f"{n} {theirs.get(n, 'none')} (here {ours.get(n, 'none')})" for n in names)


def _in_words(outcome: Outcome) -> str:
    error = outcome.error
    kind = "" if isinstance(error, SimulatorError) else f"{type(error).__name__}: "
    text = " ".join(str(error).split())
    tried = f" ({outcome.attempts} attempts)" if outcome.attempts > 1 else ""
    return f"{kind}{text}{tried}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process; the lock goes when the process does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except OSError as error:
        msg = f"cannot write into {folder}: {error.strerror}; choose another folder"
        raise OutputError(msg) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{folder}: a campaign is running here; wait for it, or choose another folder"
            raise OutputError(msg) from error
        try:
            yield
        finally:
            for left in folder.glob(f"{UNFINISHED}*"):  # by workers that died
                shutil.rmtree(left, ignore_errors=True)
            (folder / _LOCK).unlink(missing_ok=True)
