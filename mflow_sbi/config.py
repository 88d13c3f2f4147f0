"""The run configuration: one YAML file, validated strictly.

    name: wbf_mflow
    title: M-flow                        # in tables and figures; default: the recipe's
    events: data/train.root              # and how it is read: see mflow_sbi.reading_config
    recipe: mflow                        # see mflow_sbi.recipes.RECIPES
    options: {latent_dim: 14, density: {layers: 8, hidden: 64}}
    schedule: sequential                 # see mflow_sbi.named_schedules; default: the recipe's
    scandal: 2.0                         # weight of score matching; default: none
    streaming: {chunk_events: 200000, buffer_chunks: 4}  # events larger than memory; default: none
    morphing: {benchmarks: [[0, 0], [1, 0], ...]}  # components from weights, see `pool_config`
    resample: {events: 100000}           # training events at thetas of the prior; default: as read
    phases: {manifold: {epochs: 15}, density: {epochs: 20, batch_size: 1000}}
    seed: 1
    prior: {kind: normal, mean: [0, 0], std: [1, 1]}
    mcmc: {walkers: 32, steps: 700}

An unknown key is an error that names the nearest spelling.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from mflow_sbi.config_records import (
    McmcConfig,
    PhaseConfig,
    PriorConfig,
    StreamingConfig,
    StrictConfig,
)
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.named_schedules import require_compilable, with_scores
from mflow_sbi.pool_config import MorphingConfig, ResampleConfig
from mflow_sbi.reading_config import (
    BenchmarksConfig,
    ObservableConfig,
    ReadingConfig,
    SourceConfig,
)
from mflow_sbi.recipes import find_recipe, require_streaming
from mflow_sbi.training import FitSettings, Schedule

__all__ = [
    "McmcConfig",
    "PhaseConfig",
    "PriorConfig",
    "RunConfig",
    "StreamingConfig",
    "StrictConfig",
    "parse_config",
    "read_config",
    "read_yaml",
    "validated",
]

_Config = TypeVar("_Config", bound=BaseModel)


class RunConfig(ReadingConfig):
    """Everything that defines a run; see the module's example."""

    name: str = Field(min_length=1, pattern=r"^\w[\w.-]*$")
    title: str | None = Field(default=None, min_length=1)
    recipe: str = "mflow"
    options: dict[str, Any] = Field(default_factory=dict)
    schedule: str | None = None
    scandal: float | None = Field(default=None, gt=0)
    phases: dict[str, PhaseConfig] = Field(default_factory=dict)
    cycles: int | None = Field(default=None, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**32)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    threads: int | None = Field(default=None, ge=1)
    compiled: bool = False
    streaming: StreamingConfig | None = None
    morphing: MorphingConfig | None = None
    resample: ResampleConfig | None = None
    prior: PriorConfig = PriorConfig()
    mcmc: McmcConfig = McmcConfig()

    @property
    def shown_title(self) -> str:
        """What tables and figures call the run."""
        return self.title or find_recipe(self.recipe).title

    def training_schedule(self) -> Schedule:
        """Return the schedule of the recipe, or of this name, with this run's changes."""
        recipe = find_recipe(self.recipe)
        schedule = recipe.schedule_for(recipe.parse_options(self.options), self.schedule)
        if self.scandal is not None:
            schedule = with_scores(schedule, self.scandal)
            require_compilable(schedule, self.fit_settings())
        changed = schedule.with_phases(**{k: v.changes() for k, v in self.phases.items()})
        return replace(changed, cycles=self.cycles or changed.cycles)

    def fit_settings(self) -> FitSettings:
        """Return seed, held-out share and whether to compile."""
        return FitSettings(self.seed, self.validation_fraction, self.compiled)

    def to_json(self) -> str:
        """Return the configuration as JSON, defaults included."""
        return json.dumps(self.model_dump(mode="json"), indent=1)


def parse_config(values: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Return the validated configuration; recipe, options and phases are resolved too.

    >>> parse_config({"name": "toy", "events": "a.root", "recipi": "mflow"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    mflow_sbi.errors.ConfigurationError: configuration: unknown key 'recipi'; ...'recipe'?

    Raises:
        ConfigurationError: unknown key, unknown name, impossible value.
    """
    parts = {
        "events": SourceConfig,
        "observables": ObservableConfig,
        "benchmark_weights": BenchmarksConfig,
        "phases": PhaseConfig,
        "prior": PriorConfig,
        "mcmc": McmcConfig,
        "streaming": StreamingConfig,
        "morphing": MorphingConfig,
        "resample": ResampleConfig,
    }
    config = validated(RunConfig, values, where, parts)
    config.require_readable(where)
    find_recipe(config.recipe).parse_options(config.options)
    config.training_schedule()
    if config.morphing is not None and config.max_events is not None:
        message = (
            f"{where}: max_events keeps a part of the events, and morphing would take their cross "
            "section for that of all; leave max_events out, or take a part of the pool by "
            "`resample: {part: [0, 0.5]}`"
        )
        raise ConfigurationError(message)
    if config.streaming is not None:
        require_streaming(config.recipe)
        if config.morphing is not None or config.resample is not None:
            message = (
                f"{where}: morphing and resample need the whole pool in memory, streaming reads "
                "it in chunks; leave out one of them"
            )
            raise ConfigurationError(message)
    return config


def validated(
    model: type[_Config],
    values: Mapping[str, Any],
    where: str,
    parts: Mapping[str, type[BaseModel]],
) -> _Config:
    """Return the record of a configuration.

    Args:
        model: of the record.
        values: plain values by key.
        where: names the configuration in messages.
        parts: records inside the record, by key.

    Raises:
        ConfigurationError: unknown key (with the nearest spelling), or impossible value.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        msg = f"{where}: {_explain(error, model, parts)}"
        raise ConfigurationError(msg) from error


def _explain(
    error: ValidationError, model: type[BaseModel], parts: Mapping[str, type[BaseModel]]
) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    place = ".".join(path)
    if first["type"] == "missing":
        return f"missing key {place!r}"
    if first["type"] != "extra_forbidden":
        said = f"{place}: " if place else ""
        return f"{said}{first['msg']}, got {first['input']!r}"
    inner = parts.get(path[0], model) if len(path) > 1 else model
    known = [field.alias or name for name, field in inner.model_fields.items()]
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {sorted(known)}"
    return f"unknown key {place!r}; {hint}"


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:  # noqa: FBT001, FBT002
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                message = f"key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: str | Path) -> Mapping[str, Any]:
    """Return the mapping in a YAML (or JSON) file.

    Raises:
        ConfigurationError: no such file, not YAML, or no mapping.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 (safe)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise ConfigurationError(msg) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: not YAML ({error})"
        raise ConfigurationError(msg) from error
    if not isinstance(values, Mapping):
        message = f"{path}: expected a mapping of keys to values, got {type(values).__name__}"
        raise ConfigurationError(message)
    return values


def read_config(path: str | Path) -> RunConfig:
    """Return the configuration in a YAML (or JSON) file; relative event paths are as written.

    Raises:
        ConfigurationError: no such file, not YAML, or not a valid configuration.
    """
    return parse_config(read_yaml(path), str(path))
