"""Compiled layers for long trainings: elementwise work fused, one graph for all equal layers."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.transforms.affine import PermutedLULinear
from mflow_sbi.transforms.coupling import Coupling

__all__ = ["compiled_layers"]


def _require_compiler() -> None:
    candidates = (os.environ.get("CXX", "g++"), "clang++")
    if not any(shutil.which(candidate) for candidate in candidates):
        message = (
            "compiled layers need a C++ compiler: expected g++ or clang++ on the path (or CXX "
            "naming one), got neither; install one, or leave `compiled` out"
        )
        raise ConfigurationError(message)


@contextmanager
def compiled_layers(*modules: nn.Module) -> Iterator[None]:
    """Run a block with the coupling and linear layers of these modules compiled.

    Layers of equal shape share one compiled graph; the first call with a new shape compiles.
    Results agree with uncompiled layers to rounding.

    Raises:
        ConfigurationError: no C++ compiler on this machine.
    """
    _require_compiler()
    layers = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, Coupling | PermutedLULinear)
    ]
    for layer in layers:
        object.__setattr__(layer, "push", torch.compile(layer.push, dynamic=False))
        object.__setattr__(layer, "pull", torch.compile(layer.pull, dynamic=False))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "push")
            object.__delattr__(layer, "pull")
