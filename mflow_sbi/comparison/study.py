r"""Methods compared over many observed sets and random seeds, against the exact posterior.

For every method, random seed, truth theta* and observed set of events, on one grid for each set,
which resolves the exact posterior and covers the prior:

    log p(theta*|s)                              on the grid
    log sum_cells m N(theta*; theta, b^2)        the same smeared with b = 0.15, as published
    TV = 1/2 integral |p - q|                    to the exact posterior
    1/2 (1 + TV)                                 accuracy of the best classifier between draws of
                                                 both: what a trained test (C2ST) tends to
    gap = log q(theta*|s) - log p(theta*|s)      learned minus exact

A number of a method is the mean over seeds, truths and sets; its error is

    (Var_seeds[mean over sets] / n_seeds + Var_sets[mean over seeds] / n_sets)^(1/2),

sets of different truths being different sets of one sample.

References:
    | Flows for simultaneous manifold learning and density estimation (Brehmer and Cranmer, 2020),
      arXiv:2003.13913: the smeared score
    | Benchmarking simulation-based inference (Lueckmann et al., 2021), arXiv:2101.04653: C2ST
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeAlias

import numpy as np

from mflow_sbi.cluster import SerialMap, TaskMap
from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.evaluation import EXACT, PRIOR
from mflow_sbi.events import EventSample
from mflow_sbi.inference import (
    FlatLikelihood,
    Grid,
    GridPosterior,
    common_grid,
    exact_likelihood,
    grid_posterior,
    truth_of,
)
from mflow_sbi.inference.priors import RecordedPrior
from mflow_sbi.interfaces import Array, Likelihood, Progress

__all__ = [
    "BANDWIDTH",
    "Contender",
    "ObservedSets",
    "Scores",
    "Study",
    "compare_over_sets",
    "cut_into_sets",
    "smeared_log_prob",
]

BANDWIDTH = 0.15
"""Of the published kernel density estimate, in units of the parameters."""


OfSet: TypeAlias = Callable[[Array], Likelihood]
"""Observed events (N, n), physical units, to the likelihood of theta."""


@dataclass(frozen=True, eq=False)
class ObservedSets:
    """Sets of observed events at one truth.

    Args:
        truth: parameters behind the events, (p,).
        sets: samples of equal size.
    """

    truth: Array
    sets: tuple[EventSample, ...]

    @property
    def label(self) -> str:
        """The truth in words."""
        return "(" + ", ".join(f"{value:g}" for value in self.truth) + ")"


@dataclass(frozen=True, eq=False)
class Contender:
    """A method: one way to likelihoods for each random seed it was trained with.

    Args:
        label: in tables.
        members: of each seed.
        failed: trainings that ended without a surrogate.
    """

    label: str
    members: tuple[OfSet, ...]
    failed: int = 0


@dataclass(frozen=True, eq=False)
class Scores:
    """Numbers of every seed, truth and set, (seeds, truths, sets).

    Args:
        log_prob: log p(theta*).
        smeared: the same smeared.
        total_variation: to the exact posterior; None without one.
        gap: learned minus exact log p(theta*).
        resolved: whether the grid resolves the posterior.
        seconds: CPU seconds of a posterior, (seeds,).
    """

    log_prob: Array
    smeared: Array
    total_variation: Array | None
    gap: Array | None
    resolved: Array
    seconds: Array

    def numbers(self) -> dict[str, Array]:
        """Return name -> (seeds, truths, sets)."""
        known = {"log_prob": self.log_prob, "smeared": self.smeared, "resolved": self.resolved}
        known |= {"total_variation": self.total_variation, "gap": self.gap}
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Study:
    """The scores of all methods on the same observed sets.

    Args:
        parameter_names: the p names.
        truths: labels of the truths.
        n_events: of every set.
        n_sets: of every truth.
        scores: by label; of the exact posterior and of the prior too.
        failed: trainings without a surrogate, by label.
    """

    parameter_names: tuple[str, ...]
    truths: tuple[str, ...]
    n_events: int
    n_sets: int
    scores: Mapping[str, Scores]
    failed: Mapping[str, int] = field(default_factory=dict)


def cut_into_sets(sample: EventSample, n_events: int, n_sets: int | None = None) -> ObservedSets:
    """Return the first events of a sample as sets of n_events.

    Raises:
        ConfigurationError: fewer events than asked for, or events of several truths.
    """
    truth = truth_of(sample)
    if truth is None:
        message = "comparison over sets: expected events at one truth per file, got several"
        raise ConfigurationError(message)
    possible = len(sample) // n_events
    wanted = possible if n_sets is None else n_sets
    if not 1 <= wanted <= possible:
        message = (
            f"comparison over sets: expected {max(1, wanted)} x {n_events} events at {truth}, got "
            f"{len(sample)}; ask for smaller or fewer sets, or simulate more events"
        )
        raise ConfigurationError(message)
    cuts = [sample.take(np.arange(n_events * k, n_events * (k + 1))) for k in range(wanted)]
    return ObservedSets(np.asarray(truth), tuple(cuts))


def smeared_log_prob(
    posterior: GridPosterior, truth: Array, bandwidth: float = BANDWIDTH
) -> float:
    """Return log sum_cells m N(theta*; theta, b^2), the published score without its noise.

    A point mass on the truth has -p log(b (2 pi)^(1/2)): 1.96 for p = 2.
    """
    away = (posterior.grid.points - truth) / bandwidth
    log_kernel = -0.5 * np.square(away).sum(axis=1)
    norm = len(truth) * np.log(bandwidth * np.sqrt(2 * np.pi))
    with np.errstate(divide="ignore"):
        terms = np.log(posterior.mass) + log_kernel
    peak = terms.max()
    return float(peak + np.log(np.exp(terms - peak).sum()) - norm)


def compare_over_sets(
    contenders: Sequence[Contender],
    observed: Sequence[ObservedSets],
    prior: RecordedPrior,
    *,
    with_exact: bool = True,
    cells: int = 32,
    progress: Progress | None = None,
    tasks: TaskMap | None = None,
) -> Study:
    """Return the scores of every method on the same sets, with those of exact posterior and prior.

    Args:
        contenders: methods of different labels.
        observed: sets of every truth, as many of each, of equal size.
        prior: common prior.
        with_exact: compare with the exact posterior that the events carry.
        cells: per axis of each grid across the bulk of the exact posterior.
        progress: called with (posteriors done, all posteriors of the methods).
        tasks: who evaluates the posteriors; then members are functions that can be pickled.

    Raises:
        ConfigurationError: a label twice or reserved, nothing to compare.
        ShapeError: sets of different sizes.
        MissingReference: the events do not carry the exact likelihood.
        SamplingError: a posterior vanishes everywhere.
    """
    n_events, n_sets = _sizes(contenders, observed)
    names = tuple(prior.parameter_names)
    samples = [sample for one in observed for sample in one.sets]
    truths = np.repeat([one.truth for one in observed], n_sets, axis=0)
    exact = [exact_likelihood(sample) for sample in samples] if with_exact else None
    tasks = tasks or SerialMap()
    grids = _grids(samples, exact, contenders, prior, cells, tasks)
    true: Sequence[_Exact | None] = [None] * len(samples)
    scores = {}
    if exact is not None:
        found = [grid_posterior(one, prior, g) for one, g in zip(exact, grids, strict=True)]
        true = [_Exact.of(one, truth) for one, truth in zip(found, truths, strict=True)]
        pairs = zip(found, truths, true, strict=True)
        rows = [_outcome(one, truth, own, 0.0) for one, truth, own in pairs]
        scores[EXACT] = _scores_of([rows], n_sets)

    def cases(member: OfSet) -> list[_Case]:
        places = zip(samples, grids, truths, true, strict=True)
        return [_Case(member, sample.x, g, prior, truth, one) for sample, g, truth, one in places]

    asked = [case for one in contenders for member in one.members for case in cases(member)]
    outcomes = iter(tasks.map(_scored, asked, progress))
    for contender in contenders:
        rows = [list(islice(outcomes, len(samples))) for _ in contender.members]
        if rows:
            scores[contender.label] = _scores_of(rows, n_sets)
    flat = FlatLikelihood(names)
    scores[PRIOR] = _scores_of([[_scored(case) for case in cases(lambda x: flat)]], n_sets)  # noqa: ARG005
    failed = {contender.label: contender.failed for contender in contenders}
    labels = tuple(one.label for one in observed)
    return Study(names, labels, n_events, n_sets, scores, failed)


@dataclass(frozen=True, eq=False)
class _Exact:
    """The exact posterior of a set: its mass, and log p(theta*|s)."""

    posterior: GridPosterior
    log_prob: float

    @classmethod
    def of(cls, posterior: GridPosterior, truth: Array) -> "_Exact":
        """Return what is needed of it, without its likelihood, which need not travel."""
        log_prob = posterior.log_prob_at(truth[None]).item()
        return cls(replace(posterior, log_joint=_stayed_home), log_prob)


def _stayed_home(theta: Array) -> Array:
    message = f"the exact likelihood was not sent along, but asked for at {theta.tolist()}"
    raise NotImplementedError(message)


@dataclass(frozen=True, eq=False)
class _Case:
    """One member of a method and one set, with what its posterior is compared to."""

    member: OfSet
    x: Array
    grid: Grid
    prior: RecordedPrior
    truth: Array
    exact: _Exact | None


@dataclass(frozen=True)
class _Outcome:
    """The numbers of one posterior."""

    log_prob: float
    smeared: float
    total_variation: float | None
    gap: float | None
    resolved: bool
    seconds: float


def _scored(case: _Case) -> _Outcome:
    """Return the numbers of the posterior of one member and set."""
    began = time.process_time()
    posterior = grid_posterior(case.member(case.x), case.prior, case.grid)
    seconds = time.process_time() - began
    return _outcome(posterior, case.truth, case.exact, seconds)


def _outcome(
    posterior: GridPosterior, truth: Array, exact: _Exact | None, seconds: float
) -> _Outcome:
    log_prob = posterior.log_prob_at(truth[None]).item()
    return _Outcome(
        log_prob,
        smeared_log_prob(posterior, truth),
        None if exact is None else exact.posterior.total_variation(posterior),
        None if exact is None else log_prob - exact.log_prob,
        posterior.is_resolved,
        seconds,
    )


def _grids(
    samples: Sequence[EventSample],
    exact: Sequence[Likelihood] | None,
    contenders: Sequence[Contender],
    prior: RecordedPrior,
    cells: int,
    tasks: TaskMap,
) -> list[Grid]:
    """Return a grid for each set: of its exact posterior, or else of all learned ones."""
    if exact is not None:
        return [common_grid([one], prior, cells) for one in exact]
    members = [member for contender in contenders for member in contender.members]
    return tasks.map(_common_grid, [(members, sample.x, prior, cells) for sample in samples])


def _common_grid(asked: tuple[Sequence[OfSet], Array, RecordedPrior, int]) -> Grid:
    members, x, prior, cells = asked
    return common_grid([member(x) for member in members], prior, cells)


def _scores_of(outcomes: Sequence[Sequence[_Outcome]], n_sets: int) -> Scores:
    """Return the scores of the posteriors of every seed, those of one truth side by side."""

    def table(name: str) -> Array:
        rows = [[getattr(one, name) for one in of_seed] for of_seed in outcomes]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1, n_sets)

    known = outcomes[0][0].gap is not None
    return Scores(
        table("log_prob"),
        table("smeared"),
        table("total_variation") if known else None,
        table("gap") if known else None,
        table("resolved"),
        table("seconds").mean(axis=(1, 2)),
    )


def _sizes(contenders: Sequence[Contender], observed: Sequence[ObservedSets]) -> tuple[int, int]:
    """Return the common number of events and sets, or say what does not fit."""
    labels = [contender.label for contender in contenders]
    clash = sorted({EXACT, PRIOR} & set(labels)) or len(set(labels)) < len(labels)
    if not observed or not labels or clash:
        message = (
            "comparison over sets: expected methods of different labels, other than "
            f"{[EXACT, PRIOR]}, and observed sets; got {labels} and {len(observed)} truths"
        )
        raise ConfigurationError(message)
    sizes = {len(sample) for one in observed for sample in one.sets}
    numbers = {len(one.sets) for one in observed}
    if len(sizes) != 1 or len(numbers) != 1:
        message = (
            f"comparison over sets: expected as many sets of one size at every truth, got sets of "
            f"{sorted(sizes)} events and {sorted(numbers)} of them"
        )
        raise ShapeError(message)
    return sizes.pop(), numbers.pop()
