r"""Posteriors of hundreds of observed sets at once, p(theta|s) ~ L_s(theta) p(theta).

Two stages keep the number of likelihood evaluations small.  A coarse grid over the prior's box,
common to all sets, finds where each posterior lies; each then has a grid of its own in its own
box, evaluated for all sets in one go.  Sets whose box can shrink further, or whose cells are too
wide, are evaluated again.  Between the cells log L is interpolated quadratically (exact for normal
posteriors); the prior is exact everywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.calibration.interpolation import log_sum, reach, refined
from mflow_sbi.calibration.sets import LikelihoodOfSets
from mflow_sbi.errors import ConfigurationError, SamplingError, ShapeError
from mflow_sbi.inference import Grid, GridPosterior
from mflow_sbi.inference.points import as_points, log_joint
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood, Progress

__all__ = ["GridSettings", "SetPosteriors", "posteriors_of_sets", "require_truth"]

_BLOCK_POINTS = 64  # points of all sets per progress step
_DEPTH = 12.5  # nats below its maximum that a posterior's box keeps; a normal density's 5 sigma
_CUT = 1e-4  # mass of outermost cells above which a box has to be wider
_TIGHT = 0.5  # share of its box that a posterior has to fill along every axis
_MAX_ROUNDS = 16
_EVIDENCE_TOLERANCE = 0.02  # change of log Z by interpolation that says: cells too wide
_MORE = 1.5  # times as many cells per axis when they are too wide


@dataclass(frozen=True)
class GridSettings:
    """How finely posteriors are evaluated.

    `GridSettings.for_parameters(p)` is the default; for two parameters it begins with 256 + 400
    points per set.

    Args:
        coarse: cells per axis over the prior's box, of the grid common to all sets.
        cells: cells per axis over each posterior's own box.
        refinement: parts of each cell per axis between which log L is interpolated.
        max_cells: cells per axis up to which badly resolved posteriors are evaluated again.

    Raises:
        ConfigurationError: fewer than 3 cells, no refinement, or max_cells below cells.
    """

    coarse: int = 16
    cells: int = 20
    refinement: int = 4
    max_cells: int = 80

    def __post_init__(self) -> None:
        if min(self.coarse, self.cells) < 3 or self.refinement < 1 or self.max_cells < self.cells:
            message = f"grid: expected 3 cells or more, refinement >= 1, max_cells, got {self}"
            raise ConfigurationError(message)

    @classmethod
    def for_parameters(cls, parameter_dim: int) -> "GridSettings":
        """Return settings whose cost stays bearable up to three parameters.

        Raises:
            ConfigurationError: more than three parameters, for which chains are the way.
        """
        known = {1: cls(40, 40, 8, 320), 2: cls(), 3: cls(14, 16, 2, 32)}
        if parameter_dim not in known:
            message = (
                f"grids: expected at most 3 parameters, got {parameter_dim}; fix some of them, or "
                "sample the posteriors with chains (`sample_sets`)"
            )
            raise ConfigurationError(message)
        return known[parameter_dim]


@dataclass(frozen=True, eq=False)
class SetPosteriors:
    """Posteriors of S sets, each on its own regular grid.

    Args:
        sets: their likelihoods.
        prior: common prior.
        boxes: of each set's grid, (S, p, 2).
        log_likelihood: log L at the cell centres, S arrays (n_1, ..., n_p), -inf allowed.
        refinement: parts of each cell per axis.
    """

    sets: LikelihoodOfSets
    prior: RecordedPrior
    boxes: Array
    log_likelihood: tuple[Array, ...] = field(repr=False)
    refinement: int = 4

    def __len__(self) -> int:
        """Return the number of sets, S."""
        return len(self.log_likelihood)

    def __iter__(self) -> Iterator[GridPosterior]:
        """Yield the posterior of every set."""
        return (self[s] for s in range(len(self)))

    def __getitem__(self, index: int) -> GridPosterior:
        """Return the posterior of one set, interpolated between the cells.

        Raises:
            SamplingError: the posterior vanishes on all its cells.
        """
        values = refined(self.log_likelihood[index], self.refinement)
        grid = Grid.regular(self.boxes[index], values.shape)
        joint = values.ravel() + self.prior.log_prob(grid.points)
        log_evidence = log_sum(joint) + float(np.log(grid.volumes[0]))
        if not np.isfinite(log_evidence):
            message = f"the posterior of set {index} vanishes on its grid {self.boxes[index]}"
            raise SamplingError(message)
        log_density = joint - log_evidence
        mass = (np.exp(log_density) * grid.volumes).reshape(values.shape)
        return GridPosterior(
            tuple(self.prior.parameter_names),
            grid,
            log_density,
            log_evidence,
            _border_mass(mass, self.boxes[index], self.prior.box()),
            self._joint_of(index),
        )

    def _joint_of(self, index: int) -> Callable[[Array], Array]:
        def joint(theta: Array) -> Array:
            points = as_points(theta, self.boxes.shape[1])
            return log_joint(self.sets.likelihood_of(index), self.prior, points)

        return joint

    def log_likelihood_at(self, theta: Array) -> Array:
        """Return log L_s(theta_s) of every set at one point of its own, exact, (S, p) -> (S,)."""
        return self.sets.at_own_points(np.asarray(theta)[None])[0]

    def draws(self, n_draws: int, rng: np.random.Generator) -> Array:
        """Return independent draws of every posterior, (S, n_draws, p)."""
        return np.stack([posterior.sample(n_draws, rng) for posterior in self])

    def tempered(self, sets: LikelihoodOfSets, temperature: float) -> "SetPosteriors":
        """Return the posteriors of L^(1/T) on the same grids; see `recalibration`."""
        values = tuple(value / temperature for value in self.log_likelihood)
        return replace(self, sets=sets, log_likelihood=values)


def posteriors_of_sets(
    sets: LikelihoodOfSets,
    prior: RecordedPrior,
    settings: GridSettings | None = None,
    progress: Progress | None = None,
) -> SetPosteriors:
    """Return the posteriors of all sets.

    Args:
        sets: their likelihoods.
        prior: common prior, on the same parameters.
        settings: how finely; by default as fits the number of parameters.
        progress: called with (work done, all work) while the likelihoods are evaluated.

    Raises:
        ConfigurationError: more than three parameters and no settings.
        ShapeError: sets and prior are of other parameters.
        SamplingError: a posterior vanishes on the whole coarse grid.
        LikelihoodError: a likelihood is NaN somewhere.
    """
    if tuple(sets.parameter_names) != tuple(prior.parameter_names):
        message = (
            f"expected sets and prior of the same parameters in one order, got "
            f"{list(sets.parameter_names)} and {list(prior.parameter_names)}"
        )
        raise ShapeError(message)
    settings = settings or GridSettings.for_parameters(len(prior.parameter_names))
    search = _Search(sets, prior, settings, progress or (lambda done, of: None))
    search.look_everywhere()
    search.look_closer()
    return SetPosteriors(sets, prior, search.boxes, tuple(search.values), settings.refinement)


class _Search:
    """Grids that follow the posteriors, box by box."""

    def __init__(
        self,
        sets: LikelihoodOfSets,
        prior: RecordedPrior,
        settings: GridSettings,
        progress: Progress,
    ) -> None:
        self.sets = sets
        self.prior = prior
        self.settings = settings
        self.progress = progress
        self.boxes = np.repeat(prior.box()[None], sets.n_sets, axis=0)
        self.values: list[Array] = []
        self.cells = np.full(sets.n_sets, settings.cells)
        self.once_cut: set[int] = set()
        self.done = 0
        p = self.boxes.shape[1]
        self.planned = settings.coarse**p + settings.cells**p

    def look_everywhere(self) -> None:
        """Shrink every box to the bulk of its posterior on one common grid."""
        grid = Grid.regular(self.boxes[0], (self.settings.coarse,) * self.boxes.shape[1])
        log_prior = self.prior.log_prob(grid.points)
        values = np.full((len(grid.points), self.sets.n_sets), -np.inf)
        inside = np.flatnonzero(log_prior > -np.inf)
        for rows in np.split(inside, range(_BLOCK_POINTS, len(inside), _BLOCK_POINTS)):
            values[rows] = self.sets(grid.points[rows])
            self._tell(len(rows))
        self.values = [column.reshape(grid.shape) for column in values.T]
        for s in range(self.sets.n_sets):
            self.boxes[s] = self._bulk(s, self._joint(s))

    def look_closer(self) -> None:
        """Evaluate every posterior in its own box, and again while box or cells can be better."""
        open_sets = list(range(self.sets.n_sets))
        for _ in range(_MAX_ROUNDS):
            self._evaluate(np.array(open_sets), self.cells[open_sets])
            open_sets = [s for s in open_sets if self._improve(s)]
            if not open_sets:
                return

    def _improve(self, index: int) -> bool:
        """Widen a box that cuts, else shrink one too large, else take more cells if too few."""
        joint = self._joint(index)
        wide = self._widened(self.boxes[index], joint)
        if not np.array_equal(wide, self.boxes[index]):
            self.boxes[index] = wide
            self.once_cut.add(index)
            return True
        bulk = self._bulk(index, joint)
        if index not in self.once_cut and _share(bulk, self.boxes[index]) < _TIGHT:
            self.boxes[index] = bulk
            return True
        more = int(np.ceil(_MORE * self.cells[index]))
        if more > self.settings.max_cells or not self._is_coarse(index, joint):
            return False
        self.cells[index] = more
        return True

    def _evaluate(self, which: NDArray[np.intp], cells: NDArray[np.int64]) -> None:
        """Evaluate log L of some sets on regular grids in their boxes."""
        p = self.boxes.shape[1]
        grids = [Grid.regular(self.boxes[s], (n,) * p) for s, n in zip(which, cells, strict=True)]
        if len(which) == self.sets.n_sets and np.ptp(cells) == 0:
            table = self._of_all(np.stack([grid.points for grid in grids], axis=1))
        else:
            table = [
                _where_allowed(self.sets.likelihood_of(int(s)), self.prior, grid.points)
                for s, grid in zip(which, grids, strict=True)
            ]
        for s, grid, values in zip(which, grids, table, strict=True):
            self.values[s] = values.reshape(grid.shape)

    def _of_all(self, points: Array) -> Array:
        """Return log L of all sets at own points, (M, S, p) -> (S, M), -inf without prior."""
        log_prior = self.prior.log_prob(points.reshape(-1, points.shape[2]))
        allowed = (log_prior > -np.inf).reshape(points.shape[:2])
        if not allowed.all():  # any other allowed point stands in where the prior vanishes
            some = np.argmax(allowed, axis=0)
            stand_in = points[some, np.arange(points.shape[1])]
            points = np.where(allowed[..., None], points, stand_in)
        values = np.empty(allowed.shape)
        for start in range(0, len(points), _BLOCK_POINTS):
            rows = slice(start, start + _BLOCK_POINTS)
            values[rows] = self.sets.at_own_points(points[rows])
            self._tell(len(points[rows]))
        return np.where(allowed, values, -np.inf).T

    def _widened(self, box: Array, joint: Array) -> Array:
        """Return the box, moved out where it cuts the posterior inside the prior's box, (p, 2)."""
        outer = self.prior.box()
        low, high = box.T.copy()
        step = 0.25 * (high - low)
        mass = np.exp(joint - joint.max())
        for axis in range(joint.ndim):
            ends = np.moveaxis(mass, axis, 0)[[0, -1]].reshape(2, -1).sum(axis=1) / mass.sum()
            if ends[0] > _CUT:
                low[axis] = max(outer[axis, 0], low[axis] - step[axis])
            if ends[1] > _CUT:
                high[axis] = min(outer[axis, 1], high[axis] + step[axis])
        return np.stack([low, high], axis=1)

    def _joint(self, index: int) -> Array:
        """Return log L + log prior on the cells of one set."""
        values = self.values[index]
        points = Grid.regular(self.boxes[index], values.shape).points
        return values + self.prior.log_prob(points).reshape(values.shape)

    def _bulk(self, index: int, joint: Array) -> Array:
        """Return the box of the cells that may reach within `_DEPTH` of the maximum, (p, 2)."""
        box = self.boxes[index]
        grid = Grid.regular(box, joint.shape)
        peak = joint.max()
        if not np.isfinite(peak):
            message = (
                f"the posterior of set {index} vanishes on all {joint.size} points of a grid over "
                f"{box.tolist()}; widen the prior or check the likelihood"
            )
            raise SamplingError(message)
        kept = np.argwhere(reach(joint) >= peak - _DEPTH)
        low = [grid.edges[k][i] for k, i in enumerate(kept.min(axis=0))]
        high = [grid.edges[k][i + 1] for k, i in enumerate(kept.max(axis=0))]
        return np.stack([low, high], axis=1)

    def _is_coarse(self, index: int, joint: Array) -> bool:
        """Return whether log Z depends on the interpolation, or few cells hold all mass."""
        total = log_sum(joint)
        if np.exp(2 * (joint - total)).sum() > 3.0**-joint.ndim:
            return True
        fine = refined(self.values[index], self.settings.refinement)
        points = Grid.regular(self.boxes[index], fine.shape).points
        fine_total = log_sum(fine.ravel() + self.prior.log_prob(points))
        change = fine_total - np.log(fine.size) - total + np.log(joint.size)
        return bool(abs(change) > _EVIDENCE_TOLERANCE)

    def _tell(self, n_points: int) -> None:
        self.done += n_points
        self.progress(min(self.done, self.planned), self.planned)


def _where_allowed(likelihood: Likelihood, prior: RecordedPrior, points: Array) -> Array:
    """Return log L where the prior is positive and -inf elsewhere, (M, p) -> (M,)."""
    values = np.full(len(points), -np.inf)
    inside = prior.log_prob(points) > -np.inf
    if inside.any():
        values[inside] = likelihood(points[inside])
    return values


def _share(smaller: Array, box: Array) -> float:
    """Return the smallest share of a box that another one fills along an axis."""
    return float((np.ptp(smaller, axis=1) / np.ptp(box, axis=1)).min())


def _border_mass(mass: Array, box: Array, outer: Array) -> float:
    """Return the mass of outermost cells on the sides of a box inside the prior's."""
    total = 0.0
    for axis in range(mass.ndim):
        marginal = mass.sum(axis=tuple(k for k in range(mass.ndim) if k != axis))
        if box[axis, 0] > outer[axis, 0]:
            total += float(marginal[0])
        if box[axis, 1] < outer[axis, 1]:
            total += float(marginal[-1])
    return total


def require_truth(theta: Array, posteriors: SetPosteriors) -> Array:
    """Return the parameters behind the sets, (S, p) float64.

    Raises:
        ShapeError: another shape.
    """
    points, shape = np.asarray(theta, dtype=np.float64), posteriors.boxes.shape[:2]
    if points.shape != shape:
        message = f"theta: expected the parameters behind each set, {shape}, got {points.shape}"
        raise ShapeError(message)
    return points
