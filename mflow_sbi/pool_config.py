"""`morphing:` and `resample:` of a run configuration: events for training, made from a pool.

    morphing: {benchmarks: [[0, 0], [1, 0], ...], degree: 2, parameters: [c1, c2]}
    resample: {events: 100000, prior: {kind: normal, mean: [0, 0], std: [1, 1]}, part: [0, 0.8]}

`morphing` finds components from benchmark weights, where the file does not carry components;
`resample` takes events to thetas of a prior (default: the run's own).  Cross sections are those of
the whole pool; a test set is drawn from the rest of it, `pool_part(events, 0.8, 1)`.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from mflow_sbi.config_records import PriorConfig, StrictConfig
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Prior
from mflow_sbi.morphing import BenchmarkFit, MorphingBasis, MorphingBenchmarks
from mflow_sbi.morphing.benchmarks import LARGEST_MISFIT
from mflow_sbi.reweighting import (
    benchmarks_of,
    pool_part,
    resampled,
    thinned,
    weighted,
    with_morphing,
)

__all__ = ["MorphingConfig", "ResampleConfig", "events_from_pool"]

_STREAM = 8_000_001  # of random numbers, beside those of the training's own seed


class MorphingConfig(StrictConfig):
    """How weights depend on the parameters, and where the file's benchmark weights stand.

    Attributes:
        benchmarks: their parameters, in the order of the weights; default: those of the file.
        parameters: names, for files that have none.
        degree: of the polynomial: 2 for one insertion of operators, 4 for two.
        degrees: of each parameter; default: `degree`.
        picobarn_per_weight: see `with_morphing`.
        sampled_at: where the events were generated; sets their theta.
        largest_misfit: see `MorphingBenchmarks.fit`.
    """

    benchmarks: tuple[tuple[float, ...], ...] | None = None
    parameters: tuple[str, ...] | None = None
    degree: int = Field(default=2, ge=1)
    degrees: tuple[int, ...] | None = None
    picobarn_per_weight: float = Field(default=1.0, gt=0)
    sampled_at: tuple[float, ...] | None = None
    largest_misfit: float = Field(default=LARGEST_MISFIT, gt=0)

    def apply(self, events: EventSample) -> tuple[EventSample, BenchmarkFit]:
        """Return the events with components, and how well these give the weights back.

        Raises:
            ConfigurationError: no names of parameters, or benchmarks of unequal lengths.
            MflowSbiError: as `with_morphing`.
        """
        names = self.parameters or events.parameter_names
        if not names:
            message = (
                "morphing: the events have no parameters; expected their names in the order of "
                "the benchmarks, `morphing: {parameters: [...]}`"
            )
            raise ConfigurationError(message)
        basis = MorphingBasis.of_degree(len(names), self.degree, self.degrees)
        return with_morphing(
            events,
            self._benchmarks(events, basis),
            parameters=self.parameters,
            picobarn_per_weight=self.picobarn_per_weight,
            sampled_at=self.sampled_at,
            largest_misfit=self.largest_misfit,
        )

    def _benchmarks(self, events: EventSample, basis: MorphingBasis) -> MorphingBenchmarks:
        if self.benchmarks is None:
            return benchmarks_of(events, basis)
        lengths = sorted({len(point) for point in self.benchmarks})
        if lengths != [basis.parameter_dim]:
            message = (
                f"morphing: benchmarks: expected points of {basis.parameter_dim} parameters, got "
                f"points of {lengths}"
            )
            raise ConfigurationError(message)
        return MorphingBenchmarks(basis, np.array(self.benchmarks))


class ResampleConfig(StrictConfig):
    """How events get to thetas of a prior, see `mflow_sbi.reweighting`.

    Attributes:
        kind: "resampled" (events may come several times), "thinned" (at most once), "weighted"
            (every one, with weights of either sign).
        events: number of events; default: as many as the pool has, or as thinning leaves.
        prior: of theta; default: the prior of the run.
        part: of the pool, see `pool_part`.
    """

    kind: Literal["resampled", "thinned", "weighted"] = "resampled"
    events: int | None = Field(default=None, ge=1)
    prior: PriorConfig | None = None
    part: tuple[float, float] | None = None

    def apply(
        self, pool: EventSample, prior: Prior, rng: np.random.Generator
    ) -> tuple[EventSample, str]:
        """Return the events, and a sentence on what the pool was worth.

        Raises:
            ConfigurationError: a number of events for weighted ones.
            MflowSbiError: as the function of `mflow_sbi.reweighting` of this kind.
        """
        if self.kind == "thinned":
            events, report = thinned(pool, prior, rng, self.events)
        elif self.kind == "resampled":
            events, report = resampled(pool, prior, self.events or len(pool), rng)
        elif self.events is not None:
            message = "resample: of kind 'weighted': takes every event of the pool, got `events`"
            raise ConfigurationError(message)
        else:
            events, report = weighted(pool, prior, rng)
        return events, str(report)


def events_from_pool(
    pool: EventSample,
    morphing: MorphingConfig | None,
    resample: ResampleConfig | None,
    prior: PriorConfig,
    seed: int,
) -> tuple[EventSample, tuple[str, ...]]:
    """Return the events to train on, and what is to be told about them.

    Args:
        pool: as read.
        morphing: how components come from weights, if they do.
        resample: how events get to thetas of a prior, if they do.
        prior: of the run.
        seed: of the run.

    Raises:
        MflowSbiError: as the functions of `mflow_sbi.reweighting`.
    """
    notes: list[str] = []
    events = pool
    if morphing is not None:
        events, fit = morphing.apply(events)
        notes.append(str(fit))
    if resample is not None and resample.part is not None:
        events = pool_part(events, *resample.part)
        notes.append(
            f"part [{resample.part[0]:g}, {resample.part[1]:g}) of the pool: {len(events):,} of "
            f"{len(pool):,} events"
        )
    if resample is not None:
        chosen = (resample.prior or prior).build(events.parameter_names)
        events, told = resample.apply(events, chosen, np.random.default_rng([seed, _STREAM]))
        notes.append(f"{resample.kind}: {told}")
    return events, tuple(notes)
