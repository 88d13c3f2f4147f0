"""Training sets follow p(x|theta); the density of theta is the declared one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mflow_sbi.baselines.sets import draw_training_sets
from mflow_sbi.baselines.theta_density import ThetaDensity
from mflow_sbi.errors import EventDataError, MissingReference
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter, SelectionReport
from mflow_sbi.events.metadata import Morphing, ThetaSampling

from .toys import linear_events

MORPHING = Morphing(
    branch="c",
    exponents=((0,), (1,), (2,)),
    cross_section=(1.0, 0.0, 1.0),
    cross_section_error=(0.0, 0.0, 0.0),
    likelihood="exact",
)
SAMPLING = ThetaSampling("normal", mean=(0.2,), std=(0.8,))


def _theory(n: int, seed: int) -> EventSample:
    """Return events of sigma p(x|theta) = N(x; 0, 1) (1 + theta x)^2, <x> = 2 theta / sigma."""
    rng = np.random.default_rng(seed)
    theta = 0.2 + 0.8 * rng.normal(size=(n, 1))
    axis = np.linspace(-6, 6, 1201)
    cumulative = np.cumsum(np.exp(-0.5 * axis**2) * (1 + theta * axis) ** 2, axis=1)
    place = (cumulative < rng.random((n, 1)) * cumulative[:, -1:]).sum(axis=1)
    x = axis[place][:, None]
    components = np.column_stack([np.ones(n), 2 * x, x**2]) * np.exp(-0.5 * x**2)
    metadata = EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=(Parameter("t"),),
        observables=(Observable("x", "x"),),
        theta_sampling=SAMPLING,
        morphing=MORPHING,
    )
    return EventSample(x=x, theta=theta, components=components, metadata=metadata)


def test_weighted_sets_follow_the_theory() -> None:
    events = _theory(6000, 1)
    theta = events.require_theta()
    sets = draw_training_sets(events, ThetaDensity.declared(events, "sbi_npe"), 4000, 8, seed=2)
    physical = sets.theta.numpy() * theta.std() + theta.mean()
    assert abs(physical.mean() - 0.2) < 0.05
    assert abs(physical.std() - 0.8) < 0.05
    sizes = (sets.rows < len(events)).sum(dim=1).numpy()
    assert np.bincount(sizes)[1:].min() > 400  # of 500
    assert (np.diff((sets.rows == len(events)).int().numpy(), axis=1) >= 0).all()
    x = np.append(events.x[:, 0], np.nan)[sets.rows.numpy()]
    expected = 2 * physical / (1 + physical**2)
    for low, high in ((-2.0, -0.5), (-0.5, 0.0), (0.0, 0.5), (0.5, 2.0)):
        inside = (physical[:, 0] > low) & (physical[:, 0] < high)
        off = (x - expected)[inside]
        error = np.nanstd(off) / np.sqrt(np.isfinite(off).sum())
        assert abs(np.nanmean(off)) < 4 * error + 0.02  # the pool's own fluctuation
        assert abs(np.nanmean(x[inside])) > 0.2  # it moves
    assert "4,000 training sets of 1 to 8 events were drawn from 6,000 events" in sets.note


def test_sets_of_events_simulated_together_are_of_one_theta() -> None:
    events = linear_events(50, 3, each=6)
    shuffle = np.random.default_rng(0).permutation(len(events))
    events = events.take(shuffle)
    prior = ThetaDensity.declared(events, "sbi_npe")
    sets = draw_training_sets(events, prior, 400, 20, seed=1)
    assert sets.rows.shape == (400, 6)
    theta = events.require_theta()
    scaled = torch.from_numpy((theta - theta.mean(axis=0)) / theta.std(axis=0)).float()
    for own, rows in zip(sets.theta, sets.rows, strict=True):
        kept = rows[rows < len(events)]
        assert len(kept.unique()) == len(kept) >= 1
        assert torch.allclose(scaled[kept], own, atol=1e-6)
    assert len(sets.theta.unique(dim=0)) > 45
    again = draw_training_sets(events, prior, 400, 20, seed=1)
    assert torch.equal(sets.rows, again.rows)


def test_sets_need_components_of_the_same_selection() -> None:
    events = _theory(300, 1)
    prior = ThetaDensity.declared(events, "sbi_npe")
    selected = replace(events, report=SelectionReport(300, 300, {}, ("x > 0",)))
    with pytest.raises(MissingReference, match="and no selection"):
        draw_training_sets(selected, prior, 10, 5, seed=1)
    empty = replace(events, components=np.zeros((300, 3)))
    with pytest.raises(EventDataError, match="got 300 without"):
        draw_training_sets(empty, prior, 10, 5, seed=1)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_density_of_theta_is_normalised_and_drawn_from(kind: str) -> None:
    rng = np.random.default_rng(0)
    uniform = kind == "uniform"
    theta = rng.uniform(-1, 3, (500, 1)) if uniform else 1 + 2 * rng.normal(size=(500, 1))
    sampling = (
        ThetaSampling("uniform", low=(-1.0,), high=(3.0,))
        if uniform
        else ThetaSampling("normal", mean=(1.0,), std=(2.0,))
    )
    base = _theory(500, 1)
    events = replace(base, theta=theta, metadata=replace(base.metadata, theta_sampling=sampling))
    density = ThetaDensity.declared(events, "sbi_npe")
    axis = torch.linspace(-8, 8, 32_001, dtype=torch.float64)[:, None]
    mass = density.log_prob(axis).exp() * float(axis[1] - axis[0])
    assert abs(float(mass.sum()) - 1) < 1e-3
    drawn = density.sample(4000, torch.Generator().manual_seed(1))
    physical = drawn * theta.std() + theta.mean()
    assert abs(float(physical.mean()) - 1) < 0.15
    assert abs(float(physical.std()) - (4 / 12**0.5 if uniform else 2)) < 0.1
    ratio = density.likelihood(torch.zeros(3), torch.tensor([[0.0], [0.5], [50.0]]))
    inside = -density.log_prob(torch.tensor([[0.0], [0.5]]))
    assert torch.allclose(ratio[:2].double(), inside, atol=1e-6)
    assert torch.isneginf(ratio[2]) == uniform
