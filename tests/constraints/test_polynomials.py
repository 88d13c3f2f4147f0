"""Laws of the constraint module: derivatives, storage, projection."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mflow_sbi.constraints import Constraints, discover_constraints, project


@pytest.fixture
def curved() -> tuple[Constraints, Tensor]:
    """Return the constraints of (u, v, u v, v sinh u, u + v) and standardised events."""
    u, v = np.random.default_rng(1).normal(size=(2, 2000))
    y = np.stack([u, v, u * v, 3 + v * np.sinh(u), u + v], axis=1)
    mean, std = y.mean(axis=0), y.std(axis=0)
    found = discover_constraints(y, mean, std)
    assert found.constraints is not None, found.describe()
    return found.constraints, torch.from_numpy((y - mean) / std)


def test_values_and_jacobian_against_autodiff(curved: tuple[Constraints, Tensor]) -> None:
    constraints, x = curved
    off = x[:50] + 0.3 * torch.randn(50, 5, generator=torch.Generator().manual_seed(1)).double()
    value, jacobian = constraints.with_jacobian(off)
    expected = torch.func.vmap(torch.func.jacrev(lambda z: constraints(z[None])[0]))(off)
    torch.testing.assert_close(value, constraints(off), rtol=0, atol=1e-14)
    torch.testing.assert_close(jacobian, expected, rtol=1e-12, atol=1e-13)
    assert value.abs().min() > 0


def test_second_derivatives_flow_through_the_jacobian(curved: tuple[Constraints, Tensor]) -> None:
    constraints, x = curved
    z = x[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(constraints.with_jacobian, (z,))


def test_values_against_formulas(curved: tuple[Constraints, Tensor]) -> None:
    """Zero exactly where the three formulas are, and only there."""
    constraints, x = curved
    off = x[:20].clone()
    off[10:, 2] += 0.5  # breaks x3 = x1 x2 only
    zero = constraints(off).abs() < 1e-12
    assert zero[:10].all()
    assert (zero[10:].sum(dim=1) == 2).all()


def test_stored_constraints_are_rebuilt_from_their_shape(
    curved: tuple[Constraints, Tensor],
) -> None:
    constraints, x = curved
    copy = Constraints.empty(**constraints.shape)
    copy.load_state_dict(constraints.state_dict())
    assert torch.equal(copy(x), constraints(x))
    assert (copy.ambient_dim, copy.n_constraints, copy.latent_dim) == (5, 3, 2)
    assert copy.float()(x.float()).dtype == torch.float64
    assert torch.equal(copy(x), constraints(x))


def test_projection_lands_on_the_surface_and_is_idempotent(
    curved: tuple[Constraints, Tensor],
) -> None:
    constraints, x = curved
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()
    once, converged = project(constraints, x + 0.02 * noise)
    twice, again = project(constraints, once)
    assert converged.double().mean() > 0.99
    assert constraints(once[converged]).abs().max() < 1e-12
    assert again[converged].all()
    assert (twice - once)[converged].abs().max() < 1e-9


def test_steps_are_the_shortest_ones(curved: tuple[Constraints, Tensor]) -> None:
    """To first order the way to the surface is orthogonal to it."""
    constraints, x = curved
    normal = constraints.with_jacobian(x)[1]
    start = x + 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double()
    way = project(constraints, start)[0] - start
    coefficients = torch.linalg.lstsq(normal.mT, way[..., None]).solution
    along = (normal.mT @ coefficients).squeeze(-1)
    assert torch.linalg.vector_norm(way - along, dim=1).median() < 1e-8


def test_events_that_cannot_be_projected_are_flagged() -> None:
    """x^2 + y^2 = 1 has no direction at the origin; one step does not suffice elsewhere."""
    v = np.random.default_rng(1).normal(size=(500, 2))
    y = v / np.linalg.norm(v, axis=1, keepdims=True)
    circle = discover_constraints(y, np.zeros(2), np.ones(2)).constraints
    assert circle is not None
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.6, 0.8], [torch.nan, 1.0]]).double()
    projected, converged = project(circle, x)
    assert converged.tolist() == [False, True, True, False]
    assert torch.equal(projected[0], x[0])
    torch.testing.assert_close(projected[1], torch.tensor([1.0, 0.0]).double())
    assert project(circle, x, steps=1)[1].tolist() == [False, False, True, False]
