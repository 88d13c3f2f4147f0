"""Laws of constraint discovery: toy surfaces, collider events, noise, permutations, refusals."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from mflow_sbi.constraints import Dictionary, Discovery, discover_constraints, project
from mflow_sbi.constraints.dictionary import Features
from mflow_sbi.constraints.sparse import Polynomial
from mflow_sbi.errors import ConfigurationError, EventDataError, ShapeError
from mflow_sbi.events import read_events
from mflow_sbi.events.observables import WBF_OBSERVABLES, closure
from mflow_sbi.interfaces import Array

N_EVENTS = 3000
NAMES = tuple(observable.name for observable in WBF_OBSERVABLES)
FLOAT32 = 2.0**-24


def _sphere(rng: np.random.Generator, n: int, radius: float = 1.0, centre: float = 0.0) -> Array:
    v = rng.normal(size=(N_EVENTS, n))
    return centre + radius * v / np.linalg.norm(v, axis=1, keepdims=True)


def _plane(rng: np.random.Generator) -> Array:
    frame = np.random.default_rng(11).normal(size=(3, 6))
    return rng.normal(size=(N_EVENTS, 2)) @ frame[:2] + frame[2]


def _sphere_in_six(rng: np.random.Generator) -> Array:
    rotation = np.linalg.qr(np.random.default_rng(12).normal(size=(6, 6)))[0]
    return np.hstack([_sphere(rng, 3), np.ones((N_EVENTS, 3)) * [1, 2, 3]]) @ rotation


def _torus(rng: np.random.Generator) -> Array:
    a, b = rng.uniform(0, 2 * np.pi, size=(2, N_EVENTS))
    ring = 3 + np.cos(a)
    return np.stack([ring * np.cos(b), ring * np.sin(b), np.sin(a)], axis=1)


def _columns(make: Callable[[Array, Array], list[Array]]) -> Callable[..., Array]:
    return lambda rng: np.stack(make(*rng.normal(size=(2, N_EVENTS))), axis=1)


# name: (events, number of constraints)
SURFACES: dict[str, tuple[Callable[[np.random.Generator], Array], int]] = {
    "circle": (lambda rng: _sphere(rng, 2), 1),
    "shifted circle": (lambda rng: _sphere(rng, 2, radius=3, centre=5), 1),
    "sphere in 10": (lambda rng: _sphere(rng, 10), 1),
    "rotated sphere in 6": (_sphere_in_six, 4),
    "plane in 6": (_plane, 4),
    "paraboloid": (_columns(lambda u, v: [u, v, u**2 + 2 * v**2]), 1),
    "saddle": (_columns(lambda u, v: [u, v, u * v]), 1),
    "Clifford torus": (lambda rng: np.hstack([_sphere(rng, 2), _sphere(rng, 2)]), 2),
    "Veronese": (_columns(lambda u, v: [u, v, u * u, u * v, v * v]), 3),
    "twisted cubic": (_columns(lambda u, _: [u, u**2, u**3]), 2),
    "sinh": (_columns(lambda u, v: [u, v, v * np.sinh(u)]), 1),
}


def _discover(y: ArrayLike, **options: object) -> Discovery:
    y8 = np.asarray(y, dtype=np.float64)
    return discover_constraints(y, y8.mean(axis=0), y8.std(axis=0), **options)  # pyright: ignore[reportArgumentType]


def _standardised(discovery: Discovery, y: Array) -> torch.Tensor:
    assert discovery.constraints is not None
    return (torch.from_numpy(y) - discovery.constraints.mean) / discovery.constraints.std


@pytest.fixture(scope="module")
def collider_events() -> Array:
    folder = Path(__file__).parents[2] / "data"
    return read_events(folder / "wbf_tuned_train_small.root").x


@pytest.fixture(scope="module")
def collider(collider_events: Array) -> Discovery:
    y = collider_events[:5000].astype(np.float32)
    return _discover(y, names=NAMES)


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_surfaces_have_their_dimension_and_vanish_on_fresh_events(name: str, dtype: type) -> None:
    make, n_constraints = SURFACES[name]
    found = _discover(make(np.random.default_rng(1)).astype(dtype))
    assert found.verdict == "exact", found.describe()
    assert found.codimension == n_constraints
    assert found.constraints is not None
    assert found.constraints.n_constraints == n_constraints == len(found.polynomials)
    assert found.constraints.latent_dim == found.latent_dim
    fresh = _standardised(found, make(np.random.default_rng(2)))
    value, jacobian = found.constraints.with_jacobian(fresh)
    # not on the surface would be of order one; gradients are scaled to rms 1
    assert value.abs().max() < (3e-5 if dtype is np.float32 else 1e-12)
    assert (torch.linalg.matrix_rank(jacobian, rtol=1e-6) == n_constraints).all()


def test_a_torus_needs_degree_four() -> None:
    y = _torus(np.random.default_rng(1))
    assert _discover(y).verdict == "none"
    found = _discover(y, dictionary=Dictionary(degree=4, sinh_range=(0, 0)))
    assert (found.verdict, found.codimension) == ("exact", 1)
    (polynomial,) = found.polynomials
    # (x^2 + y^2 + z^2 + 8)^2 = 36 (x^2 + y^2)
    expected = {1.0, 2.0, 16.0, -20.0, 64.0}
    ratio = polynomial.coefficients / np.abs(polynomial.coefficients).min()
    assert set(np.round(np.sign(ratio.sum()) * ratio, 6)) == expected


def test_events_that_fill_space_have_no_constraints() -> None:
    found = _discover(np.random.default_rng(1).normal(size=(1000, 4)))
    assert (found.verdict, found.latent_dim, found.constraints) == ("none", 4, None)


def test_collider_events_have_26_constraints(collider: Discovery, collider_events: Array) -> None:
    assert collider.verdict == "exact", collider.describe()
    assert (collider.codimension, collider.latent_dim) == (26, 14)
    assert (collider.n_linear, collider.n_vanishing) == (10, 461)
    assert set(collider.codimensions) == {26}
    assert min(collider.gradient_gaps) > 3
    assert collider.largest_residual < 5
    assert collider.conditioning > 1e-4
    assert max(len(p.monomials) for p in collider.polynomials) <= 4
    # found on float32 numbers, exact on float64 ones
    x = _standardised(collider, collider_events[5000:])
    assert collider.constraints is not None
    assert collider.constraints(x).abs().max() < 1e-10


def test_the_sentences_are_kinematics(collider: Discovery) -> None:
    text = collider.describe()
    for sentence in (
        "pt_a1^2 - px_a1^2 - py_a1^2 = 0",
        "pz_jj - pt_jj sinh(eta_jj) = 0",
        "e_jj - e_j1 - e_j2 = 0",
        "e_aa^2 - pz_aa^2 - pt_aa^2 - m_aa^2 = 0",
    ):
        assert sentence in text


def test_permuting_the_observables_and_the_seed_change_nothing(
    collider: Discovery, collider_events: Array
) -> None:
    order = np.random.default_rng(5).permutation(40)
    y = collider_events[:5000, order].astype(np.float32)
    found = _discover(y, names=[NAMES[k] for k in order], seed=7)
    assert (found.verdict, found.codimension) == ("exact", 26)
    x = _standardised(collider, collider_events[:5])
    assert collider.constraints is not None
    assert found.constraints is not None
    here = collider.constraints.with_jacobian(x)[1]
    there = found.constraints.with_jacobian(x[:, order])[1]
    back = torch.zeros_like(there)
    back[:, :, order] = there
    # the same conormal spaces
    for a, b in zip(here, back, strict=True):
        assert torch.linalg.matrix_rank(torch.cat([a, b]), rtol=1e-7) == 26


@pytest.mark.parametrize("noise", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noisy_events_are_not_exact(collider_events: Array, noise: float, dtype: type) -> None:
    y = collider_events[:5000]
    errors = np.random.default_rng(3).normal(size=y.shape)
    found = _discover((y + noise * y.std(axis=0) * errors).astype(dtype))
    assert found.verdict in {"none", "inconclusive"}
    assert found.constraints is None


def test_noise_of_known_size_is_allowed_for() -> None:
    rng = np.random.default_rng(4)
    y = _sphere(rng, 3) + 1e-4 * rng.normal(size=(N_EVENTS, 3))
    assert _discover(y).verdict == "none"
    found = _discover(y, precision=1e-4, dictionary=Dictionary(sinh_range=(0, 0)))
    assert (found.verdict, found.codimension) == ("exact", 1)
    assert 0.1 < found.largest_residual < 10


def test_products_of_near_constraints_are_not_constraints() -> None:
    """(x2 - x1)^2 vanishes to the precision of float32 where x2 - x1 does not."""
    rng = np.random.default_rng(6)
    u = rng.normal(size=(N_EVENTS, 1))
    y = np.hstack([u, u + 1e-4 * rng.normal(size=u.shape), rng.normal(size=(N_EVENTS, 1))])
    found = _discover(y.astype(np.float32))
    assert found.n_vanishing > 0
    assert found.verdict == "none"
    assert "products" in found.reason
    # the square vanishes, but not to what rounding does to it: its gradient vanishes as well
    square = Polynomial(np.array([[1, 1], [1, 2], [2, 2]]), np.array([1.0, -2.0, 1.0]))
    features = Features((1.0, 1.0, 1.0), ())
    assert np.median(np.abs(square.values(features, y))) < 5 * FLOAT32
    assert np.median(square.residual(features, y, FLOAT32)) > 100


def test_a_codimension_that_hangs_on_the_threshold_is_inconclusive(
    collider_events: Array,
) -> None:
    """Noise of 0.002 GeV on m_aa alone: the mass constraint is neither kept nor broken."""
    y = collider_events[:5000].copy()
    k = NAMES.index("m_aa")
    y[:, k] += 2e-3 * np.random.default_rng(3).normal(size=len(y))
    found = _discover(y.astype(np.float32), names=NAMES)
    assert (found.verdict, found.codimension) == ("inconclusive", 25)
    assert "26 instead of 25" in found.reason


def test_constraints_that_only_part_of_the_observables_obey_are_found(
    collider_events: Array,
) -> None:
    """Without composite momenta: 4 x (pT, eta), 2 shells, 2 separations and 2 masses."""
    kept = [
        k
        for k, name in enumerate(NAMES)
        if name.split("_")[1] not in {"aa", "jj"} or name[0] in "md"
    ]
    y = collider_events[:5000, kept].astype(np.float32)
    found = _discover(y, names=[NAMES[k] for k in kept])
    assert (found.verdict, found.codimension) == ("exact", 14), found.describe()


def test_weights_choose_events() -> None:
    """Events of weight 0 may lie anywhere; positive weights change nothing that is exact."""
    rng = np.random.default_rng(8)
    y, weight = _sphere(rng, 3), rng.uniform(0.1, 5, N_EVENTS)
    y[::3], weight[::3] = rng.normal(size=(N_EVENTS // 3, 3)), 0
    assert _discover(y).verdict == "none"
    found = _discover(y, weights=weight)
    assert (found.verdict, found.codimension) == ("exact", 1)


def test_numbers_once_stored_as_float32_are_recognised() -> None:
    """Standardised in float32, then back in float64: no float32 numbers, but float32 precision."""
    y = _sphere(np.random.default_rng(9), 3, radius=40, centre=7)
    z = ((y - y.mean(axis=0)) / y.std(axis=0)).astype(np.float32)
    found = _discover(z * y.std(axis=0) + y.mean(axis=0))
    assert (found.verdict, found.codimension, found.precision) == ("exact", 1, FLOAT32)


def test_closure_of_projected_noise_vanishes(collider: Discovery, collider_events: Array) -> None:
    y = collider_events[5000:5500]
    x = _standardised(collider, y)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    assert collider.constraints is not None
    projected, converged = project(collider.constraints, x + 0.05 * noise)
    assert converged.double().mean() > 0.995
    scale = collider.constraints
    physical = (projected * scale.std + scale.mean)[converged].numpy()
    noisy = ((x + 0.05 * noise) * scale.std + scale.mean).numpy()
    assert closure(noisy) > 1e-3
    assert np.median([closure(event[None]) for event in physical]) < 1e-10
    # an orthogonal projector removes 26 of 40 directions of the noise: sqrt(14 / 40) = 0.59
    shrink = (projected - x).norm(dim=1).median() / (0.05 * noise).norm(dim=1).median()
    assert 0.54 < shrink < 0.65


def test_too_few_events_say_what_is_needed(collider_events: Array) -> None:
    with pytest.raises(EventDataError, match=r"780 monomials .* at least 1463 events, got 400"):
        _discover(collider_events[:400])
    found = _discover(collider_events[:400], dictionary=Dictionary(degree=1, sinh_range=(0, 0)))
    assert (found.verdict, found.codimension) == ("exact", 10)


def test_refusals() -> None:
    y = _sphere(np.random.default_rng(1), 3)
    one = np.ones(3)
    with pytest.raises(ShapeError, match="mean and std"):
        discover_constraints(y, np.ones(2), one)
    with pytest.raises(ShapeError, match="3 names"):
        discover_constraints(y, one, one, names=["a"])
    with pytest.raises(EventDataError, match="finite"):
        discover_constraints(np.full_like(y, np.nan), one, one)
    with pytest.raises(EventDataError, match="positive"):
        discover_constraints(y, one, one, weights=np.zeros(len(y)))
    with pytest.raises(ConfigurationError, match="degree >= 1"):
        Dictionary(degree=0)
    with pytest.raises(ConfigurationError, match="low <= high"):
        Dictionary(sinh_range=(2, 1))
