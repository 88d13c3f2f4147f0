r"""Objectives of a ratio r(x, theta) = p(x|theta) / p_ref(x), by what the events tell.

Let (x_i, theta_i) be simulated pairs, pi the training thetas, p_ref the density of all events.
The ratio's average over pi is 1 at every x by construction.

*Samples.*  r pi is then a density of theta given x, and

    -mean log r(x_i, theta_i)  ->  -E_x E_{theta|x} log r = KL(p(theta|x) | r pi) + constant,

so its minimum over all functions of average 1 is p(theta|x) / pi = p(x|theta) / p_ref(x).  No
negative samples, no classifier, no weights to tune: the maximum likelihood of the ratio.

*Joint score.*  t_i = grad_theta log p(x_i, z_i|theta_i) has the mean grad_theta log p(x|theta)
given x and theta.  The mean of |grad_theta log r - t|^2 is therefore minimal at the true ratio
whether scores are exact or joint with latent variables; anything but a square would not be.

*Joint components.*  s_i(theta) = w(theta) . c(x_i, z_i) / sigma / (V . c(x_i, z_i)) is the ratio
of event i and its latent variables at *every* theta, and its mean over z is r(x, theta).  So

    mean_i mean_{theta ~ pi} [s_i log(s_i / r) - s_i + r]

is, up to a constant, the divergence of r from the truth, linear in the noisy label s_i: unbiased.
All terms are >= 0 and vanish where r = s: with exact labels the gradient's noise vanishes too as
the fit improves, which the cross-entropy -s log r alone does not have.  The thetas are those of
other events of the batch, which know nothing of event i.  Components do not tell sigma: where it
is learned, the divergence leaves it alone and the likelihood of the pairs is added.

*Weights.*  Averages over events are weighted, mean l = (1/N) sum_i w_i l_i, so that x, theta and z
follow the density that the weights stand for.  pi is then the weighted density of theta: p_ref and
the average of r over pi (V, stored points, the thetas of a batch) take weights v_m of theta.  Were
pi another density in the ratio than in the pairs, the minimum would be off by their ratio, a
function of theta.  The divergence is minimal at the true ratio for thetas of any density; with
those of pi it is the same objective as that of unweighted events.

References:
    | Mining gold from implicit models (Brehmer et al., 2018), arXiv:1805.12244
    | Likelihood-free inference with an improved cross-entropy estimator (Stoye et al., 2018),
      arXiv:1808.00973: the joint ratio as a soft label
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mflow_sbi.training.objectives import TrainingBatch

__all__ = ["RatioDivergence", "RatioLikelihood", "RatioScore", "RichestRatio"]


@dataclass(frozen=True)
class RatioLikelihood:
    """-mean log r(x_i, theta_i): from events and their thetas alone."""

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log ratio of the pairs."""
        values = surrogate.ratio.log_ratio_in_turn(
            batch.require_resting(), batch.theta, batch.pair_weights
        )
        return -batch.mean(values)


@dataclass(frozen=True)
class RatioScore:
    """RatioLikelihood + a mean |grad_theta log r - t|^2 / p: pairs and their joint scores.

    Scores are those of standardised parameters.  a = `weight`; both terms are minimal at the true
    ratio, so a only shares out the noise.
    """

    weight: float = 1.0

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the negative mean log ratio and the weighted mean square of score differences."""
        values, score = surrogate.ratio.score_in_turn(
            batch.require_resting(), batch.theta, batch.pair_weights
        )
        off = score - batch.require_score()
        return self.weight * batch.mean(off.square()) - batch.mean(values)


@dataclass(frozen=True)
class RatioDivergence:
    """mean [s log(s / r) - s + r] over events and thetas of other events; s the joint ratio.

    Args:
        points: thetas of each batch that every event is asked at.
    """

    points: int = 64

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the mean divergence of the ratios from the joint ones."""
        return self.share(surrogate, batch, slice(0, len(batch.x)))

    def share(self, surrogate: Any, batch: TrainingBatch, rows: slice) -> Tensor:  # noqa: ANN401
        """Return what the events of these rows contribute."""
        ratio, mine = surrogate.ratio, batch.rows(rows)
        encoded = ratio.encode_in_turn(mine.require_resting())
        labels = ratio.normalised(mine.require_components())
        weights = ratio.weights(batch.theta[: self.points]).detach().to(encoded.dtype)
        learned = (encoded @ weights.T).clamp_min(ratio.least)
        joint = (labels @ weights.T).clamp_min(0.0)
        # s log s apart: the slope of s log(s / r) through s / r is 0 / 0 where s = 0
        divergence = torch.xlogy(joint, joint) - joint * learned.log() - joint + learned
        number = torch.arange(len(batch.x), device=weights.device)
        own = number[rows, None] == number[: len(weights)]
        others = divergence.masked_fill(own, 0.0)
        of_theta = None if batch.theta_weight is None else batch.theta_weight[: self.points]
        mean = mine.mean_of_pairs(others, of_theta)
        if ratio.learns_rate:
            mean = mean - mine.mean(ratio.log_ratio(encoded, mine.theta))
        return len(mine.x) / len(batch.x) * mean


@dataclass(frozen=True)
class RichestRatio:
    """The objective that uses most of what the events carry: components, else scores, else pairs.

    Components say all that scores and thetas say, and more, so they stand alone.
    """

    components: RatioDivergence = field(default_factory=RatioDivergence)
    score: RatioScore = field(default_factory=RatioScore)
    samples: RatioLikelihood = field(default_factory=RatioLikelihood)

    def __call__(self, surrogate: Any, batch: TrainingBatch) -> Tensor:  # noqa: ANN401
        """Return the objective that fits the batch."""
        if batch.components is not None:
            return self.components(surrogate, batch)
        if batch.score is not None:
            return self.score(surrogate, batch)
        return self.samples(surrogate, batch)

    def share(self, surrogate: Any, batch: TrainingBatch, rows: slice) -> Tensor:  # noqa: ANN401
        """Return what the events of these rows contribute; of pairs, their share of the whole."""
        if batch.components is not None:
            return self.components.share(surrogate, batch, rows)
        return len(batch.x[rows]) / len(batch.x) * self(surrogate, batch)
