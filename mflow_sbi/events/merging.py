"""The record of several files that are read as one sample."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mflow_sbi.errors import MetadataError
from mflow_sbi.events.metadata import EventMetadata, Morphing, Simulator

__all__ = ["merge"]

_SAME_WITHIN = 5.0  # standard deviations of the Monte Carlo error


def merge(records: Sequence[EventMetadata]) -> EventMetadata:
    """Return the record of several files read as one sample.

    Event counts and sums of weights add; ranges widen; cross sections estimated independently
    combine with weights 1/error^2; seeds, commands and samplings that differ are left out.

    Raises:
        MetadataError: The files differ in what makes events comparable (process, parameters,
            observables, simulator settings, morphing basis, benchmarks), or their cross
            sections differ by more than 5 standard deviations.
    """
    first = records[0]
    for other in records[1:]:
        for what, mine, theirs in (
            ("process", first.process, other.process),
            ("layout", first.layout, other.layout),
            ("parameters", first.parameter_names, other.parameter_names),
            ("observables", first.observables, other.observables),
            ("simulator", *_differing(first.simulator, other.simulator)),
            ("morphing", _identity(first.morphing), _identity(other.morphing)),
            ("benchmarks", first.benchmarks, other.benchmarks),
        ):
            if mine != theirs:
                msg = (
                    f"the files differ in {what}: {mine} and {theirs}; expected files of one "
                    "process and one setting. Read them one by one."
                )
                raise MetadataError(msg)
    simulators = [record.simulator for record in records]
    return replace(
        first,
        simulator=_common(
            simulators, default=first.simulator and replace(first.simulator, statistics={})
        ),
        command=_common([r.command for r in records], default=""),
        seed=_common([r.seed for r in records]),
        theta_sampling=_common([r.theta_sampling for r in records]),
        n_events=_total(r.n_events for r in records),
        sum_of_weights=_total(r.sum_of_weights for r in records),
        sum_of_weights_before_selection=_total(r.sum_of_weights_before_selection for r in records),
        parameters=tuple(
            replace(
                parameter,
                low=_extreme(min, [r.parameters[k].low for r in records]),
                high=_extreme(max, [r.parameters[k].high for r in records]),
            )
            for k, parameter in enumerate(first.parameters)
        ),
        morphing=_merged_morphing([r.morphing for r in records if r.morphing]),
    )


def _differing(first: Simulator | None, other: Simulator | None) -> tuple[Any, Any]:
    """Return what differs between two simulators, leaving out statistics."""
    mine, theirs = (s and f"{s.name} {s.version}" for s in (first, other))
    if first is None or other is None or mine != theirs:
        return mine, theirs
    names = dict.fromkeys((*first.settings, *other.settings))
    keys = [name for name in names if first.settings.get(name) != other.settings.get(name)]
    return {k: first.settings.get(k) for k in keys}, {k: other.settings.get(k) for k in keys}


def _identity(morphing: Morphing | None) -> tuple | None:
    return morphing and (morphing.exponents, morphing.likelihood, morphing.measure)


def _common(values: Sequence[Any], default: Any = None) -> Any:  # noqa: ANN401
    return values[0] if all(value == values[0] for value in values) else default


def _total(values: Iterable[Any]) -> Any:  # noqa: ANN401
    values = list(values)
    return None if None in values else sum(values)


def _extreme(choose: Any, values: list[float | None]) -> float | None:  # noqa: ANN401
    return choose(known) if (known := [v for v in values if v is not None]) else None


def _merged_morphing(records: list[Morphing]) -> Morphing | None:
    if not records or all(record == records[0] for record in records):
        return records[0] if records else None
    values = np.array([record.cross_section for record in records])
    errors = np.array([record.cross_section_error for record in records])
    off = np.abs(values - values[0]) > _SAME_WITHIN * np.hypot(errors, errors[0])
    if off.any():
        row, k = np.argwhere(off)[0]
        msg = (
            f"the files disagree on the cross section of component {k}: {values[0, k]:.6g} and "
            f"{values[row, k]:.6g} pb, more than {_SAME_WITHIN:g} standard deviations apart; "
            "expected files of one setting. Read them one by one."
        )
        raise MetadataError(msg)
    exact = (errors == 0).any(axis=0)
    inverse = 1 / np.where(errors > 0, errors, 1.0) ** 2
    mean = np.where(exact, values[0], (inverse * values).sum(axis=0) / inverse.sum(axis=0))
    error = np.where(exact, 0.0, inverse.sum(axis=0) ** -0.5)
    return replace(
        records[0], cross_section=tuple(mean.tolist()), cross_section_error=tuple(error.tolist())
    )
