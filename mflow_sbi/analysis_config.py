"""What an analysis takes its observations to be, in one YAML file.

    luminosity: 30                     # fb^-1: the number of events counts too
    efficiency: 0.55                   # share of the cross section that is selected and recorded
    luminosity_error: 0.02             # log-normal, 2%
    cross_section_error: true          # Monte Carlo error of sigma(theta), as a nuisance
    background: {yield: 4.5, error: 0.2, theta: [0, 0]}
    fixed: {CPWL2: 0.0}
    prior: {kind: box, low: [-2], high: [2]}
    sampler: {kind: nested}
    combine:                           # further observations, each of its own run(s)
      - {name: late, run: runs/late, observed: late.root, luminosity: 60, luminosity_error: 0.03}
    shared: [luminosity]               # nuisances that are one and the same in all observations

Everything may be left out: then the shape of the events alone is used, under the prior and with
the sampler of the run.  Without a luminosity a background is a `fraction` of the events.  The
background's density is the surrogate's own at another theta (`inference.Component` takes others).

Parameters of one name are one parameter in all observations.  Nuisances are not, unless `shared`:
those of a further observation carry its name, `luminosity_late`.  Fixed parameters, prior and
sampler are those of the whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from mflow_sbi.config import StrictConfig, read_yaml, validated

__all__ = [
    "MAIN",
    "NUISANCES",
    "AnalysisConfig",
    "BackgroundConfig",
    "FurtherObservation",
    "ObservationConfig",
    "parse_analysis",
    "read_analysis",
]

LUMINOSITY, CROSS_SECTION, BACKGROUND = "luminosity", "cross_section", "background_yield"
NUISANCES = (LUMINOSITY, CROSS_SECTION, BACKGROUND)
"""Names of the nuisances that an observation may have."""

MAIN = "main"
"""Name of the observation that is not a further one."""


class BackgroundConfig(StrictConfig):
    """Events of another kind: how many, how well that is known, and where their density is."""

    yield_: float | None = Field(default=None, alias="yield", gt=0)
    fraction: float | None = Field(default=None, gt=0, lt=1)
    error: float | None = Field(default=None, gt=0)
    theta: tuple[float, ...]


class ObservationConfig(StrictConfig):
    """How many events of which kinds an observation expects."""

    luminosity: float | None = Field(default=None, gt=0)
    efficiency: float = Field(default=1.0, gt=0, le=1)
    luminosity_error: float | None = Field(default=None, gt=0)
    cross_section_error: bool = False
    background: BackgroundConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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


class FurtherObservation(ObservationConfig):
    """Another data set or channel: its events, and the run (or several, an ensemble) for them."""

    name: str = Field(pattern=r"^\w+$")
    run: str | tuple[str, ...]
    observed: str | tuple[str, ...]

    @property
    def folders(self) -> list[Path]:
        """Run folders."""
        return [Path(run) for run in ([self.run] if isinstance(self.run, str) else self.run)]

    @property
    def observed_paths(self) -> list[str]:
        """Event files."""
        return [self.observed] if isinstance(self.observed, str) else list(self.observed)


class AnalysisConfig(ObservationConfig):
    """Everything that turns observed events into a likelihood and a posterior."""

    fixed: dict[str, float] = Field(default_factory=dict)
    prior: dict[str, Any] | None = None
    sampler: dict[str, Any] | None = None
    combine: tuple[FurtherObservation, ...] = ()
    shared: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _combinable(self) -> Self:
        names = [MAIN, *(further.name for further in self.combine)]
        if len(set(names)) < len(names):
            message = f"combine: expected every name once ({MAIN!r} is taken), got {names[1:]}"
            raise ValueError(message)
        unknown = [name for name in self.shared if name not in NUISANCES]
        if unknown or (self.shared and not self.combine):
            message = (
                f"shared: expected nuisances of combined observations, some of {list(NUISANCES)}, "
                f"got {list(self.shared)} of {len(self.combine) + 1} observation(s)"
            )
            raise ValueError(message)
        return self

    @property
    def is_signal_only(self) -> bool:
        """Whether there is nothing but luminosity and efficiency, prior and sampler aside."""
        simple = ObservationConfig(luminosity=self.luminosity, efficiency=self.efficiency)
        mine = self.model_dump(include=set(ObservationConfig.model_fields))
        return mine == simple.model_dump() and not self.fixed and not self.combine


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
    parts = {"background": BackgroundConfig, "combine": FurtherObservation}
    return validated(AnalysisConfig, values, where, parts)


def read_analysis(path: str | Path) -> AnalysisConfig:
    """Return the analysis in a YAML file.

    Raises:
        ConfigurationError: no such file, not YAML, or not a valid analysis.
    """
    return parse_analysis(read_yaml(path), str(path))
