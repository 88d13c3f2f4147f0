r"""From observed events and an analysis to likelihoods, nuisances and priors.

    log L = sum_i log[mu_s(theta) p(x_i|theta) + mu_b p_b(x_i)] - mu_s - mu_b - log n!

for each observation, and the sum over observations.  No events are an observation too where their
number counts: then log L = -mu_s - mu_b.  What may be said of an observation: `analysis_config`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mflow_sbi.analysis_config import (
    BACKGROUND,
    CROSS_SECTION,
    LUMINOSITY,
    MAIN,
    NUISANCES,
    AnalysisConfig,
    BackgroundConfig,
    FurtherObservation,
    ObservationConfig,
    parse_analysis,
    read_analysis,
)
from mflow_sbi.errors import ConfigurationError, EventDataError
from mflow_sbi.events import EventMetadata
from mflow_sbi.inference import (
    Component,
    CountingLikelihood,
    CrossSection,
    ExtendedLikelihood,
    FixedYield,
    GaussianConstraint,
    JointLikelihood,
    LogNormalFactor,
    ProductPrior,
    ProductRate,
    Rate,
    RateModel,
    RecordedPrior,
    Sampler,
    ShapeLikelihood,
    UncertainCrossSection,
    density_at,
    fix_parameters,
    prior_from_dict,
    sampler_from_dict,
)
from mflow_sbi.interfaces import (
    Array,
    DifferentiableEventwiseLikelihood,
    DifferentiableLikelihood,
)

__all__ = [
    "AnalysisConfig",
    "BackgroundConfig",
    "FurtherObservation",
    "ObservationConfig",
    "ObservationModel",
    "Population",
    "StatisticalModel",
    "build_model",
    "build_observation",
    "nuisance_names",
    "parse_analysis",
    "read_analysis",
    "statistical_model",
]


@dataclass(frozen=True, eq=False)
class Population:
    """Events of one kind.

    Args:
        name: signal or background.
        rate: their expected number; their share of all events where numbers do not count.
        theta: where they are generated, (p,); None for the parameters themselves.
    """

    name: str
    rate: Rate
    theta: Array | None


@dataclass(frozen=True, eq=False)
class ObservationModel:
    """The likelihood of one observation, and which events it expects.

    Args:
        likelihood: of the parameters of the surrogate, and of nuisances.
        nuisances: names of the nuisances, each in standard deviations.
        populations: the kinds of events, the signal first.
        counts: whether the number of events is part of the likelihood.
    """

    likelihood: DifferentiableLikelihood
    nuisances: tuple[str, ...]
    populations: tuple[Population, ...]
    counts: bool

    @property
    def nominal(self) -> DifferentiableLikelihood:
        """The likelihood with all nuisances at zero."""
        if not self.nuisances:
            return self.likelihood
        return fix_parameters(self.likelihood, dict.fromkeys(self.nuisances, 0.0))


@dataclass(frozen=True, eq=False)
class StatisticalModel:
    """The likelihood of an observation, the constraints of its nuisances, the prior of theta.

    Args:
        likelihood: of the free parameters, nuisances among them.
        nuisances: names of the nuisances, each in standard deviations.
        theta_prior: prior of the parameters that are no nuisances.
        sampler: of the posterior.
    """

    likelihood: DifferentiableLikelihood
    nuisances: tuple[str, ...]
    theta_prior: RecordedPrior
    sampler: Sampler

    @property
    def parameters_of_interest(self) -> tuple[str, ...]:
        """The free parameters that are no nuisances."""
        names = self.likelihood.parameter_names
        return tuple(name for name in names if name not in self.nuisances)

    @property
    def prior(self) -> RecordedPrior:
        """Return the prior of all parameters: nuisances by their constraints."""
        if not self.nuisances:
            return self.theta_prior
        parts = (self.theta_prior, GaussianConstraint.unit(self.nuisances))
        return ProductPrior(parts, tuple(self.likelihood.parameter_names))

    @property
    def constrained_likelihood(self) -> DifferentiableLikelihood:
        """Return the likelihood times the constraints: what a frequentist maximises."""
        if not self.nuisances:
            return self.likelihood
        constraint = GaussianConstraint.unit(self.nuisances)
        names = tuple(self.likelihood.parameter_names)
        return JointLikelihood({"events": self.likelihood, "nuisances": constraint}, names)


def nuisance_names(further: FurtherObservation, shared: Sequence[str]) -> dict[str, str]:
    """Return what the nuisances of a further observation are called.

    >>> late = FurtherObservation(name="late", run="runs/late", observed="late.root")
    >>> nuisance_names(late, ["luminosity"])["background_yield"]
    'background_yield_late'
    """
    return {
        name: name if name in shared else f"{name}_{further.name}"
        for name in (LUMINOSITY, CROSS_SECTION, BACKGROUND)
    }


def build_observation(
    events: DifferentiableLikelihood,
    metadata: EventMetadata,
    config: ObservationConfig,
    *,
    names: Mapping[str, str] | None = None,
    weights: Array | None = None,
) -> ObservationModel:
    """Return the model of one observation.

    Args:
        events: learned or exact likelihood of the observed events' shape, perhaps of none; one
            that is not eventwise takes neither background nor weights.
        metadata: record of the training events, for the cross section.
        config: what else is known.
        names: of its nuisances, by their usual ones.
        weights: of the events, positive, (N,); one each by default.

    Raises:
        ConfigurationError: parameters that do not fit.
        EventDataError: no events, and their number does not count; impossible weights.
        MissingReference: a luminosity, but no cross section in the file.
    """
    called = {name: (names or {}).get(name, name) for name in NUISANCES}
    background = config.background
    point = None if background is None else _point(background.theta, events.parameter_names)
    if config.luminosity is None:
        populations = _shares(background, point)
        return ObservationModel(
            _shape(events, populations, weights), (), populations, counts=False
        )
    nuisances: list[str] = []
    populations = (Population("signal", _signal(metadata, config, called, nuisances), None),)
    if background is not None:
        rate = _background_rate(background, called[BACKGROUND], nuisances)
        populations = (*populations, Population("background", rate, point))
    likelihood = _extended(events, populations, weights)
    return ObservationModel(likelihood, tuple(nuisances), populations, counts=True)


def statistical_model(
    observations: Mapping[str, ObservationModel],
    analysis: AnalysisConfig,
    default_prior: RecordedPrior,
    default_sampler: Sampler,
) -> StatisticalModel:
    """Return the model of one observation or several: their log likelihoods add.

    Args:
        observations: by name, independent of each other.
        analysis: which parameters are fixed, prior, sampler.
        default_prior: of all parameters of interest, where the analysis names none.
        default_sampler: where the analysis names none.

    Raises:
        ConfigurationError: parameters that do not fit, or no prior for what is left free.
    """
    models = list(observations.values())
    likelihood = models[0].likelihood
    if len(models) > 1:
        likelihood = JointLikelihood({k: one.likelihood for k, one in observations.items()})
    nuisances = tuple(dict.fromkeys(name for one in models for name in one.nuisances))
    if analysis.fixed:
        likelihood = fix_parameters(likelihood, analysis.fixed)
    free = [name for name in likelihood.parameter_names if name not in nuisances]
    nuisances = tuple(name for name in nuisances if name not in analysis.fixed)
    if analysis.prior is not None:
        prior = prior_from_dict({"parameter_names": free, **analysis.prior})
    elif free != list(default_prior.parameter_names):
        message = (
            f"with {sorted(analysis.fixed)} fixed and {len(models)} observation(s): expected the "
            f"analysis to say the prior of {free}; the run's is that of "
            f"{list(default_prior.parameter_names)}"
        )
        raise ConfigurationError(message)
    else:
        prior = default_prior
    sampler = default_sampler
    if analysis.sampler is not None:
        sampler = sampler_from_dict(analysis.sampler)
    return StatisticalModel(likelihood, nuisances, prior, sampler)


def build_model(
    events: DifferentiableLikelihood,
    metadata: EventMetadata,
    analysis: AnalysisConfig,
    default_prior: RecordedPrior,
    default_sampler: Sampler,
    *,
    weights: Array | None = None,
) -> StatisticalModel:
    """Return the statistical model of one observation.

    Arguments and errors are those of `build_observation` and `statistical_model`.

    Raises:
        ConfigurationError: also an analysis of several observations, which come with runs.
    """
    if analysis.combine:
        message = (
            f"expected an analysis of one observation, got {len(analysis.combine)} more to "
            "combine; build each by build_observation, then statistical_model"
        )
        raise ConfigurationError(message)
    one = build_observation(events, metadata, analysis, weights=weights)
    return statistical_model({MAIN: one}, analysis, default_prior, default_sampler)


def _shares(background: BackgroundConfig | None, point: Array | None) -> tuple[Population, ...]:
    """Return signal and background as shares of all events."""
    if background is None or background.fraction is None:
        return (Population("signal", FixedYield(1.0), None),)
    return (
        Population("signal", FixedYield(1 - background.fraction), None),
        Population("background", FixedYield(background.fraction), point),
    )


def _shape(
    events: DifferentiableLikelihood,
    populations: Sequence[Population],
    weights: Array | None,
) -> DifferentiableLikelihood:
    if events.n_events == 0:
        message = (
            "observed events: expected at least one where only their shape counts, got none; with "
            "a luminosity their number, zero, tells something"
        )
        raise EventDataError(message)
    if len(populations) == 1 and weights is None:
        return events
    return ShapeLikelihood(_components(events, populations), weights)


def _extended(
    events: DifferentiableLikelihood,
    populations: Sequence[Population],
    weights: Array | None,
) -> DifferentiableLikelihood:
    if events.n_events == 0:
        return CountingLikelihood([population.rate for population in populations], 0)
    of_sets = not isinstance(events, DifferentiableEventwiseLikelihood)
    if of_sets and len(populations) == 1 and weights is None:
        number = CountingLikelihood([populations[0].rate], events.n_events)
        return JointLikelihood({"shape": events, "number": number})
    return ExtendedLikelihood(_components(events, populations), weights)


def _components(
    events: DifferentiableLikelihood, populations: Sequence[Population]
) -> list[Component]:
    if not isinstance(events, DifferentiableEventwiseLikelihood):
        message = (
            "background or weights: expected a likelihood that is a sum over events, got "
            f"{type(events).__name__}, one of whole sets; use a recipe with a density"
        )
        raise ConfigurationError(message)
    return [
        Component(
            one.name, events if one.theta is None else density_at(events, one.theta), one.rate
        )
        for one in populations
    ]


def _signal(
    metadata: EventMetadata,
    config: ObservationConfig,
    called: Mapping[str, str],
    nuisances: list[str],
) -> RateModel:
    """Return the signal's rate; the names of its nuisances are added to the list."""
    assert config.luminosity is not None
    sigma: Rate = CrossSection.from_metadata(metadata)
    if config.cross_section_error:
        name = called[CROSS_SECTION]
        sigma = UncertainCrossSection(CrossSection.from_metadata(metadata), name)
        nuisances.append(name)
    factors: tuple[Rate, ...] = ()
    if config.luminosity_error is not None:
        name = called[LUMINOSITY]
        factors = (LogNormalFactor(name, 1 + config.luminosity_error),)
        nuisances.append(name)
    return RateModel(sigma, config.luminosity, config.efficiency, factors)


def _background_rate(background: BackgroundConfig, name: str, nuisances: list[str]) -> Rate:
    """Return the background's expected number; the name of its nuisance is added to the list."""
    assert background.yield_ is not None
    rate = FixedYield(background.yield_)
    if background.error is None:
        return rate
    nuisances.append(name)
    return ProductRate((rate, LogNormalFactor(name, 1 + background.error)))


def _point(theta: Sequence[float], names: Sequence[str]) -> Array:
    if len(theta) != len(names):
        message = (
            f"background.theta: expected {len(names)} numbers, {list(names)}, got {list(theta)}"
        )
        raise ConfigurationError(message)
    return np.array(theta, dtype=np.float64)
