r"""Exact volume of a parametrised surface: log sqrt(det J^T J), J = d decode / d u.

The density of x = decode(u) with respect to the surface's own volume is p(u) / sqrt(det J^T J)
(arXiv:2003.13913, eq. 6).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp, vmap

from mflow_sbi.errors import ChartError
from mflow_sbi.interfaces import Events, Latents

__all__ = ["decoder_jacobian", "exact_log_volume", "log_volume_of_jacobian"]

CHUNK_ROWS = 2000


def decoder_jacobian(decode: Callable[[Latents], Events], u: Latents) -> Tensor:
    """Return J = d decode / d u by d forward-mode tangents, (N, d) -> (N, n, d)."""
    basis = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)

    def along(direction: Tensor) -> Tensor:
        return jvp(decode, (u,), (direction.expand_as(u),))[1]

    return vmap(along, out_dims=-1)(basis)


def log_volume_of_jacobian(jacobian: Tensor) -> Tensor:
    """Return 1/2 log det J^T J by Cholesky in float64, (N, n, d) -> (N,).

    Raises:
        ChartError: where J^T J is not positive definite (rank-deficient or non-finite decoder).
    """
    jacobian = jacobian.double()
    gram = jacobian.mT @ jacobian
    lower, info = torch.linalg.cholesky_ex(gram)
    if bool((info != 0).any()):
        n_bad = int((info != 0).sum())
        message = (
            f"the decoder's Jacobian has no full column rank at {n_bad} of {len(gram)} points: "
            "expected a d-dimensional surface; train the chart longer or lower latent_dim"
        )
        raise ChartError(message)
    return torch.log(torch.diagonal(lower, dim1=-2, dim2=-1)).sum(dim=-1)


def exact_log_volume(decode: Callable[[Latents], Events], u: Latents) -> Tensor:
    """Return log sqrt(det J^T J) of `decode` at u, exact, in chunks, (N, d) -> (N,) float64.

    >>> import torch
    >>> circle = lambda u: 3.0 * torch.cat([torch.cos(u), torch.sin(u)], dim=-1)
    >>> exact_log_volume(circle, torch.zeros(1, 1, dtype=torch.float64)).exp().round(decimals=6)
    tensor([3.], dtype=torch.float64)
    """
    pieces = [
        log_volume_of_jacobian(decoder_jacobian(decode, part)) for part in u.split(CHUNK_ROWS)
    ]
    return torch.cat(pieces)
