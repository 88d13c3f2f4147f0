"""Architecture options of recipes to and from plain values."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from mflow_sbi.charting import (
    AutomaticOptions,
    EncodedOptions,
    ImplicitOptions,
    invertible_options,
)
from mflow_sbi.charts import NetworkOptions
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import FlowOptions
from mflow_sbi.tilting import MorphingOptions, ResidualOptions, density_flow_options

__all__ = ["parse_options", "plain_options"]

CHARTS: Mapping[str, type] = {
    "invertible": FlowOptions,
    "encoded": EncodedOptions,
    "autoencoder": NetworkOptions,
    "implicit": ImplicitOptions,
    "automatic": AutomaticOptions,
}
DENSITIES: Mapping[str, type] = {
    "flow": FlowOptions,
    "morphing": MorphingOptions,
    "residual": ResidualOptions,
}
KINDS: Mapping[str, Mapping[str, type]] = {"chart": CHARTS, "density": DENSITIES}
"""Options that come in several kinds, by their name."""

KIND_DEFAULTS: Mapping[tuple[str, str], Callable[[], object]] = {
    ("chart", "invertible"): invertible_options,
    ("density", "flow"): density_flow_options,
}
"""Defaults of a kind, where they are not those of its class."""


def plain_options(options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return options as plain values; charts and densities name their kind."""
    plain = asdict(options)
    for name, kinds in KINDS.items():
        value = getattr(options, name, None)
        for kind, of_kind in kinds.items():
            if isinstance(value, of_kind):
                plain[name] = {"kind": kind, **plain[name]}
    return plain


def parse_options(kind: type, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    """Return options of that kind from plain values.

    Raises:
        ConfigurationError: unknown option (with the nearest spelling) or impossible value.
    """
    defaults = kind()
    return _parse(defaults, values, where)


def _parse(defaults: Any, values: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    """Return the defaults with the named fields changed."""
    known = {entry.name for entry in fields(defaults)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"{where}: unknown option {name!r}, expected one of {sorted(known)}{hint}"
            raise ConfigurationError(message)
    changed = {
        name: _parse_value(getattr(defaults, name), value, f"{where}, {name}")
        for name, value in values.items()
    }
    kept = {name: getattr(defaults, name) for name in known}
    try:
        return type(defaults)(**{**kept, **changed})
    except TypeError as error:
        message = f"{where}: {error}"
        raise ConfigurationError(message) from error


def _parse_value(default: object, value: Any, where: str) -> Any:  # noqa: ANN401
    """Return a plain value of the default's type, or options with the named ones changed."""
    name = where.rpartition(", ")[2]
    if name in KINDS and isinstance(value, str | Mapping):
        return _parse_kind(name, default, value, where)
    if is_dataclass(default) and isinstance(value, Mapping):
        return _parse(default, value, where)
    if type(value) is int and type(default) is float:
        return float(value)
    if type(default) is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if type(value) is not type(default):
        message = f"{where}: expected {type(default).__name__}, got {value!r}"
        raise ConfigurationError(message)
    return value


def _parse_kind(name: str, default: object, value: str | Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    """Return options of one of several kinds: its kind, or a mapping with `kind` (the usual)."""
    kinds = KINDS[name]
    usual = next(kind for kind, of_kind in kinds.items() if isinstance(default, of_kind))
    given = {"kind": value} if isinstance(value, str) else {"kind": usual, **value}
    kind = given.pop("kind")
    if kind not in kinds:
        message = f"{where}: expected one of {sorted(kinds)}, got {kind!r}"
        raise ConfigurationError(message)
    defaults = KIND_DEFAULTS.get((name, kind), kinds[kind])()
    return _parse(defaults, given, where)
