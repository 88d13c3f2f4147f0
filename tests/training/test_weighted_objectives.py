"""Weights of events in every objective: multiplicities, cancellation, and where the minimum is."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mflow_sbi import training
from mflow_sbi.densities import (
    PairNetwork,
    PairShape,
    PairWeights,
    ResidualRatio,
    ResidualShape,
    SymmetryGroup,
)
from mflow_sbi.errors import TrainingError
from mflow_sbi.events.weights import theta_weights
from mflow_sbi.flows import FlowOptions, build_flow
from mflow_sbi.surrogates.ratio import JointRatio
from mflow_sbi.training import Reconstruction, ReconstructionDistance, TrainingBatch
from mflow_sbi.training.classifier_objectives import AlicesLoss, BinaryCrossEntropy
from mflow_sbi.training.joint_objectives import ScoreMatching, SurfaceNegativeLogProb
from mflow_sbi.training.objectives import LatentNegativeLogProb, ReferenceNegativeLogProb
from mflow_sbi.training.ratio_objectives import (
    RatioDivergence,
    RatioLikelihood,
    RatioScore,
    RichestRatio,
)
from mflow_sbi.training.score_objectives import LocalScoreLoss, TemplateEntropy
from mflow_sbi.training.transport import SampleTransport

from ..densities.toys import CROSS_SECTION, EXPONENTS, quadratic_ratio

N, DIM = 12, 4
FLOW = FlowOptions(layers=2, hidden=16, bins=5)
THETA = np.random.default_rng(1).normal(size=(400, 2))


class Case(NamedTuple):
    """An objective, a surrogate and the module it moves; whether it is one sum over events."""

    objective: Any
    make: Callable[[], tuple[Any, nn.Module]]
    eventwise: bool = True


def _flow() -> tuple[Any, nn.Module]:
    flow, reference = build_flow(DIM, 2, FLOW, 1).double(), build_flow(DIM, 0, FLOW, 2).double()
    surrogate = SimpleNamespace(
        latent_log_prob=flow.log_prob,
        log_prob=flow.log_prob,
        log_likelihood=flow.log_prob,
        reference_log_prob=reference.log_prob,
    )
    return surrogate, _shaken(nn.ModuleList([flow, reference]))


def _morphing(points: int = 0) -> tuple[Any, nn.Module]:
    ratio = quadratic_ratio(points=points)[0]
    return SimpleNamespace(ratio=ratio), ratio


def _residual() -> tuple[Any, nn.Module]:
    shape = ResidualShape(DIM, 2, 1, 16, 2, 1, candidates=64, points=64)
    group = SymmetryGroup.generated_by([], DIM, 2)
    ratio = ResidualRatio(shape, seed=1).fill(THETA, group).double()
    return SimpleNamespace(ratio=_shaken(ratio)), ratio


def _pairs() -> tuple[Any, nn.Module]:
    group = SymmetryGroup.generated_by([], DIM, 2)
    network = PairNetwork(PairShape(DIM, 2, 1, 16, 2, 1), seed=3).double().fill(THETA, group)
    joint = JointRatio(EXPONENTS, CROSS_SECTION, np.zeros(2), np.ones(2))
    return SimpleNamespace(ratio=network, joint=joint), _shaken(network)


def _generator() -> tuple[Any, nn.Module]:
    """Return a surrogate whose events depend on theta only, whatever the noise."""
    decoder = _shaken(nn.Linear(2, DIM).double())
    density = SimpleNamespace(
        whitening=SimpleNamespace(mean=torch.zeros(1).double()),
        features=2,
        decode_noise=lambda noise, theta: theta,  # noqa: ARG005
    )
    return SimpleNamespace(density=density, decode=decoder), decoder


def _local_score() -> tuple[Any, nn.Module]:
    score = _shaken(nn.Linear(DIM, 2).double())
    target = SimpleNamespace(of=lambda components: (components[:, 0], components[:, 1:3]))
    return SimpleNamespace(target=target, score=SimpleNamespace(in_turn=score)), score


def _shaken(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return module


CASES = {
    "latent": Case(LatentNegativeLogProb(), _flow),
    "reference": Case(ReferenceNegativeLogProb(), _flow),
    "surface": Case(SurfaceNegativeLogProb(), _flow),
    "score matching": Case(ScoreMatching(), _flow),
    "likelihood, morphing": Case(RatioLikelihood(), _morphing),
    "likelihood, learned rate": Case(RatioLikelihood(), lambda: _morphing(points=400)),
    "likelihood, residual": Case(RatioLikelihood(), _residual),
    "score, morphing": Case(RatioScore(0.7), _morphing),
    "score, residual": Case(RatioScore(0.7), _residual),
    "divergence": Case(RatioDivergence(), _morphing, eventwise=False),
    "divergence, learned rate": Case(
        RatioDivergence(), lambda: _morphing(points=400), eventwise=False
    ),
    "richest": Case(RichestRatio(), _morphing, eventwise=False),
    "cross-entropy": Case(BinaryCrossEntropy(N + 2), _pairs, eventwise=False),
    "alices": Case(AlicesLoss(N + 2, 0.7), _pairs, eventwise=False),
    "alice": Case(AlicesLoss(N + 2, 0.0), _pairs, eventwise=False),
    "local score": Case(LocalScoreLoss(), _local_score),
    "templates": Case(TemplateEntropy(), _flow),
    "transport": Case(SampleTransport(), _generator),
}
SIGNED = {k: case for k, case in CASES.items() if k != "transport"}  # moves mass: none below zero
EVENTWISE = {k: case for k, case in CASES.items() if case.eventwise}


def test_every_objective_is_in_the_table():
    rooms = [
        importlib.import_module(f"mflow_sbi.training.{room.name}")
        for room in pkgutil.iter_modules(training.__path__)
    ]
    found = {
        kind
        for room in rooms
        for kind in vars(room).values()
        if inspect.isclass(kind) and kind.__module__ == room.__name__
        if list(inspect.signature(kind.__call__).parameters) == ["self", "surrogate", "batch"]
    }
    here = {type(case.objective) for case in CASES.values()}
    without_weights = {Reconstruction, ReconstructionDistance, training.Objective}
    assert found == here | without_weights


def _batch(n: int = N, seed: int = 0) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    x, theta, resting, score = (
        torch.randn(n, k, generator=generator).double() for k in (DIM, 2, DIM, 2)
    )
    factor = torch.randn(n, 3, 3, generator=generator).double()
    square = factor @ factor.mT + 0.3 * torch.eye(3).double()
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    components = [square[:, i, j] * (1 if i == j else 2) for i, j in pairs]
    return TrainingBatch(x, theta, resting, score, torch.stack(components, dim=1))


def _weighted(batch: TrainingBatch, weight: Tensor) -> TrainingBatch:
    of_theta = theta_weights(batch.theta.numpy(), weight.numpy())
    return batch._replace(weight=weight, theta_weight=torch.from_numpy(of_theta))


def _gradient(objective: Any, surrogate: Any, module: nn.Module, batch: TrainingBatch) -> Tensor:
    module.zero_grad()
    objective(surrogate, batch).backward()
    moved = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(moved).clone()


def _assert_same(got: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", EVENTWISE.values(), ids=EVENTWISE)
def test_an_event_of_integer_weight_counts_as_so_many(case: Case):
    made, batch = case.make(), _batch()
    counts = torch.tensor([1, 3, 0, 2, 1, 1, 4, 1, 2, 1, 1, 5])
    weight = counts / counts.double().mean()
    repeated = batch.rows(torch.arange(N).repeat_interleave(counts))
    got = _gradient(case.objective, *made, _weighted(batch, weight))
    _assert_same(got, _gradient(case.objective, *made, repeated))
    plain = _gradient(case.objective, *made, batch)
    assert (got - plain).abs().max() > 1e-3 * plain.abs().max()


def test_the_divergence_counts_events_and_thetas_alike():
    made, batch = _morphing(), _batch()
    # the first four lend their thetas; the others are the events
    counts = torch.tensor([1, 1, 1, 1, 1, 3, 2, 0, 2, 1, 1, 5])
    weight = counts / counts.double().mean()
    repeated = batch.rows(torch.arange(N).repeat_interleave(counts))
    got = batch._replace(weight=weight, theta_weight=torch.ones(N).double())
    expected = _gradient(RatioDivergence(4), *made, repeated)
    _assert_same(_gradient(RatioDivergence(4), *made, got), expected)


@pytest.mark.parametrize("case", SIGNED.values(), ids=SIGNED)
def test_opposite_weights_cancel_and_weight_zero_is_no_event(case: Case):
    made, base = case.make(), _batch()
    gradients = []
    for seed, w in ((7, 1.5), (8, 0.0)):
        extra = _batch(1, seed)
        parts = [None if a is None else torch.cat([a, b, b]) for a, b in _paired(base, extra)]
        weight = torch.cat([torch.linspace(0.2, 2.0, N), torch.tensor([w, -w])]).double()
        batch = _weighted(TrainingBatch(*parts), weight)  # pyright: ignore[reportArgumentType]
        gradients.append(_gradient(case.objective, *made, batch))
    _assert_same(*gradients)


def _paired(first: TrainingBatch, second: TrainingBatch) -> Any:
    return zip(first, second, strict=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_of_one_are_none(case: Case):
    made, batch = case.make(), _batch()
    ones = torch.ones(N).double()
    got = _gradient(case.objective, *made, _weighted(batch, ones))
    _assert_same(got, _gradient(case.objective, *made, batch))


def test_transport_refuses_negative_mass():
    made, batch = _generator(), _batch()
    weight = torch.linspace(-0.1, 2.0, N).double()
    with pytest.raises(TrainingError, match="weights >= 0, got negative"):
        SampleTransport()(made[0], _weighted(batch, weight))


@pytest.mark.parametrize("objective", [Reconstruction(), ReconstructionDistance(0.0)])
def test_the_surface_is_where_events_are_whatever_their_weights(objective):
    line = nn.Linear(DIM, 1, bias=False).double()
    chart = SimpleNamespace(
        coordinates=lambda x: (line(x), x[:, :0]),
        decode=lambda u: u @ line.weight,
        project=lambda x: line(x) @ line.weight,
    )
    batch = _batch()
    weighted = _weighted(batch, torch.linspace(-0.3, 2.0, N).double())
    made = SimpleNamespace(chart=chart), line
    assert torch.equal(_gradient(objective, *made, weighted), _gradient(objective, *made, batch))


X, Z, POINTS = 5, 2, 4


class _Table(nn.Module):
    """log r of discrete x and theta: theta is one-hot, so that its components are r itself."""

    least, learns_rate = 1e-9, False

    def __init__(self, log_ratio: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(log_ratio.clone())

    def encode_in_turn(self, resting: Tensor) -> Tensor:
        return resting @ self.values.exp()

    def normalised(self, components: Tensor) -> Tensor:
        return components

    def weights(self, theta: Tensor) -> Tensor:
        return theta


class _Normalised(_Table):
    """The same over its mean at the thetas of the batch."""

    def log_ratio_in_turn(self, resting: Tensor, theta: Tensor, weights: PairWeights) -> Tensor:
        table, chance = resting @ self.values @ theta.T, weights.of_theta
        return table.diagonal() - (table.exp() @ chance / chance.sum()).log()


class _Free(_Table):
    """A table of pairs, as a classifier has it."""

    def encode_in_turn(self, resting: Tensor) -> Tensor:
        return resting @ self.values

    def log_ratio_in_turn(self, encoded: Tensor, theta: Tensor) -> Tensor:
        return (encoded[:, None] * theta).sum(dim=-1)


def _population() -> tuple[TrainingBatch, Tensor]:
    """Return all events (x, z, theta) with signed p as weights, thetas with pi, and log r (X, P).

    The last rows carry weights of theta alone, so that pairs are all events times all thetas.
    """
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 2.0, size=(X, Z, POINTS)) * [2, 1, 4, 1]
    p[:, 1] *= -0.3 * p[:, 0]  # the second z is a negative contribution
    p[:, 1] /= p[:, 0].max()
    p /= p.sum()
    prior = p.sum(axis=(0, 1))
    of_joint = p / prior / p.sum(axis=2, keepdims=True)  # p(x, z|theta) / p(x, z)
    ratio = p.sum(axis=1) / prior / p.sum(axis=(1, 2))[:, None]
    x, z, theta = (index.ravel() for index in np.indices(p.shape))
    eye = torch.eye(POINTS).double()
    n = len(x) + POINTS
    resting = torch.cat([torch.zeros(POINTS, X), torch.eye(X)[x]]).double()
    labels = torch.cat([eye, torch.from_numpy(of_joint[x, z])])
    at = torch.cat([eye, eye[theta]])
    weight = torch.cat([torch.zeros(POINTS), n * torch.from_numpy(p.ravel())])
    of_theta = torch.cat([(n - 1) * torch.from_numpy(prior), torch.zeros(len(x))])
    batch = TrainingBatch(resting, at, resting, None, labels, weight, of_theta)
    return batch, torch.from_numpy(np.log(ratio))


def test_the_minimum_is_there_for_few_thetas_of_a_batch_too():
    batch, _ = _population()
    assert batch.weight is not None
    kept = (batch.weight > 0).nonzero()[:, 0]  # events of equal chances, weighted by p(x, theta)
    drawn = kept[torch.randint(len(kept), (60_000,), generator=torch.Generator().manual_seed(0))]
    x, theta = batch.x[drawn], batch.theta[drawn]
    weight = batch.weight[drawn] / batch.weight[kept].mean()
    joint = x.T @ (weight[:, None] * theta) / len(drawn)
    exact = (joint * joint.sum() / joint.sum(dim=0) / joint.sum(dim=1, keepdim=True)).log()
    ratio = ResidualRatio(ResidualShape(DIM, 2, 1, 16, 2, 1, candidates=4, points=8))
    ratio.pairs = _Free(exact)  # pyright: ignore[reportAttributeAccessIssue]
    weighted = TrainingBatch(x, theta, x, weight=weight, theta_weight=weight)
    made = SimpleNamespace(ratio=ratio), ratio.pairs
    assert _gradient(RatioLikelihood(), *made, weighted).abs().max() < 0.003
    # with the weight of the very event in the mean: 0.007; with none: 0.06
    without = weighted._replace(theta_weight=torch.ones_like(weight))
    assert _gradient(RatioLikelihood(), *made, without).abs().max() > 0.03


MINIMA = {
    "likelihood": (RatioLikelihood(), _Normalised),
    "divergence": (RatioDivergence(POINTS), _Table),
    "cross-entropy": (BinaryCrossEntropy(1000), _Free),
    "alice": (AlicesLoss(1000, 0.0), _Free),
}


@pytest.mark.parametrize("name", MINIMA)
def test_the_minimum_is_the_ratio_of_the_weighted_density(name: str):
    objective, table = MINIMA[name]
    batch, log_ratio = _population()
    assert batch.weight is not None
    assert float(batch.weight.min()) < 0
    ratio = table(log_ratio)
    made = SimpleNamespace(ratio=ratio, joint=ratio), ratio
    assert _gradient(objective, *made, batch).abs().max() < 1e-12
    for changes in (
        {"weight": batch.weight.abs()},
        {"theta_weight": torch.ones(len(batch.x)).double()},
    ):
        other = _gradient(objective, *made, batch._replace(**changes))
        unbiased = name == "divergence" and "theta_weight" in changes
        assert (other.abs().max() < 1e-12) == unbiased
