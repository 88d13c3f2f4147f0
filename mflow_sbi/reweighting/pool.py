r"""A pool: events with morphing components, and the density they were drawn from.

Averages over the events of a pool with the factors

    y_ik = c_k(x_i) / q(x_i),    C_k = mean_i y_ik,    weight_i(theta) = w(theta) . y_i

are integrals at any theta.  q is known in two cases:

* events simulated at their own theta_j, unweighted (WBF files, the full chain):
  q(x) = mean_j p(x|theta_j) = c(x) . a, a = mean_j w(theta_j) / sigma(theta_j), over all thetas
  of the pool, which keeps the factors bounded where the thetas are;
* weighted events, whose components came from weights (`with_morphing`): these are y_ik themselves,
  and the metadata say so by the measure `SAMPLING_MEASURE`.

A selection counts.  Events and thetas that are left are those of sigma_s(theta) = w(theta) . C_s,
unknown, with C_s = mean_i y_ik and q made of sigma_s in place of sigma.  These equations determine
C_s up to a factor (they are those of multistate reweighting, J. Chem. Phys. 129, 124105), and the
share that was selected gives it: mean_j sigma(theta_j) / sigma_s(theta_j) = 1 / share.
"""

from dataclasses import dataclass, replace

import numpy as np

from mflow_sbi.errors import EventDataError, MissingReference
from mflow_sbi.events import EventSample, Morphing
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import CrossSectionEstimate, MorphingBasis, total_cross_section

__all__ = ["EVENT_MEASURE", "SAMPLING_MEASURE", "MorphingPool", "selected_share"]

SAMPLING_MEASURE = "density of the sampling: the mean of c_k over the events is C_k"
EVENT_MEASURE = "c_k up to a factor of each event"
_CONVERGED = 1e-10
_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class MorphingPool:
    """Events that stand for the density at every theta.

    Args:
        sample: the events.
        basis: the monomials.
        carried: y_ik, pb, (N, K).
        estimate: of sigma(theta) after the selection, from these events.
    """

    sample: EventSample
    basis: MorphingBasis
    carried: Array
    estimate: CrossSectionEstimate

    @classmethod
    def of(cls, sample: EventSample) -> "MorphingPool":
        """Return the pool of a sample.

        Raises:
            MissingReference: no components, or neither a sampling density nor theta.
            EventDataError: fewer than two events; weighted ones whose sampling is not known;
                events without density at the thetas of the pool.
        """
        components, morphing = sample.require_components(), sample.metadata.morphing
        if morphing is None:
            message = "the events carry components, but the metadata do not say of which monomials"
            raise MissingReference(message)
        basis = MorphingBasis(np.array(morphing.exponents))
        carried, share = components, selected_share(sample)
        if morphing.measure != SAMPLING_MEASURE:
            carried = components / _mixture(sample, basis, morphing)[:, None]
        estimate = CrossSectionEstimate.of(basis, carried, len(sample) / share)
        return cls(sample, basis, carried, estimate)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.sample)

    def morphing(self, measure: str) -> Morphing:
        """Return the record of the components of events taken from this pool.

        C_k are those of the record, after a selection of the simulator's events those of the
        pool.  Exact components keep their measure; joint ones get the given one.
        """
        known = self.sample.metadata.morphing
        assert known is not None
        measured = replace(
            known, measure=known.measure if known.likelihood == "exact" else measure
        )
        if known.measure == SAMPLING_MEASURE or selected_share(self.sample) == 1.0:
            return measured
        return replace(
            measured,
            cross_section=tuple(self.estimate.value.tolist()),
            cross_section_error=tuple(self.estimate.error.tolist()),
        )


def selected_share(sample: EventSample) -> float:
    """Return the share of the events looked at that were kept on reading; 1 where unknown."""
    report = sample.report
    if report is None or not any(report.dropped.values()) or report.n_kept == 0:
        return 1.0
    return report.n_kept / report.n_read


def _mixture(sample: EventSample, basis: MorphingBasis, morphing: Morphing) -> Array:
    """Return q(x_i) = c(x_i) . a of events at their own thetas, (N,)."""
    sample.require_unweighted()
    theta, components = sample.require_theta(), sample.require_components()
    distinct = theta[:1] if (theta == theta[0]).all() else theta
    total = np.array(morphing.cross_section)
    sigma = total_cross_section(basis, total, distinct)
    w = basis.weights(distinct)
    density = components @ (w / sigma[:, None]).mean(axis=0)
    n_without = int((density <= 0).sum())
    if n_without:
        message = (
            f"{n_without:,} of {len(sample):,} events have no density at the thetas of the pool "
            "they came from; expected a positive one. Leave those events out, or check that "
            "components and thetas belong together."
        )
        raise EventDataError(message)
    share = selected_share(sample)
    if share == 1.0:
        return density
    selected = _selected_total(components, w, share * total)
    left = w @ selected
    factor = share * (sigma / left).mean()
    return components @ (w / left[:, None]).mean(axis=0) / factor


def _selected_total(components: Array, w: Array, start: Array) -> Array:
    """Return C_s = mean_i c_i / (c_i . a), a = mean_j w_j / (w_j . C_s), up to a factor, (K,)."""
    total = start
    for _ in range(_MOST_STEPS):
        average = (w / (w @ total)[:, None]).mean(axis=0)
        new = (components / (components @ average)[:, None]).mean(axis=0)
        new *= np.linalg.norm(start) / np.linalg.norm(new)
        moved = np.abs(new - total).max()
        total = new
        if moved < _CONVERGED * np.abs(total).max():
            return total
    message = (
        f"the cross section after the selection was not found in {_MOST_STEPS} steps: the events "
        "left at different thetas hardly overlap. Loosen the selection, or take more events."
    )
    raise EventDataError(message)
