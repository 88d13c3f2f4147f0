"""Networks of sbi, built by sbi's own functions.  Imports sbi: see `door`.

Trained on standardised parameters and inputs; sbi's own z-scoring is part of the networks.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sbi.neural_nets import classifier_nn, likelihood_nn, posterior_nn
from sbi.neural_nets.embedding_nets import FCEmbedding, PermutationInvariantEmbedding
from sbi.neural_nets.estimators import ConditionalDensityEstimator, NFlowsFlow
from sbi.neural_nets.ratio_estimators import RatioEstimator
from torch import Tensor, nn

from mflow_sbi.baselines.options import (
    FlowNetworkOptions,
    PosteriorOptions,
    RatioOptions,
    SetPosteriorOptions,
    SplineNetworkOptions,
)
from mflow_sbi.flows import seeded
from mflow_sbi.interfaces import LogProbs, Parameters

__all__ = [
    "build_classifier",
    "build_likelihood",
    "build_posterior",
    "build_set_posterior",
    "log_prob_given",
    "pooling_network",
]

_UNUSED_BINS = 10  # affine layers have none


@contextmanager
def _building(seed: int) -> Iterator[None]:
    """Seed torch for initial weights; remarks on outliers and one dimension are not heard."""
    with seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="sbi")
        yield


def build_likelihood(
    kind: str, theta: Parameters, inputs: Tensor, options: FlowNetworkOptions, seed: int
) -> ConditionalDensityEstimator:
    """Return an untrained flow of inputs (N, d) given theta (N, p), "maf" or "nsf"."""
    bins = options.bins if isinstance(options, SplineNetworkOptions) else _UNUSED_BINS
    with _building(seed):
        build = likelihood_nn(
            kind,
            hidden_features=options.hidden,
            num_transforms=options.transforms,
            num_blocks=options.blocks,
            num_bins=bins,
        )
        return build(theta, inputs)


def build_posterior(
    theta: Parameters, inputs: Tensor, options: PosteriorOptions, seed: int
) -> NFlowsFlow:
    """Return an untrained flow of theta (N, p) given inputs (N, d)."""
    with _building(seed):
        build = posterior_nn(
            options.flow,
            hidden_features=options.hidden,
            num_transforms=options.transforms,
            num_blocks=options.blocks,
            num_bins=options.bins,
        )
        return build(theta, inputs)


def pooling_network(input_dim: int, options: SetPosteriorOptions) -> PermutationInvariantEmbedding:
    """Return a deep set: (S, N, d), rows of NaN left out, -> (S, k)."""
    of_event = FCEmbedding(
        input_dim, options.summaries, options.event_layers, options.event_hidden
    )
    return PermutationInvariantEmbedding(
        of_event,
        options.summaries,
        num_layers=2,
        num_hiddens=options.event_hidden,
        output_dim=options.embedding,
    )


def build_set_posterior(
    theta: Parameters,
    rows: Tensor,
    embedding: nn.Module,
    options: SetPosteriorOptions,
    seed: int,
) -> NFlowsFlow:
    """Return an untrained flow of theta (S, p) given sets (S, M), through their embedding."""
    with _building(seed):
        build = posterior_nn(
            options.flow,
            z_score_x="none",
            hidden_features=options.hidden,
            num_transforms=options.transforms,
            num_blocks=options.blocks,
            num_bins=options.bins,
            embedding_net=embedding,
        )
        return build(theta, rows)


def build_classifier(
    theta: Parameters, inputs: Tensor, options: RatioOptions, seed: int
) -> RatioEstimator:
    """Return an untrained classifier of pairs of theta (N, p) and inputs (N, d)."""
    with _building(seed):
        build = classifier_nn("resnet", hidden_features=options.hidden, num_blocks=options.blocks)
        return build(theta, inputs)


def log_prob_given(network: NFlowsFlow, theta: Parameters, embedded: Tensor) -> LogProbs:
    """Return log q(theta|e) of rows that are embedded already, (N, p), (N, k) -> (N,).

    What `network.log_prob` does after its embedding, so that a set is embedded once and not once
    per theta.
    """
    noise, log_det = network.net._transform(theta, context=embedded)
    base: Tensor = network.net._distribution.log_prob(noise, context=embedded)
    return base + torch.as_tensor(log_det)
