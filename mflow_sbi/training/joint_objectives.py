r"""Objectives beside the two plain ones: the exact likelihood while the chart moves, joint scores.

*Exact likelihood.*  With u = encode(x), x' = decode(u) and J = d decode / d u at u,

    -log p(x'|theta) = 1/2 log det J^T J - log p(u|theta)

moves the chart as well as the density.  Alone it is unbounded: a surface that turns away from the
data squeezes them into a point.  Reconstruction has to hold the surface (arXiv:2003.13913,
section 2.C).

*Joint score.*  The simulator knows t = grad_theta log p(x, z|theta) of its latent variables z,
and E[t | x, theta] = grad_theta log p(x|theta).  So

    E |grad_theta log p_model - t|^2 = E |grad_theta log p_model - grad_theta log p|^2 + E Var[t]

is minimal at the true density, with a constant left that no density can change (SCANDAL,
arXiv:1805.12244).  The volume knows no theta: the latent density's score is all of it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mflow_sbi.training.objectives import TrainingBatch

__all__ = ["ScoreMatching", "SurfaceNegativeLogProb"]


@dataclass(frozen=True)
class SurfaceNegativeLogProb:
    """-mean log p(x'|theta), x' = decode(encode(x)): exact likelihood on the moving surface."""

    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log density with respect to the surface's volume."""
        return -batch.mean(surrogate.log_prob(batch.x, batch.theta))


@dataclass(frozen=True)
class ScoreMatching:
    """mean |grad_theta log p(u|theta) - t|^2 / p: the term of SCANDAL.

    Scores t and parameters are the standardised ones; p is the number of parameters.
    """

    of_single_events: ClassVar[bool] = True

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean square difference of the density's score and the joint score."""
        keeps = torch.is_grad_enabled()
        with torch.enable_grad():
            theta = batch.theta.detach().requires_grad_()
            log_prob = surrogate.latent_log_prob(batch.require_resting(), theta)
            (score,) = torch.autograd.grad(log_prob.sum(), theta, create_graph=keeps)
        return batch.mean((score - batch.require_score()).square())
