r"""Ratio and posterior estimators of sbi as surrogates: a likelihood in theta, no density of x.

    ratio                log r(x, theta) = f(x, theta)             -> log p(x|theta) / p(x)
    posterior            log r(x, theta) = log q(theta|x) - log pi(theta)
    posterior of a set   log r({x}, theta) = log q(theta|{x}) - log pi(theta)

The second is summed over events; the third knows sets only, and is no sum over events.

References:
    | Hermans et al. (2019), arXiv:1903.04057 (NRE-A); Durkan et al. (2020), arXiv:2002.03712
      (NRE-B); Miller et al. (2022), arXiv:2210.06170 (NRE-C)
    | Greenberg et al. (2019), arXiv:1905.07488 (NPE-C); Chan et al. (2018), arXiv:1802.06153
      (exchangeable networks)
    | sbi reloaded (Boelts et al., 2024), arXiv:2411.17337
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mflow_sbi.baselines.door import needing_sbi
from mflow_sbi.baselines.inputs import EventInputs
from mflow_sbi.baselines.options import RatioLesson
from mflow_sbi.baselines.sets import TrainingSets
from mflow_sbi.baselines.theta_density import ThetaDensity
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Events, LogProbs, Parameters
from mflow_sbi.surrogates.ratio import NO_DENSITY
from mflow_sbi.surrogates.without_density import WithoutDensity

if TYPE_CHECKING:
    from sbi.neural_nets.embedding_nets import PermutationInvariantEmbedding
    from sbi.neural_nets.estimators import NFlowsFlow
    from sbi.neural_nets.ratio_estimators import RatioEstimator

__all__ = ["SbiPosterior", "SbiRatio", "SbiSetPosterior", "SetEmbedding"]

NO_DENSITY_OF_POSTERIOR = (
    "a posterior estimator knows p(theta|x) only, so there is no density of events, no sample and "
    "no surface"
)


class _SbiEstimator(WithoutDensity):
    """A network of sbi behind its inputs."""

    def __init__(
        self,
        ambient_dim: int,
        parameter_dim: int,
        inputs: EventInputs,
        network: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.ambient_dim = ambient_dim
        self.parameter_dim = parameter_dim
        self.latent_dim = inputs.dim
        self.inputs = inputs
        self.network = network

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        return {"network": self.network}


class _Eventwise(_SbiEstimator):
    """An estimator whose log likelihood is a sum over events."""

    def condense(self, x: Events) -> Tensor:
        """Return what the network reads of events, (N, n) -> (N, d)."""
        return self.inputs(x)

    def condensed_log_likelihood(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., d), (..., p) -> (...)."""
        shape = torch.broadcast_shapes(condensed.shape[:-1], theta.shape[:-1])
        inputs = condensed.expand(*shape, -1).reshape(-1, condensed.shape[-1])
        points = theta.expand(*shape, -1).reshape(-1, self.parameter_dim).to(inputs)
        return self._log_ratio(inputs, points).reshape(shape)

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) up to a constant in theta, (N,)."""
        return self.condensed_log_likelihood(self.condense(x), theta)

    def _log_ratio(self, inputs: Tensor, theta: Parameters) -> LogProbs:
        """Return log r of rows, (N, d), (N, p) -> (N,)."""
        raise NotImplementedError


class SbiRatio(_Eventwise):
    """log r(x, theta) of a classifier of sbi.

    Args:
        ambient_dim: n.
        parameter_dim: p.
        inputs: what the network reads of events.
        network: sbi's classifier.
        lesson: which trainer teaches it.
    """

    lacks = NO_DENSITY

    def __init__(
        self,
        ambient_dim: int,
        parameter_dim: int,
        inputs: EventInputs,
        network: "RatioEstimator",
        lesson: RatioLesson,
    ) -> None:
        super().__init__(ambient_dim, parameter_dim, inputs, network)
        self.lesson = lesson

    def _log_ratio(self, inputs: Tensor, theta: Parameters) -> LogProbs:
        return self.network(theta, inputs)


class SbiPosterior(_Eventwise):
    """log q(theta|x) - log pi(theta) of a posterior estimator of sbi, event by event.

    Args:
        ambient_dim: n.
        inputs: what the network reads of events.
        network: sbi's flow of theta given the inputs of one event.
        prior: pi.
    """

    lacks = NO_DENSITY_OF_POSTERIOR

    def __init__(
        self, ambient_dim: int, inputs: EventInputs, network: "NFlowsFlow", prior: ThetaDensity
    ) -> None:
        super().__init__(ambient_dim, len(prior.centre), inputs, network)
        self.prior = prior

    def _log_ratio(self, inputs: Tensor, theta: Parameters) -> LogProbs:
        log_posterior = self.network.log_prob(theta[None], inputs)[0]
        return self.prior.likelihood(log_posterior, theta)


class SetEmbedding(nn.Module):
    """A deep set that reads rows of numbers of events, and looks the events up in a table.

    Sets share events: rows take a hundredth of the memory that the sets would.  Number N of a
    table of N events means none.

    Args:
        pooling: (S, M, d), NaN where there is no event, -> (S, k).
        table: inputs of N events, (N, d); none to look up where there are no trainings.
    """

    table: Tensor

    def __init__(self, pooling: "PermutationInvariantEmbedding", table: Tensor) -> None:
        super().__init__()
        self.pooling = pooling
        self.register_buffer("table", table[:0], persistent=False)
        self.keep(table)

    def keep(self, table: Tensor) -> None:
        """Look events up in this table, (N, d)."""
        self.table = torch.cat([table, table.new_full((1, table.shape[1]), torch.nan)])

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embedding of sets of events of these numbers, (S, M) -> (S, k)."""
        return self.pooling(self.table[rows.long()])


class SbiSetPosterior(_SbiEstimator):
    """log q(theta|{x}) - log pi(theta) of a posterior estimator of sbi, of whole sets.

    Args:
        ambient_dim: n.
        inputs: what the network reads of events.
        network: sbi's flow of theta given a set of up to M events.
        embedding: of sets, part of the network.
        prior: pi.
        sets: to train on; none where there are no trainings.
    """

    lacks = (
        "a posterior estimator of sets knows p(theta|set) only, so there is no density of events, "
        "no likelihood of one event among others, no sample and no surface"
    )

    def __init__(
        self,
        ambient_dim: int,
        inputs: EventInputs,
        network: "NFlowsFlow",
        embedding: SetEmbedding,
        prior: ThetaDensity,
        sets: TrainingSets | None = None,
    ) -> None:
        super().__init__(ambient_dim, len(prior.centre), inputs, network)
        self.prior = prior
        self.sets = sets
        self._embedding = [embedding]  # part of the network already
        self.most_events = int(network.condition_shape[0])

    def embed(self, sets: Events) -> Tensor:
        """Return the embedding of sets of N standardised events each, (S, N, n) -> (S, k).

        Raises:
            ConfigurationError: larger sets than those of the training.
        """
        n_sets, n_events = sets.shape[:2]
        if n_events > self.most_events:
            message = (
                f"sets of events: expected at most {self.most_events}, as in training, got "
                f"{n_events}; train with a larger option most_events"
            )
            raise ConfigurationError(message)
        inputs = self.inputs(sets.flatten(0, 1)).reshape(n_sets, n_events, -1)
        return self._embedding[0].pooling(inputs)

    def set_log_likelihood(self, embedded: Tensor, theta: Parameters) -> LogProbs:
        """Return log r of sets, leading dimensions broadcast, (..., k), (..., p) -> (...)."""
        with needing_sbi():
            from mflow_sbi.baselines.networks import log_prob_given
        shape = torch.broadcast_shapes(embedded.shape[:-1], theta.shape[:-1])
        rows = embedded.expand(*shape, -1).reshape(-1, embedded.shape[-1])
        points = theta.expand(*shape, -1).reshape(-1, self.parameter_dim).to(rows)
        log_posterior = log_prob_given(self.network, points, rows)
        return self.prior.likelihood(log_posterior, points).reshape(shape)

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log r of sets of one event each, (N,)."""
        return self.set_log_likelihood(self.embed(x[:, None]), theta)
