r"""Regression of the joint score at a reference point, and what a histogram has learned.

With u = p(x, z|theta_0) / q(x, z), the density of the reference point over that of all training
events, weighted events follow p(x, z|theta_0).  Joint scores t = grad log p(x, z|theta_0) scatter
by the latent variables z around their mean given x, which is grad log p(x|theta_0): it minimises

    mean u |t_hat(x) - t|^2.

References:
    | A guide to constraining effective field theories with machine learning (Brehmer et al.,
      2018), arXiv:1805.00020, eq. 30
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mflow_sbi.training.objectives import TrainingBatch

__all__ = ["LocalScoreLoss", "TemplateEntropy"]


@dataclass(frozen=True)
class LocalScoreLoss:
    """mean u |(t_hat - t) / scale|^2 / p: about one where nothing is known, 1 - R^2 in general.

    The components of the batch are those over q.
    """

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the weighted mean square, of one symmetric image of every event."""
        ratio, target = surrogate.target.of(batch.require_components())
        off = surrogate.score.in_turn(batch.require_resting()) - target
        return batch.mean(ratio[:, None] * off.square())


@dataclass(frozen=True)
class TemplateEntropy:
    """-mean log r(b(x), theta): minus the information of a binned event on theta, nats.

    Templates are counted, not trained: the schedule names what they are judged by.
    """

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean of the negative log ratio to the density of all events."""
        return -batch.mean(surrogate.log_likelihood(batch.x, batch.theta))
