"""From jagged branches to the leading objects of each event, after looking at every number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.expressions import FourMomentum
from mflow_sbi.events.layouts import ObjectBranches
from mflow_sbi.events.root_files import EventTree
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = ["Objects", "read_objects"]

_FLOAT32 = float(np.finfo(np.float32).eps)
_PHI_SLACK = 8 * np.pi * _FLOAT32  # float32(pi) > pi
_ENERGY_SLACK = 64 * _FLOAT32  # times (1 + |eta|): cosh amplifies the rounding of eta
_MASS_SLACK = 2 * np.sqrt(_FLOAT32)  # rounding of E^2 - p^2 in float32, relative to E
_LARGEST_ENERGY = 1e5  # GeV, above any collider


@dataclass(frozen=True, eq=False)
class Objects:
    """All objects of one collection: `counts` per event, (N,), and their kinematics end to end."""

    counts: NDArray[np.int64]
    pt: Array
    eta: Array
    phi: Array
    mass: Array

    def leading(self, n: int, events: NDArray[np.intp]) -> tuple[FourMomentum, ...]:
        """Return the n objects of largest pT of each event, largest first.

        Args:
            n: How many objects.
            events: Which events; all must have at least n.
        """
        first = (np.cumsum(self.counts) - self.counts)[events]
        counts = self.counts[events]
        exists = np.arange(counts.max(initial=n)) < counts[:, None]
        place = first[:, None] + np.where(exists, np.arange(exists.shape[1]), 0)
        pt = np.where(exists, self.pt[place], -np.inf)
        order = np.argsort(-pt, axis=1, kind="stable")[:, :n] + first[:, None]
        return tuple(
            FourMomentum.from_pt_eta_phi_m(
                self.pt[which], self.eta[which], self.phi[which], self.mass[which]
            )
            for which in order.T
        )


def read_objects(tree: EventTree, branches: ObjectBranches, start: int, stop: int) -> Objects:
    """Return the objects of the events from `start` to `stop`.

    Raises:
        EventFileError: A branch is missing or unreadable.
        EventDataError: Unequal lengths, NaN or infinities, negative pT or mass, angles that are
            not radians in [-pi, pi], energies that do not fit, values that cannot be GeV.
    """
    counts, pt = tree.lists(branches.pt, start, stop)
    others = {}
    for branch in (branches.eta, branches.phi, branches.mass, branches.energy):
        optional = branch == branches.energy and branch not in tree.branches
        if branch is None or optional:
            continue
        lengths, others[branch] = tree.lists(branch, start, stop)
        if not np.array_equal(lengths, counts):
            i = int(np.argmax(lengths != counts))
            msg = (
                f"{tree.path}: {branches.pt!r} has {counts[i]} and {branch!r} {lengths[i]} values "
                f"in event {start + i} (unequal in "
                f"{counted(int((lengths != counts).sum()), 'event')}); expected equal lengths. "
                "The file was put together wrongly: write it again."
            )
            raise EventDataError(msg)
    mass = others[branches.mass] if branches.mass else np.zeros_like(pt)
    objects = Objects(counts, pt, others[branches.eta], others[branches.phi], mass)
    _require_physical(tree, branches, objects, others.get(branches.energy or ""))
    return Objects(counts, pt, objects.eta, objects.phi, np.maximum(mass, 0.0))


def _require_physical(
    tree: EventTree, branches: ObjectBranches, objects: Objects, energy: Array | None
) -> None:
    def refuse(wrong: NDArray[np.bool_], branch: str, values: Array, sentence: str) -> None:
        if wrong.any():
            i = int(np.argmax(np.abs(np.where(wrong, values, 0.0))))
            msg = (
                f"{tree.path}: {branch!r} of {int(wrong.sum()):,} of "
                f"{counted(len(wrong), 'object')} {sentence.format(worst=f'{values[i]:.6g}')}"
            )
            raise EventDataError(msg)

    pt, eta, phi, mass = objects.pt, objects.eta, objects.phi, objects.mass
    refuse(
        pt < 0,
        branches.pt,
        pt,
        "is negative (e.g. {worst}); expected pT >= 0 in GeV. Check how the branch was filled.",
    )
    refuse(
        np.abs(phi) > np.pi + _PHI_SLACK,
        branches.phi,
        phi,
        "lies beyond pi (up to {worst}); expected radians in [-pi, pi]. Convert degrees by "
        "pi/180, or wrap [0, 2 pi).",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        momentum = pt * np.cosh(eta)
    refuse(
        momentum > _LARGEST_ENERGY,
        branches.pt,
        momentum,
        "gives |p| = pT cosh(eta) up to {worst} GeV, above any collider; expected GeV. If the "
        "file is in MeV, divide by 1000.",
    )
    refuse(
        mass < -_MASS_SLACK * np.hypot(momentum, mass),
        branches.mass or "",
        mass,
        "is negative beyond float32 rounding of a massless object (e.g. {worst}); expected a "
        "mass >= 0 in GeV.",
    )
    if energy is not None and branches.energy:
        refuse(
            np.abs(energy - momentum) > _ENERGY_SLACK * (1 + np.abs(eta)) * momentum,
            branches.energy,
            energy,
            f"differs from {branches.pt} cosh({branches.eta}) (e.g. E = {{worst}}); expected "
            "massless objects with all branches in GeV. Check the units (MeV?) and the branches.",
        )
