r"""Objectives of ratio estimators: cross-entropies of simulated against shuffled pairs.

Let (x_i, theta_i) be simulated pairs, p(x) the density of all of them, f the network.  Half of
the weight goes to the pairs as simulated, half to the same events at thetas of other events,
which follow p(x) pi(theta).  With a label s in [0, 1] a pair costs

    -s log[1 / (1 + e^-f)] - (1 - s) log[1 / (1 + e^f)] = log(1 + e^f) - s f

and the minimum over all functions has 1 / (1 + e^-f) = E[s | x, theta].

*Labels 1 and 0* by the half a pair comes from: E[s | x, theta] = p(x|theta) / [p(x|theta) + p(x)],
so that f = log p(x|theta) / p(x), whatever the number of other thetas; not only up to a constant
in theta, as the contrastive objective leaves it.

*Joint ratios as labels*, s = r / (1 + r), r = p(x, z|theta) / p(x, z): among all pairs of latent
variables z, observables and theta a share of exactly s comes from the first half.  So s has the
same mean given (x, theta) as the label 1 or 0, with a smaller variance; the cost is linear in s,
so that labels made noisy by z leave the minimum where it is.  Joint scores
t = grad_theta log p(x, z|theta) of simulated pairs have the mean grad_theta log p(x|theta):
their mean square distance from grad_theta f is minimal at the same f.

*Weights.*  Simulated pairs are averaged with weights w_i, the others with w_i v_m, v_m those of
the thetas: p(x) and pi are the weighted densities in both halves, and so is p(x, z) in the joint
ratio.  Were pi another density in the second half, f would be off by a function of theta.

References:
    | Likelihood-free MCMC with amortized approximate ratio estimators (Hermans et al., 2019),
      arXiv:1903.04057, section 3
    | Likelihood-free inference with an improved cross-entropy estimator (Stoye et al., 2018),
      arXiv:1808.00973, eq. 12 and 14
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mflow_sbi.training.objectives import TrainingBatch

__all__ = ["AlicesLoss", "BinaryCrossEntropy"]


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Half the mean of log(1 + e^f) - f of simulated pairs, half that of log(1 + e^f) of others.

    Args:
        candidates: thetas at which every event is asked, its own among them.
    """

    candidates: int = 8

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the cross-entropy, log 2 where nothing is known."""
        return self.share(surrogate, batch, slice(0, len(batch.x)))

    def share(self, surrogate: Any, batch: TrainingBatch, rows: slice) -> Tensor:  # noqa: ANN401
        """Return what the events of these rows contribute."""
        own = batch.rows(rows)
        theta = candidate_thetas(batch.theta, self.candidates)[rows]
        encoded = surrogate.ratio.encode_in_turn(own.require_resting())
        values = surrogate.ratio.log_ratio_in_turn(encoded, theta)
        labels = torch.zeros_like(values)
        labels[:, 0] = 1.0
        return len(own.x) / len(batch.x) * cross_entropy(batch, rows, values, labels)


@dataclass(frozen=True)
class AlicesLoss:
    """The same with labels r / (1 + r), + a mean |grad_theta f - t|^2 / p of simulated pairs.

    Scores are those of standardised parameters.  a = `score_weight`; without it: ALICE.

    Args:
        candidates: thetas at which every event is asked, its own among them.
        score_weight: a.
    """

    candidates: int = 8
    score_weight: float = 1.0

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the cross-entropy with soft labels and the weighted square of score differences.

        The components of the batch are those over V . c: joint ratios at any theta are their
        products with w / sigma.
        """
        theta = candidate_thetas(batch.theta, self.candidates)
        weights = surrogate.joint.weights(theta)
        components = batch.require_components().double()
        joint = torch.einsum("nk,nmk->nm", components, weights).clamp_min(0.0)
        labels = (joint / (1.0 + joint)).to(batch.require_resting().dtype)
        encoded = surrogate.ratio.encode_in_turn(batch.require_resting())
        if not self.score_weight:
            values = surrogate.ratio.log_ratio_in_turn(encoded, theta)
            return cross_entropy(batch, slice(None), values, labels)
        keeps = torch.is_grad_enabled()
        with torch.enable_grad():
            own = batch.theta[:, None].detach().requires_grad_()
            values = surrogate.ratio.log_ratio_in_turn(encoded, own)
            (score,) = torch.autograd.grad(values.sum(), own, create_graph=keeps)
        others = surrogate.ratio.log_ratio_in_turn(encoded, theta[:, 1:])
        pairs = torch.cat([values, others], dim=1)
        entropy = cross_entropy(batch, slice(None), pairs, labels)
        off = score[:, 0] - batch.require_score()
        return entropy + self.score_weight * batch.mean(off.square())


def candidate_thetas(theta: Tensor, candidates: int) -> Tensor:
    """Return each event's own theta, then those of the next events, (N, p) -> (N, K, p).

    >>> candidate_thetas(torch.tensor([[1.0], [2.0], [3.0]]), 2)[..., 0].tolist()
    [[1.0, 2.0], [2.0, 3.0], [3.0, 1.0]]
    """
    count = max(2, min(candidates, len(theta)))
    return torch.stack([theta.roll(-k, dims=0) for k in range(count)], dim=1)


def cross_entropy(batch: TrainingBatch, rows: slice, values: Tensor, labels: Tensor) -> Tensor:
    """Return mean [log(1 + e^f) - s f] at `candidate_thetas`, own ones with half of the weight.

    Args:
        batch: all events.
        rows: those over which is averaged, M of them.
        values: f of these, (M, K).
        labels: s, (M, K).
    """
    own, weights = batch.rows(rows), None
    costs = torch.nn.functional.softplus(values) - labels * values
    if batch.theta_weight is not None:
        met = candidate_thetas(batch.theta_weight[:, None], costs.shape[1])
        weights = met[rows, 1:, 0]
    others = own.mean_of_pairs(costs[:, 1:], weights)
    return 0.5 * (own.mean(costs[:, 0]) + others)
