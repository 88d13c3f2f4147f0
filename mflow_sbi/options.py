"""Architecture options of recipes to and from plain values."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from mflow_sbi.charting import (
    AutomaticOptions,
    ChartOptions,
    EncodedOptions,
    ImplicitOptions,
    invertible_options,
)
from mflow_sbi.charts import NetworkOptions
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import FlowOptions

__all__ = ["parse_options", "plain_options"]

CHARTS: Mapping[str, type] = {
    "invertible": FlowOptions,
    "encoded": EncodedOptions,
    "autoencoder": NetworkOptions,
    "implicit": ImplicitOptions,
    "automatic": AutomaticOptions,
}


def plain_options(options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return options as plain values; charts name their kind."""
    plain = asdict(options)
    chart = getattr(options, "chart", None)
    for kind, of_kind in CHARTS.items():
        if isinstance(chart, of_kind):
            plain["chart"] = {"kind": kind, **plain["chart"]}
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
    if where.endswith(", chart") and isinstance(value, str | Mapping):
        return _parse_chart(default, value, where)
    if is_dataclass(default) and isinstance(value, Mapping):
        return _parse(default, value, where)
    if type(value) is int and type(default) is float:
        return float(value)
    if type(value) is not type(default):
        message = f"{where}: expected {type(default).__name__}, got {value!r}"
        raise ConfigurationError(message)
    return value


def _parse_chart(default: object, value: str | Mapping[str, Any], where: str) -> ChartOptions:
    """Return the options of a chart: its kind, or a mapping with `kind` (that of the default)."""
    usual = next(kind for kind, of_kind in CHARTS.items() if isinstance(default, of_kind))
    given = {"kind": value} if isinstance(value, str) else {"kind": usual, **value}
    kind = given.pop("kind")
    if kind not in CHARTS:
        message = f"{where}: expected one of {sorted(CHARTS)}, got {kind!r}"
        raise ConfigurationError(message)
    defaults = invertible_options() if kind == "invertible" else CHARTS[kind]()
    return _parse(defaults, given, where)
