r"""Posteriors on a grid: p(theta|x) = L(theta) p(theta) / Z, Z = sum_cells L p * volume.

The midpoint rule on cells whose widths may differ along an axis, so that a narrow posterior and
the broad prior share one grid; total variation and Kullback-Leibler need a common grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import xlogy

from mflow_sbi.errors import SamplingError, ShapeError
from mflow_sbi.inference.points import as_points, common_names, log_joint
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood, Prior

__all__ = ["Grid", "GridPosterior", "common_grid", "grid_posterior"]

_BLOCK_POINTS = 512  # points per progress step
_BULK_DEPTH = 14.0  # nats below the maximum that a zoom keeps; a normal density's 5.3 sigma
_COARSE_CELLS = 40  # cells per axis over the whole prior box
_MAX_ZOOMS = 12

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grid:
    """A box cut into cells by p increasing sequences of edges.

    Args:
        edges: one array of cell edges per parameter, (n_k + 1,), in units of the parameter.

    Raises:
        ShapeError: fewer than two edges, or edges that do not increase.

    Example:
        >>> grid = Grid.regular([[-1, 1], [0, 3]], cells=(4, 6))
        >>> grid.shape, grid.points.shape, float(grid.volumes.sum())
        ((4, 6), (24, 2), 6.0)
    """

    edges: tuple[Array, ...]

    def __post_init__(self) -> None:
        edges = tuple(np.asarray(axis, dtype=np.float64) for axis in self.edges)
        for k, axis in enumerate(edges):
            if axis.ndim != 1 or len(axis) < 2 or not np.all(np.diff(axis) > 0):
                message = f"grid axis {k}: expected at least two increasing edges, got {axis}"
                raise ShapeError(message)
        object.__setattr__(self, "edges", edges)

    @classmethod
    def regular(cls, box: Array | Sequence[Sequence[float]], cells: Sequence[int]) -> "Grid":
        """Return equal cells in a box (p, 2)."""
        return cls(
            tuple(np.linspace(low, high, n + 1) for (low, high), n in zip(box, cells, strict=True))
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(len(axis) - 1 for axis in self.edges)

    @cached_property
    def centres(self) -> tuple[Array, ...]:
        """Cell centres along each axis, (n_k,)."""
        return tuple(0.5 * (axis[1:] + axis[:-1]) for axis in self.edges)

    @cached_property
    def points(self) -> Array:
        """Cell centres in C order, (M, p)."""
        axes = np.meshgrid(*self.centres, indexing="ij")
        return np.stack([axis.ravel() for axis in axes], axis=1)

    @cached_property
    def volumes(self) -> Array:
        """Cell volumes in C order, (M,)."""
        volume = np.ones(())
        for axis in self.edges:
            volume = np.multiply.outer(volume, np.diff(axis))
        return volume.ravel()

    def same_as(self, other: "Grid") -> bool:
        """Return whether both have identical edges."""
        return self.shape == other.shape and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.edges, other.edges, strict=True)
        )


@dataclass(frozen=True)
class GridPosterior:
    r"""A normalised posterior on a grid.

    Args:
        parameter_names: the p names.
        grid: the cells.
        log_density: log p(theta|x) at the cell centres in C order, (M,), -inf allowed.
        log_evidence: log Z, up to the constant of the likelihood.
        border_mass: mass in outermost cells beyond which the prior does not vanish.
        log_joint: log L + log p(theta) at any points, (M, p) -> (M,).
    """

    parameter_names: tuple[str, ...]
    grid: Grid
    log_density: Array
    log_evidence: float
    border_mass: float
    log_joint: Callable[[Array], Array] = field(repr=False, compare=False)

    @cached_property
    def mass(self) -> Array:
        """Probability of each cell in C order, (M,), summing to one."""
        return np.exp(self.log_density) * self.grid.volumes

    @cached_property
    def mean(self) -> Array:
        """Posterior mean, (p,)."""
        return self.mass @ self.grid.points

    @cached_property
    def covariance(self) -> Array:
        """Posterior covariance, (p, p)."""
        away = self.grid.points - self.mean
        return away.T @ (self.mass[:, None] * away)

    @property
    def std(self) -> Array:
        """Posterior standard deviations, (p,)."""
        return np.sqrt(np.diag(self.covariance))

    @cached_property
    def entropy(self) -> float:
        """Differential entropy -integral p log p, nats."""
        return -float(xlogy(self.mass, np.exp(self.log_density)).sum())

    @cached_property
    def effective_cells(self) -> float:
        """1 / sum_cells mass^2: over how many cells the posterior is spread."""
        return float(1 / np.square(self.mass).sum())

    @property
    def is_resolved(self) -> bool:
        """Whether the grid is fine and wide enough: >= 5^p effective cells, border mass < 1e-3."""
        return self.effective_cells >= 5.0 ** len(self.grid.shape) and self.border_mass < 1e-3

    def log_prob_at(self, theta: Array) -> Array:
        """Return log L + log p(theta) - log Z, evaluated exactly, (M, p) -> (M,)."""
        return self.log_joint(theta) - self.log_evidence

    def marginal(self, parameter: int) -> Array:
        """Return the probability of each interval of one axis, (n_k,)."""
        others = tuple(k for k in range(len(self.grid.shape)) if k != parameter)
        return self.mass.reshape(self.grid.shape).sum(axis=others)

    def credible_interval(self, parameter: int, level: float) -> tuple[float, float]:
        """Return the central interval of one parameter holding `level` of the marginal."""
        cumulative = np.concatenate([[0.0], np.cumsum(self.marginal(parameter))])
        tail = 0.5 * (1 - level)
        low, high = np.interp([tail, 1 - tail], cumulative, self.grid.edges[parameter])
        return float(low), float(high)

    def density_level(self, level: float) -> float:
        """Return the log density above which the highest-density region holds `level`."""
        return _threshold(self.log_density, self.mass, level)

    def marginal_pair(
        self, first: int, second: int, levels: Sequence[float]
    ) -> tuple[Array, tuple[float, ...]]:
        """Return the density of two parameters and its thresholds.

        Returns:
            Density (n_first, n_second) at the cell centres, and for every level the density on
            the border of the highest-density region holding it.
        """
        others = tuple(k for k in range(len(self.grid.shape)) if k not in (first, second))
        mass = self.mass.reshape(self.grid.shape).sum(axis=others)
        mass = mass if first < second else mass.T
        area = np.multiply.outer(*(np.diff(self.grid.edges[k]) for k in (first, second)))
        density = mass / area
        return density, tuple(_threshold(density.ravel(), mass.ravel(), x) for x in levels)

    def region_volume(self, level: float) -> float:
        """Return the volume of the highest-density region holding `level`."""
        return float(self.grid.volumes[self.log_density >= self.density_level(level)].sum())

    def total_variation(self, other: "GridPosterior") -> float:
        r"""Return 1/2 integral |p - q|, in [0, 1].

        Raises:
            ShapeError: the posteriors do not share one grid.
        """
        self._require_common(other)
        return float(min(0.5 * np.abs(self.mass - other.mass).sum(), 1.0))

    def kullback_leibler(self, other: "GridPosterior") -> float:
        r"""Return integral p log(p/q), nats; inf where q vanishes inside p's support.

        Raises:
            ShapeError: the posteriors do not share one grid.
        """
        self._require_common(other)
        inside = self.mass > 0
        gap = self.log_density[inside] - other.log_density[inside]
        return float(max(self.mass[inside] @ gap, 0.0))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Return n draws: a cell by its mass, uniform inside it, (n, p)."""
        cells = rng.choice(len(self.mass), size=n, p=self.mass / self.mass.sum())
        index = np.unravel_index(cells, self.grid.shape)
        widths = np.stack(
            [np.diff(edges)[i] for edges, i in zip(self.grid.edges, index, strict=True)], axis=1
        )
        return self.grid.points[cells] + widths * (rng.random(widths.shape) - 0.5)

    def _require_common(self, other: "GridPosterior") -> None:
        if not self.grid.same_as(other.grid):
            message = (
                f"expected two posteriors on one grid, got {self.grid.shape} and "
                f"{other.grid.shape} cells with other edges; build both on common_grid(...)"
            )
            raise ShapeError(message)


def _threshold(density: Array, mass: Array, level: float) -> float:
    """Return the density of the last cell needed to hold `level`, densest cells first."""
    order = np.argsort(density)[::-1]
    cumulative = np.cumsum(mass[order])
    last = min(int(np.searchsorted(cumulative, level)), len(order) - 1)
    return float(density[order[last]])


def grid_posterior(
    likelihood: Likelihood, prior: Prior, grid: Grid, progress: Progress | None = None
) -> GridPosterior:
    """Return p(theta|x) = L(theta) p(theta) / Z on the cells of a grid.

    Args:
        likelihood: log-likelihood of the observed events.
        prior: prior on the same parameters.
        grid: cells; see `common_grid`.
        progress: called with (points done, all points).

    Raises:
        ShapeError: likelihood, prior and grid do not have the same parameters.
        SamplingError: the posterior vanishes on every cell.
        LikelihoodError: the likelihood is NaN somewhere.
    """
    names = common_names(likelihood, prior)
    if len(names) != len(grid.shape):
        message = f"expected one grid axis per parameter {list(names)}, got {len(grid.shape)} axes"
        raise ShapeError(message)

    def joint(theta: Array) -> Array:
        return log_joint(likelihood, prior, as_points(theta, len(names)))

    log_density = _in_blocks(joint, grid.points, progress)
    peak = float(log_density.max())
    if not np.isfinite(peak):
        message = (
            "the posterior vanishes on every cell of the grid; choose a grid that covers "
            "parameters where both the prior and the likelihood are positive"
        )
        raise SamplingError(message)
    log_evidence = peak + float(np.log(grid.volumes @ np.exp(log_density - peak)))
    log_density = log_density - log_evidence
    border = _border_mass(grid, np.exp(log_density) * grid.volumes, prior)
    return GridPosterior(names, grid, log_density, log_evidence, border, joint)


def common_grid(
    likelihoods: Sequence[Likelihood],
    prior: RecordedPrior,
    cells: int = 60,
    progress: Progress | None = None,
) -> Grid:
    """Return one grid that resolves every posterior and covers the prior.

    For each likelihood a coarse grid over the prior's box is shrunk to the box in which the
    posterior lies within 14 nats of its maximum, again and again until the box no longer shrinks.
    Each axis then has `cells` cells across every such box and 40 across the prior's.

    Args:
        likelihoods: the posteriors to be resolved; none for the prior alone.
        prior: common prior.
        cells: cells per axis across the bulk of each posterior.
        progress: called with (likelihoods done, all likelihoods).

    Raises:
        SamplingError: a posterior vanishes on the whole coarse grid.
    """
    prior_box = prior.box()
    boxes = []
    for done, likelihood in enumerate(likelihoods, start=1):
        boxes.append(_bulk_box(likelihood, prior, prior_box))
        if progress is not None:
            progress(done, len(likelihoods))
    return Grid(
        tuple(
            _refined_edges(prior_box[k], [box[k] for box in boxes], cells)
            for k in range(len(prior_box))
        )
    )


def _bulk_box(likelihood: Likelihood, prior: Prior, box: Array) -> Array:
    """Shrink a box to the cells within `_BULK_DEPTH` of the maximum until it stays, (p, 2)."""
    common_names(likelihood, prior)
    for _ in range(_MAX_ZOOMS):
        grid = Grid.regular(box, (_COARSE_CELLS,) * len(box))
        log_density = log_joint(likelihood, prior, grid.points)
        peak = log_density.max()
        if not np.isfinite(peak):
            message = (
                f"the posterior vanishes on all {len(grid.points)} points of a coarse grid over "
                f"{box.tolist()}; widen the prior or check the likelihood"
            )
            raise SamplingError(message)
        bulk = grid.points[log_density > peak - _BULK_DEPTH]
        width = (box[:, 1] - box[:, 0]) / _COARSE_CELLS
        smaller = np.stack(
            [bulk.min(axis=0) - 1.5 * width, bulk.max(axis=0) + 1.5 * width], axis=1
        )
        smaller = np.clip(smaller, box[:, :1], box[:, 1:])
        shrinkage = np.ptp(smaller, axis=1) / np.ptp(box, axis=1)
        box = smaller
        if np.all(shrinkage > 0.8):
            break
    return box


def _refined_edges(outer: Array, boxes: Sequence[Array], cells: int) -> Array:
    """Return edges over `outer` whose cells are fine inside every box, (n + 1,)."""
    corners = np.unique(np.concatenate([outer, *boxes]))
    edges = [corners[:1]]
    for low, high in zip(corners[:-1], corners[1:], strict=True):
        middle = 0.5 * (low + high)
        widths = [np.ptp(box) / cells for box in boxes if box[0] < middle < box[1]]
        width = min([np.ptp(outer) / _COARSE_CELLS, *widths])
        n = max(1, int(np.ceil((high - low) / width - 1e-9)))
        edges.append(np.linspace(low, high, n + 1)[1:])
    return np.concatenate(edges)


def _in_blocks(
    function: Callable[[Array], Array], points: Array, progress: Progress | None
) -> Array:
    """Evaluate block by block, telling how far it is."""
    blocks = []
    for start in range(0, len(points), _BLOCK_POINTS):
        blocks.append(function(points[start : start + _BLOCK_POINTS]))
        if progress is not None:
            progress(min(start + _BLOCK_POINTS, len(points)), len(points))
    return np.concatenate(blocks)


def _border_mass(grid: Grid, mass: Array, prior: Prior) -> float:
    """Return the mass of outermost cells whose outer neighbours have prior mass."""
    open_cells = np.zeros(len(mass), dtype=bool)
    index = np.unravel_index(np.arange(len(mass)), grid.shape)
    for k, edges in enumerate(grid.edges):
        for side, last in ((-1, 0), (1, grid.shape[k] - 1)):
            cells = np.flatnonzero(index[k] == last)
            beyond = grid.points[cells].copy()
            beyond[:, k] += side * (edges[last + 1] - edges[last])
            open_cells[cells[prior.log_prob(beyond) > -np.inf]] = True
    return float(mass[open_cells].sum())
