r"""The border of {psi : q(psi) <= c(psi)} in a plane: marching triangles, exact for planes.

Each cell of the scan is cut into four triangles by its centre.  On a triangle the function is
taken as linear, so that the border is made of straight pieces that join to closed lines, or to
lines that end where the scan ends.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.interfaces import Array

__all__ = ["Contour", "contour_of"]

_CEILING = 1e3  # for infinite heights

Side: TypeAlias = tuple[int, int]


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
    nodes, values, triangles = _mesh(axes, np.clip(heights, -_CEILING, _CEILING))
    border = np.concatenate([heights[0], heights[-1], heights[:, 0], heights[:, -1]])
    return Contour(
        parameters,
        level,
        _lines(nodes, values, triangles),
        _area_below(nodes, values, triangles),
        bool((border <= 0).any()),
    )


def _mesh(axes: tuple[Array, Array], heights: Array) -> tuple[Array, Array, NDArray[np.intp]]:
    """Return nodes (V, 2) and their heights (V,): the grid's and centres; triangles (T, 3)."""
    x, y = np.meshgrid(*axes, indexing="ij")
    grid = np.stack([x, y, heights], axis=-1)
    number = np.arange(heights.size).reshape(heights.shape)
    centres = 0.25 * (grid[:-1, :-1] + grid[1:, :-1] + grid[1:, 1:] + grid[:-1, 1:])
    own = heights.size + np.arange(centres[..., 0].size)
    ring = [number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]]
    sides = zip(ring, [*ring[1:], ring[0]], strict=True)
    triangles = [np.stack([a.ravel(), b.ravel(), own], axis=1) for a, b in sides]
    nodes = np.concatenate([grid.reshape(-1, 3), centres.reshape(-1, 3)])
    return nodes[:, :2], nodes[:, 2], np.concatenate(triangles)


def _lone_corner(below: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return which corner of a cut triangle is on its own side of the border, (T,)."""
    return np.where(below.sum(axis=1) == 1, below.argmax(axis=1), (~below).argmax(axis=1))


def _area_below(nodes: Array, values: Array, triangles: NDArray[np.intp]) -> float:
    """Return the area of the parts of the triangles where the linear function is below zero."""
    corners, heights = nodes[triangles], values[triangles]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    whole = 0.5 * np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    below = heights <= 0
    n_below, alone, rows = below.sum(axis=1), _lone_corner(below), np.arange(len(below))
    tip, share = heights[rows, alone], np.ones(len(below))
    for turn in (1, 2):
        fall = tip - heights[rows, (alone + turn) % 3]
        share *= np.divide(tip, fall, out=np.zeros_like(tip), where=fall != 0)
    cases = [n_below == 0, n_below == 3, n_below == 1]
    return float(whole @ np.select(cases, [0.0, 1.0, share], 1.0 - share))


def _lines(nodes: Array, values: Array, triangles: NDArray[np.intp]) -> tuple[Array, ...]:
    """Return the zero line's pieces, joined where they cross the same side of two triangles."""
    below = values[triangles] <= 0
    triangles = triangles[below.any(axis=1) & ~below.all(axis=1)]
    alone, rows = _lone_corner(values[triangles] <= 0), np.arange(len(triangles))
    ends = [
        np.stack([triangles[rows, alone], triangles[rows, (alone + turn) % 3]], axis=1)
        for turn in (1, 2)
    ]
    pieces = np.sort(np.stack(ends, axis=1), axis=2)  # (T, 2 ends, 2 nodes)
    low, high = pieces[..., 0], pieces[..., 1]
    share = values[low] / (values[low] - values[high])
    places = nodes[low] + share[..., None] * (nodes[high] - nodes[low])
    sides = [((a, b), (c, d)) for (a, b), (c, d) in pieces.tolist()]
    flat = [side for pair in sides for side in pair]
    where = dict(zip(flat, places.reshape(-1, 2), strict=True))
    return tuple(np.stack([where[side] for side in chain]) for chain in _chains(sides))


def _chains(pieces: list[tuple[Side, Side]]) -> list[list[Side]]:
    """Return pairs of sides joined to chains: open ones first, then rings."""
    next_to: dict[Side, list[Side]] = defaultdict(list)
    for first, second in pieces:
        next_to[first].append(second)
        next_to[second].append(first)
    ends = [side for side, others in next_to.items() if len(others) == 1]
    chains, seen = [], set()
    for begin in [*ends, *next_to]:
        if begin in seen:
            continue
        chain, here = [begin], begin
        seen.add(begin)
        while onward := [side for side in next_to[here] if side not in seen]:
            here = onward[0]
            seen.add(here)
            chain.append(here)
        if begin in next_to[here] and len(chain) > 2:
            chain.append(begin)
        chains.append(chain)
    return chains
