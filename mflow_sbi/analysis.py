r"""What an observation is taken to be: shape or shape and rate, background, nuisances, prior.

    luminosity: 30                     # fb^-1: the number of events counts too
    efficiency: 0.55                   # share of the cross section that is selected and recorded
    luminosity_error: 0.02             # log-normal, 2%
    cross_section_error: true          # Monte Carlo error of sigma(theta), as a nuisance
    background: {yield: 4.5, error: 0.2, theta: [0, 0]}
    fixed: {CPWL2: 0.0}
    prior: {kind: box, low: [-2], high: [2]}
    sampler: {kind: nested}

Everything may be left out: then the shape of the events alone is used, under the prior and with
the sampler of the run.  Without a luminosity a background is a `fraction` of the events.  The
background's density is the surrogate's own at another theta (`inference.Component` takes others).

    log L = sum_i log[mu_s(theta) p(x_i|theta) + mu_b p_b(x_i)] - mu_s - mu_b - log n!
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from mflow_sbi.config import StrictConfig, read_yaml, validated
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.events import EventMetadata
from mflow_sbi.inference import (
    Component,
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
    DifferentiableEventwiseLikelihood,
    DifferentiableLikelihood,
)

__all__ = [
    "AnalysisConfig",
    "BackgroundConfig",
    "StatisticalModel",
    "build_model",
    "parse_analysis",
    "read_analysis",
]

LUMINOSITY, CROSS_SECTION, BACKGROUND = "luminosity", "cross_section", "background_yield"


class BackgroundConfig(StrictConfig):
    """Events of another kind: how many, how well that is known, and where their density is."""

    yield_: float | None = Field(default=None, alias="yield", gt=0)
    fraction: float | None = Field(default=None, gt=0, lt=1)
    error: float | None = Field(default=None, gt=0)
    theta: tuple[float, ...]


class AnalysisConfig(StrictConfig):
    """Everything that turns observed events into a likelihood and a posterior."""

    luminosity: float | None = Field(default=None, gt=0)
    efficiency: float = Field(default=1.0, gt=0, le=1)
    luminosity_error: float | None = Field(default=None, gt=0)
    cross_section_error: bool = False
    background: BackgroundConfig | None = None
    fixed: dict[str, float] = Field(default_factory=dict)
    prior: dict[str, Any] | None = None
    sampler: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "AnalysisConfig":
        if self.luminosity is None and (self.luminosity_error or self.cross_section_error):
            message = "luminosity_error and cross_section_error need a luminosity"
            raise ValueError(message)
        background = self.background
        if background is not None:
            wanted = "fraction" if self.luminosity is None else "yield"
            given = {"fraction": background.fraction, "yield": background.yield_}
            if given.pop(wanted) is None or any(v is not None for v in given.values()):
                message = f"the background is told by its {wanted}, and by nothing else, here"
                raise ValueError(message)
            if background.error is not None and self.luminosity is None:
                message = "background.error needs a luminosity"
                raise ValueError(message)
        return self


def parse_analysis(values: Mapping[str, Any], where: str = "analysis") -> AnalysisConfig:
    """Return the validated analysis.

    >>> parse_analysis({"luminosty": 30})
    Traceback (most recent call last):
    ...
    mflow_sbi.errors.ConfigurationError: analysis: unknown key 'luminosty'; did you mean \
'luminosity'?

    Raises:
        ConfigurationError: unknown key or impossible value.
    """
    return validated(AnalysisConfig, values, where, {"background": BackgroundConfig})


def read_analysis(path: str | Path) -> AnalysisConfig:
    """Return the analysis in a YAML file.

    Raises:
        ConfigurationError: no such file, not YAML, or not a valid analysis.
    """
    return parse_analysis(read_yaml(path), str(path))


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


def build_model(
    events: DifferentiableEventwiseLikelihood,
    metadata: EventMetadata,
    analysis: AnalysisConfig,
    default_prior: RecordedPrior,
    default_sampler: Sampler,
) -> StatisticalModel:
    """Return the statistical model of an observation.

    Args:
        events: learned or exact likelihood of the observed events' shape.
        metadata: record of the training events, for the cross section.
        analysis: what else is known.
        default_prior: of all parameters of the surrogate, where the analysis names none.
        default_sampler: where the analysis names none.

    Raises:
        ConfigurationError: parameters that do not fit, or no prior for what is left free.
        MissingReference: a luminosity, but no cross section in the file.
    """
    likelihood, nuisances = _likelihood(events, metadata, analysis)
    free = tuple(name for name in events.parameter_names if name not in analysis.fixed)
    if analysis.prior is not None:
        prior = prior_from_dict({"parameter_names": list(free), **analysis.prior})
    elif analysis.fixed:
        message = (
            f"with {sorted(analysis.fixed)} fixed: expected the analysis to say the prior of "
            f"{list(free)}; the run's is that of {list(default_prior.parameter_names)}"
        )
        raise ConfigurationError(message)
    else:
        prior = default_prior
    sampler = default_sampler
    if analysis.sampler is not None:
        sampler = sampler_from_dict(analysis.sampler)
    return StatisticalModel(likelihood, nuisances, prior, sampler)


def _likelihood(
    events: DifferentiableEventwiseLikelihood, metadata: EventMetadata, analysis: AnalysisConfig
) -> tuple[DifferentiableLikelihood, tuple[str, ...]]:
    """Return the likelihood of all free parameters, and the nuisances among them."""
    background = analysis.background
    if analysis.luminosity is None:
        model: DifferentiableLikelihood = events
        if background is not None and background.fraction is not None:
            density = density_at(events, _point(background.theta, events.parameter_names))
            parts = (
                Component("signal", events, FixedYield(1 - background.fraction)),
                Component("background", density, FixedYield(background.fraction)),
            )
            model = ShapeLikelihood(parts)
        return _reduced(model, analysis.fixed), ()
    nuisances: list[str] = []
    components = [Component("signal", events, _signal(metadata, analysis, nuisances))]
    if background is not None and background.yield_ is not None:
        density = density_at(events, _point(background.theta, events.parameter_names))
        rate: Rate = FixedYield(background.yield_)
        if background.error is not None:
            nuisances.append(BACKGROUND)
            rate = ProductRate((rate, LogNormalFactor(BACKGROUND, 1 + background.error)))
        components.append(Component("background", density, rate))
    return _reduced(ExtendedLikelihood(components), analysis.fixed), tuple(nuisances)


def _signal(metadata: EventMetadata, analysis: AnalysisConfig, nuisances: list[str]) -> RateModel:
    """Return the signal's rate; the names of its nuisances are added to the list."""
    assert analysis.luminosity is not None
    sigma: Rate = CrossSection.from_metadata(metadata)
    if analysis.cross_section_error:
        sigma = UncertainCrossSection(CrossSection.from_metadata(metadata), CROSS_SECTION)
        nuisances.append(CROSS_SECTION)
    factors: tuple[Rate, ...] = ()
    if analysis.luminosity_error is not None:
        factors = (LogNormalFactor(LUMINOSITY, 1 + analysis.luminosity_error),)
        nuisances.append(LUMINOSITY)
    return RateModel(sigma, analysis.luminosity, analysis.efficiency, factors)


def _reduced(
    likelihood: DifferentiableLikelihood, fixed: Mapping[str, float]
) -> DifferentiableLikelihood:
    return fix_parameters(likelihood, fixed) if fixed else likelihood


def _point(theta: Sequence[float], names: Sequence[str]) -> np.ndarray:
    if len(theta) != len(names):
        message = (
            f"background.theta: expected {len(names)} numbers, {list(names)}, got {list(theta)}"
        )
        raise ConfigurationError(message)
    return np.array(theta, dtype=np.float64)
