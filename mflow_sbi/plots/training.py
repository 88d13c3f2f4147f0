"""Training: objectives against epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from mflow_sbi.plots.style import COLOURS, DASHES, in_house_style

__all__ = ["history_plot"]


@in_house_style
def history_plot(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the objective against the epoch, a row per label and a panel per phase.

    Args:
        history: label -> records with the keys phase, train and validation, in order of training.
    """
    phases = {label: _by_phase(records) for label, records in history.items()}
    n_columns = max(len(panels) for panels in phases.values())
    size = (1.2 + 4.0 * n_columns, 0.5 + 2.9 * len(phases))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(phases), n_columns, squeeze=False)
    for row, (label, panels) in enumerate(phases.items()):
        for ax in axes[row, len(panels) :]:
            ax.set_axis_off()
        for ax, (phase, curves) in zip(axes[row], panels.items(), strict=False):
            train, validation = np.array(curves).T
            epochs = np.arange(1, len(train) + 1)
            colour = COLOURS[row % len(COLOURS)]
            ax.plot(epochs, train, color=colour, label="training")
            ax.plot(epochs, validation, color=colour, ls=DASHES[1], lw=1.4, label="held out")
            best = int(np.argmin(np.where(np.isnan(validation), np.inf, validation)))
            ax.plot(epochs[best], validation[best], "o", ms=7, mfc="w", mec=colour, mew=1.5)
            finite = np.array(curves)[np.isfinite(curves)]
            if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
                ax.set_yscale("log")
                ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_title(f"{label}: {phase}")
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
            ax.xaxis.set_minor_locator(NullLocator())
        axes[row, 0].set_ylabel("objective")
    handles = [
        Line2D([], [], color="k", label="training"),
        Line2D([], [], color="k", ls=DASHES[1], lw=1.4, label="held out"),
        Line2D([], [], ls="", marker="o", ms=7, mfc="w", mec="k", mew=1.5, label="kept (best)"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _by_phase(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    phases: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        curve = phases.setdefault(str(record["phase"]), [])
        curve.append((float(record["train"]), float(record["validation"])))
    return phases
