"""What the networks of sbi read of an event: all observables, or the latents of a chart."""

import torch
from torch import Tensor, nn

from mflow_sbi.charts import CHUNK_ROWS, Chart
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events

__all__ = ["EventInputs"]


class _Scale(Float64Buffers):
    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("std", torch.ones(dim, dtype=torch.float64))


class EventInputs(nn.Module):
    """Standardised observables, or standardised latents of a chart, in float32.

    Args:
        ambient_dim: n, number of observables.
        chart: gives the latents; none for the observables.
    """

    def __init__(self, ambient_dim: int, chart: Chart | None) -> None:
        super().__init__()
        self.chart = chart
        self.dim = ambient_dim if chart is None else chart.latent_dim
        self.scale = _Scale(self.dim)

    @torch.no_grad()
    def fit(self, x: Events) -> Tensor:
        """Take mean and spread of the inputs of training events; return these inputs, (N, d)."""
        raw = self.raw(x)
        if self.chart is not None:
            self.scale.mean.copy_(raw.mean(dim=0))
            self.scale.std.copy_(raw.std(dim=0))
        return self._scaled(raw)

    def forward(self, x: Events) -> Tensor:
        """Return what the network reads, (N, n) -> (N, d) float32."""
        return self._scaled(self.raw(x))

    def raw(self, x: Events) -> Tensor:
        """Return observables or latents as they are, (N, n) -> (N, d) float64."""
        if self.chart is None:
            return x.double()
        return torch.cat([self.chart.encode(part).double() for part in x.split(CHUNK_ROWS)])

    def _scaled(self, raw: Tensor) -> Tensor:
        return ((raw - self.scale.mean) / self.scale.std).float()
