"""One honest table: every posterior from the same observed events, on one grid, by one code path.

The first row is the exact posterior (where the file carries it), the last one the prior alone: the
posterior of a likelihood that is zero everywhere.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.evaluation.metrics import PosteriorMetrics, posterior_metrics
from mflow_sbi.inference import FlatLikelihood, GridPosterior, common_grid, grid_posterior
from mflow_sbi.inference.likelihood import CountsEvaluations
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood

__all__ = [
    "EXACT",
    "PRIOR",
    "Comparison",
    "ComparisonRow",
    "ComparisonTable",
    "SurfaceMetrics",
    "compare_posteriors",
]

EXACT = "exact posterior"
PRIOR = "prior"
_NOTHING = "-"
_EXTRAPOLATION = 1e-3  # mass outside the training range that the caption tells
_UNITS = 100  # of progress, per likelihood and stage

Cell: TypeAlias = float | str | bool | None
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SurfaceMetrics:
    """How well events lie on the surface of physical events; None where it does not apply.

    Args:
        closure: the published closure of generated events.
        reconstruction_error: mean distance of test events to their projections, standardised.
        reason: why a surrogate can have neither, if so; the caption tells.
    """

    closure: float | None = None
    reconstruction_error: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """One posterior: its label, its metrics and those of its surface.

    Args:
        label: name of the row.
        posterior: metrics of the posterior.
        surface: closure and reconstruction error.
        outside_training_range: posterior mass where the surrogate extrapolates; None where there
            is no training range.
    """

    label: str
    posterior: PosteriorMetrics
    surface: SurfaceMetrics = field(default_factory=SurfaceMetrics)
    outside_training_range: float | None = None

    def numbers(self, parameter_names: tuple[str, ...]) -> dict[str, Cell]:
        """Return column -> value, not rounded."""
        metrics = self.posterior
        record: dict[str, Cell] = {
            "posterior": self.label,
            "log_prob_at_truth": metrics.log_prob_at_truth,
            "total_variation": metrics.total_variation,
            "kullback_leibler": metrics.kullback_leibler,
        }
        for name, mean, width in zip(parameter_names, metrics.mean, metrics.width, strict=True):
            record[f"mean_{name}"] = mean
            record[f"width_{name}"] = width
        record["entropy"] = metrics.entropy
        record["closure"] = self.surface.closure
        record["reconstruction_error"] = self.surface.reconstruction_error
        record["outside_training_range"] = self.outside_training_range
        record["resolved"] = metrics.resolved
        return record


@dataclass(frozen=True)
class ComparisonTable:
    """All rows on the same observed events.

    Args:
        parameter_names: the p names.
        truth: parameters behind the observed events, or None.
        n_events: number of observed events.
        rows: exact posterior first (if any), prior last.
    """

    parameter_names: tuple[str, ...]
    truth: tuple[float, ...] | None
    n_events: int
    rows: tuple[ComparisonRow, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """Column titles."""
        return (
            "posterior",
            "log p(truth)",
            "TV to exact",
            *(f"{name} (mean ± width)" for name in self.parameter_names),
            "closure",
            "reco. error",
        )

    def row(self, label: str) -> ComparisonRow:
        """Return the row with this label.

        Raises:
            ConfigurationError: there is none.
        """
        for row in self.rows:
            if row.label == label:
                return row
        message = f"comparison: expected one of {[row.label for row in self.rows]}, got {label!r}"
        raise ConfigurationError(message)

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as text, for a terminal table."""
        return [
            (
                row.label,
                _text(row.posterior.log_prob_at_truth, "+.2f"),
                _text(row.posterior.total_variation, ".3f"),
                *(
                    f"{mean:+.3f} ± {width:.3f}"
                    for mean, width in zip(row.posterior.mean, row.posterior.width, strict=True)
                ),
                _text(row.surface.closure, ".2g"),
                _text(row.surface.reconstruction_error, ".2g"),
            )
            for row in self.rows
        ]

    @property
    def caption(self) -> str:
        """What the table is of, which rows the grid does not resolve, which ones extrapolate."""
        words = f"Posteriors from the same {self.n_events} observed events"
        if self.truth is not None:
            point = ", ".join(
                f"{name} = {value:g}"
                for name, value in zip(self.parameter_names, self.truth, strict=True)
            )
            words += f"; truth: {point}"
        poor = [row.label for row in self.rows if not row.posterior.resolved]
        words += f"; not resolved by the grid: {', '.join(poor)}" if poor else ""
        for row in self.rows:
            if (row.outside_training_range or 0.0) > _EXTRAPOLATION:
                words += f"; {row.outside_training_range:.1%} of {row.label} outside its training"
            if row.surface.reason is not None:
                words += f"; {row.label}: {row.surface.reason}"
        return words

    def to_markdown(self) -> str:
        """Return the table in Markdown, the caption below."""
        lines = [self.header, ("---",) * len(self.header), *self.cells()]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{body}\n\n{self.caption}.\n"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values, not rounded; infinite ones as None."""
        return {
            "parameter_names": list(self.parameter_names),
            "truth": None if self.truth is None else list(self.truth),
            "n_events": self.n_events,
            "rows": [
                {name: _finite(value) for name, value in row.numbers(self.parameter_names).items()}
                for row in self.rows
            ],
        }

    def to_json(self) -> str:
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return one line per row, numbers not rounded, empty where they do not apply."""
        records = [row.numbers(self.parameter_names) for row in self.rows]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()


@dataclass(frozen=True)
class Comparison:
    """The table and the posteriors it was made from, by label, on one grid."""

    table: ComparisonTable
    posteriors: Mapping[str, GridPosterior]


def compare_posteriors(
    likelihoods: Mapping[str, Likelihood],
    prior: RecordedPrior,
    exact: Likelihood | None,
    truth: Array | None = None,
    surfaces: Mapping[str, SurfaceMetrics] | None = None,
    cells: int = 60,
    progress: Progress | None = None,
) -> Comparison:
    """Return every posterior on one grid, next to the exact one and the prior.

    Args:
        likelihoods: label -> likelihood of the same observed events.
        prior: common prior.
        exact: the exact likelihood of these events; without it there is no total variation.
        truth: parameters behind the observed events, (p,), if known.
        surfaces: label -> closure and reconstruction error, where they apply.
        cells: cells per axis across the bulk of each posterior.
        progress: called with (units done, all units).

    Raises:
        ConfigurationError: a reserved label, a surface without a posterior, or likelihoods of
            different numbers of observed events.
        ShapeError: likelihoods and prior are not of the same parameters.
        SamplingError: a posterior vanishes everywhere.
    """
    surfaces = surfaces or {}
    names = tuple(prior.parameter_names)
    contenders = dict(likelihoods) if exact is None else {EXACT: exact, **likelihoods}
    n_events = _check(likelihoods, contenders, surfaces)
    everyone = {**contenders, PRIOR: FlatLikelihood(names)}
    total = _UNITS * (len(contenders) + len(everyone))

    def tell(stages_done: int, done: int, of: int) -> None:
        if progress is not None:
            progress(_UNITS * stages_done + _UNITS * done // of, total)

    n_zooms = len(contenders)
    grid = common_grid(
        list(contenders.values()), prior, cells, lambda done, of: tell(0, done * n_zooms, of)
    )
    posteriors = {
        label: grid_posterior(
            likelihood, prior, grid, lambda done, of, k=k: tell(n_zooms + k, done, of)
        )
        for k, (label, likelihood) in enumerate(everyone.items())
    }
    reference = posteriors.get(EXACT)
    rows = tuple(
        ComparisonRow(
            label,
            posterior_metrics(posterior, reference, truth),
            surfaces.get(label, SurfaceMetrics()),
            _mass_outside(everyone[label], posterior),
        )
        for label, posterior in posteriors.items()
    )
    point = None if truth is None else tuple(np.asarray(truth, dtype=np.float64).tolist())
    return Comparison(ComparisonTable(names, point, n_events, rows), posteriors)


def _mass_outside(likelihood: Likelihood, posterior: GridPosterior) -> float | None:
    """Return the posterior mass outside the likelihood's training range, if it has one."""
    if not isinstance(likelihood, CountsEvaluations):
        return None
    low, high = likelihood.parameter_ranges.T
    points = posterior.grid.points
    return float(posterior.mass[np.any((points < low) | (points > high), axis=1)].sum())


def _check(
    likelihoods: Mapping[str, Likelihood],
    contenders: Mapping[str, Likelihood],
    surfaces: Mapping[str, SurfaceMetrics],
) -> int:
    """Return the common number of observed events, or say what does not fit."""
    if not contenders:
        message = "comparison: expected at least one likelihood, got none"
        raise ConfigurationError(message)
    reserved = {EXACT, PRIOR} & set(likelihoods)
    if reserved:
        message = f"comparison: expected labels other than {sorted(reserved)}, which are reserved"
        raise ConfigurationError(message)
    unknown = set(surfaces) - set(contenders)
    if unknown:
        message = (
            f"comparison: expected surface metrics of {list(contenders)}, got {sorted(unknown)}"
        )
        raise ConfigurationError(message)
    numbers = {label: likelihood.n_events for label, likelihood in contenders.items()}
    if len(set(numbers.values())) != 1:
        message = f"comparison: expected posteriors of the same observed events, got {numbers}"
        raise ConfigurationError(message)
    return next(iter(numbers.values()))


def _text(value: float | None, spec: str) -> str:
    return _NOTHING if value is None else format(value, spec)


def _finite(value: Cell) -> Cell:
    return None if isinstance(value, float) and not np.isfinite(value) else value
