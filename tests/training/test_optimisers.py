"""Optimisers: orthogonal steps for hidden matrices, AdamW for the rest, and what they are for."""

import pytest
import torch
from torch import nn

from mflow_sbi.charts import LinearHead, NetworkOptions, build_autoencoder_chart
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.training import AdamW, Muon, ReconstructionDistance
from mflow_sbi.training.objectives import TrainingBatch
from mflow_sbi.training.optimisers import orthogonalised


def _network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 8), nn.Linear(8, 2))


def _stepped(optimiser: AdamW | Muon, steps: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return the network before and after steps on one batch."""
    before, after = _network(), _network()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    optimizer = optimiser.build([after], 1e-3, 0.0)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        after(x).square().sum(dim=1).mean().backward()
        optimizer.step()
    return before, after


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5)])
def test_orthogonalised_keeps_the_directions_and_evens_their_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2)).double()
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.mT @ orthogonalised(matrix) @ right.mT
    torch.testing.assert_close(turned, torch.diag(torch.diagonal(turned)), atol=1e-9, rtol=0)
    assert sizes.max() / sizes.min() > 2
    assert 0.6 < torch.diagonal(turned).min()
    assert torch.diagonal(turned).max() < 1.3


def test_hidden_matrices_step_orthogonally_and_the_rest_as_adamw_does():
    before, after = _stepped(Muon(matrix_rate=10.0))
    _, plain = _stepped(AdamW())
    step = after.get_parameter("2.weight") - before.get_parameter("2.weight")
    sizes = torch.linalg.svdvals(step.detach()) / (10.0 * 1e-3)
    assert 0.6 < float(sizes[1])  # two outputs: a gradient of rank two
    assert float(sizes[0]) < 1.3
    for mine, theirs in zip(after.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(mine[1], theirs[1]) == (mine[0] != "2.weight")


def test_momentum_and_all_parameters_are_in_the_state():
    network = _network()
    optimizer = Muon().build([network], 1e-3, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6
    network(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert set(optimizer.state_dict()["state"]) == set(range(6))


@pytest.mark.parametrize("options", [{"matrix_rate": 0.0}, {"momentum": 1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigurationError, match="optimiser muon: expected a positive"):
        Muon(**options)


class _Surrogate:
    def __init__(self, chart: nn.Module) -> None:
        self.chart = chart


@torch.no_grad()
def test_the_distance_counts_narrow_directions_by_their_own_spread():
    spread = torch.tensor([2.0, 1.0, 0.01], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4000, 3, generator=generator, dtype=torch.float64) * spread
    chart = build_autoencoder_chart(LinearHead.fit(x), 2, NetworkOptions(8, 1), 0).double()
    batch = TrainingBatch(x, x[:, :0])
    plain = ReconstructionDistance(whitened=0.0, softening=0.0)(_Surrogate(chart), batch)
    expected = (x - chart.project(x)).norm(dim=1).mean()
    torch.testing.assert_close(plain, expected)
    assert float(plain) < 0.02  # the narrow direction is dropped at the start
    both = ReconstructionDistance(whitened=0.5, softening=0.0)(_Surrogate(chart), batch)
    assert abs(float(both - plain) - 0.5 * (2 / torch.pi) ** 0.5) < 0.02  # mean |N(0, 1)|
