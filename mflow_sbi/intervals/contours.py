r"""The border of {psi : q(psi) <= c(psi)} in a plane: marching squares, exact for straight sides.

On each triangle of the scan's cells (cut into four by their centres) the statistic is taken as
linear, so that the border is made of straight pieces that join to closed lines, or to lines that
end where the scan ends.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from mflow_sbi.interfaces import Array

__all__ = ["Contour", "contour_of"]


@dataclass(frozen=True, eq=False)
class Contour:
    """The border of the region of two parameters not excluded at a confidence level.

    Args:
        parameters: their names.
        level: confidence level.
        lines: the pieces of the border, (K, 2) each; closed ones end where they begin.
        area: of the region inside the scan.
        is_open: whether the region reaches the end of the scan.
    """

    parameters: tuple[str, str]
    level: float
    lines: tuple[Array, ...]
    area: float
    is_open: bool


def contour_of(
    parameters: tuple[str, str], level: float, axes: tuple[Array, Array], heights: Array
) -> Contour:
    """Return the zero line of a function on a grid and the area below zero.

    Args:
        parameters: names of both axes.
        level: confidence level, passed on.
        axes: increasing values, (n_1,), (n_2,).
        heights: the function, (n_1, n_2).
    """
    corners, values = _triangles(axes, np.clip(heights, -1e3, 1e3))
    below = values <= 0
    border = np.concatenate([heights[0], heights[-1], heights[:, 0], heights[:, -1]])
    cut = below.any(axis=1) & ~below.all(axis=1)
    lines = _joined(_segments(corners[cut], values[cut], below[cut]))
    return Contour(
        parameters, level, lines, _area_below(corners, values, below), bool((border <= 0).any())
    )


def _triangles(axes: tuple[Array, Array], heights: Array) -> tuple[Array, Array]:
    """Return the corners (T, 3, 2) and heights (T, 3) of four triangles in every cell."""
    x, y = np.meshgrid(*axes, indexing="ij")
    nodes = np.stack([x, y, heights], axis=-1)
    ring = [nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]]
    centre = sum(ring) / 4
    sides = zip(ring, [*ring[1:], ring[0]], strict=True)
    triangles = np.concatenate(
        [np.stack([a, b, centre], axis=-2).reshape(-1, 3, 3) for a, b in sides]
    )
    return triangles[..., :2], triangles[..., 2]


def _segments(corners: Array, values: Array, below: np.ndarray) -> Array:
    """Return where the zero line enters and leaves each cut triangle, (T, 2, 2)."""
    alone = np.where(below.sum(axis=1) == 1, below.argmax(axis=1), (~below).argmax(axis=1))
    rows = np.arange(len(corners))
    tip, tip_value = corners[rows, alone], values[rows, alone]
    ends = []
    for turn in (1, 2):
        other = (alone + turn) % 3
        share = tip_value / (tip_value - values[rows, other])
        ends.append(tip + share[:, None] * (corners[rows, other] - tip))
    return np.stack(ends, axis=1)


def _area_below(corners: Array, values: Array, below: np.ndarray) -> float:
    """Return the area of the parts of the triangles where the linear function is below zero."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    whole = 0.5 * np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    n_below = below.sum(axis=1)
    alone = np.where(n_below == 1, below.argmax(axis=1), (~below).argmax(axis=1))
    rows = np.arange(len(values))
    tip = values[rows, alone]
    cut = (n_below == 1) | (n_below == 2)
    share = np.ones(len(values))
    for turn in (1, 2):
        fall = tip - values[rows, (alone + turn) % 3]
        share *= np.where(cut, tip / np.where(fall != 0, fall, 1.0), 1.0)
    share = np.select([n_below == 0, n_below == 3, n_below == 1], [0.0, 1.0, share], 1.0 - share)
    return float(whole @ share)


def _joined(segments: Array) -> tuple[Array, ...]:
    """Return segments (T, 2, 2) joined end to end."""
    if len(segments) == 0:
        return ()
    scale = np.ptp(segments.reshape(-1, 2), axis=0)
    unit = segments / np.where(scale > 0, scale, 1.0)
    keys = [[tuple(end) for end in pair] for pair in np.round(unit, 9).tolist()]
    at: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for number, pair in enumerate(keys):
        for key in pair:
            at[key].append(number)
    unused = set(range(len(segments)))
    open_ends = [number for key, numbers in at.items() if len(numbers) == 1 for number in numbers]
    lines = []
    for number in [*open_ends, *range(len(segments))]:
        if number in unused:
            lines.append(_followed(number, segments, keys, at, unused))
    return tuple(line for line in lines if len(line) > 1)


def _followed(
    number: int,
    segments: Array,
    keys: list[list[tuple[float, ...]]],
    at: dict[tuple[float, ...], list[int]],
    unused: set[int],
) -> Array:
    """Return the line that begins with a segment, whose segments are then used."""
    begin = 0 if len(at[keys[number][0]]) == 1 or len(at[keys[number][1]]) > 1 else 1
    line = [segments[number][begin]]
    while True:
        unused.discard(number)
        line.append(segments[number][1 - begin])
        key = keys[number][1 - begin]
        following = [other for other in at[key] if other in unused]
        if not following:
            return np.stack(line)
        number = following[0]
        begin = keys[number].index(key)
