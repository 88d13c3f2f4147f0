"""The house style: colours of Okabe and Ito in the order of the labels, doubled by line styles.

Black and grey are kept for what is exact or simulated.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

from mflow_sbi.events import Parameter

__all__ = [
    "COLOURS",
    "DASHES",
    "GREYS",
    "in_house_style",
    "line_style",
    "parameter_label",
    "save_figure",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1.5, 1)), (0, (8, 2)), (0, (3, 2)))
GREYS = ("#DCDCDC", "#B0B0B0")  # 95 %, 68 %
_STYLE: Any = {
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "mathtext.fontset": "dejavusans",
}
_P = ParamSpec("_P")


def in_house_style(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Return the drawing function under the house style; global settings are left alone."""

    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def line_style(n: int) -> dict[str, Any]:
    """Return colour and dashes of the n-th label."""
    return {"color": COLOURS[n % len(COLOURS)], "ls": DASHES[n % len(DASHES)]}


def parameter_label(parameter: Parameter) -> str:
    r"""Return an axis label: name and unit, and what the file says the parameter means.

    >>> parameter_label(Parameter("CWL2", description="c/Lambda^2 = 33.04 TeV^-2 x theta"))
    'CWL2\n($c/\\Lambda^2$ = 33.04 TeV$^{-2}$ × CWL2)'
    """
    unit = "" if parameter.unit == "1" else f" [{parameter.unit}]"
    if not parameter.description:
        return parameter.name + unit
    meaning = parameter.description.replace("c/Lambda^2", r"$c/\Lambda^2$")
    meaning = meaning.replace("TeV^-2", "TeV$^{-2}$").replace("x theta", f"× {parameter.name}")
    return f"{parameter.name}{unit}\n({meaning})"


def save_figure(figure: Figure, path: Path | str, dpi: int = 160) -> Path:
    """Write a PNG beside, then rename; the same figure gives the same bytes.  Return the path."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with mpl.rc_context(_STYLE):
            figure.savefig(beside, format="png", dpi=dpi, metadata={"Software": None})
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target
