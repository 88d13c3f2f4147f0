"""Surrogates say on an accelerator what they say on the processor."""

import pytest
import torch

from mflow_sbi.charts import LinearHead, build_invertible_chart
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates import ManifoldFlow

DEVICES = [
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
    )
]


def _surrogate(dtype: torch.dtype) -> ManifoldFlow:
    options = FlowOptions(layers=2, hidden=8, bins=4, bound=3.0)
    surrogate = ManifoldFlow(
        build_invertible_chart(LinearHead(7, 6), 3, options, 0),
        build_flow(3, 0, options, 1),
        build_flow(3, 2, options, 2),
    ).to(dtype)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise.to(dtype))
    return surrogate.eval()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_log_prob_and_samples_do_not_depend_on_the_device(device, dtype, close):
    surrogate = _surrogate(dtype)
    x, theta = torch.randn(300, 7).double(), torch.randn(300, 2).to(dtype)
    with torch.no_grad():
        here = surrogate.log_prob(x, theta)
        samples = surrogate.sample(theta, seed=3)
        surrogate.to(device)
        there = surrogate.log_prob(x.to(device), theta.to(device)).cpu()
        torch.testing.assert_close(there, here, atol=close, rtol=close)
        moved = surrogate.sample(theta.to(device), seed=3).cpu()
    torch.testing.assert_close(moved, samples, atol=close, rtol=close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_latents_and_densities_keep_the_dtype_of_the_network(dtype):
    surrogate = _surrogate(dtype)
    x, theta = torch.randn(10, 7).double(), torch.randn(10, 2).to(dtype)
    with torch.no_grad():
        u = surrogate.encode(x)
        assert u.dtype == dtype
        assert surrogate.latent_log_prob(u, theta).dtype == dtype
        assert surrogate.log_volume(u).dtype == torch.float64
        assert surrogate.decode(u).dtype == torch.float64
