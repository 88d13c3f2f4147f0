"""Recipes: named surrogates with their default schedules.  The only table of names.

| recipe | surrogate | measure | default schedule |
|---|---|---|---|
| `mflow` | manifold-learning flow (arXiv:2003.13913) | manifold | manifold, reference, density |
| `emflow` | M-flow with a free encoder (same paper) | manifold | the same |
| `fom` | flow on the prescribed surface of WBF events | manifold | reference, density |
| `af` | ambient flow | ambient | reference, density |
| `pie` | pseudo-invertible encoder (same paper, section 2.B) | ambient | density |
| `pae` | probabilistic autoencoder (arXiv:2006.05479) | none | manifold, reference, density |
| `nre` | ratio estimator, from events and theta (arXiv:1903.04057) | none | ratio |
| `alices` | ratio estimator, from joint ratios and scores (arXiv:1808.00973) | none | ratio |
| `histogram` | templates in bins of a few observables (arXiv:1805.00013) | none | templates |
| `sally` | the same in bins of the score at a point (arXiv:1805.00020) | none | score, templates |

The `mflow` solves constraints found in the data (`chart: implicit`; then there is no manifold
phase), or learns its chart by reconstruction (`chart: invertible`, or `autoencoder`: free both
ways), whichever the data deserve (`chart: automatic`, the default).
Beside them stand the baselines of sbi, `sbi_...`: see `sbi_recipes`.
Ratio estimators and histograms are baselines: they have a likelihood, but no density, samples or
surface.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mflow_sbi import default_schedules
from mflow_sbi.beginnings import (
    AmbientOptions,
    EncodedManifoldOptions,
    ManifoldOptions,
    again_with_density,
    begin_ambient,
    begin_fom,
    begin_mflow,
    rebuild_ambient,
    rebuild_fom,
    rebuild_mflow,
    told_density,
    with_density,
)
from mflow_sbi.binning import (
    HistogramOptions,
    LocalScoreOptions,
    begin_histogram,
    begin_sally,
    learn_score_and_templates,
    learn_templates,
    rebuild_histogram,
    rebuild_sally,
    told_over_mixture,
)
from mflow_sbi.errors import ConfigurationError, RunFolderError
from mflow_sbi.estimating import (
    EstimatorOptions,
    begin_alices,
    begin_nre,
    rebuild_estimator,
    told_jointly,
    told_nothing,
)
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array, DifferentiableLikelihood
from mflow_sbi.pseudo_inverses import (
    AutoencoderOptions,
    PseudoInvertibleOptions,
    begin_pae,
    begin_pie,
    rebuild_pae,
    rebuild_pie,
)
from mflow_sbi.recipe import Recipe
from mflow_sbi.sbi_recipes import SBI_RECIPES
from mflow_sbi.surrogates import (
    AmbientFlow,
    ManifoldFlow,
    ProbabilisticAutoencoder,
    PseudoInvertibleFlow,
    TrainedSurrogate,
)
from mflow_sbi.surrogates.histogram import HistogramEstimator, LocalScoreEstimator
from mflow_sbi.surrogates.ratio import RatioEstimator
from mflow_sbi.surrogates.trained import read_record
from mflow_sbi.training import (
    FitSettings,
    HistoryRecord,
    Schedule,
)

__all__ = [
    "RECIPES",
    "AmbientOptions",
    "ManifoldOptions",
    "Recipe",
    "TrainingResult",
    "find_recipe",
    "likelihood_of",
    "load_surrogate",
    "require_streaming",
    "train",
]


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "mflow": Recipe(
            name="mflow",
            title="M-flow",
            paper="arXiv:2003.13913",
            surrogate=ManifoldFlow,
            options=ManifoldOptions,
            begin=with_density(begin_mflow),
            rebuild=again_with_density(rebuild_mflow),
            told=told_density,
            schedule=default_schedules.CHART_THEN_DENSITY,
            streams=True,
        ),
        "emflow": Recipe(
            name="emflow",
            title="M-flow with a free encoder",
            paper="arXiv:2003.13913",
            surrogate=ManifoldFlow,
            options=EncodedManifoldOptions,
            begin=with_density(begin_mflow),
            rebuild=again_with_density(rebuild_mflow),
            told=told_density,
            schedule=default_schedules.CHART_THEN_DENSITY,
            streams=True,
        ),
        "fom": Recipe(
            name="fom",
            title="flow on the known surface",
            paper="arXiv:2003.13913",
            surrogate=ManifoldFlow,
            options=AmbientOptions,
            begin=with_density(begin_fom),
            rebuild=again_with_density(rebuild_fom),
            told=told_density,
            schedule=default_schedules.AT_FIXED_CHART,
            streams=True,
        ),
        "af": Recipe(
            name="af",
            title="ambient flow",
            paper="arXiv:1912.02762",
            surrogate=AmbientFlow,
            options=AmbientOptions,
            begin=with_density(begin_ambient),
            rebuild=again_with_density(rebuild_ambient),
            told=told_density,
            schedule=default_schedules.AT_FIXED_CHART,
            streams=True,
        ),
        "pie": Recipe(
            name="pie",
            title="PIE",
            paper="arXiv:2003.13913",
            surrogate=PseudoInvertibleFlow,
            options=PseudoInvertibleOptions,
            begin=with_density(begin_pie),
            rebuild=rebuild_pie,
            told=told_density,
            schedule=default_schedules.SPLIT_DENSITY,
            streams=True,
        ),
        "pae": Recipe(
            name="pae",
            title="PAE",
            paper="arXiv:2006.05479",
            surrogate=ProbabilisticAutoencoder,
            options=AutoencoderOptions,
            begin=with_density(begin_pae),
            rebuild=rebuild_pae,
            told=told_density,
            schedule=default_schedules.CHART_THEN_DENSITY,
            streams=True,
        ),
        "nre": Recipe(
            name="nre",
            title="NRE",
            paper="arXiv:1903.04057",
            surrogate=RatioEstimator,
            options=EstimatorOptions,
            begin=begin_nre,
            rebuild=rebuild_estimator,
            told=told_nothing,
            schedule=default_schedules.NRE,
            streams=True,
        ),
        "alices": Recipe(
            name="alices",
            title="ALICES",
            paper="arXiv:1808.00973",
            surrogate=RatioEstimator,
            options=EstimatorOptions,
            begin=begin_alices,
            rebuild=rebuild_estimator,
            told=told_jointly,
            needs=("morphing components",),
            schedule=default_schedules.ALICES,
        ),
        "histogram": Recipe(
            name="histogram",
            title="histogram",
            paper="arXiv:1805.00013",
            surrogate=HistogramEstimator,
            options=HistogramOptions,
            begin=begin_histogram,
            rebuild=rebuild_histogram,
            told=told_over_mixture,
            needs=("morphing components",),
            schedule=default_schedules.HISTOGRAM,
            learn=learn_templates,
        ),
        "sally": Recipe(
            name="sally",
            title="SALLY",
            paper="arXiv:1805.00020",
            surrogate=LocalScoreEstimator,
            options=LocalScoreOptions,
            begin=begin_sally,
            rebuild=rebuild_sally,
            told=told_over_mixture,
            needs=("morphing components",),
            schedule=default_schedules.SALLY,
            learn=learn_score_and_templates,
        ),
        **SBI_RECIPES,
    }
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        ConfigurationError: unknown name (with the nearest spelling).
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"unknown recipe {name!r}, expected one of {sorted(RECIPES)}{hint}"
        raise ConfigurationError(message)
    return RECIPES[name]


def require_streaming(recipe: str) -> None:
    """Refuse a recipe that needs all its events in memory.

    Raises:
        ConfigurationError: it does; or unknown recipe.
    """
    if not find_recipe(recipe).streams:
        able = [name for name, known in RECIPES.items() if known.streams]
        message = (
            f"streaming: the recipe {recipe!r} needs all its events in memory; leave `streaming` "
            f"out, or take one of {able}"
        )
        raise ConfigurationError(message)


@dataclass(frozen=True)
class TrainingResult:
    """A trained surrogate and the history of its training."""

    surrogate: TrainedSurrogate
    history: list[HistoryRecord]


def train(
    events: EventSample,
    recipe: str = "mflow",
    *,
    options: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    settings: FitSettings | None = None,
    checkpoint_folder: Path | None = None,
    on_epoch: Callable[[HistoryRecord], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> TrainingResult:
    """Train a surrogate of p(x|theta) on simulated events.

    Observables and parameters are standardised on these events, exactly linear constraints are
    found and built in, then the recipe's schedule runs.  Weighted events, positive or signed,
    stand for p(x|theta) by their averages: objectives take weights, scales and surfaces do not.
    Same events, options and settings give the same surrogate bit for bit on the same machine and
    number of threads.

    Args:
        events: simulated events with the parameters they were generated at.
        recipe: name of the recipe, see `RECIPES`.
        options: architecture options of the recipe, by name.
        schedule: other than the recipe's default schedule; see `Recipe.schedule_for`.
        settings: seed, held-out share, and the processes that train together.
        checkpoint_folder: where to keep (and look for) an unfinished run.
        on_epoch: called with each epoch's record.
        on_note: called with each line that says what was found in the events.

    Raises:
        MissingReference: the events carry no theta, or no score where the schedule matches it.
        ConfigurationError: unknown recipe or option.
        EventDataError: weights of no positive sum, or of too small an effective size.
        TrainingError: too few events, or a diverging objective.
    """
    chosen = find_recipe(recipe)
    theta = events.require_theta()
    weights = (events.training_weight, events.theta_weight)
    parsed = chosen.parse_options(options or {})
    begun = chosen.start(events, parsed, schedule, settings or FitSettings())
    notes = (*events.weight_notes, *begun.notes(len(events)))
    told = begun.training_events(events)
    for note in notes:
        on_note(note)
    weight, theta_weight = (None if w is None else torch.from_numpy(w) for w in weights)
    history = chosen.learn(
        begun.beginning.surrogate,
        told._replace(weight=weight, theta_weight=theta_weight),
        begun.schedule,
        begun.settings,
        checkpoint_folder=checkpoint_folder,
        on_epoch=on_epoch,
    )
    trained = begun.finished(events.metadata.with_ranges_of(theta), events.digest, notes)
    return TrainingResult(trained, history)


def likelihood_of(surrogate: TrainedSurrogate, x: Array) -> DifferentiableLikelihood:
    """Return the likelihood of observed events (N, n), in physical units, as the recipe has it.

    Raises:
        ShapeError: x is not (N, n).
        EventDataError: no events, or non-finite observables.
    """
    return find_recipe(surrogate.record.recipe).likelihoods.of_set(surrogate, x)


def load_surrogate(folder: str | Path) -> TrainedSurrogate:
    """Return the trained surrogate saved in a folder (or in its `surrogate/` subfolder).

    Raises:
        RunFolderError: the folder is incomplete, altered or of another version.
    """
    folder = Path(folder)
    if (folder / "surrogate").is_dir():
        folder = folder / "surrogate"
    record, tensors = read_record(folder)
    recipe = find_recipe(record.recipe)
    try:
        options = recipe.parse_options(record.options)
        surrogate = recipe.rebuild(record.shape, options, record.seed)
    except (KeyError, TypeError) as error:
        message = f"{folder}: the record lacks what rebuilds the surrogate ({error}); train again"
        raise RunFolderError(message) from error
    _load_tensors(surrogate, tensors, folder)
    surrogate.eval()
    return TrainedSurrogate(surrogate, record)


def _load_tensors(surrogate: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    floats = {value.dtype for value in tensors.values() if value.dtype.is_floating_point}
    if torch.float32 not in floats:
        surrogate.double()
    try:
        surrogate.load_state_dict(tensors)
    except RuntimeError as error:
        message = f"{folder}: the weights do not fit the recipe ({error})"
        raise RunFolderError(message) from error
