"""The table has the exact posterior first, the prior last, and one code path for all rows."""

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import ndtr

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.evaluation.compare import (
    EXACT,
    PRIOR,
    Comparison,
    SurfaceMetrics,
    compare_posteriors,
)
from mflow_sbi.inference import NormalPrior
from mflow_sbi.inference.likelihood import EvaluationCount
from mflow_sbi.interfaces import Array

NAMES = ("CWL2", "CPWL2")
STANDARD = NormalPrior(NAMES, (0, 0), (1, 1))
TRUTH = np.array([0.5, 0.0])


class Normal:
    """log L of a normal of width 0.2 about a centre."""

    parameter_names = NAMES

    def __init__(self, centre: Sequence[float], n_events: int = 20) -> None:
        self.centre = np.asarray(centre)
        self.n_events = n_events

    def __call__(self, theta: Array) -> Array:
        return -0.5 * np.square((theta - self.centre) / 0.2).sum(axis=1)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_posteriors(
        {"mflow": Normal([0.52, 0.0]), "af": Normal([0.9, 0.0])},
        STANDARD,
        Normal([0.5, 0.0]),
        TRUTH,
        {"mflow": SurfaceMetrics(0.0045, 0.012), EXACT: SurfaceMetrics(0.0)},
    )


def test_rows_in_order(comparison: Comparison) -> None:
    assert [row.label for row in comparison.table.rows] == [EXACT, "mflow", "af", PRIOR]
    assert list(comparison.posteriors) == [EXACT, "mflow", "af", PRIOR]


def test_numbers_of_each_row(comparison: Comparison) -> None:
    table = comparison.table
    width = 0.2 / np.sqrt(1 + 0.2**2)
    exact, prior = table.row(EXACT).posterior, table.row(PRIOR).posterior
    assert exact.total_variation == 0
    np.testing.assert_allclose(exact.width, width, rtol=1e-4)
    np.testing.assert_allclose(exact.mean, TRUTH / (1 + 0.2**2), atol=1e-6)
    peak = -np.log(2 * np.pi * width**2)
    offset = (0.5 - 0.5 / (1 + 0.2**2)) / width
    assert exact.log_prob_at_truth == pytest.approx(peak - 0.5 * offset**2, abs=1e-4)
    assert prior.log_prob_at_truth == pytest.approx(-np.log(2 * np.pi) - 0.125, abs=2e-3)
    for label, shift in (("mflow", 0.02), ("af", 0.4)):
        expected = 2 * ndtr(0.5 * shift / (1 + 0.2**2) / width) - 1
        assert table.row(label).posterior.total_variation == pytest.approx(expected, abs=3e-3)
    assert all(row.posterior.resolved for row in table.rows)


def test_the_better_posterior_wins(comparison: Comparison) -> None:
    variations = [row.posterior.total_variation or 0.0 for row in comparison.table.rows]
    assert variations == sorted(variations)


def test_renderings_carry_the_same_numbers(comparison: Comparison) -> None:
    table = comparison.table
    records = json.loads(table.to_json())["rows"]
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    for row, record, line, cells in zip(table.rows, records, lines, table.cells(), strict=True):
        assert record["posterior"] == line["posterior"] == cells[0] == row.label
        assert record["total_variation"] == row.posterior.total_variation
        assert float(line["mean_CWL2"]) == row.posterior.mean[0]
        assert cells[2] == f"{row.posterior.total_variation:.3f}"
        assert len(cells) == len(table.header)
    assert records[0]["reconstruction_error"] is None
    assert lines[0]["reconstruction_error"] == ""


def test_markdown(comparison: Comparison) -> None:
    lines = comparison.table.to_markdown().splitlines()
    assert lines[0].startswith("| posterior | log p(truth) | TV to exact | CWL2 (mean ± width)")
    assert lines[3].startswith("| mflow | ")
    assert lines[3].endswith("| 0.0045 | 0.012 |")
    assert lines[-1] == (
        "Posteriors from the same 20 observed events; truth: CWL2 = 0.5, CPWL2 = 0."
    )


def test_without_exact_likelihood_and_truth() -> None:
    table = compare_posteriors({"mflow": Normal([0, 0])}, STANDARD, exact=None).table
    assert [row.label for row in table.rows] == ["mflow", PRIOR]
    assert table.cells()[0][1:3] == ("-", "-")
    assert json.loads(table.to_json())["truth"] is None


def test_infinite_divergence_is_valid_json() -> None:
    class Far(Normal):
        def __call__(self, theta: Array) -> Array:
            return np.where(theta[:, 0] > 2, 0.0, -np.inf)

    table = compare_posteriors({"far": Far([0, 0])}, STANDARD, Normal([0.5, 0]), TRUTH).table
    assert table.row("far").posterior.kullback_leibler == np.inf
    assert table.row("far").posterior.log_prob_at_truth == -np.inf
    assert json.loads(table.to_json())["rows"][1]["log_prob_at_truth"] is None
    assert table.cells()[1][1] == "-inf"


def test_mass_outside_the_training_range_is_told() -> None:
    class Trained(Normal):
        parameter_ranges = np.array([[-3.0, 0.5], [-3.0, 3.0]])
        evaluations = EvaluationCount()

    comparison = compare_posteriors({"af": Trained([0.5, 0])}, STANDARD, Normal([0.5, 0]))
    width = 0.2 / np.sqrt(1 + 0.2**2)
    outside = ndtr(-(0.5 - 0.5 / (1 + 0.2**2)) / width)
    assert comparison.table.row("af").outside_training_range == pytest.approx(outside, abs=0.02)
    assert comparison.table.row(EXACT).outside_training_range is None
    assert "of af outside its training" in comparison.table.caption


def test_progress_rises_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    compare_posteriors(
        {"mflow": Normal([0, 0])},
        STANDARD,
        Normal([0.5, 0]),
        progress=lambda done, of: seen.append((done, of)),
    )
    done = [step for step, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]


ERRORS = {
    "reserved label": (
        lambda: compare_posteriors({PRIOR: Normal([0, 0])}, STANDARD, None),
        "reserved",
    ),
    "surface without posterior": (
        lambda: compare_posteriors(
            {"af": Normal([0, 0])}, STANDARD, None, surfaces={"mflow": SurfaceMetrics(0.1)}
        ),
        "mflow",
    ),
    "other events": (
        lambda: compare_posteriors({"af": Normal([0, 0], 19)}, STANDARD, Normal([0, 0])),
        "same observed events",
    ),
    "no such row": (
        lambda: compare_posteriors({"af": Normal([0, 0])}, STANDARD, None).table.row("fff"),
        "fff",
    ),
    "nothing to compare": (lambda: compare_posteriors({}, STANDARD, None), "at least one"),
}


@pytest.mark.parametrize(("call", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(call, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()
