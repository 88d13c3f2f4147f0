"""Independent pieces of work, one after another here or many at once on a cluster.

`map(function, items)` returns the results in the order of the items, whoever does them.  A piece
of work is a function of a module and an item that can be pickled; networks travel as the folder of
their run.  The only door to dask.distributed.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from mflow_sbi.errors import ClusterError, ConfigurationError, MflowSbiError
from mflow_sbi.interfaces import Progress

__all__ = ["ClusterMap", "SerialMap", "TaskMap", "local_client", "open_cluster"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")


class TaskMap(Protocol):
    """Something that applies a function to items."""

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Progress | None = None,
    ) -> list[Result]:
        """Return function(item) of every item, in their order.

        Args:
            function: of a module, so that other processes find it.
            items: that can be pickled.
            progress: called with (items done, all items).

        Raises:
            ClusterError: workers died, or cannot do the work.
        """
        ...


class SerialMap:
    """Items one after another, in this process."""

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Progress | None = None,
    ) -> list[Result]:
        """Return function(item) of every item; see `TaskMap`."""
        results = []
        for item in items:
            results.append(function(item))
            if progress is not None:
                progress(len(results), len(items))
        return results


class ClusterMap:
    """Items on the workers of a Dask cluster, one thread each.

    A worker that dies is no harm: its item goes to another one, until it has killed several.

    Args:
        client: a connected `distributed.Client`.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - distributed is optional
        self.client = client

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        progress: Progress | None = None,
    ) -> list[Result]:
        """Return function(item) of every item; see `TaskMap`."""
        from distributed import as_completed

        name = getattr(function, "__name__", "work")
        futures = [
            self.client.submit(_on_one_thread, function, item, key=None, pure=False)
            for item in items
        ]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                error = future.exception()
                if error is not None:
                    raise _as_ours(error, name)
                if progress is not None:
                    progress(done, len(items))
            return self.client.gather(futures)
        finally:
            for future in futures:
                future.cancel()


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    torch.set_num_threads(1)
    return function(item)


def _as_ours(error: BaseException, name: str) -> BaseException:
    """Return the error to raise: the package's own as it is, others named."""
    if isinstance(error, MflowSbiError):
        return error
    message = (
        f"cluster: {name} failed on a worker ({type(error).__name__}: "
        f"{' '.join(str(error).split())}); without --cluster the same work shows where"
    )
    failure = ClusterError(message)
    failure.__cause__ = error
    return failure


@contextmanager
def open_cluster(text: str | None) -> Iterator[TaskMap]:
    """Yield what does the work of commands; the workers of "local" live as long as the block.

    Args:
        text: None (this process), "local", "local:4" (worker processes here, one thread each; by
            default as many as there are cores), or the address of a Dask scheduler, "tcp://...",
            whose workers have this package and see the same folders.

    Raises:
        ConfigurationError: another word.
        ClusterError: dask.distributed is not installed, or no scheduler answers.
    """
    if text is None:
        yield SerialMap()
        return
    kind, _, rest = text.partition(":")
    if kind == "local" and (not rest or (rest.isascii() and rest.isdigit() and int(rest) > 0)):
        with local_client(int(rest) if rest else None) as client:
            yield ClusterMap(client)
    elif kind in _SCHEMES and rest.startswith("//"):
        with _client_of(text) as client:
            yield ClusterMap(client)
    else:
        message = (
            "cluster: expected local, local:N (N >= 1) or tcp://host:port of a Dask scheduler, "
            f"got {text!r}"
        )
        raise ConfigurationError(message)


@contextmanager
def local_client(n_workers: int | None) -> Iterator[Any]:
    """Yield a client of new worker processes here, one thread each; all cores by default."""
    distributed = _distributed()
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    number = n_workers or CPU_COUNT
    with (
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
        message = f"{address}: no Dask scheduler answers ({what}); start one with 'dask scheduler'"
        raise ClusterError(message) from error
    with client:
        if not client.nthreads():
            message = f"{address}: the scheduler has no workers; start some with 'dask worker'"
            raise ClusterError(message)
        yield client


def _distributed() -> Any:  # noqa: ANN401 - optional
    try:
        import distributed
    except ImportError as error:
        message = (
            "--cluster needs dask.distributed, which is not installed; "
            "python -m pip install 'mflow_sbi[cluster]'"
        )
        raise ClusterError(message) from error
    return distributed
