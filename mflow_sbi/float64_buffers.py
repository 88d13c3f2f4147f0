"""Modules whose numbers are exact: float64 buffers whatever the precision of the networks.

Linear maps, constraints and closed-form surfaces are solved, not learned; a surrogate cast to
float32 or float64 must not round them.
"""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

__all__ = ["Float64Buffers"]


class Float64Buffers(nn.Module):
    """A module that takes its own buffers from device to device, and never casts them.

    Modules inside it follow moves and casts by their own rules.

    >>> import torch
    >>> module = Float64Buffers()
    >>> module.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
    >>> module.float().mean.dtype
    torch.float64
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Follow moves between devices, keep the precision."""
        for child in self.children() if recurse else ():
            child._apply(fn)
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        for name, buffer in kept.items():
            self._buffers[name] = buffer.to(fn(buffer).device)
        return self
