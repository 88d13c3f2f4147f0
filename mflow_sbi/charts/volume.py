r"""Exact volume of a parametrised surface: log sqrt(det J^T J), J = d decode / d u.

The density of x = decode(u) with respect to the surface's own volume is p(u) / sqrt(det J^T J)
(arXiv:2003.13913, eq. 6).  One pass with d tangents gives J, a Cholesky factor of J^T J the
volume: d decodes' worth of matrix products at most, in memory that does not grow with the number
of events.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.utils.checkpoint import checkpoint

from mflow_sbi.errors import ChartError
from mflow_sbi.interfaces import Events, Latents

__all__ = [
    "CHUNK_ROWS",
    "decoder_jacobian",
    "exact_log_volume",
    "gram_matrix",
    "log_volume_of_gram",
]

CHUNK_ROWS = 1000
"""Events per pass: enough to make the cost of calls small, few enough for bounded memory."""


def decoder_jacobian(decode: Callable[[Latents], Events], u: Latents) -> Tensor:
    """Return J = d decode / d u by d forward-mode tangents, (N, d) -> (N, n, d).

    For any `decode` of torch operations; charts that carry tangents by hand are faster.
    """
    basis = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)

    def along(direction: Tensor) -> Tensor:
        return jvp(decode, (u,), (direction.expand_as(u),))[1]

    return vmap(along, out_dims=-1)(basis)


def gram_matrix(jacobian: Tensor) -> Tensor:
    """Return J^T J in float64, (N, n, d) -> (N, d, d)."""
    jacobian = jacobian.double()
    return jacobian.mT @ jacobian


def log_volume_of_gram(gram: Tensor) -> Tensor:
    """Return 1/2 log det J^T J by Cholesky, (N, d, d) -> (N,).

    Raises:
        ChartError: where J^T J is not positive definite (rank-deficient or non-finite decoder).
            A graph traced by `torch.export` or `torch.compile` cannot raise: there such points
            get +inf, a vanishing density.
    """
    lower, info = torch.linalg.cholesky_ex(gram)
    log_volume = torch.log(torch.diagonal(lower, dim1=-2, dim2=-1)).sum(dim=-1)
    if torch.compiler.is_compiling():
        return torch.where((info == 0) & log_volume.isfinite(), log_volume, torch.inf)
    bad = (info != 0) | ~log_volume.isfinite()
    if bool(bad.any()):
        message = (
            f"the decoder's Jacobian has no full column rank at {int(bad.sum())} of {len(gram)} "
            "points: expected a d-dimensional surface; train the chart longer or lower latent_dim"
        )
        raise ChartError(message)
    return log_volume


def exact_log_volume(
    gram: Callable[[Latents], Tensor], u: Latents, chunk_rows: int = CHUNK_ROWS
) -> Tensor:
    """Return log sqrt(det J^T J) at u, exact, (N, d) -> (N,) float64.

    Differentiable with respect to u and to the parameters behind `gram`.  Events are taken in
    chunks; where gradients are asked for, chunks are computed again on the way back, so that
    training too runs in the memory of one chunk.

    Args:
        gram: J^T J at latents, (m, d) -> (m, d, d).
        u: latents.
        chunk_rows: events per chunk.

    >>> import torch
    >>> circle = lambda u: 3.0 * torch.cat([torch.cos(u), torch.sin(u)], dim=-1)
    >>> gram = lambda u: gram_matrix(decoder_jacobian(circle, u))
    >>> exact_log_volume(gram, torch.zeros(1, 1, dtype=torch.float64)).exp().round(decimals=6)
    tensor([3.], dtype=torch.float64)
    """

    def log_volume(part: Tensor) -> Tensor:
        return log_volume_of_gram(gram(part))

    if torch.compiler.is_compiling() or len(u) <= chunk_rows:
        return log_volume(u)
    parts = u.split(chunk_rows)
    if torch.is_grad_enabled():
        return torch.cat([_recomputed(log_volume, part) for part in parts])
    return torch.cat([log_volume(part) for part in parts])


def _recomputed(function: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    """Return function(part), whose inner tensors are computed again on the way back."""
    value = checkpoint(function, part, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(value, Tensor)
    return value
