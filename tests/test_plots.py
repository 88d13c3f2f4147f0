"""Figures show the numbers they were given, in the same bytes every time, with no global state."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from mflow_sbi.calibration import predictive_check
from mflow_sbi.errors import ShapeError
from mflow_sbi.evaluation import compare_posteriors
from mflow_sbi.evaluation.compare import EXACT
from mflow_sbi.events.observables import CLOSURE_TERMS, WBF_OBSERVABLES
from mflow_sbi.inference import GridPosterior, NormalPrior, common_grid, grid_posterior
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals import FisherInformation, ProfileScan, profile
from mflow_sbi.plots import (
    DEFAULT_SELECTION,
    Regions,
    closure_plot,
    contour_plot,
    corner_plot,
    history_plot,
    observables_plot,
    posterior_comparison_plot,
    predictive_plot,
    profile_plot,
    save_figure,
)

NAMES = ("CWL2", "CPWL2")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
TRUTH = np.array([0.5, 0.0])
RNG = np.random.default_rng(0)
EVENTS = RNG.normal(size=(2000, 40)) * 50 + 100
DRAWS = RNG.normal([0.3, -0.2], [0.3, 0.5], size=(40_000, 2))
VIOLATIONS = np.abs(RNG.normal(size=(500, 26))) * 1e-3
HISTORY = [
    {"phase": phase, "cycle": 0, "epoch": k, "train": 1 / (k + 1), "validation": abs(k - 3) + 0.5}
    for phase in ("manifold", "density")
    for k in range(6)
]


class Curved:
    """A banana."""

    parameter_names = NAMES
    n_events = 20

    def __call__(self, theta: Array) -> Array:
        a, b = (theta - [0.4, 0.1]).T
        return -0.5 * (np.square(a / 0.3) + np.square((b - 1.5 * a**2) / 0.2))


@pytest.fixture(scope="module")
def exact() -> GridPosterior:
    return grid_posterior(Curved(), PRIOR, common_grid([Curved()], PRIOR))


def _table_figure() -> Figure:
    comparison = compare_posteriors({"M-flow": Curved()}, PRIOR, Curved(), TRUTH, cells=20)
    return posterior_comparison_plot(comparison.table)


LIMITS = {"CWL2": (-3.0, 3.0), "CPWL2": (-3.0, 6.0)}
OBSERVED = EVENTS[:30]
REPLICAS = [EVENTS[k : k + 30] for k in range(30, 1530, 30)]


def _scans() -> list[ProfileScan]:
    return [profile(Curved(), name, LIMITS) for name in NAMES]


def _predictive_figure() -> Figure:
    check = predictive_check(OBSERVED, REPLICAS, [o.name for o in WBF_OBSERVABLES])
    return predictive_plot(OBSERVED, REPLICAS, WBF_OBSERVABLES, check)


def _contour_figure() -> Figure:
    scan = profile(Curved(), NAMES, LIMITS)
    information = FisherInformation(NAMES, np.diag([1 / 0.3**2, 1 / 0.2**2]))
    regions = Regions(
        {"M-flow": [scan.contour(level) for level in (0.68, 0.95)]},
        {"Fisher, 68 %": (np.array([0.4, 0.1]), information)},
    )
    return contour_plot({"0.1": regions, "1": regions}, TRUTH, NAMES)


FIGURES: dict[str, Callable[[], Figure]] = {
    "profile": lambda: profile_plot({"M-flow": _scans()}, TRUTH, NAMES),
    "predictive": _predictive_figure,
    "contour": _contour_figure,
    "corner": lambda: corner_plot({"M-flow": DRAWS}, None, TRUTH, NAMES),
    "observables": lambda: observables_plot(
        EVENTS, {"M-flow": EVENTS}, WBF_OBSERVABLES, ["m_aa", "eta_j1"]
    ),
    "closure": lambda: closure_plot(
        {"M-flow": VIOLATIONS}, [term.name for term in CLOSURE_TERMS], VIOLATIONS * 1e-5
    ),
    "history": lambda: history_plot({"M-flow": HISTORY}),
    "comparison": _table_figure,
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_same_numbers_same_bytes(draw: Callable[[], Figure], tmp_path: Path) -> None:
    first, second = (
        save_figure(draw(), tmp_path / f"{name}.png", dpi=50).read_bytes() for name in "ab"
    )
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_global_settings_are_left_alone(draw: Callable[[], Figure]) -> None:
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def _contours(ax: Axes) -> list[QuadContourSet]:
    """Contour lines (not fills), in the order drawn."""
    return [c for c in ax.collections if isinstance(c, QuadContourSet) and not c.filled]


def _share_inside(contours: QuadContourSet, line: int, draws: Array) -> float:
    return float(contours.get_paths()[line].contains_points(draws).mean())


def test_contours_hold_68_and_95_percent(exact: GridPosterior) -> None:
    """Of draws from each posterior, also on the uneven grid and after smoothing."""
    figure = corner_plot({"draws": DRAWS, "grid": exact}, exact, TRUTH, NAMES)
    of_exact, of_draws, of_grid = _contours(figure.axes[2])
    from_grid = exact.sample(40_000, np.random.default_rng(1))
    for contours, draws in ((of_exact, from_grid), (of_draws, DRAWS), (of_grid, from_grid)):
        assert _share_inside(contours, 0, draws) == pytest.approx(0.95, abs=0.01)
        assert _share_inside(contours, 1, draws) == pytest.approx(0.68, abs=0.015)


def test_marginal_curves_are_normalised(exact: GridPosterior) -> None:
    figure = corner_plot({"draws": DRAWS}, exact, None, NAMES)
    for ax in (figure.axes[0], figure.axes[3]):
        for line in ax.lines:
            x, y = (np.asarray(values, dtype=float) for values in line.get_data())
            assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)


def test_corner_axes_and_legend(exact: GridPosterior) -> None:
    figure = corner_plot({"M-flow": DRAWS}, exact, TRUTH, NAMES)
    pair = figure.axes[2]
    assert (pair.get_xlabel(), pair.get_ylabel()) == NAMES
    legend = figure.axes[1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["exact", "M-flow", "truth"]
    low, high = pair.get_xlim()
    assert low < TRUTH[0] < high


def test_corner_of_one_and_of_three_parameters() -> None:
    assert len(corner_plot({"M-flow": DRAWS[:, :1]}, None, None, ["CWL2"]).axes) == 1
    draws = RNG.normal(size=(5000, 3))
    assert len(corner_plot({"M-flow": draws}, None, None, "abc").axes) == 9


def test_histograms_are_densities_per_event_with_poisson_errors() -> None:
    figure = observables_plot(EVENTS, {"M-flow": EVENTS[:500]}, WBF_OBSERVABLES, ["pt_j1"])
    main, ratio = figure.axes
    column = [observable.name for observable in WBF_OBSERVABLES].index("pt_j1")
    steps = [patch for patch in main.patches if hasattr(patch, "get_data")]
    simulated, generated = steps[0].get_data(), steps[-1].get_data()  # type: ignore[attr-defined]
    for data, values in ((simulated, EVENTS[:, column]), (generated, EVENTS[:500, column])):
        counts = np.histogram(values, data.edges)[0]
        np.testing.assert_allclose(data.values * len(values) * np.diff(data.edges), counts)
    bars = np.array(main.containers[0].lines[2][0].get_segments())  # type: ignore[union-attr]
    counts = np.histogram(EVENTS[:, column], simulated.edges)[0]
    heights = 0.5 * (bars[:, 1, 1] - bars[:, 0, 1]) * len(EVENTS) * np.diff(simulated.edges)
    np.testing.assert_allclose(heights, np.sqrt(counts))
    assert ratio.get_xlabel() == r"$p_{T,\,j_1}$ [GeV]"
    assert main.get_ylabel() == "density [1/GeV]"


def test_profiles_are_drawn_without_kinks() -> None:
    """Nowhere is the line off the profile by more than its own width."""
    scans = _scans()
    figure = profile_plot({"M-flow": scans}, None, NAMES)
    for ax, scan in zip(figure.axes, scans, strict=True):
        x, q = (np.asarray(values, dtype=float) for values in ax.lines[0].get_data())
        middle = 0.5 * (x[1:] + x[:-1])
        truth = scan.statistic_at(middle[:, None])
        shown = truth < 9
        assert np.abs(0.5 * (q[1:] + q[:-1]) - truth)[shown].max() < 0.02
        assert len(x) > len(scan.axes[0])


def test_ellipses_and_contours_are_in_every_panel() -> None:
    left, right = _contour_figure().axes
    assert (left.get_title(), right.get_title()) == ("0.1", "1")
    assert left.get_xlabel() == NAMES[0]
    ellipse = np.asarray(left.lines[2].get_xydata(), dtype=float) - [0.4, 0.1]
    radius = -2 * np.log(1 - 0.68)
    np.testing.assert_allclose(np.square(ellipse / [0.3, 0.2]).sum(axis=1), radius)


def test_predictive_histograms_hold_all_events_and_ratios_go_with_them() -> None:
    figure = _predictive_figure()
    assert len(figure.axes) == 16
    check = predictive_check(OBSERVED, REPLICAS, [o.name for o in WBF_OBSERVABLES])
    assert figure.axes[0].get_title(loc="right") == f"p = {min(check.p_values):.3f}"
    for above, below in zip(figure.axes[:4], figure.axes[4:8], strict=True):
        points = np.asarray(above.lines[0].get_ydata(), dtype=float)
        assert points.sum() == len(OBSERVED)
        mean = above.patches[-1].get_data().values  # type: ignore[attr-defined]
        assert mean.sum() == pytest.approx(30.0)  # also those beyond the range
        ratios = np.asarray(below.lines[0].get_ydata(), dtype=float)
        np.testing.assert_allclose(ratios, points / mean[-len(points) :])
        assert below.get_xlabel()


def test_selection_of_twelve_and_what_is_left_of_it() -> None:
    names = [observable.name for observable in WBF_OBSERVABLES]
    assert len(DEFAULT_SELECTION) == 12
    assert set(DEFAULT_SELECTION) <= set(names)
    assert len(observables_plot(EVENTS, {}, WBF_OBSERVABLES).axes) == 24
    few = WBF_OBSERVABLES[:3]  # none but the first three: none of the twelve
    assert len(observables_plot(EVENTS[:, :3], {}, few).axes) == 6


def test_constant_observable_can_be_drawn() -> None:
    figure = observables_plot(np.ones((50, 1)), {"M-flow": np.ones((50, 1))}, WBF_OBSERVABLES[:1])
    assert len(figure.axes) == 2


def test_closure_medians_and_floor() -> None:
    violations = VIOLATIONS.copy()
    violations[:, 3] = 0.0
    (ax,) = closure_plot({"M-flow": violations}, [term.name for term in CLOSURE_TERMS]).axes
    arrows, medians = (np.asarray(line.get_xdata(), dtype=float) for line in ax.lines[:2])
    assert ax.get_xscale() == "log"
    expected = np.delete(np.median(violations, axis=0), 3)  # an arrow instead of a median
    np.testing.assert_allclose(medians, expected)
    np.testing.assert_array_equal(arrows, [1e-12])


def test_history_marks_the_epoch_that_is_kept() -> None:
    manifold, density = history_plot({"M-flow": HISTORY}).axes
    assert [ax.get_title() for ax in (manifold, density)] == [
        "M-flow: manifold",
        "M-flow: density",
    ]
    for ax in (manifold, density):
        train = np.asarray(ax.lines[0].get_ydata(), dtype=float)
        np.testing.assert_allclose(train, 1 / np.arange(1, 7))
        assert list(np.asarray(ax.lines[2].get_xdata(), dtype=float)) == [4]


def test_history_of_a_diverged_run_can_be_drawn() -> None:
    diverged = [{"phase": "m", "train": np.nan, "validation": np.nan}] * 3
    assert history_plot({"af": diverged, "M-flow": HISTORY}).axes


def test_comparison_shows_every_row() -> None:
    ax = _table_figure().axes[0]
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == [EXACT, "M-flow", "prior"]


ERRORS = {
    "draws": lambda: corner_plot({"M-flow": DRAWS[:, :1]}, None, None, NAMES),
    "truth": lambda: corner_plot({"M-flow": DRAWS}, None, np.zeros(3), NAMES),
    "violations": lambda: closure_plot({"M-flow": VIOLATIONS[:, :5]}, ["a", "b"]),
    "predicted": lambda: predictive_plot(
        OBSERVED[:, :5],
        REPLICAS,
        WBF_OBSERVABLES,
        predictive_check(OBSERVED, REPLICAS, [o.name for o in WBF_OBSERVABLES]),
    ),
    "panels": lambda: contour_plot({}, None, NAMES),
    "columns": lambda: observables_plot(EVENTS, {"M-flow": EVENTS[:, :5]}, WBF_OBSERVABLES),
}


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_errors(call: Callable[[], Figure]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        call()


def test_failed_saving_leaves_the_old_figure(tmp_path: Path) -> None:
    path = save_figure(FIGURES["history"](), tmp_path / "a.png", dpi=30)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="dpi"):
        save_figure(FIGURES["history"](), path, dpi=-1)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
