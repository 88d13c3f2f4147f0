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

    def _last_first(self) -> list[Transform]:
        return [layer for layer in reversed(self.transforms) if isinstance(layer, Transform)]

    def push(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the image under all transforms in order, and the summed log|det|."""
        log_det = x.new_zeros(())
        for transform in self.transforms:
            assert isinstance(transform, Transform)
            x, step = transform.push(x, context)
            log_det = log_det + step
        return x, log_det

    def pull(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the preimage under all transforms, last first, and the summed log|det|."""
        log_det = y.new_zeros(())
        for transform in self._last_first():
            y, step = transform.pull(y, context)
            log_det = log_det + step
        return y, log_det

    def pull_tangents(
        self, y: Tensor, tangents: Sequence[Tensor], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the preimage, the summed log|det| and the tangents through all transforms."""
        log_det, blocks = y.new_zeros(()), list(tangents)
        for transform in self._last_first():
            y, step, blocks = transform.pull_tangents(y, blocks, context)
            log_det = log_det + step
        return y, log_det, blocks
