"""Charts: encode undoes decode, projection is idempotent, volume against autodiff."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from mflow_sbi.charts import (
    Chart,
    EncodedChart,
    LinearHead,
    NetworkOptions,
    build_autoencoder_chart,
    build_encoded_chart,
    build_invertible_chart,
    decoder_jacobian,
    exact_log_volume,
    gram_matrix,
    project_onto_constraints,
)
from mflow_sbi.errors import ChartError, ConfigurationError
from mflow_sbi.flows import FlowOptions

LATENT = 3


def _surface(n: int, seed: int) -> Tensor:
    """Return events on a curved 3-surface in R^9 with 2 exactly linear constraints."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, LATENT, generator=generator, dtype=torch.float64)
    curved = torch.stack([u[:, 0].sin(), (u[:, 1] * u[:, 2]).tanh(), u[:, 2].square()], dim=-1)
    pairs = torch.stack([u[:, 0] + u[:, 1], curved[:, 0] - u[:, 2]], dim=-1)
    return torch.cat([u, curved, pairs, u[:, :1].exp()], dim=-1)


def _perturbed(chart: Chart) -> Chart:
    chart = chart.double()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in chart.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter += 0.2 * noise
    return chart


def _invertible(coupling) -> Chart:
    options = FlowOptions(layers=3, hidden=16, blocks=1, coupling=coupling, bins=5, bound=4.0)
    head = LinearHead.fit(_surface(500, 0))
    return _perturbed(build_invertible_chart(head, LATENT, options, seed=1))


NETWORK = NetworkOptions(hidden=16, blocks=2)


def _encoded() -> Chart:
    options = FlowOptions(layers=3, hidden=16, blocks=1, coupling="affine")
    head = LinearHead.fit(_surface(500, 0))
    return _perturbed(build_encoded_chart(head, LATENT, NETWORK, options, seed=1))


def _autoencoder() -> Chart:
    head = LinearHead.fit(_surface(500, 0))
    return _perturbed(build_autoencoder_chart(head, LATENT, NETWORK, seed=1))


INVERTING: dict[str, Callable[[], Chart]] = {
    "invertible-spline": lambda: _invertible("spline"),
    "invertible-affine": lambda: _invertible("affine"),
}
CHARTS = INVERTING | {"encoded": _encoded, "autoencoder": _autoencoder}


@pytest.fixture(params=INVERTING.values(), ids=list(INVERTING))
def inverting(request: pytest.FixtureRequest) -> Chart:
    """Return a chart whose encoder inverts its decoder by construction."""
    return request.param()


@pytest.fixture(params=CHARTS.values(), ids=list(CHARTS))
def chart(request: pytest.FixtureRequest) -> Chart:
    return request.param()


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(200, LATENT, generator=torch.Generator().manual_seed(2)).double()


def test_encode_undoes_decode(inverting, latents):
    again = inverting.encode(inverting.decode(latents))
    torch.testing.assert_close(again, latents, atol=1e-10, rtol=0)


def test_projection_is_idempotent(inverting):
    once = inverting.project(_surface(200, 3))
    torch.testing.assert_close(inverting.project(once), once, atol=1e-9, rtol=1e-10)


def test_charts_begin_at_the_leading_principal_directions():
    head = LinearHead.fit(_surface(500, 0))
    x = _surface(50, 7)
    flat = head.inverse(torch.nn.functional.pad(head(x)[:, :LATENT], (0, head.rank - LATENT)))
    options = FlowOptions(layers=2, hidden=16, coupling="affine")
    for chart in (
        build_invertible_chart(head, LATENT, options, seed=1),
        build_encoded_chart(head, LATENT, NETWORK, options, seed=1),
        build_autoencoder_chart(head, LATENT, NETWORK, seed=1),
    ):
        torch.testing.assert_close(chart.project(x), flat, atol=1e-5, rtol=1e-5)


def test_log_volume_is_that_of_the_autodiff_jacobian(chart, latents):
    jacobian = vmap(jacrev(lambda u: chart.decode(u[None])[0]))(latents)
    expected = 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet
    torch.testing.assert_close(chart.log_volume(latents), expected, atol=1e-8, rtol=0)


def test_jacobian_by_hand_is_that_of_autodiff(chart, latents):
    x, jacobian = chart.decode_with_jacobian(latents)
    torch.testing.assert_close(x, chart.decode(latents), atol=1e-12, rtol=0)
    expected = vmap(jacrev(lambda u: chart.decode(u[None])[0]))(latents)
    torch.testing.assert_close(jacobian, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(jacobian, decoder_jacobian(chart.decode, latents))


def test_log_volume_and_its_gradients_do_not_depend_on_the_chunks(chart, latents):
    parameters = list(chart.parameters())
    latents.requires_grad_()
    results = []
    for rows in (1000, 64):
        volume = exact_log_volume(chart.gram, latents, chunk_rows=rows)
        wanted = [latents, *parameters]  # a shift of the surface leaves its volume alone
        gradients = torch.autograd.grad(volume.sum(), wanted, materialize_grads=True)
        results.append((volume, *gradients))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-9, rtol=1e-9)
    assert max(float(g.abs().max()) for g in results[0][2:]) > 0
    with torch.no_grad():
        silent = exact_log_volume(chart.gram, latents, chunk_rows=64)
    torch.testing.assert_close(silent, results[0][0], atol=1e-10, rtol=0)


def test_log_volume_in_float32_is_close_to_float64(chart, latents):
    exact = chart.log_volume(latents)
    single = chart.float().log_volume(latents.float())
    assert single.dtype == torch.float64
    assert (single - exact).abs().max() < 1e-3


def test_log_volume_has_gradients(chart, latents):
    latents.requires_grad_()
    (gradient,) = torch.autograd.grad(chart.log_volume(latents).sum(), latents)
    step = torch.zeros_like(latents)
    step[:, 0] = 1e-5
    with torch.no_grad():
        difference = (chart.log_volume(latents + step) - chart.log_volume(latents - step)) / 2e-5
    close = (gradient[:, 0] - difference).abs() < 1e-4 * (1 + difference.abs())
    assert close.float().mean() > 0.97  # all but steps across a knot


def test_the_encoded_chart_has_the_surface_of_its_invertible_one(latents):
    chart = _encoded()
    assert isinstance(chart, EncodedChart)
    assert torch.equal(chart.decode(latents), chart.chart.decode(latents))
    x = _surface(50, 7)
    assert not torch.allclose(chart.encode(x), chart.chart.encode(x), atol=1e-2)


def test_linear_constraints_hold_to_machine_precision_even_in_float32(chart, latents):
    x = chart.float().decode(latents.float())
    assert x.dtype == torch.float64
    assert (x[:, 6] - x[:, 0] - x[:, 1]).abs().max() < 1e-12
    assert (x[:, 7] - x[:, 3] + x[:, 2]).abs().max() < 1e-12


def test_head_finds_the_linear_constraints_and_inverts():
    x = _surface(400, 5)
    head = LinearHead.fit(x)
    assert head.n_constraints == 2
    torch.testing.assert_close(head.inverse(head(x)), x, atol=1e-12, rtol=0)
    assert np.allclose(head(x).std(dim=0, correction=0), 1.0)
    _, log_det = torch.linalg.slogdet(head.basis.T @ head.basis)
    assert abs(float(log_det)) < 1e-12  # orthonormal: log_det() is all the volume there is


def test_head_keeps_float64_when_the_network_does_not():
    head = LinearHead.fit(_surface(400, 5))
    before = head.basis.clone()
    assert torch.equal(head.float().basis, before)


def test_sees_through_the_rounding_of_float32_files():
    x = _surface(400, 5).float().double()
    assert LinearHead.fit(x).n_constraints == 2


def _flat_gram(u: Tensor) -> Tensor:
    """J^T J of a decoder that forgets the second latent."""
    return gram_matrix(decoder_jacobian(lambda v: v[:, :1].expand(-1, 3), u))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LinearHead.fit(torch.randn(9, 9)), ChartError, "needs more than 9 events"),
        (lambda: LinearHead.fit(torch.zeros(50, 3)), ChartError, "no spread"),
        (
            lambda: build_invertible_chart(LinearHead(9, 5), 6, FlowOptions(), 0),
            ConfigurationError,
            "expected 1 to 5",
        ),
        (
            lambda: build_autoencoder_chart(LinearHead(9, 5), 0, NetworkOptions(), 0),
            ConfigurationError,
            "expected 1 to 5 .*, got 0",
        ),
        (
            lambda: NetworkOptions(hidden=0),
            ConfigurationError,
            "hidden width of at least 1",
        ),
        (
            lambda: exact_log_volume(_flat_gram, torch.randn(4, 2)),
            ChartError,
            "at 4 of 4 points",
        ),
    ],
    ids=["too few", "no spread", "latent_dim", "no latents", "no width", "rank-deficient"],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


class _Sphere:
    """F(x) = |x|^2 - 1 in the first three of nine observables."""

    ambient_dim, n_constraints = 9, 1

    def with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value = x[:, :3].square().sum(dim=1, keepdim=True) - 1
        return value, torch.nn.functional.pad(2 * x[:, None, :3], (0, 6))


def test_projections_move_onto_constraints_by_steps_of_least_length(chart):
    x = _surface(100, 3)
    learned = chart.project(x)
    moved, converged = project_onto_constraints(chart, _Sphere(), x)
    assert converged.double().mean() > 0.9  # all but points next to the centre
    moved, learned = moved[converged], learned[converged]
    assert (moved[:, :3].norm(dim=1) - 1).abs().max() < 1e-9
    radial = learned[:, :3] / learned[:, :3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(moved[:, :3], radial, atol=1e-9, rtol=0)
    assert torch.equal(moved[:, 3:], learned[:, 3:])


def test_constraints_of_other_observables_are_refused(chart):
    other = _Sphere()
    other.ambient_dim = 4
    with pytest.raises(ChartError, match="chart's 9 observables, got 4"):
        project_onto_constraints(chart, other, _surface(10, 3))
