"""Events: simulated against generated observables, and how well they close."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mflow_sbi.errors import ShapeError
from mflow_sbi.events.observables import Observable
from mflow_sbi.interfaces import Array
from mflow_sbi.plots.style import GREYS, in_house_style, line_style

__all__ = ["DEFAULT_SELECTION", "axis_label", "closure_plot", "observables_plot"]

DEFAULT_SELECTION = (
    *("pt_a1", "pt_a2", "eta_a1", "m_aa"),
    *("pt_j1", "pt_j2", "eta_j1", "deltaeta_jj"),
    *("e_j1", "pt_aa", "pt_jj", "m_jj"),
)
"""Twelve of the 40 observables."""

_FLOOR = 1e-12  # of weighted violations
_ATTRIBUTES = {
    "e": "E",
    "px": "p_x",
    "py": "p_y",
    "pz": "p_z",
    "pt": "p_T",
    "m": "m",
    "eta": r"\eta",
    "deltaeta": r"\Delta\eta",
}
_OBJECTS = {
    "a1": r"\gamma_1",
    "a2": r"\gamma_2",
    "j1": "j_1",
    "j2": "j_2",
    "aa": r"\gamma\gamma",
    "jj": "jj",
}


@in_house_style
def observables_plot(
    x_simulated: Array,
    x_generated: Mapping[str, Array],
    observables: Sequence[Observable],
    selection: Sequence[str] = DEFAULT_SELECTION,
) -> Figure:
    """Draw normalised histograms of simulated and generated events and their ratios.

    Bars are statistical (square root of the numbers of events); the grey band in the ratio is the
    simulation's own.  Densities are per event of the whole sample, also of those outside the range
    shown (0.5 % to 99.5 % of the simulation); ratios outside the panel are drawn as arrows.

    Args:
        x_simulated: (N, n), physical units.
        x_generated: label -> (M, n), physical units.
        observables: of the n columns.
        selection: names to be drawn; those absent from `observables` are left out, and all are
            drawn if none is left.

    Raises:
        ShapeError: events with another number of columns.
    """
    for label, x in {"simulated": x_simulated, **x_generated}.items():
        if x.ndim != 2 or x.shape[1] != len(observables):
            message = f"events of {label!r}: expected (N, {len(observables)}), got {x.shape}"
            raise ShapeError(message)
    names = [observable.name for observable in observables]
    columns = [names.index(name) for name in selection if name in names] or range(len(names))
    n_columns = min(4, len(columns))
    n_rows = -(-len(columns) // n_columns)
    figure = Figure(figsize=(3.4 * n_columns, 3.4 * n_rows + 0.5))
    figure.set_layout_engine("constrained", h_pad=0.015, hspace=0.01)
    heights = [3.0, 1.0] * n_rows
    axes = figure.subplots(2 * n_rows, n_columns, squeeze=False, height_ratios=heights)
    for panel in range(n_rows * n_columns):
        row, column = divmod(panel, n_columns)
        main, ratio = axes[2 * row, column], axes[2 * row + 1, column]
        if panel >= len(columns):
            main.set_axis_off()
            ratio.set_axis_off()
            continue
        k = columns[panel]
        generated = [x[:, k] for x in x_generated.values()]
        _observable(main, ratio, x_simulated[:, k], generated, observables[k])
        if column == 0:
            ratio.set_ylabel("ratio to\nsimulated", fontsize=10)
    handles: list[Any] = [Patch(facecolor=GREYS[0], edgecolor="k", lw=0.8, label="simulated")]
    handles += [
        Line2D([], [], label=label, **line_style(n)) for n, label in enumerate(x_generated)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=12)
    return figure


def _observable(
    main: Axes, ratio: Axes, simulated: Array, generated: Sequence[Array], observable: Observable
) -> None:
    low, high = np.quantile(simulated, [0.005, 0.995])
    margin = 0.0 if low < high else 0.5
    edges = np.linspace(low - margin, high + margin, 31)
    centres, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    reference, error = _density(simulated, edges)
    main.stairs(reference, edges, fill=True, color=GREYS[0])
    main.stairs(reference, edges, color="k", lw=0.8)
    main.errorbar(centres, reference, error, fmt="none", ecolor="k", elinewidth=0.8)
    ratio.axhline(1, color="k", lw=0.8)
    safe = np.where(reference > 0, reference, np.nan)
    ratio.stairs(1 + error / safe, edges, baseline=1 - error / safe, fill=True, color="#DCDCDC")
    for n, values in enumerate(generated):
        density, spread = _density(values, edges)
        line = line_style(n)
        main.stairs(density, edges, lw=1.4, **line)
        offset = width * 0.18 * (n - 0.5 * (len(generated) - 1))
        main.errorbar(
            centres + offset, density, spread, fmt="none", ecolor=line["color"], elinewidth=0.9
        )
        quotient = density / safe
        ratio.errorbar(
            centres + offset,
            quotient,
            spread / safe,
            fmt="o",
            ms=2.2,
            color=line["color"],
            elinewidth=0.8,
        )
        for side, level, marker in ((quotient > 1.5, 1.47, "^"), (quotient < 0.5, 0.53, "v")):
            ratio.plot(
                centres[side] + offset,
                np.full(side.sum(), level),
                marker,
                ms=3.5,
                color=line["color"],
            )
    positive = reference[reference > 0]
    if positive.max() > 30 * positive.min() and observable.unit != "1":
        main.set_yscale("log")
        main.set_ylim(0.4 * positive.min(), 4 * positive.max())
    else:
        main.set_ylim(0, 1.35 * positive.max())
    per_unit = "" if observable.unit == "1" else f" [1/{observable.unit}]"
    main.set_ylabel(f"density{per_unit}", fontsize=10)
    main.tick_params(labelbottom=False)
    for ax in (main, ratio):
        ax.set_xlim(edges[0], edges[-1])
    ratio.set_ylim(0.5, 1.5)
    ratio.set_xlabel(axis_label(observable))


def axis_label(observable: Observable) -> str:
    """Return an observable's symbol and unit."""
    unit = "" if observable.unit == "1" else f" [{observable.unit}]"
    return f"{_symbol(observable.name)}{unit}"


def _density(values: Array, edges: Array) -> tuple[Array, Array]:
    """Return the density per event in bins, and its statistical error."""
    counts = np.histogram(values, edges)[0]
    norm = len(values) * np.diff(edges)
    return counts / norm, np.sqrt(counts) / norm


def _symbol(name: str) -> str:
    """Return an observable's name as mathematics, e.g. pt_j1, or as it is."""
    attribute, _, thing = name.partition("_")
    if attribute not in _ATTRIBUTES or thing not in _OBJECTS:
        return name
    symbol = _ATTRIBUTES[attribute]
    base, _, index = symbol.partition("_")
    subscript = f"{index},\\,{_OBJECTS[thing]}" if index else _OBJECTS[thing]
    return f"${base}_{{{subscript}}}$"


@in_house_style
def closure_plot(
    violations: Mapping[str, Array], names: Sequence[str], simulated: Array | None = None
) -> Figure:
    """Draw the distribution over events of every weighted violation w_i |v_i|, log scale.

    Points are medians, thick bars hold 68 % and thin bars 95 % of the events.  Violations below
    1e-12 are drawn there, as arrows.

    Args:
        violations: label -> (N, c), weighted, without units.
        names: of the c constraints.
        simulated: those of simulated events, (N, c), in grey, or None.

    Raises:
        ShapeError: a label has another number of constraints.
    """
    figure = Figure(figsize=(8.5, 1.6 + 0.33 * len(names)), layout="constrained")
    ax = figure.subplots()
    rows = np.arange(len(names))[::-1]
    everyone = {} if simulated is None else {"simulated": simulated}
    everyone.update(violations)
    colours = [line_style(n)["color"] for n in range(len(violations))]
    if simulated is not None:
        colours.insert(0, "#707070")
    step = 0.7 / max(1, len(everyone))
    handles = []
    for n, (label, values) in enumerate(everyone.items()):
        if values.ndim != 2 or values.shape[1] != len(names):
            message = f"violations of {label!r}: expected (N, {len(names)}), got {values.shape}"
            raise ShapeError(message)
        low, left, median, right, high = np.maximum(
            np.quantile(values, [0.025, 0.16, 0.5, 0.84, 0.975], axis=0), _FLOOR
        )
        y = rows - step * (n - 0.5 * (len(everyone) - 1))
        colour = colours[n]
        ax.hlines(y, low, high, color=colour, lw=1.0)
        ax.hlines(y, left, right, color=colour, lw=3.2)
        below = low <= _FLOOR
        ax.plot(low[below], y[below], "<", ms=5, color=colour, ls="")
        seen = median > _FLOOR
        ax.plot(median[seen], y[seen], "o", ms=5, mfc="w", mec=colour, mew=1.3, ls="")
        handles.append(Line2D([], [], color=colour, lw=3.2, label=label))
    for row in rows[:-1]:
        ax.axhline(row - 0.5, color="#E6E6E6", lw=0.6, zorder=0)
    ax.set_xscale("log")
    ax.set_yticks(rows, names, fontsize=9.5)
    ax.yaxis.minorticks_off()
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel("weighted violation  $w_i\\,|v_i|$  (median, 68 % and 95 % of the events)")
    ax.grid(axis="x", color="#E6E6E6", lw=0.6)
    ax.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, len(everyone)))
    return figure
