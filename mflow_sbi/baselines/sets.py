r"""Sets of events of one theta each, on which a posterior estimator of sets is trained.

theta_s ~ pi and a size n_s, uniform from 1 to M, are drawn first; then n_s events at theta_s,

* from events that carry morphing components: any of the training events, with weights
  p(x|theta_s) / p(x), p(x) the density of all training events.  They tell the estimator what
  events and theta alone do not;
* from events that were simulated in groups of one theta: of the group.

Training files with one event per theta and without components hold no sets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mflow_sbi.baselines.theta_density import ThetaDensity
from mflow_sbi.errors import EventDataError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section

__all__ = ["TrainingSets", "draw_training_sets"]

_POOL = 16_384
_BLOCK = 64
"""Thetas at a time, which draw from the same part of the events: a part worth 50 events per drawn
one at almost all thetas, another part for every block."""
_LEAST_GROUP = 2


@dataclass(frozen=True, eq=False)
class TrainingSets:
    """S sets of up to M events.

    Args:
        theta: standardised parameters behind each set, (S, p).
        rows: numbers of their events among the N training events, N for none, (S, M).
        note: where they come from, one line.
    """

    theta: Tensor
    rows: Tensor
    note: str


def draw_training_sets(
    events: EventSample, prior: ThetaDensity, n_sets: int, most_events: int, seed: int
) -> TrainingSets:
    """Return training sets from morphing components, or from groups of events of one theta.

    Args:
        events: training events.
        prior: pi, in units of mean and std of the training thetas.
        n_sets: S.
        most_events: M; groups may hold fewer, which then is M.
        seed: of everything drawn.

    Raises:
        MissingReference: the events carry no components and are not grouped by theta.
        EventDataError: the events say nothing about some theta.
    """
    generator = torch.Generator().manual_seed(seed)
    selected = events.report is not None and bool(events.report.cuts)
    if events.components is not None and events.metadata.morphing is not None and not selected:
        return _weighted(events, prior, n_sets, most_events, generator)
    theta = events.require_theta()
    values, group = np.unique(theta, axis=0, return_inverse=True)
    counts = np.bincount(group.ravel())
    if counts.min() < _LEAST_GROUP:
        message = (
            "the recipe 'sbi_npe' learns from sets of events of one theta: expected morphing "
            "components in the file (and no selection), or several events at each theta, got "
            f"{len(theta)} events at {len(values)} thetas; simulate more events per theta, or "
            "take 'sbi_npe_single', which combines events one by one"
        )
        raise MissingReference(message)
    most = int(min(most_events, counts.min()))
    order = torch.from_numpy(np.argsort(group.ravel(), kind="stable"))
    rows = _grouped(order, torch.from_numpy(counts), n_sets, most, generator)
    scaled = (theta - theta.mean(axis=0)) / theta.std(axis=0)
    first = torch.from_numpy(scaled)[rows[:, 0]]
    note = (
        f"{n_sets:,} training sets of 1 to {most} events, each of one of the {len(values):,} "
        "thetas at which events were simulated"
    )
    return TrainingSets(first.float(), rows, note)


def _sizes(n_sets: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, most + 1, (n_sets,), generator=generator)


def _cut(rows: Tensor, sizes: Tensor, n_events: int) -> Tensor:
    """Return the rows with the number of no event behind the first n_s."""
    return torch.where(torch.arange(rows.shape[1]) < sizes[:, None], rows, n_events)


def _grouped(
    order: Tensor, counts: Tensor, n_sets: int, most: int, generator: torch.Generator
) -> Tensor:
    """Return rows of different events of one group each, (S, most)."""
    starts = counts.cumsum(0) - counts
    which = torch.randint(len(counts), (n_sets,), generator=generator)
    keys = torch.rand((n_sets, int(counts.max())), generator=generator)
    keys[torch.arange(keys.shape[1]) >= counts[which][:, None]] = 2.0
    chosen = keys.argsort(dim=1)[:, :most]
    rows = order[starts[which][:, None] + chosen]
    return _cut(rows, _sizes(n_sets, most, generator), len(order))


def _weighted(
    events: EventSample,
    prior: ThetaDensity,
    n_sets: int,
    most: int,
    generator: torch.Generator,
) -> TrainingSets:
    """Return sets at theta ~ pi, drawn with weights p(x|theta) / p(x)."""
    theta = prior.sample(n_sets, generator)
    own = events.require_theta()
    weights = _monomials(events, theta.numpy() * own.std(axis=0) + own.mean(axis=0))
    normalised = _normalised_components(events)
    n_events, least = len(normalised), np.inf
    rows = torch.empty((n_sets, most), dtype=torch.long)
    for start in range(0, n_sets, _BLOCK):
        block = slice(start, start + _BLOCK)
        part = torch.randint(n_events, (min(_POOL, n_events),), generator=generator)
        ratio = (weights[block] @ normalised[part].T).clamp(min=0.0)
        worth = ratio.sum(dim=1).square() / ratio.square().sum(dim=1)
        least = min(least, float(worth.min()))
        rows[block] = part[torch.multinomial(ratio, most, replacement=True, generator=generator)]
    if not least > 1:
        message = (
            "the training events say nothing about some theta of their own distribution: expected "
            f"more than one effective event, got {least:.1f}; simulate more events"
        )
        raise EventDataError(message)
    note = (
        f"{n_sets:,} training sets of 1 to {most} events were drawn from {n_events:,} events by "
        f"their morphing components, which other estimators are not told; {min(_POOL, n_events):,}"
        f" events at a time are worth at least {least:.0f} at any theta"
    )
    return TrainingSets(theta.float(), _cut(rows, _sizes(n_sets, most, generator), n_events), note)


def _monomials(events: EventSample, theta: Array) -> Tensor:
    """Return w_k(theta) / sigma(theta), (S, K)."""
    morphing = events.metadata.morphing
    assert morphing is not None
    basis, total = MorphingBasis(np.array(morphing.exponents)), np.array(morphing.cross_section)
    return torch.from_numpy(
        basis.weights(theta) / total_cross_section(basis, total, theta)[:, None]
    )


def _normalised_components(events: EventSample) -> Tensor:
    """Return c_k of every event over their density among all training events, (N, K)."""
    components = events.require_components()
    average = _monomials(events, events.require_theta()).mean(dim=0).numpy()
    density = components @ average
    if not (density > 0).all():
        message = (
            f"components: expected events of positive density, got {int((density <= 0).sum())} "
            "without; look for events of other settings in the file"
        )
        raise EventDataError(message)
    return torch.from_numpy(components / density[:, None])
