"""Layers compile as one graph, whole densities export, and both say what the plain code says."""

import shutil

import pytest
import torch
from torch import Tensor, nn

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import ManifoldFlow
from mflow_sbi.transforms import (
    AffineMap,
    Coupling,
    PermutedLULinear,
    SplineMap,
    VolumePreservingMap,
    compiled_layers,
)

N, D, P = 6, 5, 2


def _perturbed(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return module


LAYERS = {
    "spline": lambda: Coupling(D, 2, SplineMap(4, 3.0, 8), context_dim=P, hidden=8, blocks=1),
    "affine": lambda: Coupling(D, 2, AffineMap(), context_dim=P, hidden=8, blocks=1),
    "volume_preserving": lambda: Coupling(
        D, 2, VolumePreservingMap(), context_dim=P, hidden=8, blocks=1
    ),
    "linear": lambda: PermutedLULinear(torch.arange(D)),
}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("direction", ["push", "pull", "pull_tangents"])
def test_a_layer_is_one_graph(name, direction):
    layer = _perturbed(LAYERS[name]())
    x, context = torch.randn(D, N).double(), torch.randn(P, N).double()
    tangents = ([torch.randn(D, 3, N).double()],) if direction == "pull_tangents" else ()
    plain = getattr(layer, direction)
    one_graph = torch.compile(plain, fullgraph=True, backend="aot_eager")
    got, expected = one_graph(x, *tangents, context), plain(x, *tangents, context)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiled layers need a C++ compiler")
def test_compiled_layers_train_like_plain_ones():
    layer = _perturbed(LAYERS["spline"]())
    x, context = torch.randn(N, D).double(), torch.randn(N, P).double()

    def gradients() -> list[Tensor]:
        image, log_det = layer(x, context)
        return list(
            torch.autograd.grad(image.square().sum() + log_det.sum(), list(layer.parameters()))
        )

    before = gradients()
    with compiled_layers(layer):
        assert "push" in vars(layer)
        compiled = gradients()
    assert "push" not in vars(layer)
    torch.testing.assert_close(compiled, before, atol=1e-10, rtol=1e-10)


def test_compiled_layers_without_a_compiler_say_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with (
        pytest.raises(ConfigurationError, match=r"need a C\+\+ compiler"),
        compiled_layers(nn.Linear(1, 1)),
    ):
        pass


class _LogProb(nn.Module):
    def __init__(self, surrogate: ManifoldFlow) -> None:
        super().__init__()
        self.surrogate = surrogate

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.surrogate.log_prob(x, theta)


class _LatentLogProb(_LogProb):
    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.surrogate.latent_log_prob(x, theta)


@pytest.fixture
def surrogate() -> ManifoldFlow:
    options = FlowOptions(layers=2, hidden=8, bins=4, bound=3.0)
    made = ManifoldFlow(
        build_invertible_chart(LinearHead(7, 6), 3, options, 0),
        build_flow(3, 0, options, 1),
        build_flow(3, P, options, 2),
    )
    _perturbed(made)
    return made.eval()


@pytest.mark.parametrize(("wrapper", "columns"), [(_LogProb, 7), (_LatentLogProb, 3)])
def test_densities_export_for_any_number_of_events(surrogate, wrapper, columns):
    x, theta = torch.randn(N, columns).double(), torch.randn(N, P).double()
    events = torch.export.Dim("events", min=2, max=1000)
    program = torch.export.export(
        wrapper(surrogate), (x, theta), dynamic_shapes={"x": {0: events}, "theta": {0: events}}
    )
    more, at = torch.randn(250, columns).double(), torch.randn(250, P).double()
    with torch.no_grad():
        expected = wrapper(surrogate)(more, at)
        torch.testing.assert_close(program.module()(more, at), expected, atol=1e-10, rtol=1e-10)


def test_exported_densities_vanish_where_the_surface_degenerates(surrogate):
    with torch.no_grad():
        surrogate.chart.head.spread.zero_()

    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chart = surrogate.chart

        def forward(self, u: Tensor) -> Tensor:
            return self.chart.log_volume(u)

    program = torch.export.export(Volume(), (torch.randn(N, 3).double(),))
    volume = program.module()(torch.randn(N, 3).double())
    assert torch.equal(volume, torch.full((N,), torch.inf, dtype=torch.float64))
