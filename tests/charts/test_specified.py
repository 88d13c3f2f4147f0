"""Charts in closed form: the chart laws, known areas, and the redundancies of collider events."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from mflow_sbi.charts import Chart
from mflow_sbi.charts.collider import COLLIDER_LATENTS, ColliderChart
from mflow_sbi.charts.specified import (
    Circle,
    PolynomialSurface,
    RingTorus,
    SpecifiedChart,
    Sphere,
    Torus,
)
from mflow_sbi.errors import ChartError
from mflow_sbi.events import WBF_OBSERVABLES, Standardizer, closure, read_events
from simulators.__main__ import main as simulate

DATA = Path(__file__).parents[2] / "data"
FILES = sorted(DATA.glob("*.root"))
NAMES = [observable.name for observable in WBF_OBSERVABLES]


def _normal(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def _polynomial(d: int, degree: int) -> PolynomialSurface:
    n_terms = math.comb(d + degree, d)
    rotation = torch.linalg.qr(_normal(d + 1, d + 1, 5)).Q
    return PolynomialSurface.from_numbers(_normal(n_terms, 1, 6)[:, 0], rotation)


def _scaled(chart: SpecifiedChart) -> SpecifiedChart:
    """Return the chart in units that stretch every axis differently."""
    n = chart.ambient_dim
    return chart.standardised(torch.linspace(-0.3, 0.5, n), torch.linspace(0.5, 2.0, n))


@cache
def _events() -> tuple[np.ndarray, Standardizer]:
    x = np.concatenate([read_events(path).x for path in FILES])
    return x, Standardizer.fit(x)


def _collider(names: list[str] | None = None) -> ColliderChart:
    _, units = _events()
    names = names or NAMES
    columns = [NAMES.index(name) for name in names]
    return ColliderChart.for_observables(names, units.mean[columns], units.std[columns])


def _event_latents() -> Tensor:
    x, units = _events()
    return _collider().encode(torch.from_numpy(units.transform(x[:300])))


@dataclass
class Case:
    """A chart, latents it encodes uniquely, and how far the laws may be missed by rounding."""

    make: Callable[[], SpecifiedChart]
    latents: Callable[[], Tensor]
    rounding: float = 1e-10


def _angles(d: int) -> Callable[[], Tensor]:
    return lambda: 1.5 * _normal(200, d, 2).clamp(-2, 2)  # inside (-pi, pi)


def _reals(d: int) -> Callable[[], Tensor]:
    return lambda: 1.5 * _normal(200, d, 2)


SUBSET = [name for name in reversed(NAMES) if name not in ("e_a1", "m_jj", "deltaeta_aa")]
CASES: dict[str, Case] = {
    "circle": Case(lambda: Circle(1.7), _angles(1)),
    "circle-stereographic": Case(lambda: Sphere(1), _reals(1)),
    "sphere-2": Case(lambda: Sphere(2, radius=0.8), _reals(2)),
    "sphere-5": Case(lambda: Sphere(5), _reals(5)),
    "torus": Case(lambda: Torus(3, [1.0, 0.5, 2.0]), _angles(3)),
    "ring-torus": Case(lambda: RingTorus(2.0, 0.7), _angles(2)),
    "polynomial": Case(lambda: _polynomial(2, 5), _reals(2)),
    "polynomial-3": Case(lambda: _polynomial(3, 2), _reals(3)),
    "plane": Case(lambda: _polynomial(2, 0), _reals(2)),
    "scaled sphere": Case(lambda: _scaled(Sphere(2)), _reals(2)),
    "scaled ring-torus": Case(lambda: _scaled(RingTorus()), _angles(2)),
    "scaled polynomial": Case(lambda: _scaled(_polynomial(2, 5)), _reals(2)),
    "collider": Case(_collider, _event_latents, rounding=1e-7),
    "collider, fewer observables": Case(lambda: _collider(SUBSET), _event_latents, rounding=1e-7),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def _autodiff(chart: Chart, u: Tensor) -> Tensor:
    return vmap(jacrev(lambda row: chart.decode(row[None])[0]))(u)


def test_encode_undoes_decode(case):
    chart, u = case.make(), case.latents()
    torch.testing.assert_close(chart.encode(chart.decode(u)), u, atol=case.rounding, rtol=0)


def test_projection_is_idempotent_for_events_off_the_surface(case):
    chart, u = case.make(), case.latents()
    off = chart.decode(u) + 0.05 * _normal(len(u), chart.ambient_dim, 3)
    once = chart.project(off)
    assert once.isfinite().all()
    assert (once - off).abs().max() > 1e-3
    torch.testing.assert_close(chart.project(once), once, atol=1e-9, rtol=1e-9)


def test_jacobian_and_volume_are_those_of_autodiff(case):
    chart, u = case.make(), case.latents()
    expected = _autodiff(chart, u)
    x, jacobian = chart.decode_with_jacobian(u)
    torch.testing.assert_close(x, chart.decode(u), atol=0, rtol=0)
    torch.testing.assert_close(jacobian, expected, atol=1e-10, rtol=1e-10)
    log_volume = 0.5 * torch.linalg.slogdet(expected.mT @ expected).logabsdet
    torch.testing.assert_close(chart.log_volume(u), log_volume, atol=1e-8, rtol=0)


def test_gradients_of_the_volume_are_those_of_finite_differences(case):
    chart, u = case.make(), case.latents()[:50].requires_grad_()
    (gradient,) = torch.autograd.grad(chart.log_volume(u).sum(), u)
    for k in range(chart.latent_dim):
        step = 1e-5 * torch.eye(chart.latent_dim, dtype=torch.float64)[k]
        with torch.no_grad():
            slope = (chart.log_volume(u + step) - chart.log_volume(u - step)) / 2e-5
        torch.testing.assert_close(gradient[:, k], slope, atol=2e-5, rtol=1e-4)


def test_projection_leaves_the_directions_along_the_surface_alone(case):
    chart, u = case.make(), case.latents()[:50]
    x, tangents = chart.decode_with_jacobian(u)
    along = vmap(jacrev(lambda row: chart.project(row[None])[0]))(x) @ tangents
    torch.testing.assert_close(along, tangents, atol=1e-6, rtol=1e-6)


def test_integers_and_buffers_make_the_chart_again(case):
    chart, u = case.make(), case.latents()
    match chart:
        case Circle():
            again = Circle()
        case PolynomialSurface():
            again = PolynomialSurface(chart.latent_dim, chart.degree)
        case RingTorus():
            again = RingTorus()
        case ColliderChart():
            again = ColliderChart(chart.ambient_dim)
        case _:
            again = type(chart)(chart.latent_dim)
    again.load_state_dict(chart.state_dict())
    x = chart.decode(u)
    assert torch.equal(again.decode(u), x)
    assert torch.equal(again.encode(x), chart.encode(x))


def test_stays_float64_whatever_the_networks_around_it(case):
    chart, u = case.make(), case.latents()
    x = chart.decode(u)
    chart.float()
    assert torch.equal(chart.decode(u), x)
    assert chart.decode(u.float()).dtype == chart.encode(x.float()).dtype == torch.float64
    assert chart.log_volume(u.float()).dtype == torch.float64


def test_angles_have_period_two_pi():
    for name in ("circle", "torus", "ring-torus"):
        chart, u = CASES[name].make(), CASES[name].latents()
        assert chart.periodic == (True,) * chart.latent_dim
        turned = u + 2 * math.pi * torch.arange(1, chart.latent_dim + 1).double()
        torch.testing.assert_close(chart.decode(turned), chart.decode(u), atol=1e-12, rtol=0)
        torch.testing.assert_close(chart.encode(chart.decode(turned)), u, atol=1e-12, rtol=0)
    assert not any(_collider().periodic)


def _grid(low: float, high: float, n: int, d: int) -> tuple[Tensor, float]:
    """Return the midpoints of n^d equal cells, and a cell's size."""
    middle = low + (torch.arange(n, dtype=torch.float64) + 0.5) * (high - low) / n
    return torch.cartesian_prod(*[middle] * d).reshape(-1, d), ((high - low) / n) ** d


@pytest.mark.parametrize(
    ("chart", "area"),
    [
        (Circle(1.7), 2 * math.pi * 1.7),
        (Torus(2, [1.0, 0.5]), 2 * math.pi**2),
        (RingTorus(2.0, 0.7), 4 * math.pi**2 * 2.0 * 0.7),
    ],
    ids=["circle", "torus", "ring-torus"],
)
def test_volume_integrates_to_the_area_over_the_angles(chart, area):
    u, cell = _grid(-math.pi, math.pi, 200, chart.latent_dim)
    assert float(chart.log_volume(u).exp().sum()) * cell == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize(
    ("d", "area"), [(1, 2 * math.pi), (2, 4 * math.pi), (3, 2 * math.pi**2)], ids=str
)
def test_volume_integrates_to_the_area_of_the_sphere(d, area):
    cells = {1: 2000, 2: 200, 3: 60}[d]
    w, cell = _grid(-1, 1, cells, d)  # u = w / (1 - w^2) maps the cube onto R^d
    u = w / (1 - w.square())
    stretch = ((1 + w.square()) / (1 - w.square()).square()).prod(dim=-1)
    total = float((Sphere(d, radius=1.5).log_volume(u).exp() * stretch).sum()) * cell
    assert total == pytest.approx(area * 1.5**d, rel=1e-3)


def test_volume_of_the_polynomial_surface_is_the_sum_of_its_triangles():
    chart = _polynomial(2, 5)
    u, cell = _grid(-1, 1, 300, 2)
    corner = chart.decode(u)
    right, up = (chart.decode(u + torch.tensor(step)) for step in ([1e-3, 0.0], [0.0, 1e-3]))
    triangles = torch.linalg.vector_norm(torch.linalg.cross(right - corner, up - corner), dim=-1)
    expected = float(triangles.sum()) * cell / 1e-6
    assert float(chart.log_volume(u).exp().sum()) * cell == pytest.approx(expected, rel=1e-3)


def test_polynomial_is_the_one_written_out():
    c = [0.3, -1.0, 2.0, 0.5, -0.7, 1.1]  # 1, z1, z2, z1^2, z1 z2, z2^2
    chart = PolynomialSurface.from_numbers(c, torch.eye(3))
    z = _normal(50, 2, 4)
    a, b = z.unbind(dim=-1)
    p = 0.3 - a + 2 * b + 0.5 * a * a - 0.7 * a * b + 1.1 * b * b
    expected = torch.stack([a, b, p * torch.exp(-0.1 * (a * a + b * b))], dim=-1)
    torch.testing.assert_close(chart.decode(z), expected)


FILES_OF_SURFACES: dict[str, Callable[[dict], SpecifiedChart]] = {
    "circle": lambda settings: Circle(),
    "sphere": lambda settings: Sphere(settings["latent_dim"]),
    "torus": lambda settings: Torus(settings["latent_dim"]),
    "ring-torus": lambda settings: RingTorus(settings["major"], settings["minor"]),
    "polynomial": lambda settings: PolynomialSurface.from_numbers(
        settings["coefficients"], settings["rotation"]
    ),
}


@pytest.mark.parametrize("name", FILES_OF_SURFACES)
def test_simulated_points_lie_on_the_chart_and_agree_about_the_volume(name, tmp_path):
    path = tmp_path / "points.root"
    command = [name, "--theta", "0.4", "--events", "500", "--seed", "2", "--out", str(path)]
    assert simulate(command) == 0
    events = read_events(path)
    assert events.metadata.simulator is not None
    chart = FILES_OF_SURFACES[name](events.metadata.simulator.settings)
    units = Standardizer.fit(events.x)
    chart.standardised(units.mean, units.std)
    x = torch.from_numpy(units.transform(events.x))
    torch.testing.assert_close(chart.project(x), x, atol=1e-10, rtol=0)

    names = [*events.observable_names, "log_density"]
    log_density = torch.from_numpy(read_events(path, observables=names).x[:, -1])
    chart.standardised(np.zeros_like(units.mean), np.ones_like(units.std))
    u = chart.encode(torch.from_numpy(events.x))
    log_p = LOG_DENSITY_OF_LATENTS[name](u)
    torch.testing.assert_close(log_p - chart.log_volume(u), log_density, atol=1e-9, rtol=0)


def _von_mises_chain(u: Tensor) -> Tensor:
    """Angles around 0.4, then each around the one before; concentration 1."""
    start = torch.full_like(u[:, :1], 0.4)
    steps = torch.diff(torch.cat([start, u], dim=1), dim=1)
    return (torch.cos(steps) - math.log(2 * math.pi * float(np.i0(1.0)))).sum(dim=1)


def _fisher_on_the_sphere(u: Tensor) -> Tensor:
    """exp(mu . x) / (4 pi sinh 1) with the stereographic volume 4 / (|u|^2 + 1)^2."""
    s = u.square().sum(dim=1) + 1
    cosine = (2 * u[:, 0] * math.cos(0.4) + 2 * u[:, 1] * math.sin(0.4)) / s
    return cosine - math.log(4 * math.pi * math.sinh(1)) + torch.log(4 / s.square())


def _two_normals(u: Tensor) -> Tensor:
    parts = []
    for share, centre, width in ((0.6, (1.0, -1.0), 2.0), (0.4, (-1.0, 1.0), 0.6 + 0.4 * 0.4)):
        square = (u - torch.tensor(centre, dtype=u.dtype)).square().sum(dim=1)
        density = torch.exp(-0.5 * square / width**2) / (2 * math.pi * width**2)
        parts.append(share * density)
    return torch.log(parts[0] + parts[1])


LOG_DENSITY_OF_LATENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "circle": _von_mises_chain,
    "sphere": _fisher_on_the_sphere,
    "torus": _von_mises_chain,
    "ring-torus": _von_mises_chain,
    "polynomial": _two_normals,
}


# Collider events


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_collider_chart_reproduces_the_committed_events(path):
    x, (_, units) = read_events(path).x, _events()
    chart = ColliderChart.for_observables(NAMES, units.mean, units.std)
    z = torch.from_numpy(units.transform(x))
    projected = chart.project(z)
    error = torch.linalg.vector_norm(projected - z, dim=-1)
    assert error.mean() < 1e-6
    assert error.max() < 1e-5
    assert closure(units.inverse(projected.numpy())) < 1e-12


def test_every_point_of_r14_is_a_physical_event():
    _, units = _events()
    chart = _collider()
    x = units.inverse(chart.decode(2.0 * _normal(20_000, 14, 7)).numpy())
    assert np.isfinite(x).all()
    assert closure(x) < 1e-7
    of = {name: x[:, k] for k, name in enumerate(NAMES)}
    for kind in ("a", "j"):
        assert (of[f"pt_{kind}1"] >= of[f"pt_{kind}2"] * (1 - 1e-12)).all()
    for jet in ("j1", "j2"):
        p = np.hypot(of[f"pt_{jet}"], of[f"pz_{jet}"])
        assert (of[f"e_{jet}"] >= p * (1 - 1e-12)).all()
    energy2 = of["m_aa"] ** 2 + of["pt_aa"] ** 2 + of["pz_aa"] ** 2
    np.testing.assert_allclose(of["e_aa"] ** 2, energy2, rtol=1e-10)


def test_the_origin_and_events_along_an_axis_are_finite():
    chart = _collider()
    u = torch.cat([torch.zeros(1, 14), torch.eye(14)]).double().requires_grad_()
    x = chart.decode(u)
    (gradient,) = torch.autograd.grad(x.sum(), u)
    assert x.isfinite().all()
    assert gradient.isfinite().all()


def test_turning_an_event_moves_one_latent():
    _, units = _events()
    chart, u = _collider(), _event_latents()
    c, s = math.cos(0.7), math.sin(0.7)
    turned = u.clone()
    azimuth = math.pi * torch.erf(u[:, 0] / math.sqrt(2.0)) + 0.7
    azimuth = torch.atan2(torch.sin(azimuth), torch.cos(azimuth))
    turned[:, 0] = math.sqrt(2.0) * torch.erfinv(azimuth / math.pi)
    x, y = (units.inverse(chart.decode(v).numpy()) for v in (u, turned))
    for name in ("a1", "a2", "j1", "j2"):
        k, m = NAMES.index(f"px_{name}"), NAMES.index(f"py_{name}")
        np.testing.assert_allclose(y[:, k], c * x[:, k] - s * x[:, m], atol=1e-9)
    same = [k for k, name in enumerate(NAMES) if not name.startswith(("px", "py"))]
    np.testing.assert_allclose(y[:, same], x[:, same], atol=1e-9)


def test_encoding_reads_the_basic_numbers_only():
    x, units = _events()
    chart = _collider()
    z = torch.from_numpy(units.transform(x[:100]))
    read = {f"p{c}_{o}" for o in ("a1", "a2", "j1", "j2") for c in "xyz"} | {
        "e_j1",
        "e_j2",
        "m_aa",
    }
    for k, name in enumerate(NAMES):
        moved = z.clone()
        moved[:, k] += 0.01
        assert torch.equal(chart.encode(moved), chart.encode(z)) == (name not in read), name


def test_order_of_the_observables_does_not_matter():
    x, units = _events()
    z = torch.from_numpy(units.transform(x[:100]))
    columns = [NAMES.index(name) for name in SUBSET]
    u = _collider(SUBSET).encode(z[:, columns])
    torch.testing.assert_close(u, _collider().encode(z), atol=1e-8, rtol=0)
    torch.testing.assert_close(_collider(SUBSET).decode(u), z[:, columns], atol=1e-10, rtol=0)
    assert len(COLLIDER_LATENTS) == u.shape[1] == 14


ONES = np.ones(40)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sphere(0), "latent_dim: expected at least 1"),
        (lambda: Circle(-1.0), "radius|radii"),
        (lambda: Torus(2, [1.0]), "radii: expected 2"),
        (lambda: RingTorus(1.0, 2.0), "minor radius < major"),
        (lambda: RingTorus(math.inf, 2.0), "positive finite"),
        (lambda: Sphere(2).standardised([0, 0], [1, 1]), "expected 3 finite means"),
        (lambda: Sphere(2).standardised([0, 0, 0], [1, 0, 1]), "positive standard"),
        (lambda: PolynomialSurface.from_numbers(ONES[:5], np.eye(3)), "got shape"),
        (lambda: PolynomialSurface.from_numbers(ONES[:6], np.ones((3, 3))), "orthonormal"),
        (lambda: PolynomialSurface.from_numbers(ONES[:6], np.ones((3, 2))), "got \\(3, 2\\)"),
        (lambda: ColliderChart(41), "knows 40 observables"),
        (
            lambda: ColliderChart.for_observables([*NAMES[:-1], "m_tt"], ONES, ONES),
            "unknown: \\['m_tt'\\]",
        ),
        (
            lambda: ColliderChart.for_observables(NAMES[1:-1] + ["m_aa"], ONES, ONES),
            "each at most once",
        ),
        (
            lambda: ColliderChart.for_observables(
                [name for name in NAMES if name != "e_j2"], ONES[1:], ONES[1:]
            ),
            "missing: \\['e_j2'\\]",
        ),
        (lambda: ColliderChart.for_observables(NAMES, ONES[1:], ONES[1:]), "expected 40"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ChartError, match=message):
        call()
