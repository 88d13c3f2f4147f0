"""The networks of ratios: plain layers with SiLU between them."""

from torch import Tensor, nn

__all__ = ["LayeredNetwork"]


class LayeredNetwork(nn.Module):
    """inputs -> hidden -> ... -> outputs; its last layer starts small.

    >>> import torch
    >>> LayeredNetwork(2, 8, 1, 3)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * layers]
        modules: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            modules += [nn.Linear(before, after), nn.SiLU()]
        self.body = nn.Sequential(*modules)
        self.last = nn.Linear(sizes[-1], outputs)
        nn.init.normal_(self.last.weight, std=0.1 / sizes[-1] ** 0.5)
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs in the network's precision, (..., inputs) -> (..., outputs)."""
        return self.last(self.body(inputs.to(self.last.weight.dtype)))
