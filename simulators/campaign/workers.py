"""Who makes the shards: this process, processes of this machine, or a Dask cluster.

The only door to dask.distributed of the simulators.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from simulators.errors import InvalidRequest, SimulatorError, WorkerError

__all__ = ["DaskWorkers", "Outcome", "SerialWorkers", "Workers", "local_client", "open_workers"]

Task = TypeVar("Task")

INSTALL = "python -m pip install 'mflow_sbi[cluster]'"


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: It was asked for.
        result: None if all attempts failed.
        error: Of the last attempt, if it failed.
        attempts: How many there were.
    """

    task: Any
    result: Any
    error: BaseException | None
    attempts: int


class Workers(Protocol):
    """Something that does tasks, in any order, several times if they fail."""

    @property
    def n_workers(self) -> int:
        """How many tasks it does at once."""
        ...

    def outcomes(
        self, function: Callable[[Task], object], tasks: Iterable[Task], retries: int
    ) -> Iterator[Outcome]:
        """Yield what became of each task as it ends; after `retries` more attempts if it fails.

        What a simulator refuses (`SimulatorError`) is not tried again.
        """
        ...


class SerialWorkers:
    """This process, one task after the other."""

    n_workers = 1

    def outcomes(
        self, function: Callable[[Task], object], tasks: Iterable[Task], retries: int
    ) -> Iterator[Outcome]:
        """Yield what became of each task; see `Workers`."""
        for task in tasks:
            for attempt in range(1, retries + 2):
                try:
                    yield Outcome(task, function(task), None, attempt)
                    break
                except Exception as error:  # noqa: BLE001 (told and counted, whatever it is)
                    if isinstance(error, SimulatorError) or attempt > retries:
                        yield Outcome(task, None, error, attempt)
                        break


class DaskWorkers:
    """The workers of a Dask cluster.

    Args:
        client: A connected `distributed.Client`.
        at_once: Tasks that the cluster is given at a time; all by default.
    """

    def __init__(self, client: Any, at_once: int | None = None) -> None:  # noqa: ANN401
        self.client = client
        self.at_once = at_once

    @property
    def n_workers(self) -> int:
        """Threads of all workers at this moment."""
        return sum(self.client.nthreads().values())

    def outcomes(
        self, function: Callable[[Task], object], tasks: Iterable[Task], retries: int
    ) -> Iterator[Outcome]:
        """Yield what became of each task; a lost worker is a failed attempt, see `Workers`."""
        from distributed import as_completed

        waiting = iter(tasks)
        submitted: dict[Any, tuple[Task, int]] = {}
        running = as_completed()

        def submit(task: Task, attempt: int) -> None:
            future = self.client.submit(function, task, pure=False)
            submitted[future] = (task, attempt)
            running.add(future)

        for task in islice(waiting, self.at_once):
            submit(task, 1)
        for future in running:
            task, attempt = submitted.pop(future)
            error = future.exception()
            if error is not None and not isinstance(error, SimulatorError) and attempt <= retries:
                submit(task, attempt + 1)
                continue
            for following in islice(waiting, 1):
                submit(following, 1)
            yield Outcome(task, future.result() if error is None else None, error, attempt)


@contextmanager
def open_workers(text: str) -> Iterator[Workers]:
    """Yield the workers that a word names; those of "local" live as long as the block.

    Args:
        text: "serial" (this process), "local", "local:4" (processes here, of one thread each;
            by default as many as there are cores), or the address of a scheduler, "tcp://...".

    Raises:
        InvalidRequest: Another word.
        WorkerError: dask.distributed is not installed, or no scheduler answers.
    """
    kind, _, number = text.partition(":")
    if text == "serial":
        yield SerialWorkers()
    elif kind == "local" and (not number or (number.isdigit() and int(number) > 0)):
        with local_client(int(number) if number else None) as client:
            yield DaskWorkers(client, at_once=len(client.nthreads()))
    elif kind in ("tcp", "tls", "ucx", "ws", "wss") and number.startswith("//"):
        with _client_of(text) as client:
            yield DaskWorkers(client)
    else:
        msg = (
            f"--workers: expected serial, local, local:N (N >= 1) or tcp://host:port of a Dask "
            f"scheduler, got {text!r}"
        )
        raise InvalidRequest(msg)


@contextmanager
def local_client(n_workers: int | None) -> Iterator[Any]:
    """Yield a client of new worker processes here, one thread each.

    A task whose worker dies fails at once, and is not sent out again unseen (allowed failures 0).
    With as many tasks at once as there are workers, no other one fails with it.
    """
    distributed = _distributed()
    from dask import config
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    number = n_workers or CPU_COUNT
    settings = {"distributed.scheduler.allowed-failures": 0}
    with (
        config.set(settings),
        distributed.LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            memory_limit=MEMORY_LIMIT // number,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def _client_of(address: str) -> Iterator[Any]:
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())
        msg = f"{address}: no Dask scheduler answers ({what}); start one with 'dask scheduler'"
        raise WorkerError(msg) from error
    with client:
        if not client.nthreads():
            msg = f"{address}: the scheduler has no workers; start some with 'dask worker'"
            raise WorkerError(msg)
        yield client


def _distributed() -> Any:  # noqa: ANN401 - optional
    try:
        import distributed
    except ImportError as error:
        msg = f"workers need dask.distributed, which is not installed; {INSTALL}"
        raise WorkerError(msg) from error
    return distributed
