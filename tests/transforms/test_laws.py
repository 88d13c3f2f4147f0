"""Every transform: inverse, log|det| against autodiff, vmap and jvp, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, jvp, vmap

from mflow_sbi.errors import ChartError
from mflow_sbi.transforms import (
    AffineMap,
    AffineWhitening,
    Composite,
    Coupling,
    PermutedLULinear,
    SplineMap,
    VolumePreservingMap,
)
from mflow_sbi.transforms.base import Transform

D, P = 5, 2


def _coupling(elementwise) -> Coupling:
    return Coupling(D, 2, elementwise, context_dim=P, hidden=16, blocks=2)


def _lone(elementwise) -> Coupling:
    return Coupling(D, 0, elementwise, context_dim=P, hidden=16, blocks=1)


def _whitening() -> AffineWhitening:
    whitening = AffineWhitening(D).double()
    mixing = torch.randn(D, D, dtype=torch.float64)
    whitening.fit(torch.randn(400, D, dtype=torch.float64) @ mixing + 3.0)
    return whitening


def _stack() -> Composite:
    return Composite(
        [
            PermutedLULinear(torch.randperm(D)),
            _coupling(SplineMap(6, 3.0, 16)),
            PermutedLULinear(torch.randperm(D)),
            _coupling(AffineMap()),
        ]
    )


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "lu": lambda: PermutedLULinear(torch.randperm(D)),
    "whitening": _whitening,
    "spline_coupling": lambda: _coupling(SplineMap(6, 3.0, 16)),
    "affine_coupling": lambda: _coupling(AffineMap()),
    "volume_preserving_coupling": lambda: _coupling(VolumePreservingMap()),
    "coupling_without_identity_features": lambda: _lone(SplineMap(6, 3.0, 16)),
    "composite": _stack,
}


def _perturbed(made: Transform) -> Transform:
    made = made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made


@pytest.fixture(params=TRANSFORMS.values(), ids=list(TRANSFORMS))
def transform(request: pytest.FixtureRequest) -> Transform:
    torch.manual_seed(3)
    return _perturbed(request.param())


@pytest.fixture
def events() -> Tensor:
    torch.manual_seed(4)
    return 2.0 * torch.randn(300, D, dtype=torch.float64)  # some beyond the splines' box


@pytest.fixture
def context() -> Tensor:
    torch.manual_seed(5)
    return torch.randn(300, P, dtype=torch.float64)


def test_inverse_undoes_forward_both_ways(transform, events, context):
    image, log_det = transform(events, context)
    back, log_det_back = transform.inverse(image, context)
    torch.testing.assert_close(back, events, atol=1e-10, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-10, rtol=0)
    preimage, _ = transform.inverse(events, context)
    torch.testing.assert_close(transform(preimage, context)[0], events, atol=1e-10, rtol=0)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_autodiff(transform, events, context, direction):
    function = getattr(transform, direction)

    def one(x: Tensor, c: Tensor) -> Tensor:
        return function(x[None], c[None])[0][0]

    jacobian = vmap(jacrev(one))(events[:50], context[:50])
    _, log_det = function(events[:50], context[:50])
    torch.testing.assert_close(
        torch.linalg.slogdet(jacobian).logabsdet, log_det, atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_forward_and_reverse_mode_agree(transform, events, context, direction):
    function = getattr(transform, direction)

    def one(x: Tensor, c: Tensor) -> Tensor:
        return function(x[None], c[None])[0][0]

    for argument in (0, 1):
        rows = vmap(jacrev(one, argnums=argument))(events[:20], context[:20])
        columns = vmap(jacfwd(one, argnums=argument))(events[:20], context[:20])
        torch.testing.assert_close(columns, rows, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("recorded", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("common", [True, False], ids=["common tangents", "own tangents"])
def test_tangents_by_hand_are_those_of_autodiff(transform, events, context, recorded, common):
    tangents = torch.randn(1 if common else len(events), D, 3, dtype=torch.float64)

    def one(x: Tensor, c: Tensor) -> Tensor:
        return transform.inverse(x[None], c[None])[0][0]

    expected = vmap(jacfwd(one))(events, context) @ tangents  # three blocks of events
    with torch.set_grad_enabled(recorded):
        before = tangents.clone()
        x, moved = transform.inverse_with_tangents(events, tangents, context)
    assert torch.equal(tangents, before)
    torch.testing.assert_close(moved, expected, atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(x, transform.inverse(events, context)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_events", [1, 101])
def test_tangents_common_to_all_events_stay_as_they_are(transform, events, context, n_events):
    tangents = torch.randn(1, D, 3, dtype=torch.float64)
    before = tangents.clone()
    with torch.no_grad():  # 101 events: a last block of one
        _, moved = transform.inverse_with_tangents(events[:n_events], tangents, context[:n_events])
        _, alone = transform.inverse_with_tangents(
            events[n_events - 1 : n_events], before, context[n_events - 1 : n_events]
        )
    assert torch.equal(tangents, before)
    torch.testing.assert_close(moved[-1:], alone, atol=1e-12, rtol=1e-10)


def test_tangents_by_hand_have_gradients(transform, events, context):
    inputs = events[:4].clone().requires_grad_()
    tangents = torch.randn(4, D, 2, dtype=torch.float64, requires_grad=True)

    def moved(x: Tensor, v: Tensor) -> Tensor:
        return transform.inverse_with_tangents(x, v, context[:4])[1]

    assert torch.autograd.gradcheck(moved, (inputs, tangents), atol=1e-5)
    parameters = [p for p in transform.parameters() if p.numel()]
    if parameters:
        gradients = torch.autograd.grad(
            moved(inputs, tangents).square().sum(), parameters, allow_unused=True
        )
        assert any(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("name", ["spline_coupling", "affine_coupling", "composite"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_events_and_context_broadcast(name, direction, events, context):
    torch.manual_seed(3)
    function = getattr(_perturbed(TRANSFORMS[name]()), direction)
    x, c = events[:7], context[:4]
    image, log_det = function(x, c[:, None])
    paired, log_det_paired = function(x.repeat(4, 1), c.repeat_interleave(7, dim=0))
    torch.testing.assert_close(image.reshape(28, D), paired, atol=1e-12, rtol=0)
    torch.testing.assert_close(log_det.reshape(28), log_det_paired, atol=1e-12, rtol=0)


def test_volume_preserving_coupling_preserves_volume(events, context):
    torch.manual_seed(3)
    coupling = _perturbed(TRANSFORMS["volume_preserving_coupling"]())
    image, log_det = coupling(events, context)
    assert (image - events).abs().max() > 0.1
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), atol=1e-12, rtol=0)


def _fused_step(linear: PermutedLULinear) -> None:
    """Step an optimiser that leaves torch's version counters alone."""
    with torch.enable_grad():
        loss = linear(torch.ones(1, D, dtype=torch.float64))[0].square().sum()
        loss.backward()
    torch.optim.AdamW(linear.parameters(), lr=0.1, fused=True).step()


def test_kept_inverse_follows_its_parameters(events):
    torch.manual_seed(3)
    linear = PermutedLULinear(torch.randperm(D)).double()
    with torch.no_grad():
        linear.triangles.add_(0.3 * torch.randn_like(linear.triangles))
        linear.inverse(events)  # keeps the inverse
        for change in (
            lambda: linear.triangles.add_(0.1),
            lambda: linear.triangles.data.add_(0.1),
            lambda: _fused_step(linear),
            lambda: linear.load_state_dict(PermutedLULinear(torch.randperm(D)).state_dict()),
            lambda: linear.float().double(),
        ):
            change()
            back = linear.inverse(linear(events)[0])[0]
            torch.testing.assert_close(back, events, atol=1e-6, rtol=0)
    recorded = linear.inverse(events)[0]  # with gradients: never kept
    assert recorded.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(linear.inverse(events)[0], recorded, atol=1e-12, rtol=0)


def test_kept_inverse_is_not_left_behind_by_function_transforms(events):
    linear = PermutedLULinear(torch.randperm(D)).double()
    with torch.no_grad():
        jvp(lambda x: linear.inverse(x)[0], (events,), (events,))
        vmap(lambda x: linear.inverse(x[None])[0][0])(events)
        torch.testing.assert_close(linear.inverse(linear(events)[0])[0], events)


def test_jvp_agrees_with_finite_differences(transform, events, context):
    tangent = torch.ones_like(events)
    step = 1e-6
    image, along = jvp(lambda x: transform.inverse(x, context)[0], (events,), (tangent,))[:2]
    ahead = transform.inverse(events + step * tangent, context)[0]
    behind = transform.inverse(events - step * tangent, context)[0]
    difference = (ahead - behind) / (2 * step)
    close = (along - difference).abs() < 1e-5 * (1 + along.abs())
    assert close.float().mean() > 0.995  # all but steps across a knot
    torch.testing.assert_close(image, transform.inverse(events, context)[0])


def test_context_changes_the_conditional_maps(events, context):
    torch.manual_seed(0)
    coupling = _coupling(SplineMap(6, 3.0, 16)).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    here = coupling(events, context)[0]
    there = coupling(events, context + 1.0)[0]
    assert (here - there).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["spline_coupling", "affine_coupling"])
def test_coupling_starts_at_the_identity(name, events, context):
    made = TRANSFORMS[name]().double()
    image, log_det = made(events, context)
    # zero weights in the conditioner's last layer; float32 biases round the derivatives
    torch.testing.assert_close(image, events, atol=1e-6, rtol=0)
    assert log_det.abs().max() < 1e-5


def test_whitening_gives_unit_covariance_and_refuses_flat_directions():
    x = torch.randn(500, 2, dtype=torch.float64)
    whitening = AffineWhitening(2).double()
    whitening.fit(x @ torch.tensor([[2.0, 1.0], [0.0, 0.1]], dtype=torch.float64))
    white, _ = whitening(x @ torch.tensor([[2.0, 1.0], [0.0, 0.1]], dtype=torch.float64))
    torch.testing.assert_close(
        torch.cov(white.T, correction=0), torch.eye(2, dtype=torch.float64), atol=1e-10, rtol=0
    )
    flat = AffineWhitening(2).double()
    with pytest.raises(ChartError, match="do not vary in all directions"):
        flat.fit(torch.cat([x[:, :1], x[:, :1]], dim=-1) * torch.tensor([1.0, 0.0]))
    with pytest.raises(ChartError, match="do not vary in all directions"):
        flat.fit(x * torch.nan)
