"""Charts in coordinates suggested by data, on a surface whose simplest coordinates are known.

A particle in the columns px, py, pt, pz, e: pt = |(px, py)|, one constraint, and e just above
|p|.  Its simplest coordinates are pt, pz, the azimuth and the mass.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from mflow_sbi.charts import AdaptedChart, build_adapted_chart, decoder_jacobian
from mflow_sbi.charts.coordinates import AugmentedConstraints, find_coordinate_functions
from mflow_sbi.charts.edges import find_edges
from mflow_sbi.charts.implicit import ImplicitShape
from mflow_sbi.charts.simplicity import Simplicity
from mflow_sbi.constraints import discover_constraints
from mflow_sbi.errors import ChartError
from mflow_sbi.events import Standardizer

NAMES = ("px", "py", "pt", "pz", "e")
N = 12_000


def _particles(n: int, seed: int) -> np.ndarray:
    """Return particles of 20 to 200 GeV with masses of about 2 GeV, any azimuth, (n, 5)."""
    rng = np.random.default_rng(seed)
    pt = 20 * np.exp(np.abs(rng.normal(scale=0.8, size=n)))
    pz, phi = rng.normal(scale=60, size=n), rng.uniform(-np.pi, np.pi, size=n)
    mass = 2 * np.exp(0.3 * rng.normal(size=n))
    energy = np.sqrt(pt**2 + pz**2 + mass**2)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt, pz, energy], axis=1)


@pytest.fixture(scope="module")
def scale() -> Standardizer:
    return Standardizer.fit(_particles(N, 0), names=NAMES)


@pytest.fixture(scope="module")
def events(scale) -> Tensor:
    return torch.from_numpy(scale.transform(_particles(N, 0)))


@pytest.fixture(scope="module")
def constraints(scale):
    found = discover_constraints(_particles(N, 0), scale.mean, scale.std, names=NAMES)
    assert found.constraints is not None
    return found.constraints


@pytest.fixture(scope="module")
def chart(constraints, events) -> AdaptedChart:
    shape = ImplicitShape(n_linear=0, hidden=32, blocks=1, n_anchors=200)
    return build_adapted_chart(constraints, events, shape, epochs=5, seed=1)[0].double()


@pytest.fixture(scope="module")
def fresh(scale) -> Tensor:
    return torch.from_numpy(scale.transform(_particles(500, 7)))


def test_angle_and_gap_are_found_and_chosen(chart):
    assert set(chart.describe(NAMES)) == {
        "log(pt)",
        "pz",
        "angle(px, py)",
        "log(e^2 - pt^2 - pz^2)",
    }


def test_events_are_given_back_and_latents_too(chart, fresh):
    u = chart.encode(fresh)
    torch.testing.assert_close(chart.decode(u), fresh, atol=1e-9, rtol=0)
    moved = u + 0.1 * torch.randn(u.shape, generator=torch.Generator().manual_seed(0)).double()
    periods = chart.augmented.periods[chart.inner.pivots]
    difference = chart.encode(chart.decode(moved)) - moved
    turns = torch.where(periods > 0, difference / periods, 0.0).round()
    assert (difference - turns * periods).abs().max() < 1e-7
    assert chart.share_given_back(fresh) == 1.0


def test_log_volume_is_that_of_the_closed_form(chart, fresh, scale):
    """x(pt, pz, azimuth, mass) is known in closed form, and so is the change of coordinates."""
    labels = chart.describe(NAMES)
    places = [labels.index(name) for name in ("log(pt)", "pz", "angle(px, py)")]
    gap = next(i for i, label in enumerate(labels) if label.startswith("log(e"))
    functions = chart.augmented.functions
    mean, std = torch.as_tensor(scale.mean), torch.as_tensor(scale.std)

    def decode(u: Tensor) -> Tensor:
        log_pt, pz, angle = (u[place] for place in places)
        pt, pz = log_pt.exp(), mean[3] + std[3] * pz
        phi = functions.centre[0] + functions.spread[0] * angle
        mass2 = (functions.centre[1] + functions.spread[1] * u[gap]).exp()
        energy = (pt**2 + pz**2 + mass2).sqrt()
        return (torch.stack([pt * phi.cos(), pt * phi.sin(), pt, pz, energy]) - mean) / std

    u, log_volume = chart.encode_with_volume(fresh)
    jacobian = vmap(jacrev(decode))(u)
    expected = 0.5 * torch.logdet(jacobian.mT @ jacobian)
    torch.testing.assert_close(log_volume, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(chart.log_volume(u), expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(
        chart.decode_with_jacobian(u)[1], decoder_jacobian(chart.decode, u), atol=1e-7, rtol=0
    )


def test_rebuilt_from_its_integers(chart, fresh):
    again = AdaptedChart.empty(chart.shape).double()
    again.load_state_dict(chart.state_dict())
    u = chart.encode(fresh)
    assert torch.equal(again.encode(fresh), u)
    assert torch.equal(again.decode(u), chart.decode(u))


def test_events_beyond_an_edge_are_refused_with_their_number(chart, fresh, scale):
    outside = fresh.clone()
    outside[:3, 4] -= 5.0 / float(scale.std[4])
    found = chart.encode_with_flags(outside)[1]
    assert int((~found).sum()) == 3
    with pytest.raises(ChartError, match="3 of 500"):
        chart.encode(outside)


def test_latents_of_no_event_are_flagged(chart, fresh):
    u = chart.encode(fresh)
    u[:, chart.describe(NAMES).index("log(pt)")] = 400.0
    assert not chart.decode_with_flags(u)[1].any()


def test_functions_obey_their_equations_with_the_right_slopes(constraints, events):
    functions = find_coordinate_functions(constraints, events)
    augmented = AugmentedConstraints(constraints, functions)
    z = augmented.augment(events[:50])
    assert augmented(z).abs().max() < 1e-10
    off = z + 0.05 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda e: augmented(e[None])[0], e) for e in off[:5]]
    )
    torch.testing.assert_close(augmented.with_jacobian(off[:5])[1], expected, atol=1e-10, rtol=0)


def test_angles_are_periodic_and_cut_opposite_to_their_centre(constraints, scale):
    """A beam of azimuths around pi is one bunch, not two."""
    rng = np.random.default_rng(3)
    y = _particles(N, 1)
    phi = np.pi + 0.2 * rng.normal(size=N)
    y[:, 0], y[:, 1] = y[:, 2] * np.cos(phi), y[:, 2] * np.sin(phi)
    x = torch.from_numpy(scale.transform(y))
    functions = find_coordinate_functions(constraints, x)
    assert math.isclose(float(functions.spread[0]), 0.2, rel_tol=0.05)
    assert abs(float(functions(x)[:, 0].std()) - 1) < 0.02


def test_edges_are_those_that_events_pile_up_at(events, scale):
    """pt >= px, py and e >= pt (sometimes pz = 0); e >= px does not pile up; lengths >= 0."""
    edges = find_edges(events, scale.mean, scale.std)
    rows = {
        (NAMES[i], NAMES[j] if s else "0")
        for (i, j), s in zip(edges.pairs.tolist(), edges.scales[:, 1].tolist(), strict=True)
    }
    assert {("pt", "px"), ("pt", "py"), ("pt", "0"), ("e", "0")} <= rows
    assert edges(events).all()
    mirrored = events.clone()
    mirrored[:, 2] = (-(scale.mean[2] + scale.std[2] * events[:, 2]) - scale.mean[2]) / scale.std[
        2
    ]
    assert not edges(mirrored).any()


def test_simplicity_of_normal_numbers_is_their_entropy():
    generator = torch.Generator().manual_seed(0)
    lower = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.3, -0.2, 0.1]]).double()
    z = torch.randn(40_000, 3, generator=generator).double() @ lower.T
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * (lower @ lower.T))
    assert abs(float(Simplicity(z).cost(torch.tensor([0, 1, 2])) - entropy)) < 0.06


def test_a_vector_opposite_to_its_angle_is_no_root(constraints, events):
    augmented = AugmentedConstraints(constraints, find_coordinate_functions(constraints, events))
    z = augmented.augment(events[:20])
    assert augmented.same_branch(z).all()
    flipped = z.clone()
    shift = 2 * torch.as_tensor(constraints.mean[:2] / constraints.std[:2])
    flipped[:, :2] = -z[:, :2] - shift
    assert augmented(flipped).abs().max() < 1e-10
    assert not augmented.same_branch(flipped).any()
