"""Records inside a run configuration: phases, priors, sampling, streaming."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import BoxPrior, EmceeSampler, NormalPrior
from mflow_sbi.training import StreamingSettings

__all__ = ["McmcConfig", "PhaseConfig", "PriorConfig", "StreamingConfig", "StrictConfig"]


class StrictConfig(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhaseConfig(StrictConfig):
    """What may be changed of a phase of the recipe's schedule."""

    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)

    def changes(self) -> dict[str, Any]:
        """Return the fields that were given."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


class PriorConfig(StrictConfig):
    """A normal prior (mean, std) or a box (low, high), one number per parameter."""

    kind: Literal["normal", "box"] = "normal"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def build(self, names: tuple[str, ...]) -> NormalPrior | BoxPrior:
        """Return the prior on these parameters; normal without numbers is N(0, 1) for each.

        Raises:
            ConfigurationError: fields of the other kind, or missing ones.
        """
        wanted, other = (("mean", "std"), ("low", "high"))
        if self.kind == "box":
            wanted, other = other, wanted
        given = [name for name in other if getattr(self, name) is not None]
        if given:
            message = f"prior of kind {self.kind!r}: takes {list(wanted)}, got {given}"
            raise ConfigurationError(message)
        first, second = (getattr(self, name) for name in wanted)
        if self.kind == "normal":
            zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
            first, second = (zeros if first is None else first, ones if second is None else second)
            return NormalPrior(names, first, second)
        if first is None or second is None:
            message = "prior of kind 'box': expected low and high, one number per parameter"
            raise ConfigurationError(message)
        return BoxPrior(names, first, second)


class McmcConfig(StrictConfig):
    """Ensembles, walkers and steps of the sampler."""

    ensembles: int = Field(default=4, ge=2)
    walkers: int = Field(default=32, ge=8)
    burn_in: int = Field(default=300, ge=0)
    steps: int = Field(default=700, ge=4)

    def build(self) -> EmceeSampler:
        """Return the settings for `sample_posterior`."""
        return EmceeSampler(self.ensembles, self.walkers, self.burn_in, self.steps)


class StreamingConfig(StrictConfig):
    """How many of the training events are in memory at a time."""

    chunk_events: int = Field(default=200_000, ge=1000)
    buffer_chunks: int = Field(default=4, ge=1)

    def build(self) -> StreamingSettings:
        """Return the settings for `train_streamed`."""
        return StreamingSettings(self.chunk_events, self.buffer_chunks)
