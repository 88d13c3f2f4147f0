"""Frequentist figures: profile scans, and contours with Fisher ellipses."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mflow_sbi.errors import ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals import Contour, FisherInformation, ProfileScan, Wilks
from mflow_sbi.plots.style import in_house_style, line_style

__all__ = ["contour_plot", "profile_plot"]

_LEVELS = (0.68, 0.95)
_CEILING = 9.0


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
            ax.plot(some[k].axes[0], some[k].statistic, label=label, **line_style(n))
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


def _shown(scans: Sequence[ProfileScan]) -> tuple[float, float]:
    """Return the range where a scan lies below the ceiling, with a margin."""
    below = np.concatenate([scan.axes[0][scan.statistic < _CEILING] for scan in scans])
    margin = 0.15 * np.ptp(below)
    return float(below.min() - margin), float(below.max() + margin)


@in_house_style
def contour_plot(
    contours: Mapping[str, Sequence[Contour]],
    ellipses: Mapping[str, tuple[Array, FisherInformation]],
    truth: Array | None,
    parameter_labels: Sequence[str],
) -> Figure:
    """Draw regions of two parameters: likelihood contours, and ellipses of Fisher information.

    Args:
        contours: label -> contours, thinner lines first.
        ellipses: label -> centre (2,) and information; the border of 68 % in both parameters.
        truth: parameters behind the observed events, (2,), a star, or None.
        parameter_labels: both axis labels, with units where there are any.
    """
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    ax = figure.subplots()
    for n, (label, some) in enumerate(contours.items()):
        for k, contour in enumerate(some):
            for i, line in enumerate(contour.lines):
                shown = label if k == i == 0 else None
                ax.plot(*line.T, label=shown, **{**line_style(n), "lw": 1.8 - 0.7 * k})
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for n, (label, (centre, information)) in enumerate(ellipses.items(), start=len(contours)):
        radius = np.sqrt(-2 * np.log(1 - _LEVELS[0]))
        line = (
            centre[:, None]
            + radius * np.linalg.cholesky(np.linalg.inv(information.matrix)) @ circle
        )
        ax.plot(*line, label=label, **line_style(n))
    if truth is not None:
        ax.plot(*truth, "*", ms=13, mfc="w", mec="k", ls="", label="truth", zorder=5)
    ax.set(xlabel=parameter_labels[0], ylabel=parameter_labels[1])
    figure.legend(loc="outside upper center", ncols=3)
    return figure
