"""Calibration: rank histograms with the band of calibrated posteriors, coverage curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mflow_sbi.calibration import CoverageCurve, RankHistogram
from mflow_sbi.errors import ShapeError
from mflow_sbi.plots.style import GREYS, in_house_style, line_style

__all__ = ["calibration_plot"]


@in_house_style
def calibration_plot(
    histograms: Mapping[str, Sequence[RankHistogram]], curves: Mapping[str, CoverageCurve]
) -> Figure:
    """Draw one rank histogram per quantity, then the coverage of highest-density regions.

    Grey bands hold a calibrated bin with 95 % probability, or a calibrated coverage at one level;
    of 20 calibrated bins about one lies outside.

    Args:
        histograms: label -> histograms, the same quantities for every label.
        curves: label -> coverage against level; its excess over the level is drawn.

    Raises:
        ShapeError: labels with other quantities, or no labels.
    """
    names = [[h.quantity for h in some] for some in histograms.values()]
    if not names or any(other != names[0] for other in names) or set(curves) != set(histograms):
        message = f"calibration plot: expected the same quantities for each label, got {names}"
        raise ShapeError(message)
    n = len(names[0]) + 1
    figure = Figure(figsize=(3.3 * n, 3.4), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0]
    for k, quantity in enumerate(names[0]):
        _ranks(axes[k], quantity, {label: some[k] for label, some in histograms.items()})
    axes[0].set_ylabel("sets of events")
    _coverage(axes[-1], curves)
    figure.legend(
        loc="outside upper center", ncols=4, handles=axes[0].get_legend_handles_labels()[0]
    )
    return figure


def _ranks(ax: Axes, quantity: str, histograms: Mapping[str, RankHistogram]) -> None:
    first = next(iter(histograms.values()))
    ax.axhspan(first.low, first.high, color=GREYS[0], lw=0, label="calibrated, 95 %")
    for n, (label, histogram) in enumerate(histograms.items()):
        ax.stairs(histogram.counts, histogram.edges, label=label, **line_style(n))
    top = max(int(h.counts.max()) for h in histograms.values())
    ax.set(xlim=(0, 1), ylim=(0, 1.15 * max(top, first.high)))
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_xlabel(f"rank of {quantity}")


def _coverage(ax: Axes, curves: Mapping[str, CoverageCurve]) -> None:
    first = next(iter(curves.values()))
    levels = first.levels
    ax.fill_between(levels, first.low - levels, first.high - levels, color=GREYS[0], lw=0)
    ax.axhline(0, color="k", lw=0.8, ls=":")
    for n, curve in enumerate(curves.values()):
        ax.plot(curve.levels, curve.shares - curve.levels, **line_style(n))
    ax.set(xlim=(0, 1), xlabel="level of the region", ylabel="coverage - level")
