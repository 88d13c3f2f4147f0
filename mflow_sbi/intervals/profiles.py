r"""Profile likelihood: one or two parameters scanned, the others at their best for each value.

    q(psi) = 2 [log L_max - max over the others log L(psi, others)].

All values of the scan climb at once: from the local maxima of the likelihood, then from where
their neighbours ended, again and again until none finds a higher place.  Profiles are the same in
any parameters that are functions of each other, as intervals from them are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mflow_sbi.errors import IntervalError
from mflow_sbi.interfaces import Array, Likelihood
from mflow_sbi.intervals.climbing import climb
from mflow_sbi.intervals.constructions import LEVELS, Construction, Wilks, ordered_axes
from mflow_sbi.intervals.contours import Contour, contour_of
from mflow_sbi.intervals.crossings import IntervalSet, excess, intervals_below
from mflow_sbi.intervals.maximum import MaximumLikelihood, maximise
from mflow_sbi.intervals.parameters import Limits, Region, region_of
from mflow_sbi.intervals.sets import LikelihoodSets, as_sets
from mflow_sbi.intervals.starts import even_points, starts_of_sets

__all__ = ["ProfileScan", "conditional_maxima", "profile"]

_EVEN = {1: 61, 2: 33}  # values of a scan over the limits, by number of scanned parameters
_AROUND = np.arange(-4, 4.5, 0.5)  # and around each maximum, standard deviations
_ROUNDS = 2  # through the whole scan
_GAIN = 1e-4  # log-likelihood that makes a value's neighbours look again
_MODES = 4
_HIGHER = 1e-3  # log-likelihood above the maximum given that is worth a remark


@dataclass(frozen=True, eq=False)
class ProfileScan:
    """2 Delta log L of one or two parameters, the others profiled.

    Args:
        parameters: names of the q scanned parameters, q = 1 or 2.
        axes: values of each, increasing, (n_k,).
        statistic: q(psi), (n_1,) or (n_1, n_2); 0 at the maximum.
        points: all p parameters at their best for each psi, (n_1[, n_2], p).
        maximum: the highest point of the likelihood, (p,).
        log_likelihood: log L there.
        remarks: in words, what a reader should know.
        statistic_at: q(psi) anywhere between the axes' ends, (M, q) -> (M,).
    """

    parameters: tuple[str, ...]
    axes: tuple[Array, ...]
    statistic: Array
    points: Array
    maximum: Array
    log_likelihood: float
    remarks: tuple[str, ...]
    statistic_at: Callable[[Array], Array] = field(repr=False)

    @property
    def psi(self) -> Array:
        """The scanned values in C order, (M, q)."""
        grid = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([axis.ravel() for axis in grid], axis=1)

    def intervals(
        self, level: float = LEVELS[0], construction: Construction | None = None
    ) -> IntervalSet:
        """Return the values not excluded: all crossings of q and its threshold, to 1e-4 sigma.

        Args:
            level: confidence level.
            construction: thresholds; Wilks' by default.

        Raises:
            IntervalError: the scan is of two parameters, or the level is impossible.
        """
        if len(self.axes) != 1:
            message = (
                f"intervals: expected a scan of one parameter, got one of {self.parameters}; "
                "profile one of them, or ask for the contour"
            )
            raise IntervalError(message)
        rule = construction or Wilks()

        def height(psi: Array) -> Array:
            return excess(self.statistic_at(psi[:, None]), rule.threshold(psi[:, None], level))

        heights = excess(self.statistic, rule.threshold(self.psi, level))
        parts = intervals_below(self.axes[0], heights, height)
        return IntervalSet(self.parameters[0], level, parts)

    def contour(
        self, level: float = LEVELS[0], construction: Construction | None = None
    ) -> Contour:
        """Return the border of the region of two parameters that is not excluded.

        Args:
            level: confidence level, of both parameters together.
            construction: thresholds; Wilks' by default.

        Raises:
            IntervalError: the scan is of one parameter, or the level is impossible.
        """
        if len(self.axes) != 2:
            message = (
                f"contour: expected a scan of two parameters, got one of {self.parameters}; "
                "profile two, or ask for the intervals"
            )
            raise IntervalError(message)
        threshold = (construction or Wilks()).threshold(self.psi, level)
        heights = excess(self.statistic, threshold.reshape(self.statistic.shape))
        first, second = self.parameters
        return contour_of((first, second), level, (self.axes[0], self.axes[1]), heights)

    def contains(
        self, psi: Array, level: float, construction: Construction | None = None
    ) -> np.ndarray:
        """Return whether each psi is not excluded, (M, q) -> (M,) booleans."""
        threshold = (construction or Wilks()).threshold(psi, level)
        return self.statistic_at(psi) <= threshold


def profile(
    likelihood: Likelihood,
    parameters: str | Sequence[str],
    limits: Limits,
    *,
    fixed: Mapping[str, float] | None = None,
    maximum: MaximumLikelihood | None = None,
    axes: Sequence[Array] | None = None,
) -> ProfileScan:
    """Return the profile likelihood of one or two parameters.

    Args:
        likelihood: log L of the observation.
        parameters: one name or two.
        limits: (low, high) by name; finite for the scanned parameters and, without `maximum`,
            for all free ones.
        fixed: values of parameters to be held.
        maximum: of the same likelihood, limits and fixed values, for where to look closely; found
            from starts all over the limits by default.
        axes: increasing values to scan, one array per parameter; by default values all over the
            limits and more around each maximum.

    Raises:
        IntervalError: an unknown or repeated parameter, one that is fixed, limits missing.
        LikelihoodError: the likelihood is NaN or +inf somewhere.
    """
    names = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    region = region_of(likelihood.parameter_names, limits, fixed)
    scanned = _scanned(names, region)
    sets = as_sets(likelihood)
    if maximum is None:
        starts = starts_of_sets(sets, region, even_points(region), keep=6)[:, 0]
        maximum = maximise(likelihood, starts, limits=limits, fixed=fixed)
    values = _axes(names, scanned, region, maximum) if axes is None else ordered_axes(axes)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*values, indexing="ij")], axis=1)
    seeds = np.stack([mode.values for mode in maximum.modes[:_MODES]])[:, None]
    held = region.holding(names, maximum.values)  # each value of the scan puts in its own
    shape = tuple(len(axis) for axis in values)
    points, heights = conditional_maxima(sets, held, scanned, grid[:, None], seeds, shape)
    points, heights = points[:, 0], heights[:, 0]
    top, best = float(maximum.log_likelihood), maximum.values
    remarks = ()
    if heights.max() > top:
        if heights.max() > top + _HIGHER:
            remarks = (_higher(heights.max() - top, points[np.argmax(heights)], region),)
        top, best = float(heights.max()), points[np.argmax(heights)]
    tree, cloud = KDTree(grid / np.ptp(grid, axis=0)), points

    def statistic_at(psi: Array) -> Array:
        psi = np.asarray(psi, dtype=np.float64)
        near = np.atleast_2d(tree.query(psi / np.ptp(grid, axis=0), k=min(3, len(grid)))[1])
        starts = cloud[near.T][:, :, None]  # (3, M, 1, p)
        return 2 * (top - _climbed(sets, held, scanned, psi[:, None], starts)[1][:, 0])

    return ProfileScan(
        parameters=names,
        axes=values,
        statistic=2 * (top - heights).reshape(shape),
        points=points.reshape(*shape, -1),
        maximum=best,
        log_likelihood=top,
        remarks=remarks,
        statistic_at=statistic_at,
    )


def conditional_maxima(
    sets: LikelihoodSets,
    held: Region,
    scanned: Sequence[int],
    grid: Array,
    seeds: Array,
    shape: tuple[int, ...],
    rounds: int | None = None,
) -> tuple[Array, Array]:
    """Return the highest points of S data sets for each value of the scanned parameters.

    Args:
        sets: log L of the data sets.
        held: limits, the scanned parameters not free.
        scanned: places of the q scanned parameters.
        grid: their values in C order, the same for all sets or not, (M, 1 or S, q).
        seeds: points to climb from, (R, S, p).
        shape: of the grid, for its neighbours, (n_1, ..., n_q).
        rounds: how often neighbours are asked; by default as long as it helps.

    Returns:
        Points (M, S, p), with the scanned values, and log L there, (M, S).
    """
    starts = np.broadcast_to(seeds[:, None], (len(seeds), len(grid), *seeds.shape[1:]))
    points, heights = _climbed(sets, held, scanned, grid, starts)
    if not held.free.any():
        return points, heights
    changed = np.ones(len(grid), dtype=bool)
    for _ in range(rounds or _ROUNDS * max(shape)):
        before = heights.copy()
        for rows, proposed in _from_neighbours(points, grid, scanned, shape, changed):
            better = climb(sets, proposed, held)
            higher = better.values > heights[rows]
            points[rows] = np.where(higher[..., None], better.points, points[rows])
            heights[rows] = np.where(higher, better.values, heights[rows])
        with np.errstate(invalid="ignore"):
            changed = np.any(heights - before > _GAIN, axis=1)
        if not changed.any():
            break
    return points, heights


def _climbed(
    sets: LikelihoodSets, held: Region, scanned: Sequence[int], grid: Array, starts: Array
) -> tuple[Array, Array]:
    """Return the best ends of climbs from starts (R, M, S, p) with the scanned values put in."""
    starts = starts.copy()
    starts[..., list(scanned)] = grid
    if not held.free.any():
        return starts[0], sets.at_own_points(starts[0])
    ends = climb(sets, starts.reshape(-1, *starts.shape[2:]), held)
    values = ends.values.reshape(starts.shape[:3])
    best = values.argmax(axis=0)
    points = np.take_along_axis(ends.points.reshape(starts.shape), best[None, ..., None], axis=0)
    return points[0], values.max(axis=0)


def _from_neighbours(
    points: Array,
    grid: Array,
    scanned: Sequence[int],
    shape: tuple[int, ...],
    changed: NDArray[np.bool_],
) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Yield values of the scan next to changed ones, and the neighbours' places for them."""
    index = np.arange(len(grid)).reshape(shape)
    for axis in range(len(shape)):
        for step in (1, -1):
            lines = np.moveaxis(index, axis, 0)[::step]
            rows, neighbours = lines[1:].ravel(), lines[:-1].ravel()
            fresh = changed[neighbours]
            if fresh.any():
                proposed = points[neighbours[fresh]]
                proposed[..., list(scanned)] = grid[rows[fresh]]
                yield rows[fresh], proposed


def _scanned(names: tuple[str, ...], region: Region) -> list[int]:
    """Return the places of the scanned parameters."""
    if len(names) not in (1, 2) or len(set(names)) < len(names):
        message = f"profile: expected one parameter or two different ones, got {list(names)}"
        raise IntervalError(message)
    places = [region.index(name) for name in names]
    for name, k in zip(names, places, strict=True):
        if not region.free[k]:
            message = (
                f"profile: expected a free parameter, got {name}, fixed at {region.held[k]:g}"
            )
            raise IntervalError(message)
    return places


def _axes(
    names: tuple[str, ...], scanned: Sequence[int], region: Region, maximum: MaximumLikelihood
) -> tuple[Array, ...]:
    """Return values all over the limits, and closer ones around each maximum."""
    region.require_finite(names, "profile")
    axes = []
    for k in scanned:
        low, high = region.box[k]
        values = [np.linspace(low, high, _EVEN[len(names)])]
        for mode in maximum.modes[:_MODES]:
            reach = mode.std[k] if np.isfinite(mode.std[k]) else 0.0
            values.append(mode.values[k] + reach * _AROUND)
        together = np.unique(np.clip(np.concatenate(values), low, high))
        gaps = np.diff(together, prepend=-np.inf)
        axes.append(together[gaps > 1e-9 * (high - low)])
    return tuple(axes)


def _higher(gain: float, point: Array, region: Region) -> str:
    place = ", ".join(f"{n} = {v:.4g}" for n, v in zip(region.names, point, strict=True))
    return (
        f"the scan found a point {gain:.3g} in log L above the maximum: {place}; counted from it"
    )
