"""Posteriors: corner plot with the exact one overlaid, means and widths side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import corner
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from mflow_sbi.errors import ShapeError
from mflow_sbi.evaluation.compare import EXACT, PRIOR, ComparisonTable
from mflow_sbi.inference import GridPosterior
from mflow_sbi.interfaces import Array
from mflow_sbi.plots.style import GREYS, in_house_style, line_style

__all__ = ["corner_plot", "posterior_comparison_plot"]

_LEVELS = (0.68, 0.95)
_ENDS = (0.0005, 0.9995)  # quantiles of the draws between which densities are estimated
_SMOOTHING = 2.0  # bins, of 80 (pairs) or 100 (single) between the ends: a normal widens by 2 %


@in_house_style
def corner_plot(
    posteriors: Mapping[str, Array | GridPosterior],
    exact: GridPosterior | None,
    truth: Array | None,
    parameter_names: Sequence[str],
) -> Figure:
    """Draw marginals of one and two parameters: 68 % and 95 % highest-density regions.

    Args:
        posteriors: label -> draws, (S, p), or a posterior on a grid. Densities of draws are
            smoothed; thin or curved posteriors are drawn more sharply from a grid.
        exact: exact posterior, filled in grey, or None.
        truth: parameters behind the observed events, (p,), a star, or None.
        parameter_names: axis labels, with units where there are any.

    Raises:
        ShapeError: draws or truth do not have p columns.
    """
    p = len(parameter_names)
    for label, draws in posteriors.items():
        if not isinstance(draws, GridPosterior) and draws.shape[1:] != (p,):
            message = f"draws of {label!r}: expected shape (S, {p}), got {draws.shape}"
            raise ShapeError(message)
    if truth is not None and np.shape(truth) != (p,):
        message = f"truth: expected shape ({p},), got {np.shape(truth)}"
        raise ShapeError(message)
    size = 2.6 * p + 1.2
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots(p, p, squeeze=False)
    limits = [_limits(k, posteriors, exact, truth) for k in range(p)]
    for k in range(p):
        _marginal(axes[k, k], k, posteriors, exact, truth)
        for j in range(k):
            _pair(axes[k, j], (j, k), posteriors, exact, truth)
            axes[k, j].set_ylim(limits[k])
            axes[j, k].set_axis_off()
        for j in range(k + 1):
            axes[k, j].set_xlim(limits[j])
            axes[k, j].set_box_aspect(1)
            axes[k, j].tick_params(labelbottom=k == p - 1, labelleft=j == 0 < k)
        axes[p - 1, k].set_xlabel(parameter_names[k])
        if k:
            axes[k, 0].set_ylabel(parameter_names[k])
    handles = _posterior_handles(posteriors, exact, truth)
    if p > 1:
        axes[0, p - 1].legend(handles=handles, loc="center", title="68 % and 95 % regions")
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _posterior_handles(
    posteriors: Mapping[str, Array | GridPosterior],
    exact: GridPosterior | None,
    truth: Array | None,
) -> list[Any]:
    handles: list[Any] = []
    if exact is not None:
        handles.append(Patch(facecolor=GREYS[1], edgecolor="k", lw=0.8, label="exact"))
    for n, label in enumerate(posteriors):
        handles.append(Line2D([], [], label=label, **line_style(n)))
    if truth is not None:
        handles.append(Line2D([], [], ls="", marker="*", ms=12, mfc="w", mec="k", label="truth"))
    return handles


def _limits(
    k: int,
    posteriors: Mapping[str, Array | GridPosterior],
    exact: GridPosterior | None,
    truth: Array | None,
) -> tuple[float, float]:
    ends: list[float] = [] if truth is None else [float(truth[k])]
    for posterior in (*posteriors.values(), *([] if exact is None else [exact])):
        if isinstance(posterior, GridPosterior):
            ends.extend(posterior.credible_interval(k, 0.998))
        else:
            ends.extend(np.quantile(posterior[:, k], [0.001, 0.999]).tolist())
    margin = 0.06 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _marginal(
    ax: Axes,
    k: int,
    posteriors: Mapping[str, Array | GridPosterior],
    exact: GridPosterior | None,
    truth: Array | None,
) -> None:
    if exact is not None:
        x, density = _curve(exact, k)
        ax.fill_between(x, density, color=GREYS[0], lw=0)
        ax.plot(x, density, color="k", lw=0.8)
    for n, posterior in enumerate(posteriors.values()):
        ax.plot(*_curve(posterior, k), **line_style(n))
    if truth is not None:
        ax.axvline(truth[k], color="k", lw=0.8, ls=":")
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.yaxis.minorticks_off()
    ax.spines["left"].set_visible(False)


def _curve(posterior: Array | GridPosterior, k: int) -> tuple[Array, Array]:
    """Return points and the marginal density of one parameter."""
    if isinstance(posterior, GridPosterior):
        centres = posterior.grid.centres[k]
        heights = posterior.marginal(k) / np.diff(posterior.grid.edges[k])
        density = PchipInterpolator(centres, np.maximum(heights, 1e-9 * heights.max()))
        x = np.linspace(centres[0], centres[-1], 4000)
        return x, density(x)
    low, high = np.quantile(posterior[:, k], _ENDS)
    edges = np.linspace(low, high, 101)
    heights = np.histogram(posterior[:, k], edges)[0] / len(posterior) / np.diff(edges)
    return 0.5 * (edges[1:] + edges[:-1]), gaussian_filter1d(heights, _SMOOTHING, mode="reflect")


def _pair(
    ax: Axes,
    pair: tuple[int, int],
    posteriors: Mapping[str, Array | GridPosterior],
    exact: GridPosterior | None,
    truth: Array | None,
) -> None:
    if exact is not None:
        x, y, density, heights = _grid_density(exact, pair)
        ax.contourf(x, y, density.T, [*heights, density.max() * 1.001], colors=GREYS)
        ax.contour(x, y, density.T, heights, colors="k", linewidths=0.8)
    for n, posterior in enumerate(posteriors.values()):
        line = line_style(n)
        style = {"colors": [line["color"]], "linestyles": [line["ls"]], "linewidths": [1.1, 1.8]}
        if isinstance(posterior, GridPosterior):
            x, y, density, heights = _grid_density(posterior, pair)
            ax.contour(x, y, density.T, heights, **style)
        else:
            _contours_of_draws(ax, posterior[:, list(pair)], style)
    if truth is not None:
        ax.plot(*truth[list(pair)], "*", ms=13, mfc="w", mec="k", zorder=5)


def _grid_density(
    posterior: GridPosterior, pair: tuple[int, int]
) -> tuple[Array, Array, Array, list[float]]:
    """Return centres, density and the increasing thresholds of 95 % and 68 %."""
    density, levels = posterior.marginal_pair(*pair, _LEVELS)
    inner, outer = levels
    j, k = pair
    heights = [min(outer, inner * (1 - 1e-6)), inner]  # one cell holds all if they are equal
    return posterior.grid.centres[j], posterior.grid.centres[k], density, heights


def _contours_of_draws(ax: Axes, draws: Array, style: Mapping[str, Any]) -> None:
    ends = np.quantile(draws, _ENDS, axis=0).T
    margins = 0.1 * np.ptp(ends, axis=1, keepdims=True) * [-1, 1]
    corner.hist2d(
        draws[:, 0],
        draws[:, 1],
        ax=ax,
        bins=80,
        range=(ends + margins).tolist(),
        smooth=_SMOOTHING,
        levels=_LEVELS,
        plot_datapoints=False,
        plot_density=False,
        no_fill_contours=True,
        quiet=True,
        contour_kwargs=dict(style),
    )


@in_house_style
def posterior_comparison_plot(table: ComparisonTable) -> Figure:
    """Draw means and widths of every posterior, and its total variation to the exact one.

    Args:
        table: as from `compare_posteriors`.
    """
    names, rows = table.parameter_names, table.rows
    size = (2.4 + 2.9 * (len(names) + 1), 1.3 + 0.42 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(names) + 1, sharey=True, squeeze=False)[0]
    y = np.arange(len(rows))[::-1]
    contenders = [row.label for row in rows if row.label not in (EXACT, PRIOR)]
    for height, row in zip(y, rows, strict=True):
        special = {EXACT: "k", PRIOR: "#808080"}
        colour = special.get(row.label) or line_style(contenders.index(row.label))["color"]
        for k, ax in enumerate(axes[:-1]):
            mean, width = row.posterior.mean[k], row.posterior.width[k]
            ax.errorbar(mean, height, xerr=width, fmt="o", ms=6, color=colour, capsize=3, lw=1.8)
        variation = row.posterior.total_variation
        if variation is not None:
            axes[-1].barh(height, variation, height=0.55, color=colour)
            axes[-1].text(variation + 0.02, height, f"{variation:.3f}", va="center", fontsize=10)
    for k, ax in enumerate(axes[:-1]):
        if table.truth is not None:
            ax.axvline(table.truth[k], color="k", lw=0.9, ls=":", zorder=0)
        ax.set_xlabel(f"{names[k]}  (mean $\\pm$ width)")
    axes[-1].set_xlim(0, 1.15)
    axes[-1].set_xlabel("total variation to exact")
    axes[0].set_yticks(y, [row.label for row in rows])
    for ax in axes:
        ax.yaxis.minorticks_off()
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(-0.6, len(rows) - 0.4)
    figure.suptitle(table.caption, fontsize=11)
    return figure
