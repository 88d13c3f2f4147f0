"""Transforms one after another."""

from collections.abc import Sequence

from torch import Tensor, nn

from mflow_sbi.transforms.base import Transform

__all__ = ["Composite"]


class Composite(Transform):
    """T_K o ... o T_1 with log|det| summed; out of place, so that `vmap` goes through."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image under all transforms in order, and the summed log|det|."""
        log_det = inputs.new_zeros(inputs.shape[:-1])
        for transform in self.transforms:
            inputs, step = transform(inputs, context)
            log_det = log_det + step
        return inputs, log_det

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the preimage under all transforms, last first, and the summed log|det|."""
        log_det = inputs.new_zeros(inputs.shape[:-1])
        for transform in reversed(list(self.transforms)):
            assert isinstance(transform, Transform)
            inputs, step = transform.inverse(inputs, context)
            log_det = log_det + step
        return inputs, log_det
