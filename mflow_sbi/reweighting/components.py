"""From weights at benchmark points to events with morphing components."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, MetadataError, MissingReference
from mflow_sbi.events import EventMetadata, EventSample, Morphing, Parameter
from mflow_sbi.morphing import (
    BenchmarkFit,
    CrossSectionEstimate,
    MorphingBasis,
    MorphingBenchmarks,
    joint_score,
)
from mflow_sbi.morphing.benchmarks import LARGEST_MISFIT
from mflow_sbi.reweighting.pool import SAMPLING_MEASURE, selected_share

__all__ = ["benchmarks_of", "with_morphing"]


def benchmarks_of(sample: EventSample, basis: MorphingBasis) -> MorphingBenchmarks:
    """Return the benchmarks that the metadata of the events name.

    Raises:
        MissingReference: they name none, or not their parameters.
        ShapeError: too few of them, or of other parameters than the basis.
        ParameterRangeError: they do not determine the monomials.
    """
    record = sample.metadata.benchmarks
    if record is None or not record.theta:
        msg = (
            "the events do not say at which parameters their benchmark weights are; expected "
            "points theta in the metadata, or give them (`morphing: {benchmarks: [[0, 0], ...]}`)."
        )
        raise MissingReference(msg)
    return MorphingBenchmarks(basis, np.array(record.theta))


def with_morphing(
    sample: EventSample,
    benchmarks: MorphingBenchmarks,
    *,
    weights: ArrayLike | None = None,
    parameters: Sequence[str | Parameter] | None = None,
    picobarn_per_weight: float = 1.0,
    sampled_at: ArrayLike | None = None,
    largest_misfit: float = LARGEST_MISFIT,
) -> tuple[EventSample, BenchmarkFit]:
    """Return the events with components from their weights at benchmarks, and how well they fit.

    c_k(x_i) = N (picobarn per weight) sum_b W^+_kb w_b(x_i), so that their mean over the N events
    is C_k: joint densities over that of the sampling (`SAMPLING_MEASURE`).  C_k is the cross
    section of the events selected, with the error that this sample leaves.  A random part of such
    events is such a sample again.

    Args:
        sample: N events.
        benchmarks: the monomials, and the points of the weights.
        weights: w_b(x_i), absolute, of either sign, (N, B); default: the events' own.
        parameters: names of the p parameters, for files that do not tell.
        picobarn_per_weight: sigma(theta) over the sum of all weights at theta: 1 where weights
            sum to the cross section, 1 / (generated events) where their mean is it.  Posteriors
            of shapes do not depend on it.
        sampled_at: where the events were generated; sets theta and score of all events.
        largest_misfit: see `MorphingBenchmarks.fit`.

    Raises:
        MissingReference: no benchmark weights.
        MetadataError: names of parameters missing, too many, or others than the file's.
        EventDataError: weights that are no such polynomials, or a factor that is not positive.
        ParameterRangeError: weights that sum to nothing positive where the events were generated.
    """
    given = sample.require_benchmark_weight() if weights is None else np.asarray(weights)
    if len(given) != len(sample):
        msg = f"with_morphing: expected weights of {len(sample):,} events; got {len(given):,}."
        raise EventDataError(msg)
    if not 0 < picobarn_per_weight < np.inf:
        msg = f"with_morphing: expected picobarn_per_weight > 0; got {picobarn_per_weight}."
        raise EventDataError(msg)
    fit = benchmarks.fit(given, largest_misfit)
    basis, components = benchmarks.basis, len(sample) * picobarn_per_weight * fit.components
    generated = len(sample) / selected_share(sample)
    estimate = CrossSectionEstimate.of(basis, components, generated)
    morphing = Morphing(
        branch=sample.metadata.benchmarks.branch if sample.metadata.benchmarks else "",
        exponents=tuple(tuple(row) for row in basis.exponents.tolist()),
        cross_section=tuple(estimate.value.tolist()),
        cross_section_error=tuple(estimate.error.tolist()),
        likelihood="joint",
        measure=SAMPLING_MEASURE,
    )
    metadata = _named(sample.metadata, parameters, basis.parameter_dim)
    metadata = replace(metadata, morphing=morphing)
    theta, score = sample.theta, sample.score
    if sampled_at is not None:
        point = np.asarray(sampled_at, dtype=np.float64).reshape(1, -1)
        score = joint_score(basis, components, estimate.value, point)
        theta = np.broadcast_to(basis.points(point), score.shape)
    return replace(sample, metadata=metadata, components=components, theta=theta, score=score), fit


def _named(
    metadata: EventMetadata, parameters: Sequence[str | Parameter] | None, n: int
) -> EventMetadata:
    """Return the record with p parameters, those given or its own."""
    given = [p if isinstance(p, Parameter) else Parameter(p) for p in parameters or ()]
    known = metadata.parameter_names
    names = tuple(p.name for p in given) or known
    if len(names) != n or (known and names != known):
        msg = (
            f"with_morphing: expected the names of {n} parameters (the file's, where it has "
            f"some); got {list(names)}, the file has {list(known)}. Give them by parameters=[...]."
        )
        raise MetadataError(msg)
    return metadata if known else replace(metadata, parameters=tuple(given))
