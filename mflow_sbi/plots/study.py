"""A study at a glance: distance to the exact posterior, and the score at the truth."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mflow_sbi.comparison import POINT, StudyTable
from mflow_sbi.evaluation import EXACT, PRIOR
from mflow_sbi.plots.style import COLOURS, in_house_style

__all__ = ["study_plot"]

_MARKERS = ("o", "s", "^", "D", "v", "P")
_LEAST_TV = 1e-3


@in_house_style
def study_plot(table: StudyTable) -> Figure:
    """Draw one line a method: TV to the exact posterior, and smeared log p(truth).

    Points with error bars are means over truths, sets and seeds; open markers are the truths.
    Grey lines are the exact posterior, the prior alone, and a point mass on the truth.
    """
    methods = [row for row in table.rows if row.label not in (EXACT, PRIOR, POINT) and row.seeds]
    has_exact = any(row.numbers.get("total_variation") is not None for row in methods)
    names = ["total_variation", "smeared"] if has_exact else ["smeared"]
    size = (4.2 * len(names) + 2.2, 0.34 * len(methods) + 1.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    labels = {
        "total_variation": "total variation to the exact posterior",
        "smeared": "log p(truth), smeared",
    }
    for axis, name in zip(axes, names, strict=True):
        for k, row in enumerate(methods):
            mean, error = row.numbers[name] or (float("nan"), 0.0)
            axis.errorbar(mean, k, xerr=error, fmt="o", color=COLOURS[0], capsize=2.5, zorder=3)
            for marker, value in zip(_MARKERS, row.by_truth[name].values(), strict=False):
                axis.plot(value, k, marker, mfc="none", mec=COLOURS[1], ms=5, mew=0.9)
        _references(axis, table, name)
        axis.set_xlabel(labels[name])
        axis.grid(axis="y", color="0.93")
        axis.minorticks_on()
        axis.tick_params(axis="y", which="minor", left=False)
    if has_exact:
        axes[0].set_xscale("log")
        axes[0].set_xlim(left=_LEAST_TV)
    axes[0].set_yticks(range(len(methods)), [row.label for row in methods])
    axes[0].invert_yaxis()
    for marker, truth in zip(_MARKERS, table.truths, strict=False):
        axes[-1].plot([], [], marker, mfc="none", mec=COLOURS[1], label=f"truth {truth}")
    handles, texts = axes[-1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(handles), fontsize=9)
    return figure


def _references(axis: Axes, table: StudyTable, name: str) -> None:
    """Draw the lines of exact posterior, prior and point mass where they are numbers."""
    for label, dashes in ((EXACT, "-"), (PRIOR, "--"), (POINT, ":")):
        row = next((row for row in table.rows if row.label == label), None)
        value = None if row is None else row.numbers.get(name)
        if value is None or (name == "total_variation" and label != PRIOR):
            continue
        axis.axvline(value[0], color="0.45", ls=dashes, lw=1.0, zorder=1)
        axis.annotate(
            label,
            (value[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=8,
            color="0.35",
            rotation=15,
        )
