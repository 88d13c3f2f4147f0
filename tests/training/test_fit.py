"""The training loop: it learns, repeats bit for bit, resumes bit for bit, and refuses."""

import math
from pathlib import Path

import pytest
import torch

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.errors import RunFolderError, TrainingError
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import AmbientFlow, ManifoldFlow
from mflow_sbi.training import (
    FitSettings,
    LatentNegativeLogProb,
    Phase,
    Reconstruction,
    ReferenceNegativeLogProb,
    Schedule,
    TrainingEvents,
    fit,
)
from mflow_sbi.training.checkpoint import load_checkpoint

SMALL = FlowOptions(layers=2, hidden=16, bins=5, bound=4.0)


def _events(n: int = 1200) -> TrainingEvents:
    """Return a curve in R^3 on which u ~ N(theta, 0.5^2)."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    u = theta + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([u, torch.sin(u), 0.3 * u.square()], dim=-1)
    return TrainingEvents(x, theta.float())


def _mflow(seed: int = 0) -> ManifoldFlow:
    chart = build_invertible_chart(LinearHead.fit(_events().x), 1, SMALL, seed)
    return ManifoldFlow(chart, build_flow(1, 0, SMALL, seed), build_flow(1, 1, SMALL, seed + 1))


def _schedule(epochs: int = 3, cycles: int = 1) -> Schedule:
    options = {"epochs": epochs, "batch_size": 100, "learning_rate": 5e-3}
    return Schedule(
        (
            Phase("manifold", ((Reconstruction(0.0), 1.0),), ("chart",), **options),
            Phase("reference", ((ReferenceNegativeLogProb(), 1.0),), ("reference",), **options),
            Phase("density", ((LatentNegativeLogProb(), 1.0),), ("density",), **options),
        ),
        cycles,
    )


def _weights(surrogate: ManifoldFlow) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in surrogate.state_dict().values()])


def test_learns_the_curve_and_the_conditional_density():
    surrogate = _mflow()
    history = fit(surrogate, _events(4000), _schedule(12), FitSettings(seed=1))
    events = _events()
    with torch.no_grad():
        assert surrogate.reconstruction_error(events.x).median() < 0.03
        log_p = surrogate.log_prob(events.x, events.theta)
    u = events.x[:, :1]
    length = torch.sqrt(1 + u.cos().square() + (0.6 * u).square()).log()
    truth = -0.5 * ((u - events.theta) / 0.5).square() - math.log(0.5 * math.sqrt(2 * math.pi))
    assert abs(float((log_p - (truth - length)[:, 0]).mean())) < 0.1
    manifold = [record.validation for record in history if record.phase == "manifold"]
    assert manifold[-1] < 0.1 * manifold[0]


def test_repeats_bit_for_bit():
    runs = []
    for _ in range(2):
        surrogate = _mflow()
        history = fit(surrogate, _events(), _schedule(), FitSettings(seed=3))
        runs.append((_weights(surrogate), [record.validation for record in history]))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    other = _mflow()
    fit(other, _events(), _schedule(), FitSettings(seed=4))
    assert not torch.equal(_weights(other), runs[0][0])


class _CutError(Exception):
    pass


@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize("cut_after", [1, 3, 5, 6, 7])
def test_a_run_that_was_cut_resumes_bit_for_bit(tmp_path: Path, cut_after: int, cycles: int):
    whole = _mflow()
    expected = fit(whole, _events(), _schedule(3, cycles), FitSettings(seed=3))

    def cut(record):
        if seen.append(record) is None and len(seen) == cut_after:
            raise _CutError

    seen: list = []
    with pytest.raises(_CutError):
        fit(
            _mflow(),
            _events(),
            _schedule(3, cycles),
            FitSettings(seed=3),
            checkpoint_folder=tmp_path,
            on_epoch=cut,
        )
    resumed = _mflow(seed=5)  # whatever it starts from, the checkpoint replaces it
    history = fit(
        resumed, _events(), _schedule(3, cycles), FitSettings(seed=3), checkpoint_folder=tmp_path
    )
    assert torch.equal(_weights(resumed), _weights(whole))
    assert [r.validation for r in history] == [r.validation for r in expected]


def test_a_run_on_signed_weights_resumes_bit_for_bit(tmp_path: Path):
    events = _events()
    signs = torch.where(torch.arange(len(events.x)) % 5 == 0, -0.5, 1.0)
    events, settings = events._replace(weight=signs), FitSettings(seed=3)
    whole = _mflow()
    expected = fit(whole, events, _schedule(3), settings)

    def cut(record):
        if record.phase == "density" and record.epoch == 1:
            raise _CutError

    with pytest.raises(_CutError):
        fit(_mflow(), events, _schedule(3), settings, checkpoint_folder=tmp_path, on_epoch=cut)
    kept = load_checkpoint(tmp_path)
    assert kept is not None
    assert len(kept.phases["density"].best_blocks) == 20
    resumed = _mflow(seed=5)
    history = fit(resumed, events, _schedule(3), settings, checkpoint_folder=tmp_path)
    assert torch.equal(_weights(resumed), _weights(whole))
    assert [r.validation for r in history] == [r.validation for r in expected]
    with pytest.raises(TrainingError, match="set of events"):
        fit(_mflow(), _events(), _schedule(3), settings, checkpoint_folder=tmp_path)


def test_parts_that_a_phase_does_not_train_rest():
    surrogate = _mflow()
    before = {k: v.clone() for k, v in surrogate.density.state_dict().items()}
    schedule = Schedule(_schedule().phases[:1])
    fit(surrogate, _events(), schedule, FitSettings(seed=1))
    assert all(torch.equal(v, before[k]) for k, v in surrogate.density.state_dict().items())


def test_stops_early_and_keeps_the_best_epoch():
    surrogate = _mflow()
    greedy = Phase(
        "density",
        ((LatentNegativeLogProb(), 1.0),),
        ("density",),
        epochs=200,
        batch_size=20,
        learning_rate=1e-2,
        patience=3,
    )
    events = _events(150)
    history = fit(surrogate, events, Schedule((greedy,)), FitSettings(0, validation_fraction=0.3))
    assert len(history) < 200
    best = min(record.validation for record in history)
    again = fit(
        surrogate,
        events,
        Schedule((Phase("density", greedy.objectives, ("density",), 1, 1000, 1e-12),)),
        FitSettings(0, validation_fraction=0.3),
    )
    assert again[0].validation == pytest.approx(best, abs=1e-4)


def test_refuses_a_checkpoint_of_another_run(tmp_path: Path):
    fit(_mflow(), _events(), _schedule(1), FitSettings(seed=3), checkpoint_folder=tmp_path)
    with pytest.raises(TrainingError, match="another schedule, seed"):
        fit(_mflow(), _events(), _schedule(1), FitSettings(seed=4), checkpoint_folder=tmp_path)


def test_refuses_a_checkpoint_of_other_events(tmp_path: Path):
    fit(_mflow(), _events(), _schedule(1), FitSettings(seed=3), checkpoint_folder=tmp_path)
    events = _events()
    other = TrainingEvents(events.x, -events.theta)
    with pytest.raises(TrainingError, match="set of events"):
        fit(_mflow(), other, _schedule(1), FitSettings(seed=3), checkpoint_folder=tmp_path)


def test_refuses_a_broken_checkpoint(tmp_path: Path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not tensors")
    with pytest.raises(RunFolderError, match="not a readable checkpoint"):
        fit(_mflow(), _events(), _schedule(1), FitSettings(), checkpoint_folder=tmp_path)


def test_refuses_unknown_parts_and_too_few_events():
    ambient = AmbientFlow(
        LinearHead.fit(_events().x), build_flow(3, 0, SMALL, 0), build_flow(3, 1, SMALL, 0)
    )
    with pytest.raises(TrainingError, match="trains \\['chart'\\], but the parts are"):
        fit(ambient, _events(), _schedule(1), FitSettings())
    with pytest.raises(TrainingError, match="both sides of the split"):
        fit(
            ambient,
            TrainingEvents(torch.zeros(2, 3), torch.zeros(2, 1)),
            _schedule(1),
            FitSettings(),
        )


def test_non_finite_events_are_refused_with_their_number():
    events = _events()
    events.x[5] = math.nan
    events.theta[7] = math.inf
    with pytest.raises(TrainingError, match="2 of 1200 events are not"):
        fit(_mflow(), events, _schedule(1), FitSettings(seed=3))


def test_a_diverging_objective_is_an_error_not_a_nan():
    phase = Phase("manifold", ((Reconstruction(), 1.0),), ("chart",), learning_rate=1e30)
    with pytest.raises(TrainingError, match="diverged at step"):
        fit(_mflow(), _events(), Schedule((phase,)), FitSettings(seed=3))
