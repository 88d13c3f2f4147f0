"""All samplers by name, with their options, as configurations write them.

{kind: emcee, walkers: 64, steps: 1000, moves: {stretch: 0.5, jump: 0.5}}
{kind: nuts, chains: 8, warm_up: 300, draws: 1000}
{kind: nested, live_points: 1000}
{kind: grid, cells: 100}
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.grid_sampler import GridSampler
from mflow_sbi.inference.mcmc import EmceeSampler
from mflow_sbi.inference.nested import NestedSampler
from mflow_sbi.inference.nuts import NutsSampler
from mflow_sbi.inference.sampling import Sampler

__all__ = ["SAMPLERS", "sampler_from_dict"]

SAMPLERS: Mapping[str, type[EmceeSampler | NutsSampler | NestedSampler | GridSampler]] = {
    "emcee": EmceeSampler,
    "nuts": NutsSampler,
    "nested": NestedSampler,
    "grid": GridSampler,
}
"""emcee: the default, whole ensembles at once.  nuts: many parameters.  nested: several modes,
evidence.  grid: one or two parameters, exact."""


def sampler_from_dict(record: Mapping[str, Any]) -> Sampler:
    """Return the sampler described by a plain record, as `Sampler.to_dict` writes it.

    Args:
        record: {"kind": name, option: value, ...}; options left out have their defaults.  The
            option `moves` of emcee is a mapping of names to shares, or one name.

    Raises:
        ConfigurationError: unknown kind or option (with the nearest spelling), a value of another
            type, or an impossible one.

    Example:
        >>> sampler_from_dict({"kind": "grid", "cells": 100})
        GridSampler(cells=100, draws=4000)
        >>> sampler_from_dict({"kind": "grid", "cels": 100})
        Traceback (most recent call last):
        ...
        mflow_sbi.errors.ConfigurationError: sampler grid: unknown option 'cels', expected one of \
['cells', 'draws']; did you mean 'cells'?
    """
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in SAMPLERS:
        message = f"sampler kind: expected one of {sorted(SAMPLERS)}, got {kind!r}"
        raise ConfigurationError(message + _nearest(kind, SAMPLERS))
    sampler = SAMPLERS[kind]
    defaults = {entry.name: entry.default for entry in fields(sampler)}
    options = {name: value for name, value in record.items() if name != "kind"}
    for name, value in options.items():
        if name not in defaults:
            message = (
                f"sampler {kind}: unknown option {name!r}, expected one of {sorted(defaults)}"
            )
            raise ConfigurationError(message + _nearest(name, defaults))
        options[name] = _option(f"sampler {kind}, {name}", defaults[name], value)
    return sampler(**options)


def _nearest(name: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _option(where: str, default: object, value: object) -> object:
    """Return a plain value of the kind of the default."""
    if isinstance(default, tuple):
        return _moves(where, value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        message = f"{where}: expected {type(default).__name__}, got {value!r}"
        raise ConfigurationError(message)
    return value


def _moves(where: str, value: object) -> tuple[tuple[str, float], ...]:
    """Return moves and their shares from {name: share} or one name."""
    shares = {value: 1.0} if isinstance(value, str) else value
    if not isinstance(shares, Mapping) or not all(
        isinstance(share, int | float) for share in shares.values()
    ):
        message = f"{where}: expected a move, or moves with their shares, got {value!r}"
        raise ConfigurationError(message)
    return tuple((str(name), float(share)) for name, share in shares.items())
