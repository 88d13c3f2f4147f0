"""Schedules and phases: values that make no sense are refused at construction."""

import pytest

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.training import LatentNegativeLogProb, Phase, Reconstruction, Schedule
from mflow_sbi.training.schedules import FEW_STEPS

DENSITY = Phase("density", ((LatentNegativeLogProb(), 1.0),), ("density",))
MANIFOLD = Phase("manifold", ((Reconstruction(), 1.0),), ("chart",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Phase("a", (), ("density",)), "at least one objective"),
        (lambda: Phase("a", DENSITY.objectives, ()), "one part to train"),
        (lambda: DENSITY.with_epochs(0), "epochs: expected at least 1, got 0"),
        (
            lambda: Phase("a", DENSITY.objectives, ("density",), learning_rate=0.0),
            "learning_rate: expected a positive number",
        ),
        (lambda: Schedule(()), "at least one phase"),
        (lambda: Schedule((DENSITY, DENSITY)), "different names"),
        (lambda: Schedule((DENSITY,), cycles=0), "at least one cycle"),
        (lambda: Schedule((DENSITY,)).with_phases(densty={"epochs": 1}), "unknown phases"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_phases_can_be_changed_by_name_without_touching_the_original():
    schedule = Schedule((MANIFOLD, DENSITY))
    changed = schedule.with_phases(density={"epochs": 3, "batch_size": 7})
    assert (changed.phases[1].epochs, changed.phases[1].batch_size) == (3, 7)
    assert changed.phases[0] == MANIFOLD
    assert schedule.phases[1].epochs == DENSITY.epochs


def test_phases_of_few_steps_are_told():
    many = DENSITY.with_epochs(FEW_STEPS // 2)
    assert Schedule((many,), cycles=2).short_phases(1000) == ()
    (sentence,) = Schedule((MANIFOLD, many), cycles=2).short_phases(1000)
    assert "phase 'manifold' takes 50 steps (epochs: 50, of 1,000 events" in sentence
    (sentence,) = Schedule((many,)).short_phases(1999)
    assert f"takes {FEW_STEPS // 2} steps" in sentence
