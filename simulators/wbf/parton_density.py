"""Parton densities x f(x, mu_F = M_W) of NNPDF2.3 LO (nn23lo1), from pythia8mc's own grid file.

The grid (LHAGrid1 text) is interpolated once: a cubic spline in log Q^2 at each x knot, then a
cubic spline in log x, tabulated on `TABLE_SIZE` uniform points in log x; calls interpolate that
table linearly.
"""

import functools
import importlib.metadata
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from simulators.errors import PartonDensityError
from simulators.wbf.constants import FACTORISATION_SCALE

__all__ = ["FLAVOURS", "quark_sums", "xf"]

Array = NDArray[np.float64]

GRID_FILE = "NNPDF23_lo_as_0130_qed_0000.dat"
FLAVOURS = {
    "d": 1,
    "u": 2,
    "s": 3,
    "c": 4,
    "b": 5,
    "dbar": -1,
    "ubar": -2,
    "sbar": -3,
    "cbar": -4,
    "bbar": -5,
    "gluon": 21,
}
"""Name -> PDG number (the grid's gluon is 21)."""

X_MIN = 1e-7
TABLE_SIZE = 20001
_LOG_X_MIN = np.log(X_MIN)
_STEP = -_LOG_X_MIN / (TABLE_SIZE - 1)


def xf(x: ArrayLike) -> dict[str, Array]:
    """Momentum densities x f(x, mu_F = M_W) by flavour.

    Args:
        x: Momentum fractions, any shape, 1e-7 <= x; x f = 0 for x > 1.

    Returns:
        Arrays of the shape of x under the names of `FLAVOURS`: u, d, s, c, b, ubar ..., gluon.

    Raises:
        PartonDensityError: pythia8mc (which carries the grid) is absent, or x is out of range.

    Example:
        >>> float(xf(0.1)["u"].round(6))
        0.591375
    """
    points = np.asarray(x, dtype=np.float64)
    if not (points >= X_MIN).all():
        msg = f"x must be a number and at least {X_MIN}; got a smallest value of {points.min()}"
        raise PartonDensityError(msg)
    values = _interpolate(points.ravel(), _table())
    return {name: values[:, column].reshape(points.shape) for column, name in enumerate(FLAVOURS)}


def quark_sums(x: Array, columns: tuple[tuple[str, ...], ...]) -> Array:
    """Sums of x f over groups of flavours, (len(columns), N): the generator's fast call.

    Args:
        x: (N,), 1e-7 <= x; zero above 1.
        columns: Groups of flavour names, e.g. (("u", "c"), ("d", "s")).
    """
    return _interpolate(x, _sum_table(columns)).T


def _interpolate(x: Array, table: Array) -> Array:
    position = (np.log(x) - _LOG_X_MIN) / _STEP
    index = np.clip(position.astype(np.intp), 0, TABLE_SIZE - 2)
    fraction = (position - index)[:, None]
    low = table[index]
    values = low + fraction * (table[index + 1] - low)
    if (x > 1).any():
        values[x > 1] = 0.0
    return values


@functools.cache
def _sum_table(columns: tuple[tuple[str, ...], ...]) -> Array:
    names = list(FLAVOURS)
    table = _table()
    sums = [table[:, [names.index(name) for name in group]].sum(axis=1) for group in columns]
    return np.ascontiguousarray(np.stack(sums, axis=1))


@functools.cache
def _table() -> Array:
    """X f of every flavour at the uniform points in log x, (TABLE_SIZE, len(FLAVOURS))."""
    log_knots, values, ids = _read_block(_grid_path(), FACTORISATION_SCALE)
    columns = [ids.index(number) for number in FLAVOURS.values()]
    uniform = np.linspace(_LOG_X_MIN, 0.0, TABLE_SIZE)
    return np.ascontiguousarray(CubicSpline(log_knots, values[:, columns], axis=0)(uniform))


def _grid_path() -> Path:
    try:
        files = importlib.metadata.distribution("pythia8mc").files or []
    except importlib.metadata.PackageNotFoundError:
        msg = (
            "the parton densities come with pythia8mc, which is not installed; "
            'run: pip install "pythia8mc>=8.311,<8.318"'
        )
        raise PartonDensityError(msg) from None
    for file in files:
        if file.name == GRID_FILE:
            return Path(str(file.locate()))
    msg = f"the installed pythia8mc has no file {GRID_FILE}; reinstall pythia8mc>=8.311,<8.318"
    raise PartonDensityError(msg)


def _read_block(path: Path, scale: float) -> tuple[Array, Array, list[int]]:
    """Log x knots, x f (n_x, n_ids) at Q = scale, and the particle numbers of the columns."""
    try:
        blocks = path.read_text(encoding="ascii").split("---")[1:]
    except OSError as error:
        msg = f"cannot read the parton density grid {path}: {error.strerror}"
        raise PartonDensityError(msg) from error
    for block in blocks:
        lines = block.strip().splitlines()
        if len(lines) < 4:
            continue
        x_knots, q_knots = (np.array(line.split(), dtype=np.float64) for line in lines[:2])
        if not q_knots[0] <= scale <= q_knots[-1]:
            continue
        ids = [int(number) for number in lines[2].split()]
        rows = np.array(" ".join(lines[3:]).split(), dtype=np.float64)
        grid = rows.reshape(x_knots.size, q_knots.size, len(ids))
        spline = CubicSpline(2 * np.log(q_knots), grid, axis=1)
        return np.log(x_knots), spline(2 * np.log(scale)), ids
    msg = f"{path} has no block that contains Q = {scale:.3f} GeV; reinstall pythia8mc"
    raise PartonDensityError(msg)
