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
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

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
) -> Study:
    """Return the scores of every method on the same sets, with those of exact posterior and prior.

    Args:
        contenders: methods of different labels.
        observed: sets of every truth, as many of each, of equal size.
        prior: common prior.
        with_exact: compare with the exact posterior that the events carry.
        cells: per axis of each grid across the bulk of the exact posterior.
        progress: called with (likelihoods done, all likelihoods).

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
    grids = _grids(samples, exact, contenders, prior, cells)
    flat = Contender(PRIOR, (lambda x: FlatLikelihood(names),))  # noqa: ARG005
    true, scores = None, {}
    if exact is not None:
        true = [grid_posterior(one, prior, g) for one, g in zip(exact, grids, strict=True)]
        scores[EXACT] = _scores_of([true], truths, true, [0.0], n_sets)
    total = sum(len(contender.members) for contender in contenders) + 1
    done = 0
    for contender in (*contenders, flat):
        posteriors, seconds = [], []
        for member in contender.members:
            began = time.process_time()
            found = _posteriors(member, samples, grids, prior)
            posteriors.append(found)
            seconds.append((time.process_time() - began) / len(samples))
            done += 1
            if progress is not None:
                progress(done, total)
        if posteriors:
            scores[contender.label] = _scores_of(posteriors, truths, true, seconds, n_sets)
    failed = {contender.label: contender.failed for contender in contenders}
    labels = tuple(one.label for one in observed)
    return Study(names, labels, n_events, n_sets, scores, failed)


def _posteriors(
    member: OfSet, samples: Sequence[EventSample], grids: Sequence[Grid], prior: RecordedPrior
) -> list[GridPosterior]:
    pairs = zip(samples, grids, strict=True)
    return [grid_posterior(member(sample.x), prior, grid) for sample, grid in pairs]


def _grids(
    samples: Sequence[EventSample],
    exact: Sequence[Likelihood] | None,
    contenders: Sequence[Contender],
    prior: RecordedPrior,
    cells: int,
) -> list[Grid]:
    """Return a grid for each set: of its exact posterior, or else of all learned ones."""
    if exact is not None:
        return [common_grid([one], prior, cells) for one in exact]
    members = [member for contender in contenders for member in contender.members]
    return [
        common_grid([member(sample.x) for member in members], prior, cells) for sample in samples
    ]


def _scores_of(
    posteriors: Sequence[Sequence[GridPosterior]],
    truths: Array,
    exact: Sequence[GridPosterior] | None,
    seconds: Sequence[float],
    n_sets: int,
) -> Scores:
    """Return the scores of the posteriors of every seed, those of one truth side by side."""

    def table(number: Callable[[GridPosterior, int], float]) -> Array:
        rows = [[number(p, s) for s, p in enumerate(of_seed)] for of_seed in posteriors]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1, n_sets)

    log_prob = table(lambda p, s: p.log_prob_at(truths[s][None]).item())
    smeared = table(lambda p, s: smeared_log_prob(p, truths[s]))
    resolved = table(lambda p, s: p.is_resolved)  # noqa: ARG005
    distance = gap = None
    if exact is not None:
        distance = table(lambda p, s: exact[s].total_variation(p))
        true = [p.log_prob_at(truth[None]).item() for p, truth in zip(exact, truths, strict=True)]
        gap = log_prob - np.reshape(true, (-1, n_sets))
    return Scores(log_prob, smeared, distance, gap, resolved, np.array(seconds))


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
