r"""Several processes that train one surrogate: each does its share, all hold the same numbers.

A batch of N events is shared out, n_r to process r.  With the objective a mean over events,

    L = (1/N) sum_i l_i = sum_r (n_r/N) L_r,   grad L = sum_r (n_r/N) grad L_r,

so that processes which add up their shares of objective and gradients make the step that one
process alone would make, up to rounding.  The sums are the same bits in every process, and so are
the weights after every step.

Gradients are summed here, by one all-reduce of a flat vector, and not by torch's
`DistributedDataParallel`: objectives call many methods of a surrogate, where that wraps the single
method `forward`; phases train changing parts; scores take second derivatives, which it refuses.
What it would add, overlapping sums and gradients, is worth little at the 10^5 weights here.

`torchrun` says by environment variables that there are several, which one this is, and where they
meet.  Tensors on CPU are summed by gloo, those on CUDA by nccl.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["ALONE", "Processes", "is_first_process", "torchrun_processes"]

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: which one this is.
        size: how many there are.

    >>> [Processes(rank, 3).rows(10) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there is more than one."""
        return self.size > 1

    def rows(self, n: int, together: int = 1) -> slice:
        """Return this process's share of n rows; the shares are disjoint and make up all.

        Args:
            n: rows.
            together: rows that are not parted, from the first on.
        """
        ends = [n * rank // self.size // together * together for rank in range(self.size)]
        return slice(ends[self.rank], [*ends, n][self.rank + 1])

    def takes(self, index: int) -> bool:
        """Return whether piece of work number `index` is this process's."""
        return index % self.size == self.rank

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes, in place; the same bits in all."""
        if self.are_many:
            dist.all_reduce(tensor)
        return tensor

    def sum_step(self, loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
        """Return the sum of the losses, a scalar; gradients become their sums, in place."""
        loss = loss.detach()
        if not self.are_many:
            return loss
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = loss.reshape(1).clone()
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            self._sum_flat([g for g in gradients if g.dtype == dtype])
        return self.summed(total)[0]

    def _sum_flat(self, tensors: Sequence[Tensor]) -> None:
        flat = self.summed(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""
        if not self.are_many:
            return
        for tensor in tensors:
            sent = tensor.detach().clone().contiguous()
            sent = sent.to(torch.uint8) if sent.dtype == torch.bool else sent
            if sent.numel():
                dist.broadcast(sent, src=0)
                tensor.detach().copy_(sent)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.are_many:
            dist.barrier()


ALONE = Processes()


def is_first_process() -> bool:
    """Return whether torchrun, if it started this process, means it to write and to speak."""
    return os.environ.get("RANK", "0") == "0" or not _started_by_torchrun()


def _started_by_torchrun() -> bool:
    return all(name in os.environ for name in VARIABLES)


@contextmanager
def torchrun_processes() -> Iterator[Processes]:
    """Run a block together with the other processes of torchrun; alone where it started none."""
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if not _started_by_torchrun() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
