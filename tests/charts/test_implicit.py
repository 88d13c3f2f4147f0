"""Implicit charts: points on the surface, volumes against closed forms and autodiff, pivots."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from mflow_sbi.charts import decoder_jacobian
from mflow_sbi.charts.implicit import ImplicitChart, ImplicitShape
from mflow_sbi.charts.pivots import build_implicit_chart, choose_pivots
from mflow_sbi.constraints import discover_constraints
from mflow_sbi.errors import ChartError
from mflow_sbi.events import Standardizer, read_events

TRAIN = Path(__file__).parents[2] / "data" / "wbf_tuned_train_small.root"
SMALL = ImplicitShape(n_linear=0, hidden=16, blocks=1, n_anchors=50)


class Constraints(nn.Module):
    """Constraints of one event, (n,) -> (m,), with their gradient by autodiff."""

    def __init__(self, function: Callable[[Tensor], Tensor], n: int, m: int) -> None:
        super().__init__()
        self.function, self.ambient_dim, self.n_constraints = function, n, m

    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.function)(x)

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), vmap(jacrev(self.function))(x)


def _normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _disc(n: int, seed: int = 0) -> Tensor:
    """Return points of a disc of radius 0.8, (n, 2)."""
    v = _normal(n, 2, seed)
    return 0.8 * v / (1 + v.square().sum(dim=-1, keepdim=True)).sqrt()


class Surface(NamedTuple):
    """A surface whose graph over its first two coordinates is known, with its volume."""

    constraints: Constraints
    graph: Callable[[Tensor], Tensor]
    log_volume: Callable[[Tensor], Tensor]


def _sphere() -> Surface:
    """Upper half sphere, and the sum of its coordinates: x3 = sqrt(1 - u^2), x4 = x1 + x2 + x3."""

    def constraints(x: Tensor) -> Tensor:
        return torch.stack([x[:3].square().sum() - 1, x[3] - x[:3].sum()])

    def graph(u: Tensor) -> Tensor:
        height = (1 - u.square().sum(dim=-1, keepdim=True)).sqrt()
        three = torch.cat([u, height], dim=-1)
        return torch.cat([three, three.sum(dim=-1, keepdim=True)], dim=-1)

    def log_volume(u: Tensor) -> Tensor:
        # tangents (1, 0, -a, 1 - a), (0, 1, -b, 1 - b) with a, b = u / height
        a, b = (u / (1 - u.square().sum(dim=-1, keepdim=True)).sqrt()).unbind(dim=-1)
        first, second = 1 + a**2 + (1 - a) ** 2, 1 + b**2 + (1 - b) ** 2
        return 0.5 * (first * second - (a * b + (1 - a) * (1 - b)) ** 2).log()

    return Surface(Constraints(constraints, 4, 2), graph, log_volume)


def _paraboloid() -> Surface:
    """x3 = x1^2 + x2^2, volume sqrt(1 + 4 r^2)."""

    def graph(u: Tensor) -> Tensor:
        return torch.cat([u, u.square().sum(dim=-1, keepdim=True)], dim=-1)

    def log_volume(u: Tensor) -> Tensor:
        return 0.5 * torch.log1p(4 * u.square().sum(dim=-1))

    def constraint(x: Tensor) -> Tensor:
        return x[2:] - x[:2].square().sum(dim=-1, keepdim=True)

    return Surface(Constraints(constraint, 3, 1), graph, log_volume)


SURFACES = {"sphere": _sphere, "paraboloid": _paraboloid}


@pytest.fixture(params=SURFACES.values(), ids=list(SURFACES))
def surface(request: pytest.FixtureRequest) -> Surface:
    return request.param()


def _chart_of(surface: Surface) -> ImplicitChart:
    known = surface.graph(_disc(2000))
    return ImplicitChart.on_pivots(surface.constraints, known, (0, 1), SMALL).double()


@pytest.fixture
def chart(surface) -> ImplicitChart:
    return _chart_of(surface)


@pytest.fixture
def latents() -> Tensor:
    return _disc(100, seed=1)


def test_points_are_those_of_the_closed_form(surface, chart, latents):
    torch.testing.assert_close(chart.decode(latents), surface.graph(latents), atol=1e-12, rtol=0)


def test_encode_undoes_decode_and_projections_are_idempotent(surface, chart, latents):
    torch.testing.assert_close(chart.encode(chart.decode(latents)), latents, atol=1e-12, rtol=0)
    once = chart.project(surface.graph(latents) + 0.02 * _normal(*surface.graph(latents).shape))
    assert surface.constraints(once).abs().max() < 1e-12
    torch.testing.assert_close(chart.project(once), once, atol=1e-9, rtol=0)


def test_projection_is_orthogonal_to_the_surface(surface, chart, latents):
    x = surface.graph(0.5 * latents)
    _, normal = surface.constraints.with_jacobian(x)
    away = 1e-4 * (normal.mT @ torch.ones(len(x), normal.shape[1], 1, dtype=x.dtype))[..., 0]
    back, arrived = chart.nearest(x + away)
    assert bool(arrived.all())
    assert (back - x).abs().max() < 1e-2 * away.norm(dim=-1).min()


def test_log_volume_is_that_of_the_closed_form(surface, chart, latents):
    expected = surface.log_volume(latents)
    torch.testing.assert_close(chart.log_volume(latents), expected, atol=1e-10, rtol=0)


def test_jacobian_by_the_implicit_function_theorem_is_that_of_autodiff(chart, latents):
    _, jacobian = chart.decode_with_jacobian(latents)
    columns = []
    for k in range(chart.ambient_dim):
        u = latents.clone().requires_grad_()
        columns.append(torch.autograd.grad(chart.decode(u)[:, k].sum(), u)[0])
    torch.testing.assert_close(jacobian, torch.stack(columns, dim=1), atol=1e-11, rtol=0)
    torch.testing.assert_close(jacobian, decoder_jacobian(chart.decode, latents))


def test_gradient_of_the_log_volume(surface, chart, latents):
    u = latents[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(chart.log_volume, (u,), atol=1e-6)
    (got,) = torch.autograd.grad(chart.log_volume(u).sum(), u)
    (expected,) = torch.autograd.grad(surface.log_volume(u).sum(), u)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


def test_a_bad_warm_start_is_corrected_or_flagged_but_never_wrong(surface, chart, latents):
    with torch.no_grad():
        chart.start.quadratic.weight.normal_(generator=torch.Generator().manual_seed(3))
        chart.start.quadratic.bias.fill_(-5.0)
    x, arrived = chart.decode_with_flags(latents)
    assert arrived.double().mean() > 0.9
    torch.testing.assert_close(x[arrived], surface.graph(latents)[arrived], atol=1e-9, rtol=0)


def test_the_other_branch_is_not_taken_even_if_started_there():
    chart = _chart_of(_sphere())
    u = _disc(50, seed=4)
    above = _sphere().graph(u)
    _, arrived = chart._newton(u, above[:, chart.unknowns], chart._where_events_lie)
    assert bool(arrived.all())
    below = above - 2 * above[:, 2:3] * torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=u.dtype)
    assert _sphere().constraints(below).abs().max() < 1e-12
    _, arrived = chart._newton(u, below[:, chart.unknowns], chart._where_events_lie)
    assert not bool(arrived.any())


def test_latents_without_a_point_are_flagged_and_refused():
    chart = _chart_of(_sphere())
    u = torch.tensor([[0.1, 0.2], [0.9, 0.9], [3.0, 0.0]], dtype=torch.float64)
    assert chart.converged(u).tolist() == [True, False, False]
    with pytest.raises(ChartError, match="over 2 of 3 latents"):
        chart.decode(u)


def test_a_chart_is_rebuilt_from_integers_and_tensors(chart, surface, latents):
    again = ImplicitChart(surface.constraints, chart.shape).double()
    again.load_state_dict(chart.state_dict())
    assert torch.equal(again.decode(latents), chart.decode(latents))


def test_precision_of_the_network_is_that_of_the_latents_alone(surface, latents):
    chart = _chart_of(surface)
    chart.float()
    x = chart.decode(latents)
    assert x.dtype == torch.float64
    assert chart.lift.dtype == torch.float64
    assert surface.constraints(x).abs().max() < 1e-12
    assert chart.encode(x).dtype == torch.float32


def test_linear_constraints_are_eliminated():
    assert _chart_of(_sphere()).n_unknowns == 1


def test_training_the_warm_start_improves_it_and_depends_on_the_seed_alone(surface):
    known, charts = surface.graph(_disc(2000)), []
    for _ in range(2):
        torch.manual_seed(1)
        charts.append(_chart_of(surface))
        losses = charts[-1].fit_warm_start(known, epochs=20, seed=5)
        assert losses[-1] < losses[0]
    for a, b in zip(charts[0].parameters(), charts[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_pivots_avoid_the_fold():
    """x = (u1, u2, 9 u1^2, 9 u1^2 + u2 / 10): over x3 the sign of u1 is lost, steep or not."""

    def constraints(x: Tensor) -> Tensor:
        return torch.stack([x[2] - 9 * x[0].square(), x[3] - x[2] - 0.1 * x[1]])

    u = _normal(4000, 2)
    third = 9 * u[:, :1].square()
    x = torch.cat([u, third, third + 0.1 * u[:, 1:]], dim=-1)
    choice = choose_pivots(Constraints(constraints, 4, 2), x, seed=0)
    assert choice.best.pivots == (0, 1)
    assert choice.best.found > 0.999
    assert choice.best.folds == 0
    assert "u1, u2" in choice.describe(("u1", "u2", "x3", "x4"))


def test_refuses_the_wrong_number_of_pivots(surface):
    known = surface.graph(_disc(100))
    with pytest.raises(ChartError, match="leave 2 pivots, got 1"):
        ImplicitChart.on_pivots(surface.constraints, known, (0,), SMALL)


class Collider(nn.Module):
    """The 26 relations among the 40 standardised WBF observables, in closed form."""

    def __init__(self, scale: Standardizer, names: tuple[str, ...]) -> None:
        super().__init__()
        self.ambient_dim, self.n_constraints = 40, 26
        self.mean, self.std = torch.from_numpy(scale.mean), torch.from_numpy(scale.std)
        self.names = names

    def _values(self, x: Tensor) -> Tensor:
        """Return F of one event, each over the variance or spread of its leading observable."""
        y = dict(zip(self.names, x * self.std + self.mean, strict=True))
        spread = dict(zip(self.names, self.std, strict=True))
        values = []
        for o in ("a1", "a2", "j1", "j2", "aa", "jj"):
            e, px, py, pz, pt, eta = (y[f"{k}_{o}"] for k in ("e", "px", "py", "pz", "pt", "eta"))
            values.append((pt**2 - px**2 - py**2) / spread[f"pt_{o}"] ** 2)
            values.append((pt * eta.sinh() - pz) / spread[f"pz_{o}"])
            if o not in ("j1", "j2"):
                mass = y[f"m_{o}"] if o in ("aa", "jj") else 0.0
                shell = e**2 - px**2 - py**2 - pz**2 - mass**2
                values.append(shell / spread[f"e_{o}"] ** 2)
        for o in "aj":
            for k in ("e", "px", "py", "pz"):
                total = y[f"{k}_{o}{o}"] - y[f"{k}_{o}1"] - y[f"{k}_{o}2"]
                values.append(total / spread[f"{k}_{o}{o}"])
            values.append(y[f"deltaeta_{o}{o}"] - y[f"eta_{o}1"] + y[f"eta_{o}2"])
        return torch.stack(values)

    def forward(self, x: Tensor) -> Tensor:
        return vmap(self._values)(x)

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), vmap(jacrev(self._values))(x)


class Wbf(NamedTuple):
    """Events to learn from, events held out, their constraints and names."""

    known: Tensor
    held_out: Tensor
    constraints: Collider
    names: tuple[str, ...]


@pytest.fixture(scope="module")
def wbf() -> Wbf:
    events = read_events(TRAIN)
    scale = Standardizer.fit(events.x)
    x = torch.from_numpy(scale.transform(events.x))
    names = tuple(events.observable_names)
    return Wbf(x[500:], x[:500], Collider(scale, names), names)


@pytest.fixture(scope="module")
def wbf_chart(wbf) -> ImplicitChart:
    """Chart over the momenta of the four objects, one energy and the mass of the jet pair."""
    momenta = [f"p{k}_{o}" for o in ("a1", "a2", "j1", "j2") for k in "xyz"]
    pivots = [wbf.names.index(name) for name in (*momenta, "e_j2", "m_jj")]
    return ImplicitChart.on_pivots(wbf.constraints, wbf.known, pivots, SMALL).double()


def _energy_momentum(chart: ImplicitChart, wbf: Wbf, u: Tensor) -> Tensor:
    """Return the 40 observables over the pivots by the formulas of kinematics, one event (14,)."""
    mean, std = wbf.constraints.mean, wbf.constraints.std
    index = chart.pivots
    value = u * std[index] + mean[index]
    y = {wbf.names[int(i)]: v for i, v in zip(index, value, strict=True)}

    def momentum(o: str) -> list[Tensor]:
        return [y[f"p{k}_{o}"] for k in "xyz"]

    for o in ("aa", "jj"):
        for k in "xyz":
            y[f"p{k}_{o}"] = y[f"p{k}_{o[0]}1"] + y[f"p{k}_{o[0]}2"]
    for o in ("a1", "a2"):
        y[f"e_{o}"] = torch.stack(momentum(o)).norm()
    y["e_aa"] = y["e_a1"] + y["e_a2"]
    y["m_aa"] = (y["e_aa"] ** 2 - torch.stack(momentum("aa")).square().sum()).sqrt()
    y["e_jj"] = (y["m_jj"] ** 2 + torch.stack(momentum("jj")).square().sum()).sqrt()
    y["e_j1"] = y["e_jj"] - y["e_j2"]
    for o in ("a1", "a2", "j1", "j2", "aa", "jj"):
        px, py, pz = momentum(o)
        y[f"pt_{o}"] = (px**2 + py**2).sqrt()
        y[f"eta_{o}"] = torch.asinh(pz / y[f"pt_{o}"])
    for o in "aj":
        y[f"deltaeta_{o}{o}"] = y[f"eta_{o}1"] - y[f"eta_{o}2"]
    return (torch.stack([y[name] for name in wbf.names]) - mean) / std


def test_collider_events_are_found_again(wbf, wbf_chart):
    x, arrived = wbf_chart.decode_with_flags(wbf_chart.encode(wbf.held_out))
    assert arrived.double().mean() >= 0.995
    assert (x - wbf.held_out)[arrived].norm(dim=-1).max() < 1e-7
    assert wbf_chart.n_unknowns == 16  # the ten linear relations are solved


def test_collider_volume_is_that_of_the_kinematic_formulas(wbf, wbf_chart):
    u = wbf.held_out[:100, wbf_chart.pivots]
    jacobian = vmap(jacrev(lambda v: _energy_momentum(wbf_chart, wbf, v)))(u)
    expected = 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet
    torch.testing.assert_close(wbf_chart.log_volume(u), expected, atol=1e-6, rtol=0)


def test_collider_latents_near_the_data_have_events(wbf, wbf_chart):
    u = wbf.held_out[:, wbf_chart.pivots]
    x, arrived = wbf_chart.decode_with_flags(u + 0.05 * _normal(*u.shape, seed=2))
    assert arrived.double().mean() >= 0.995
    assert wbf.constraints(x[arrived]).abs().max() < 1e-9


def test_collider_noise_is_projected_away(wbf, wbf_chart):
    noisy = wbf.held_out + 0.02 * _normal(*wbf.held_out.shape, seed=3)
    clean, arrived = wbf_chart.nearest(noisy)
    assert arrived.double().mean() > 0.99
    assert wbf.constraints(clean[arrived]).abs().max() < 1e-7
    before = (noisy - wbf.held_out)[arrived].norm(dim=-1).mean()
    assert (clean - wbf.held_out)[arrived].norm(dim=-1).mean() < 0.65 * before  # sqrt(14 / 40)


def test_collider_pivots_are_found_from_discovered_constraints(wbf):
    """From float32 numbers to a chart that gives back the float64 events, no physics told."""
    scale = wbf.constraints
    raw = (wbf.known * scale.std + scale.mean).float().numpy()
    discovery = discover_constraints(
        raw, scale.mean.numpy(), scale.std.numpy(), names=wbf.names, seed=0
    )
    assert discovery.constraints is not None
    chart, choice = build_implicit_chart(discovery.constraints, wbf.known, SMALL, epochs=2, seed=0)
    assert choice.best.folds == 0
    assert choice.best.found > 0.9
    x, arrived = chart.double().decode_with_flags(chart.encode(wbf.held_out))
    assert arrived.double().mean() >= 0.995
    assert (x - wbf.held_out)[arrived].norm(dim=-1).max() < 1e-4
    assert scale(x[arrived]).abs().max() < 1e-5


def test_events_far_from_the_surface_are_refused_by_number(chart):
    x = torch.full((3, chart.ambient_dim), torch.nan, dtype=torch.float64)
    with pytest.raises(ChartError, match="next to 3 of 3 events"):
        chart.encode(x)
