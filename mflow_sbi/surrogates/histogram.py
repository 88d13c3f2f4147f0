r"""Binned analyses as surrogates: p(b(x)|theta) of a few numbers of an event, no density.

`HistogramEstimator` bins given observables, the traditional analysis.  `LocalScoreEstimator` bins
the learned score at a reference point, which are the most informative observables near it (SALLY).

References:
    | Mining gold from implicit models to improve likelihood-free inference (Brehmer et al., 2018),
      arXiv:1805.12244
    | A guide to constraining effective field theories with machine learning (Brehmer et al.,
      2018), arXiv:1805.00020, section III
"""

from collections.abc import Callable, Collection, Mapping

from torch import Tensor, nn

from mflow_sbi.densities import Features
from mflow_sbi.densities.local_score import ScoreNetwork, ScoreTarget
from mflow_sbi.densities.quantile_bins import QuantileBins
from mflow_sbi.densities.templates import Templates
from mflow_sbi.interfaces import Events, LogProbs, Parameters
from mflow_sbi.surrogates.without_density import WithoutDensity

__all__ = ["HistogramEstimator", "LocalScoreEstimator"]


class HistogramEstimator(WithoutDensity):
    """log p(b(x)|theta) / P_b: the templates of the bin that an event is in.

    Args:
        ambient_dim: n.
        numbers: of standardised events, (N, n) -> (N, d).
        bins: of these numbers.
        templates: of the bins.
    """

    lacks = (
        "a histogram knows the probability of its bins only, so there is no density of events, no "
        "sample and no surface"
    )

    def __init__(
        self, ambient_dim: int, numbers: nn.Module, bins: QuantileBins, templates: Templates
    ) -> None:
        super().__init__()
        self.templates = templates
        self.bins = bins
        self.numbers = numbers
        self.ambient_dim = ambient_dim
        self.latent_dim, self.parameter_dim = templates.exponents.shape

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"templates": self.templates}

    def bin_of(self, x: Events) -> Tensor:
        """Return the bin of every event, (N, n) -> (N,)."""
        return self.bins(self.numbers(x))

    def condense(self, x: Events) -> Tensor:
        """Return the mean components of the event's bin, (N, n) -> (N, K) float64."""
        return self.templates.table[self.bin_of(x)]

    def condensed_log_likelihood(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., K), (..., p) -> (...)."""
        return self.templates.log_ratio(condensed, theta)

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(b(x)|theta) / P_b, (N,): log p(x|theta) up to a constant in theta."""
        return self.condensed_log_likelihood(self.condense(x), theta)


class LocalScoreEstimator(HistogramEstimator):
    """The same in bins of the learned score at theta_0.

    Args:
        ambient_dim: n.
        features: what the network reads of an event.
        score: network of the score over its scale.
        target: of the regression; it holds the scale.
        bins: of the score.
        templates: of the bins.
    """

    def __init__(
        self,
        ambient_dim: int,
        features: Features,
        score: ScoreNetwork,
        target: ScoreTarget,
        bins: QuantileBins,
        templates: Templates,
    ) -> None:
        super().__init__(ambient_dim, nn.Sequential(features, score), bins, templates)
        self.target = target

    @property
    def features(self) -> Features:
        """What the network reads."""
        return self.numbers[0]  # pyright: ignore[reportIndexIssue]

    @property
    def score(self) -> ScoreNetwork:
        """The network."""
        return self.numbers[1]  # pyright: ignore[reportIndexIssue]

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"score": self.score, "templates": self.templates}

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Tensor]:  # noqa: ARG002
        """Return the features, which rest whatever trains."""
        return self.features

    def score_at_reference(self, x: Events) -> Tensor:
        """Return t(x), the score of physical theta at theta_0, (N, n) -> (N, p) float64."""
        return self.numbers(x).double() * self.target.scale
