"""From jagged branches to the objects of each event, after looking at every number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mflow_sbi.errors import EventDataError
from mflow_sbi.events.columns import EventTree
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.layouts import MissingBranches, ObjectBranches
from mflow_sbi.events.momenta import FourMomentum, PlanarMomentum
from mflow_sbi.events.physical import (
    require_azimuths,
    require_cartesian,
    require_gev,
    require_not_negative,
    require_polar,
)
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = ["OBJECT_COLUMNS", "Objects", "object_columns", "read_missing", "read_objects"]

OBJECT_COLUMNS = ("pt", "eta", "phi", "m", "e", "px", "py", "pz")


@dataclass(frozen=True, eq=False)
class Objects:
    """All objects of one collection: `counts` per event, (N,), and what they are, end to end.

    Attributes:
        counts: Number of objects of each event, (N,).
        pt: Their transverse momenta, by which they are ordered.
        momenta: Their four-momenta.
        further: What else is asked of them, by name.
    """

    counts: NDArray[np.int64]
    pt: Array
    momenta: FourMomentum
    further: Mapping[str, Array] = field(default_factory=dict)

    def kept(self, mask: NDArray[np.bool_]) -> "Objects":
        """Return the objects of a mask over all of them."""
        events = np.repeat(np.arange(len(self.counts)), self.counts)
        counts = np.bincount(events[mask], minlength=len(self.counts)).astype(np.int64)
        further = {name: column[mask] for name, column in self.further.items()}
        return Objects(counts, self.pt[mask], self.momenta.take(mask), further)

    def leading(self, n: int, events: NDArray[np.intp]) -> tuple[FourMomentum, ...]:
        """Return the n objects of largest pT of each event, largest first.

        Args:
            n: How many objects.
            events: Which events; all must have at least n.
        """
        return tuple(self.momenta.take(which) for which in self._places(n, events))

    def leading_further(self, n: int, events: NDArray[np.intp]) -> dict[str, tuple[Array, ...]]:
        """Return what else is asked of these objects, by name."""
        places = self._places(n, events)
        return {
            name: tuple(column[which] for which in places) for name, column in self.further.items()
        }

    def _places(self, n: int, events: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
        if n == 0:
            return ()
        first = (np.cumsum(self.counts) - self.counts)[events]
        counts = self.counts[events]
        exists = np.arange(counts.max(initial=n)) < counts[:, None]
        place = first[:, None] + np.where(exists, np.arange(exists.shape[1]), 0)
        pt = np.where(exists, self.pt[place], -np.inf)
        order = np.argsort(-pt, axis=1, kind="stable")[:, :n] + first[:, None]
        return tuple(order.T)

    @classmethod
    def together(cls, parts: Sequence["Objects"]) -> "Objects":
        """Return the objects of several collections as one; what else they have is left out."""
        events = [np.repeat(np.arange(len(p.counts)), p.counts) for p in parts]
        order = np.argsort(np.concatenate(events), kind="stable")
        columns = {
            name: np.concatenate([getattr(part.momenta, name) for part in parts])[order]
            for name in ("e", "px", "py", "pz")
        }
        counts = np.sum([part.counts for part in parts], axis=0)
        pt = np.concatenate([part.pt for part in parts])[order]
        return cls(counts, pt, FourMomentum(**columns))

    def sum_pt(self) -> Array:
        """Return the scalar sum of pT of each event, (N,)."""
        events = np.repeat(np.arange(len(self.counts)), self.counts)
        sums = np.bincount(events, weights=self.pt, minlength=len(self.counts))
        return sums.astype(np.float64)


def read_objects(
    tree: EventTree,
    branches: ObjectBranches,
    start: int,
    stop: int,
    selection: Expression | None = None,
    further: Sequence[str] = (),
) -> tuple[Objects, int]:
    """Return the objects of the events from `start` to `stop`, and how many were dropped.

    Args:
        tree: The tree.
        branches: Where the objects are.
        start: First entry.
        stop: One past the last.
        selection: What objects must satisfy: a sentence of their columns.
        further: What else is asked of them: names of branches without the prefix.

    Raises:
        EventFileError: A branch is missing or unreadable.
        EventDataError: Unequal lengths, NaN or infinities, negative pT or mass, angles that are
            not radians in [-pi, pi], energies that do not fit, values that cannot be GeV.
    """
    reader = _Collection(tree, branches, start, stop)
    objects, columns = _cartesian(reader) if branches.cartesian else _polar(reader)
    also = {name: reader.column(branches.prefix + name) for name in further}
    objects = replace(objects, further=also)
    if selection is None:
        return objects, 0
    columns |= {
        name: reader.column(branches.prefix + name)
        for name in selection.columns
        if name not in columns
    }
    mask = np.broadcast_to(selection(columns), objects.pt.shape)
    return objects.kept(mask), int(np.count_nonzero(~mask))


def read_missing(
    tree: EventTree, branches: MissingBranches, start: int, stop: int
) -> PlanarMomentum:
    """Return missing transverse momentum of the events from `start` to `stop`.

    Raises:
        EventDataError: Not one number per event, negative, or angles that are not radians.
    """
    first, second = (tree.scalars(branch, start, stop) for branch in branches.needed)
    if branches.pt is None:
        pt = np.hypot(first, second)
        require_gev(tree.path, branches.px or "", pt, pt, "missing pT")
        return PlanarMomentum(first, second)
    require_gev(tree.path, branches.pt, first, first, "missing pT")
    require_not_negative(tree.path, branches.pt, first)
    require_azimuths(tree.path, branches.phi or "", second)
    return PlanarMomentum.from_pt_phi(first, second)


class _Collection:
    """Reads branches of one collection; all of them must have the lengths of the first."""

    def __init__(self, tree: EventTree, branches: ObjectBranches, start: int, stop: int) -> None:
        self.tree, self.branches, self.start, self.stop = tree, branches, start, stop
        self.first = branches.momentum[0]
        self.counts, self.values = tree.lists(self.first, start, stop)

    def column(self, branch: str) -> Array:
        if branch == self.first:
            return self.values
        lengths, values = self.tree.lists(branch, self.start, self.stop)
        if not np.array_equal(lengths, self.counts):
            i = int(np.argmax(lengths != self.counts))
            msg = (
                f"{self.tree.path}: {self.first!r} has {self.counts[i]} and {branch!r} "
                f"{lengths[i]} values in event {self.start + i} (unequal in "
                f"{counted(int((lengths != self.counts).sum()), 'event')}); expected equal "
                "lengths. The file was put together wrongly: write it again."
            )
            raise EventDataError(msg)
        return values

    def mass(self) -> Array | None:
        mass = self.branches.mass
        if isinstance(mass, str):
            return self.column(mass)
        return None if mass is None else np.full(len(self.values), float(mass))


def _polar(reader: _Collection) -> tuple[Objects, dict[str, Array]]:
    branches, present = reader.branches, reader.tree.branches
    pt, eta, phi = (reader.column(branch) for branch in branches.momentum)
    mass = reader.mass()
    mass = np.zeros_like(pt) if mass is None else mass
    compared = branches.mass is None and branches.energy in present
    energy = reader.column(branches.energy or "") if compared else None
    require_polar(reader.tree.path, branches, (pt, eta, phi, mass), energy)
    mass = np.maximum(mass, 0.0)
    momenta = FourMomentum.from_pt_eta_phi_m(pt, eta, phi, mass)
    columns = _columns(momenta) | {"pt": pt, "eta": eta, "phi": phi, "m": mass}
    return Objects(reader.counts, pt, momenta), columns


def _cartesian(reader: _Collection) -> tuple[Objects, dict[str, Array]]:
    branches = reader.branches
    px, py, pz = (reader.column(branch) for branch in branches.momentum)
    mass = reader.mass()
    if mass is None:
        energy = reader.column(branches.energy or "")
    else:
        energy = np.sqrt(px * px + py * py + pz * pz + mass * mass)
    momenta = FourMomentum(energy, px, py, pz)
    require_cartesian(reader.tree.path, branches, momenta, mass)
    columns = _columns(momenta)
    return Objects(reader.counts, columns["pt"], momenta), columns


def _columns(momenta: FourMomentum) -> dict[str, Array]:
    return {name: getattr(momenta, name) for name in OBJECT_COLUMNS}


def object_columns(branches: ObjectBranches, tree: EventTree) -> Mapping[str, str]:
    """Return the further columns of a collection in a tree: name without prefix -> branch."""
    prefix = branches.prefix
    if not prefix:
        return {}
    further = {
        branch.removeprefix(prefix): branch
        for branch in tree.branches
        if branch.startswith(prefix) and branch not in branches.needed
    }
    return {name: branch for name, branch in further.items() if name.isidentifier()}
