"""Frequentist figures: profile scans, and contours with Fisher ellipses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mflow_sbi.errors import ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals import Contour, FisherInformation, ProfileScan, Wilks
from mflow_sbi.plots.style import in_house_style, line_style

__all__ = ["Regions", "contour_plot", "profile_plot"]

_LEVELS = (0.68, 0.95)
_CEILING = 9.0
_BEND = 0.005  # of q, by which a chord may miss the profile: a quarter of a line's width
_ROUNDS = 8
_STEEP = 1e3  # larger q, infinite ones too, are drawn as this


@in_house_style
def profile_plot(
    scans: Mapping[str, Sequence[ProfileScan]],
    truth: Array | None,
    parameter_labels: Sequence[str],
) -> Figure:
    """Draw q = 2 Delta log L of each parameter, the others profiled, with 68 % and 95 % lines.

    Args:
        scans: label -> scans, one per parameter, in order.
        truth: parameters behind the observed events, (p,), or None.
        parameter_labels: p axis labels, with units where there are any.

    Raises:
        ShapeError: scans, truth and labels are not of the same number of parameters.
    """
    p = len(parameter_labels)
    numbers = {len(some) for some in scans.values()} | {p if truth is None else len(truth)}
    if numbers != {p}:
        message = f"profile plot: expected {p} scans per label and as many truths, got {numbers}"
        raise ShapeError(message)
    figure = Figure(figsize=(3.8 * p, 3.6), layout="constrained")
    axes = figure.subplots(1, p, squeeze=False)[0]
    for k, ax in enumerate(axes):
        for n, (label, some) in enumerate(scans.items()):
            ax.plot(*_curve(some[k]), label=label, **line_style(n))
        for level in _LEVELS:
            height = float(Wilks().threshold(np.zeros((1, 1)), level)[0])
            ax.axhline(height, color="k", lw=0.8, ls=":")
            ax.annotate(
                f"{level:.0%}",
                (1, height),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
            )
        if truth is not None:
            ax.axvline(truth[k], color="k", lw=0.8, ls="--")
        low, high = _shown([some[k] for some in scans.values()])
        ax.set(xlim=(low, high), ylim=(0, _CEILING), xlabel=parameter_labels[k])
    axes[0].set_ylabel(r"$2\,\Delta\log L$")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _curve(scan: ProfileScan) -> tuple[Array, Array]:
    """Return points of the profile so dense that straight lines between them do not show."""
    x, q = scan.axes[0], np.minimum(scan.statistic, _STEEP)
    for _ in range(_ROUNDS):
        low = np.minimum(q[1:], q[:-1]) < _CEILING
        slopes = np.diff(q) / np.diff(x)
        turn = np.abs(np.diff(slopes, prepend=slopes[0], append=slopes[-1]))
        sagging = 0.125 * np.diff(x) * np.maximum(turn[1:], turn[:-1])  # of a parabola
        rows = np.flatnonzero(low & (sagging > _BEND))
        if len(rows) == 0:
            break
        middle = 0.5 * (x[rows] + x[rows + 1])
        between = np.minimum(scan.statistic_at(middle[:, None]), _STEEP)
        q = np.insert(q, rows + 1, between)
        x = np.insert(x, rows + 1, middle)
    return x, q


def _shown(scans: Sequence[ProfileScan]) -> tuple[float, float]:
    """Return the range where a scan lies below the ceiling, with a margin."""
    below = np.concatenate([scan.axes[0][scan.statistic < _CEILING] for scan in scans])
    margin = 0.15 * np.ptp(below)
    return float(below.min() - margin), float(below.max() + margin)


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of two parameters to be drawn in one panel.

    Args:
        contours: label -> contours, thicker lines first.
        ellipses: label -> centre (2,) and information; the border of 68 % in both parameters.
    """

    contours: Mapping[str, Sequence[Contour]]
    ellipses: Mapping[str, tuple[Array, FisherInformation]]


@in_house_style
def contour_plot(
    panels: Mapping[str, Regions], truth: Array | None, parameter_labels: Sequence[str]
) -> Figure:
    """Draw regions of two parameters: likelihood contours, and ellipses of Fisher information.

    Args:
        panels: title -> regions, with the same labels in all panels.
        truth: parameters behind the observed events, (2,), a star, or None.
        parameter_labels: both axis labels, with units where there are any.

    Raises:
        ShapeError: no panels, or not two labels.
    """
    if not panels or len(parameter_labels) != 2:
        message = f"contour plot: expected panels and two labels, got {list(parameter_labels)}"
        raise ShapeError(message)
    figure = Figure(figsize=(0.4 + 4.3 * len(panels), 4.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, regions) in zip(axes, panels.items(), strict=True):
        _regions(ax, regions)
        if truth is not None:
            ax.plot(*truth, "*", ms=13, mfc="w", mec="k", ls="", label="truth", zorder=5)
        ax.set(xlabel=parameter_labels[0], title=title)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel(parameter_labels[1])
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 2 if len(panels) == 1 else len(labels)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=10)
    return figure


def _regions(ax: Axes, regions: Regions) -> None:
    for n, (label, some) in enumerate(regions.contours.items()):
        for k, contour in enumerate(some):
            for i, line in enumerate(contour.lines):
                shown = label if k == i == 0 else None
                ax.plot(*line.T, label=shown, **{**line_style(n), "lw": 1.8 - 0.7 * k})
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    radius = np.sqrt(-2 * np.log(1 - _LEVELS[0]))
    for n, (label, (centre, information)) in enumerate(regions.ellipses.items()):
        root = np.linalg.cholesky(np.linalg.inv(information.matrix))
        style = line_style(len(regions.contours) + n)
        ax.plot(*(centre[:, None] + radius * root @ circle), label=label, **style)
