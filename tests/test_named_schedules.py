"""Every named schedule with every recipe that it can train, and what the others are told."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mflow_sbi.config import parse_config
from mflow_sbi.errors import ConfigurationError, MissingReference
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.interfaces import Surrogate
from mflow_sbi.named_schedules import SCHEDULES, joint_scores_for, with_scores
from mflow_sbi.recipes import RECIPES, TrainingResult, find_recipe, load_surrogate, train
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.training import FitSettings, Schedule

FLOW = {"layers": 2, "hidden": 12, "bins": 4}
NETWORK = {"hidden": 12, "blocks": 1}
FLOWS = {"reference": FLOW, "density": FLOW}
CHARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mflow": ("mflow", {"chart": {"kind": "invertible", **FLOW}}),
    "mflow, autoencoder": ("mflow", {"chart": {"kind": "autoencoder", **NETWORK}}),
    "mflow, implicit": ("mflow", {"chart": "implicit"}),
    "mflow, automatic": ("mflow", {}),
    "emflow": ("emflow", {"chart": {"encoder": NETWORK, "decoder": FLOW}}),
    "pae": ("pae", {"chart": NETWORK}),
}
TRAINED = {
    "sequential": {"mflow", "mflow, autoencoder", "emflow", "pae"},
    "alternating": {"mflow", "mflow, autoencoder", "emflow", "pae"},
    "simultaneous": {"mflow", "mflow, autoencoder", "emflow"},
    "optimal_transport": {"mflow"},
    "alternating_optimal_transport": {"mflow"},
}
SOLVED = {"mflow, implicit", "mflow, automatic"}
"""Charts that these events do not have, or need not train."""


def _options(case: str) -> dict[str, Any]:
    return {"latent_dim": 2, **FLOWS, **CHARTS[case][1]}


def _sample(n: int = 400, seed: int = 0) -> EventSample:
    """Events on a surface, x_1 ~ N(theta, 1): their score is x_1 - theta."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 1))
    u = rng.normal(size=(n, 2)) + theta * [1.0, 0.0]
    x = np.stack([u[:, 0], u[:, 1], np.sin(u[:, 0]) + 0.3 * u[:, 1] ** 2], axis=1)
    metadata = EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=(Parameter("mu"),),
        observables=tuple(Observable(name, name, "") for name in "abc"),
    )
    return EventSample(x=x, theta=theta, score=u[:, :1] - theta, metadata=metadata)


def _quick(schedule: Schedule, epochs: int = 1) -> Schedule:
    changes: dict[str, dict[str, object]] = {
        name: {"epochs": epochs, "batch_size": 100} for name in schedule.phase_names
    }
    quick = schedule.with_phases(**changes)
    return Schedule(quick.phases, min(2, quick.cycles))


def _train(
    recipe: str, options: dict[str, Any], name: str | None, scandal: float | None = None
) -> TrainingResult:
    chosen = find_recipe(recipe)
    schedule = chosen.schedule_for(chosen.parse_options(options), name)
    if scandal is not None:
        schedule = with_scores(schedule, scandal)
    settings = FitSettings(seed=3)
    return train(_sample(), recipe, options=options, schedule=_quick(schedule), settings=settings)


def test_the_tables_agree():
    assert set(TRAINED) == set(SCHEDULES)
    assert set.union(*TRAINED.values()) | SOLVED == set(CHARTS)


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in TRAINED.items() for case in sorted(cases)]
)
def test_every_combination_trains_saves_and_loads(name, case, tmp_path: Path):
    torch.set_num_threads(1)
    recipe, options = CHARTS[case][0], _options(case)
    result = _train(recipe, options, name)
    x = _sample(20, seed=1).x
    error = result.surrogate.reconstruction_error(x)
    assert not np.array_equal(error, _error_of_an_unmoved_chart(case))
    log_likelihood = result.surrogate.log_likelihood(x, [0.3])
    assert np.isfinite(log_likelihood).all()
    result.surrogate.save(tmp_path)
    loaded = load_surrogate(tmp_path)
    assert type(loaded.surrogate) is type(result.surrogate.surrogate)
    assert np.array_equal(loaded.log_likelihood(x, [0.3]), log_likelihood)
    assert np.array_equal(
        loaded.sample([[0.1]] * 5, seed=2), result.surrogate.sample([[0.1]] * 5, 2)
    )


@cache
def _error_of_an_unmoved_chart(case: str) -> np.ndarray:
    recipe, options = find_recipe(CHARTS[case][0]), _options(case)
    schedule = recipe.schedule_for(recipe.parse_options(options)).without("manifold")
    settings = FitSettings(seed=3)
    trained = train(
        _sample(), recipe.name, options=options, schedule=_quick(schedule), settings=settings
    )
    return trained.surrogate.reconstruction_error(_sample(20, seed=1).x)


@pytest.mark.parametrize(
    ("name", "phase"), [("simultaneous", "joint"), ("optimal_transport", "transport")]
)
def test_one_phase_moves_surface_and_density_together(name, phase):
    recipe, options = find_recipe("mflow"), _options("mflow")
    schedule = recipe.schedule_for(recipe.parse_options(options), name)
    alone = Schedule(tuple(p for p in schedule.phases if p.name == phase))
    quick, settings = _quick(alone), FitSettings(seed=3)
    trained = train(_sample(), "mflow", options=options, schedule=quick, settings=settings)
    flow, x = trained.surrogate, _sample(20, seed=1).x
    assert not np.array_equal(flow.reconstruction_error(x), _error_of_an_unmoved_chart("mflow"))
    assert not np.allclose(flow.log_likelihood(x, [0.5]), flow.log_likelihood(x, [-0.5]))


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name in SCHEDULES for case in CHARTS if case not in TRAINED[name] | SOLVED],
)
def test_combinations_that_make_no_sense_are_told_why(name, case):
    recipe, options = CHARTS[case][0], _options(case)
    reason = "needs a chart whose encoder|needs the volume"
    with pytest.raises(ConfigurationError, match=f"schedule '{name}' for recipe '{recipe}'"):
        find_recipe(recipe).schedule_for(find_recipe(recipe).parse_options(options), name)
    with pytest.raises(ConfigurationError, match=reason):
        find_recipe(recipe).schedule_for(find_recipe(recipe).parse_options(options), name)


@pytest.mark.parametrize("case", sorted(SOLVED))
def test_charts_that_are_solved_keep_to_the_sequence(case):
    recipe = find_recipe("mflow")
    options = recipe.parse_options(_options(case))
    assert recipe.schedule_for(options, "sequential") == recipe.schedule_for(options)
    for name in set(SCHEDULES) - {"sequential"}:
        with pytest.raises(ConfigurationError, match="say `chart: invertible`"):
            recipe.schedule_for(options, name)


GIVEN = {"name": "toy", "events": "a.root"}
INVERTIBLE = {"options": {"chart": "invertible"}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "altrnating", **INVERTIBLE}, "did you mean 'alternating'"),
        ({"schedule": "sequentially", **INVERTIBLE}, "did you mean 'sequential'"),
        ({"schedule": "adversarial", **INVERTIBLE}, "expected one of .'sequential'"),
        ({"recipe": "af", "schedule": "alternating"}, "no chart to train; leave `schedule` out"),
        ({"recipe": "fom", "schedule": "sequential"}, "no chart to train"),
        ({"recipe": "nre", "schedule": "sequential"}, "no chart to train"),
        (
            {"schedule": "alternating", "options": {"chart": "invertible", "density": "residual"}},
            "a ratio is trained at fixed chart",
        ),
        ({"scandal": -1.0}, "scandal: .* got -1.0"),
        ({"scandal": 2.0, "options": {"density": "residual"}}, "inputs: score"),
        ({"scandal": 2.0, "compiled": True, **INVERTIBLE}, "leave `compiled` out"),
        ({"scandal": 2.0, "recipe": "nre"}, "expected a schedule with a density phase"),
        (
            {"scandal": 2.0, "schedule": "optimal_transport", **INVERTIBLE},
            "expected a schedule with a density phase",
        ),
        ({"recipe": "pie", "options": {"density": "residual"}}, "'pie', density: expected a flow"),
        ({"recipe": "pae", "options": {"density": "morphing"}}, "'pae', density: expected a flow"),
        ({"recipe": "pae", "options": {"chart": "invertible"}}, "expected free networks"),
        ({"recipe": "pie", "options": {"width": 0.0}}, "width: expected a positive number"),
    ],
)
def test_mistakes_in_a_configuration_are_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_config({**GIVEN, **values})


def test_a_configuration_chooses_schedule_cycles_and_scandal():
    config = parse_config({**GIVEN, "schedule": "alternating", "scandal": 2.0, **INVERTIBLE})
    schedule = config.training_schedule()
    assert schedule.cycles == SCHEDULES["alternating"].schedule.cycles
    density = schedule.phases[list(schedule.phase_names).index("density")]
    assert [weight for _, weight in density.objectives] == [1.0, 2.0]
    given = {**GIVEN, "schedule": "alternating", "cycles": 3, **INVERTIBLE}
    assert parse_config(given).training_schedule().cycles == 3


FLOW_DENSITIES = {
    "af": {"reference": FLOW, "density": FLOW},
    "pie": {"latent_dim": 2, "split": FLOW, "density": FLOW, "width": 0.1},
    "mflow": {"latent_dim": 2, "chart": {"kind": "invertible", **FLOW}, **FLOWS},
    "emflow": {"latent_dim": 2, "chart": {"encoder": NETWORK, "decoder": FLOW}, **FLOWS},
    "pae": {"latent_dim": 2, "chart": NETWORK, **FLOWS},
}


@pytest.mark.parametrize("recipe", FLOW_DENSITIES)
def test_scandal_joins_the_density_phase_of_every_flow(recipe):
    options = FLOW_DENSITIES[recipe]
    plain, matched = (_train(recipe, options, None, w) for w in (None, 2.0))
    x = _sample(20, seed=1).x
    first, second = (r.surrogate.log_likelihood(x, [0.3]) for r in (plain, matched))
    assert np.isfinite(second).all()
    assert not np.array_equal(first, second)


def test_scores_are_those_of_standardised_parameters_and_only_where_matched():
    sample, std = _sample(), np.array([2.5])
    schedule = RECIPES["mflow"].schedule.without("ratio")
    assert joint_scores_for(schedule, sample, std) is None
    scores = joint_scores_for(with_scores(schedule, 1.0), sample, std)
    assert scores is not None
    assert np.allclose(scores.numpy(), 2.5 * sample.require_score(), rtol=1e-6)
    without = EventSample(x=sample.x, theta=sample.theta, metadata=sample.metadata)
    with pytest.raises(MissingReference, match="score"):
        joint_scores_for(with_scores(schedule, 1.0), without, std)


def _state(flow: Surrogate, part: str) -> dict[str, torch.Tensor]:
    assert isinstance(flow, ManifoldFlow)
    return flow.trainable_parts[part].state_dict()


@pytest.mark.parametrize("recipe", ["mflow", "emflow", "pae"])
def test_scandal_at_fixed_chart_leaves_the_surface_alone_bit_for_bit(recipe):
    options = FLOW_DENSITIES[recipe]
    plain, matched = (_train(recipe, options, "sequential", w) for w in (None, 50.0))
    flows = [r.surrogate.surrogate for r in (plain, matched)]
    for part in ("chart", "reference"):
        mine, other = (_state(flow, part) for flow in flows)
        assert all(torch.equal(mine[name], other[name]) for name in mine)
    densities = [_state(flow, "density") for flow in flows]
    assert any(not torch.equal(densities[0][k], densities[1][k]) for k in densities[0])
    x = _sample(50, seed=1).x
    assert np.array_equal(plain.surrogate.project(x), matched.surrogate.project(x))
    off = x + 0.1
    first, second = (r.surrogate.reconstruction_error(off) for r in (plain, matched))
    assert np.array_equal(first, second)
