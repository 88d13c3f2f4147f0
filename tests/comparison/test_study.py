"""Scores of many methods over many sets: closed forms, references, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from mflow_sbi.comparison import (
    POINT,
    Contender,
    Facts,
    ObservedSets,
    StudyTable,
    compare_over_sets,
    cut_into_sets,
    smeared_log_prob,
    study_page,
    study_table,
)
from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.evaluation import EXACT, PRIOR
from mflow_sbi.events import read_events
from mflow_sbi.inference import (
    FlatLikelihood,
    Grid,
    GridPosterior,
    NormalPrior,
    exact_likelihood,
    grid_posterior,
)
from mflow_sbi.interfaces import Array

DATA = Path(__file__).parents[2] / "data"
PRIOR_2D = NormalPrior(("CWL2", "CPWL2"), (0, 0), (1, 1))


class _Normal:
    """log N(theta; mean, std^2), no events."""

    parameter_names = ("CWL2", "CPWL2")
    n_events = 1

    def __init__(self, mean: Array, std: float) -> None:
        self.mean, self.std = mean, std

    def __call__(self, theta: Array) -> Array:
        return -0.5 * np.square((theta - self.mean) / self.std).sum(axis=1)


class _Flat:
    parameter_names = ("CWL2", "CPWL2")

    def log_prob(self, theta: Array) -> Array:
        return np.zeros(len(theta))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        raise NotImplementedError


def _posterior(mean: float, std: float) -> GridPosterior:
    centre = np.array([mean, 0.0])
    box = np.stack([centre - 6 * std, centre + 6 * std], axis=1)
    return grid_posterior(_Normal(centre, std), _Flat(), Grid.regular(box, (96, 96)))


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.2), (0.0, 0.01), (1.0, 2.0)])
def test_smeared_log_prob_is_that_of_the_wider_normal(mean: float, std: float):
    truth = np.array([0.1, -0.2])
    expected = norm.logpdf(truth, [mean, 0.0], (std**2 + 0.15**2) ** 0.5).sum()
    found = smeared_log_prob(_posterior(mean, std), truth)
    assert found == pytest.approx(expected, abs=2e-3)


def _observed() -> list[ObservedSets]:
    files = ("0_0", "0.5_0")
    samples = [read_events(str(DATA / f"wbf_tuned_observed_theta_{name}.root")) for name in files]
    return [cut_into_sets(sample, 5, 3) for sample in samples]


def _truly(observed: list[ObservedSets], scale: float = 1.0):
    """Return what the exact likelihood of the same events gives, all its logs times a scale."""
    known = {s.x.tobytes(): exact_likelihood(s) for one in observed for s in one.sets}

    class Scaled:
        parameter_names = ("CWL2", "CPWL2")
        n_events = 5

        def __init__(self, x: Array) -> None:
            self.exact = known[x.tobytes()]

        def __call__(self, theta: Array) -> Array:
            return scale * self.exact(theta)

    return Scaled


def _flat(x: Array) -> FlatLikelihood:  # noqa: ARG001
    return FlatLikelihood(("CWL2", "CPWL2"))


@pytest.fixture(scope="module")
def table() -> StudyTable:
    observed = _observed()
    contenders = [
        Contender("sharp", (_truly(observed), _truly(observed, 1.5)), failed=1),
        Contender("dull", (_flat,)),
        Contender("lost", (), failed=2),
    ]
    study = compare_over_sets(contenders, observed, PRIOR_2D)
    facts = {
        "sharp": Facts("manifold", (1.0, 3.0), training_cpu_minutes=(1.0, 3.0), parameters=1234),
        "dull": Facts("ambient", (2.0,)),
    }
    return study_table(study, facts)


def test_references_bound_the_methods(table):
    labels = [row.label for row in table.rows]
    assert labels == [EXACT, "sharp", "dull", "lost", PRIOR, POINT]
    exact, prior = table.row(EXACT), table.row(PRIOR)
    assert exact.mean("total_variation") == pytest.approx(0.0, abs=1e-12)
    assert exact.mean("gap") == 0.0
    for name in ("log_prob", "smeared", "total_variation", "gap"):
        assert table.row("dull").mean(name) == pytest.approx(prior.mean(name), abs=1e-9)
    assert 0.2 < prior.mean("total_variation") < 1
    assert 0.0 < table.row("sharp").mean("total_variation") < prior.mean("total_variation")
    assert table.row(POINT).mean("smeared") == pytest.approx(-np.log(2 * np.pi * 0.15**2))
    assert table.row("sharp").by_truth["total_variation"].keys() == {"(0, 0)", "(0.5, 0)"}


def test_the_prior_at_the_truths_is_the_priors_density(table):
    expected = np.mean([PRIOR_2D.log_prob(np.array([t]))[0] for t in ([0, 0], [0.5, 0.0])])
    assert table.row(PRIOR).mean("log_prob") == pytest.approx(expected, abs=1e-3)


def test_failed_runs_are_counted(table):
    assert table.row("sharp").cells[1] == "2 (1)"
    assert table.row("lost").cells[1] == "0 (2)"
    assert set(table.row("lost").cells[2:]) == {"-"}


def test_errors_add_seeds_and_sets():
    observed = _observed()
    two = [Contender("both", (_truly(observed), _truly(observed, 2.0)))]
    study = compare_over_sets(two, observed, PRIOR_2D)
    values = study.scores["both"].gap
    assert values is not None
    assert values.shape == (2, 2, 3)
    of_seeds = values.mean(axis=(1, 2)).std(ddof=1) / 2**0.5
    of_sets = (values.mean(axis=0).var(axis=1, ddof=1).mean() / 6) ** 0.5
    number = study_table(study).row("both").numbers["gap"]
    assert number is not None
    mean, error = number
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(np.hypot(of_seeds, of_sets))
    assert error > of_seeds > 0


def test_ranking(table):
    ranked = [row.label for row in table.ranked("total_variation")]
    assert ranked == ["sharp", "dull", "lost"]
    assert [row.label for row in table.in_order("log_prob").rows][0] == EXACT
    with pytest.raises(ConfigurationError, match="different measures have no order"):
        table.ranked("density")
    with pytest.raises(ConfigurationError, match="expected one of"):
        table.ranked("beauty")


def test_files_hold_the_same_numbers(table, tmp_path: Path):
    plain = json.loads(table.to_json())
    sharp = next(row for row in plain["rows"] if row["posterior"] == "sharp")
    assert sharp["training_cpu_minutes"] == 2.0
    assert sharp["parameters"] == 1234
    assert len(table.to_csv().splitlines()) == 1 + len(table.rows)
    assert "± " in table.to_markdown()
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"png")
    page = study_page(table, "a <study>", figure, {"command": "x"})
    assert "<h1>a &lt;study&gt;</h1>" in page
    assert "data:image/png;base64,cG5n" in page
    assert all(cell in page for cell in table.row("sharp").cells)


def test_refusals():
    observed = _observed()
    sharp = Contender("sharp", (_truly(observed),))
    with pytest.raises(ConfigurationError, match="methods of different labels"):
        compare_over_sets([sharp, sharp], observed, PRIOR_2D)
    with pytest.raises(ConfigurationError, match="methods of different labels"):
        compare_over_sets([Contender(PRIOR, (_flat,))], observed, PRIOR_2D)
    fewer = ObservedSets(observed[1].truth, observed[1].sets[:2])
    with pytest.raises(ShapeError, match="as many sets of one size"):
        compare_over_sets([sharp], [observed[0], fewer], PRIOR_2D)
    sample = read_events(str(DATA / "wbf_tuned_observed_theta_0_0.root"))
    with pytest.raises(ConfigurationError, match=r"expected 1000 x 20 events"):
        cut_into_sets(sample, 20, 1000)
