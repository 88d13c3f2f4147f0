"""Predictive checks: observed events over the bands of predicted ones, with ratios."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.stats import chi2

from mflow_sbi.calibration import PredictiveCheck
from mflow_sbi.errors import ShapeError
from mflow_sbi.events.observables import Observable
from mflow_sbi.interfaces import Array
from mflow_sbi.plots.events import DEFAULT_SELECTION, axis_label
from mflow_sbi.plots.style import COLOURS, GREYS, in_house_style

__all__ = ["predictive_plot"]

_COLUMNS = 4
_TAIL = 0.025  # of predicted events on either side that may count in the outermost bins
_RATIO_TOP = 3.0
_ONE_SIGMA = 0.6827


@in_house_style
def predictive_plot(
    observed: Array,
    replicas: Sequence[Array],
    observables: Sequence[Observable],
    check: PredictiveCheck,
    selection: Sequence[str] = DEFAULT_SELECTION,
) -> Figure:
    """Draw observed histograms over 68 % and 95 % bands of predicted sets, and ratios to the mean.

    The first row holds the observables with the smallest p-values, the second the first others of
    a selection.  Bars of observed numbers n are 68 % intervals of Poisson means (Garwood's).
    The outermost bins hold what lies beyond, too.

    Args:
        observed: (N, n), physical units.
        replicas: predicted sets, (N_r, n) each, perhaps empty ones.
        observables: of the n columns.
        check: with a p-value of every column.
        selection: names that are drawn whatever their p-value.

    Raises:
        ShapeError: columns that do not match.
    """
    names = [observable.name for observable in observables]
    widths = {x.shape[1:] for x in (observed, *replicas)} | {(len(check.observables),)}
    if widths != {(len(names),)}:
        message = f"predictive plot: expected events of {len(names)} columns, got {widths}"
        raise ShapeError(message)
    order = np.lexsort((-np.array(check.distances), np.array(check.p_values)))
    worst = order[:_COLUMNS].tolist()
    wanted = [names.index(name) for name in selection if name in names]
    main = [k for k in (*wanted, *range(len(names))) if k not in worst]
    columns = [*worst, *list(dict.fromkeys(main))[:_COLUMNS]]
    n_columns = min(_COLUMNS, len(worst))
    n_rows = -(-len(columns) // n_columns)
    figure = Figure(figsize=(3.3 * n_columns, 3.7 * n_rows + 0.5))
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.01)
    heights = [3.0, 1.1] * n_rows
    axes = figure.subplots(2 * n_rows, n_columns, squeeze=False, height_ratios=heights)
    for panel in range(n_rows * n_columns):
        row, column = divmod(panel, n_columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        if panel >= len(columns):
            above.set_axis_off()
            below.set_axis_off()
            continue
        k = columns[panel]
        _panel(above, below, observed[:, k], [x[:, k] for x in replicas])
        above.set_title(f"p = {check.p_values[k]:.3f}", loc="right", fontsize=10)
        below.set_xlabel(axis_label(observables[k]))
        if column == 0:
            above.set_ylabel("events per bin")
            below.set_ylabel("ratio to\npredicted", fontsize=10)
    axes[0, 0].set_title("smallest p", loc="left", fontsize=10)
    figure.legend(handles=_handles(), loc="outside upper center", ncols=4)
    return figure


def _handles() -> list[Any]:
    marker: Any = {"ls": "", "marker": "o", "ms": 4.5, "color": "k"}
    return [
        Line2D([], [], label="observed", **marker),
        Line2D([], [], color=COLOURS[0], lw=1.6, label="predicted, mean"),
        Patch(facecolor=GREYS[1], label="68 % of predicted sets"),
        Patch(facecolor=GREYS[0], label="95 %"),
    ]


def _panel(above: Axes, below: Axes, observed: Array, replicas: Sequence[Array]) -> None:
    edges = _edges(observed, np.concatenate(replicas))
    ends = (edges[0], edges[-1])
    counts = np.histogram(observed, edges)[0]
    predicted = np.stack([np.histogram(np.clip(x, *ends), edges)[0] for x in replicas])
    mean = predicted.mean(axis=0)
    bands = np.quantile(predicted, [0.025, 0.16, 0.84, 0.975], axis=0)
    low, high = _garwood(counts)
    centres = 0.5 * (edges[1:] + edges[:-1])
    seen = (counts > 0) | (mean > 0.05 * mean.max())
    bars = np.stack([counts - low, high - counts])[:, seen]
    for ax, unit in ((above, np.ones_like(mean)), (below, np.where(mean > 0, mean, np.nan))):
        for (bottom, top), colour in zip((bands[[0, 3]], bands[[1, 2]]), GREYS, strict=True):
            filled: Any = {"fill": True, "color": colour, "lw": 0}
            ax.stairs(top / unit, edges, baseline=bottom / unit, **filled)
        ax.stairs(mean / unit, edges, color=COLOURS[0], baseline=None)
        height, error = (counts / unit)[seen], bars / unit[seen]
        ax.errorbar(centres[seen], height, error, fmt="o", ms=4.0, color="k", elinewidth=1.0)
        ax.set_xlim(*ends)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.spines[["top", "right"]].set_visible(True)
        ax.tick_params(which="both", top=True, right=True)
    above.set_ylim(0, 1.15 * max(high[seen].max(), bands[3].max()))
    above.tick_params(labelbottom=False)
    below.set_ylim(0, _RATIO_TOP)
    off = seen & (mean > 0) & (counts > _RATIO_TOP * mean)
    below.plot(centres[off], np.full(off.sum(), 0.95 * _RATIO_TOP), "k^", ms=4)


def _edges(observed: Array, predicted: Array) -> Array:
    """Return bin edges over the observed and nearly all predicted values, (B + 1,)."""
    low, high = np.quantile(predicted, [_TAIL, 1 - _TAIL])
    low, high = min(low, observed.min()), max(high, observed.max())
    margin = 0.0 if low < high else 0.5
    bins = int(np.clip(round(2 * np.sqrt(len(observed))), 6, 24))
    return np.linspace(low - margin, high + margin, bins + 1)


def _garwood(counts: Array) -> tuple[Array, Array]:
    """Return the ends of central 68 % intervals of Poisson means, (B,), (B,)."""
    tail = (1 - _ONE_SIGMA) / 2
    low = np.where(counts > 0, 0.5 * chi2.ppf(tail, 2 * np.maximum(counts, 1)), 0.0)
    return low, 0.5 * chi2.ppf(1 - tail, 2 * (counts + 1))
