"""Flows conditioned on learned functions of theta: normalised, invertible, broadcast."""

import pytest
import torch

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.flows import ConditionalFlow, FlowOptions, build_flow

THETA = torch.tensor([[0.3, -1.2], [2.0, 0.4]]).double()


def _flow(features: int, embedding: int = 3) -> ConditionalFlow:
    options = FlowOptions(layers=2, hidden=8, bins=5, embedding=embedding)
    flow = build_flow(features, 2, options, seed=1).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return flow


@torch.no_grad()
def test_normalised_at_every_theta():
    flow, axis = _flow(2), torch.linspace(-40, 40, 1601).double()
    points = torch.cartesian_prod(axis, axis)
    area = float(axis[1] - axis[0]) ** 2
    for theta in THETA:
        total = flow.log_prob(points, theta.expand(len(points), 2)).exp().sum() * area
        assert float(total) == pytest.approx(1.0, abs=2e-3)


@torch.no_grad()
def test_inverse_and_broadcast():
    flow = _flow(3)
    u = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
    for theta in THETA:
        rows = theta.expand(5, 2)
        noise, _ = flow.encode_noise(u, rows)
        torch.testing.assert_close(flow.decode_noise(noise, rows), u, rtol=1e-7, atol=1e-7)
    table = flow.log_prob(u, THETA[:, None])
    expected = torch.stack([flow.log_prob(u, theta.expand(5, 2)) for theta in THETA])
    torch.testing.assert_close(table, expected)
    assert (table[0] - table[1]).abs().max() > 0.1


def test_the_embedding_learns():
    flow = _flow(2)
    assert flow.embedding is not None
    flow.log_prob(torch.ones(2, 2).double(), THETA).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.embedding.parameters())


def test_without_parameters_or_outputs_there_is_none():
    assert _flow(2, embedding=0).embedding is None
    assert build_flow(2, 0, FlowOptions(layers=1, embedding=3), seed=1).embedding is None
    with pytest.raises(ConfigurationError, match="embedding: expected at least 0"):
        FlowOptions(embedding=-1)
    value = _flow(2, 0).log_prob(torch.zeros(1, 2).double(), THETA[:1])
    assert bool(value.isfinite())
