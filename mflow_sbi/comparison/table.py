"""The table of a study: one line a method, errors over sets and seeds, failed runs counted."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mflow_sbi.comparison.study import BANDWIDTH, Study
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.evaluation import EXACT, PRIOR
from mflow_sbi.interfaces import Array

__all__ = ["HEADER", "POINT", "Facts", "StudyRow", "StudyTable", "study_table"]

POINT = "point mass on the truth"
Number: TypeAlias = tuple[float, float] | None
"""A mean and its standard error."""

HEADER = (
    "posterior",
    "seeds (failed)",
    "log p(truth)",
    "smeared",
    "gap",
    "TV to exact",
    "best C2ST",
    "calibration error",
    "closure",
    "reco. error",
    "training, CPU min",
    "posterior, CPU s",
    "parameters",
)
_POORLY_RESOLVED = 0.01  # share of posteriors that the caption tells
RANKED = ("total_variation", "log_prob", "smeared", "density")


@dataclass(frozen=True)
class Facts:
    """What a method's runs tell beside their posteriors; one value a seed, none where unknown.

    Args:
        measure: of their densities.
        density: mean log density of test events with respect to it.
        closure: of generated events.
        reconstruction_error: of test events.
        calibration_error: mean |coverage - level| over levels and parameters.
        training_cpu_minutes: of the whole training.
        parameters: trainable numbers.
    """

    measure: str = "none"
    density: tuple[float, ...] = ()
    closure: tuple[float, ...] = ()
    reconstruction_error: tuple[float, ...] = ()
    calibration_error: tuple[float, ...] = ()
    training_cpu_minutes: tuple[float, ...] = ()
    parameters: int | None = None


@dataclass(frozen=True)
class StudyRow:
    """One method.

    Args:
        label: of the method.
        seeds: runs that count.
        failed: runs that ended without a surrogate.
        numbers: name -> mean and standard error; those of `Scores` and of `Facts`.
        by_truth: the same of `Scores`, by truth: means only.
        measure: of its densities.
        parameters: trainable numbers.
    """

    label: str
    seeds: int
    failed: int
    numbers: Mapping[str, Number]
    by_truth: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measure: str = "none"
    parameters: int | None = None

    def mean(self, name: str) -> float:
        """Return the mean of a number, NaN where there is none."""
        value = self.numbers.get(name)
        return np.nan if value is None else value[0]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        tv = self.numbers.get("total_variation")
        accuracy = None if tv is None else (0.5 + 0.5 * tv[0], 0.5 * tv[1])
        shown = {**self.numbers, "accuracy": accuracy}
        specs = {"log_prob": "+.2f", "smeared": "+.2f", "gap": "+.3f", "total_variation": ".3f"}
        specs |= {"accuracy": ".3f", "calibration_error": ".3f", "closure": ".2g"}
        specs |= {"reconstruction_error": ".2g", "training_cpu_minutes": ".1f", "seconds": ".2g"}
        seeds = f"{self.seeds} ({self.failed})" if self.seeds or self.failed else "-"
        count = "-" if self.parameters is None else f"{self.parameters:,}"
        return (
            self.label,
            seeds,
            *(_text(shown.get(k), spec) for k, spec in specs.items()),
            count,
        )


@dataclass(frozen=True)
class StudyTable:
    """All methods on the same observed sets: exact posterior first, prior and point mass last.

    Args:
        rows: in order.
        truths: labels.
        n_events: of a set.
        n_sets: of every truth.
    """

    rows: tuple[StudyRow, ...]
    truths: tuple[str, ...]
    n_events: int
    n_sets: int

    @property
    def caption(self) -> str:
        """What the table is of."""
        poor = [
            f"{row.label} ({1 - row.mean('resolved'):.0%})"
            for row in self.rows
            if row.mean("resolved") < 1 - _POORLY_RESOLVED
        ]
        words = f"; not resolved by the grid: {', '.join(poor)}" if poor else ""
        return (
            f"{self.n_sets} sets of {self.n_events} observed events at each of the truths "
            f"{', '.join(self.truths)}, the same for every row; mean ± standard error over sets "
            f"and seeds; smeared: log p(truth) after smearing with {BANDWIDTH}; best C2ST: "
            f"accuracy of the best classifier between draws of learned and exact posterior{words}"
        )

    def row(self, label: str) -> StudyRow:
        """Return the row with this label.

        Raises:
            ConfigurationError: there is none.
        """
        for row in self.rows:
            if row.label == label:
                return row
        message = f"study: expected one of {[row.label for row in self.rows]}, got {label!r}"
        raise ConfigurationError(message)

    def ranked(self, by: str = "total_variation") -> tuple[StudyRow, ...]:
        """Return the methods, best first.

        Raises:
            ConfigurationError: an unknown number, or densities with respect to different measures.
        """
        if by not in RANKED:
            message = f"ranking: expected one of {list(RANKED)}, got {by!r}"
            raise ConfigurationError(message)
        methods = [row for row in self.rows if row.label not in (EXACT, PRIOR, POINT)]
        if by == "density":
            _require_one_measure(methods)
        known = [row for row in methods if row.numbers.get(by) is not None]
        others = [row for row in methods if row not in known]
        sign = 1.0 if by == "total_variation" else -1.0
        return (*sorted(known, key=lambda row: sign * row.mean(by)), *others)

    def in_order(self, by: str) -> "StudyTable":
        """Return the table with the methods ranked, the lines of reference where they were."""
        first = [row for row in self.rows if row.label == EXACT]
        last = [row for row in self.rows if row.label in (PRIOR, POINT)]
        rows = (*first, *self.ranked(by), *last)
        return StudyTable(rows, self.truths, self.n_events, self.n_sets)

    def to_markdown(self) -> str:
        """Return the table in Markdown, the caption below."""
        lines = [HEADER, ("---",) * len(HEADER), *(row.cells for row in self.rows)]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{body}\n\n{self.caption}.\n"

    def records(self) -> list[dict[str, Any]]:
        """Return one plain record a row, numbers not rounded."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.numbers))
        records = []
        for row in self.rows:
            record: dict[str, Any] = {"posterior": row.label}
            record |= {"seeds": row.seeds, "failed": row.failed}
            for name in names:
                value = row.numbers.get(name)
                record[name], record[f"{name}_error"] = (None, None) if value is None else value
            for name, values in row.by_truth.items():
                record |= {f"{name} at {truth}": value for truth, value in values.items()}
            record |= {"measure": row.measure, "parameters": row.parameters}
            records.append({k: _finite(v) for k, v in record.items()})
        return records

    def to_json(self) -> str:
        """Return the records as JSON."""
        plain = {"truths": self.truths, "n_events": self.n_events, "n_sets": self.n_sets}
        return json.dumps({**plain, "rows": self.records()}, indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return one line a row, empty where a number does not apply."""
        records = self.records()
        names = list(dict.fromkeys(name for record in records for name in record))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()


def study_table(study: Study, facts: Mapping[str, Facts] | None = None) -> StudyTable:
    """Return the table of a study.

    Args:
        study: scores of all methods.
        facts: what their runs tell beside, by label.
    """
    facts = facts or {}
    labels = [label for label in study.scores if label != PRIOR]
    labels += [label for label in study.failed if label not in labels]
    rows = [_row(label, study, facts.get(label, Facts())) for label in labels]
    rows.append(_row(PRIOR, study, Facts()))
    cap = -len(study.parameter_names) * float(np.log(BANDWIDTH * np.sqrt(2 * np.pi)))
    point: dict[str, Number] = {"smeared": (cap, 0.0)}
    if EXACT in study.scores:
        point["total_variation"] = (1.0, 0.0)
    rows.append(StudyRow(POINT, 0, 0, point))
    return StudyTable(tuple(rows), study.truths, study.n_events, study.n_sets)


def _row(label: str, study: Study, facts: Facts) -> StudyRow:
    scores = study.scores.get(label)
    seeds = 0 if scores is None or label in (EXACT, PRIOR) else len(scores.seconds)
    numbers: dict[str, Number] = {}
    by_truth: dict[str, dict[str, float]] = {}
    if scores is not None:
        for name, values in scores.numbers().items():
            numbers[name] = _over_seeds_and_sets(values)
            means = values.mean(axis=(0, 2))
            by_truth[name] = dict(zip(study.truths, means.tolist(), strict=True))
        if seeds:
            numbers["seconds"] = _over_seeds(scores.seconds)
    for name in ("density", "closure", "reconstruction_error", "calibration_error"):
        numbers[name] = _over_seeds(getattr(facts, name))
    numbers["training_cpu_minutes"] = _over_seeds(facts.training_cpu_minutes)
    failed = study.failed.get(label, 0)
    return StudyRow(label, seeds, failed, numbers, by_truth, facts.measure, facts.parameters)


def _over_seeds(values: Sequence[float] | Array) -> Number:
    if not len(values):
        return None
    return float(np.mean(values)), _standard_error(np.asarray(values))


def _over_seeds_and_sets(values: Array) -> Number:
    """Return the mean of (seeds, truths, sets) and its error; see `study`."""
    of_seeds = values.mean(axis=(1, 2))
    within = values.mean(axis=0)
    variance = within.var(axis=1, ddof=1).mean() if within.shape[1] > 1 else 0.0
    of_sets = np.sqrt(variance / within.size)
    return float(values.mean()), float(np.hypot(_standard_error(of_seeds), of_sets))


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _require_one_measure(rows: Sequence[StudyRow]) -> None:
    measures = {row.label: row.measure for row in rows}
    if len(set(measures.values())) > 1 or "none" in measures.values():
        message = (
            "densities with respect to different measures have no order: "
            f"{measures}; rank by total_variation, log_prob or smeared"
        )
        raise ConfigurationError(message)


def _text(value: Number, spec: str) -> str:
    if value is None or not np.isfinite(value[0]):
        return "-" if value is None else str(value[0])
    mean, error = value
    return f"{mean:{spec}}" + (f" ± {error:{spec.lstrip('+')}}" if error > 0 else "")


def _finite(value: Any) -> Any:  # noqa: ANN401
    return None if isinstance(value, float) and not np.isfinite(value) else value
