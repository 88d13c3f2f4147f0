r"""Features of collider events: what a squared amplitude is made of, without azimuths.

Objects have columns e_o, px_o, py_o, pz_o.  They are boosted transversally into the frame where
the whole system has no transverse momentum (rapidity kept); there, for every object

    log pT,   rapidity y,   log m        (m where it is not zero)

for the system log M, rapidity Y and its transverse momentum K in the laboratory, along and across
the first object, and for every pair

    cos, sin, cos 2, sin 2 of the azimuth between them,   log m_ij.

All are invariant under rotations about the beam.  Each is even or odd under

    reflection   py -> -py:              sines and the transverse momentum across are odd;
    exchange     py -> -py, pz -> -pz:   a rotation that swaps the beams: rapidities are odd too.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mflow_sbi.densities.features import Features
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.interfaces import Array, Events

__all__ = ["KinematicFeatures", "find_objects"]

COMPONENTS = ("e", "px", "py", "pz")
RECOIL_SCALE = 25.0
"""GeV: where the system's transverse momentum turns from linear to logarithmic."""
MASSLESS = 1e-5
"""Objects of median m / E below this are massless: their mass is rounding."""
COMPOSITE = 1e-6
TINY = 1e-30
SAMPLE_ROWS = 2000


class _Column(NamedTuple):
    """One feature and whether it is odd under azimuthal reflection and in the beam direction."""

    value: Tensor
    across: bool = False
    along_beam: bool = False


class _Momenta(NamedTuple):
    """Four-momenta, each component (..., N)."""

    e: Tensor
    px: Tensor
    py: Tensor
    pz: Tensor

    @property
    def pt2(self) -> Tensor:
        return (self.px.square() + self.py.square()).clamp_min(TINY)

    @property
    def mass2(self) -> Tensor:
        """(E - pz)(E + pz) - pT^2, not below rounding."""
        longitudinal = (self.e - self.pz) * (self.e + self.pz)
        return torch.maximum(longitudinal - self.pt2, (1e-7 * self.e).square() + TINY)

    @property
    def rapidity(self) -> Tensor:
        return torch.asinh(self.pz / torch.sqrt(self.mass2 + self.pt2))

    def __add__(self, other: "_Momenta") -> "_Momenta":  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Momenta(*(a + b for a, b in zip(self, other, strict=True)))


def find_objects(names: Sequence[str], x: Array) -> tuple[str, ...]:
    """Return the objects whose four-momenta are observables, without those that are sums of two.

    Args:
        names: of the observables.
        x: events in physical units, (N, n); sums are recognised by their values.
    """
    stems = [name.removeprefix("e_") for name in names if name.startswith("e_")]
    found = [s for s in stems if all(f"{c}_{s}" in names for c in COMPONENTS)]
    few = x[:SAMPLE_ROWS]
    momenta = {s: few[:, [list(names).index(f"{c}_{s}") for c in COMPONENTS]] for s in found}

    def is_sum(one: str) -> bool:
        others = (momenta[s] for s in found if s != one)
        size = COMPOSITE * abs(momenta[one]).max()
        return any(abs(a + b - momenta[one]).max() < size for a, b in combinations(others, 2))

    return tuple(s for s in found if not is_sum(s))


class KinematicFeatures(Features):
    """The features of this room for events that hold the four-momenta of some objects.

    Rebuild with the number of objects and `load_state_dict`.

    Args:
        n_objects: how many four-momenta.
    """

    columns: Tensor
    mean: Tensor
    std: Tensor
    massive: Tensor

    def __init__(self, n_objects: int) -> None:
        super().__init__(3 * n_objects + 5 + 5 * (n_objects * (n_objects - 1) // 2))
        self.n_objects = n_objects
        self.register_buffer("columns", torch.zeros(n_objects, 4, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(n_objects, 4, dtype=torch.float64))
        self.register_buffer("std", torch.ones(n_objects, 4, dtype=torch.float64))
        self.register_buffer("massive", torch.ones(n_objects, dtype=torch.bool))

    @classmethod
    def for_objects(
        cls,
        objects: Sequence[str],
        names: Sequence[str],
        mean: ArrayLike,
        std: ArrayLike,
        x: Events,
    ) -> Self:
        """Return the features of these objects in events standardised by mean and std (n,).

        Args:
            objects: o for columns e_o, px_o, py_o, pz_o; at least two.
            names: of the n observables.
            mean: (n,), physical units.
            std: (n,), physical units.
            x: standardised events, (N, n), that tell which objects have a mass.

        Raises:
            ConfigurationError: fewer than two objects, or a missing component.
        """
        wanted = [[f"{c}_{o}" for c in COMPONENTS] for o in objects]
        missing = [name for row in wanted for name in row if name not in names]
        if missing or len(objects) < 2:
            message = (
                f"kinematic features need the four-momenta of at least two objects, got "
                f"{list(objects)}; missing observables: {missing or 'none'}. Name objects whose "
                "e_, px_, py_, pz_ are observables, or take the features of any observables"
            )
            raise ConfigurationError(message)
        features = cls(len(objects))
        features.columns.copy_(torch.tensor([[list(names).index(n) for n in r] for r in wanted]))
        features.mean.copy_(torch.as_tensor(mean)[features.columns])
        features.std.copy_(torch.as_tensor(std)[features.columns])
        momenta = features._momenta(x[:SAMPLE_ROWS].double())
        relative = [float((torch.sqrt(p.mass2) / p.e).median()) for p in momenta]
        features.massive.copy_(torch.tensor(relative) > MASSLESS)
        return features

    def _momenta(self, x: Events) -> list[_Momenta]:
        physical = x[..., self.columns] * self.std + self.mean
        return [_Momenta(*row.unbind(dim=-1)) for row in physical.unbind(dim=-2)]

    def _columns(self, x: Events) -> list[_Column]:
        laboratory = self._momenta(x)
        total = laboratory[0]
        for momentum in laboratory[1:]:
            total = total + momentum
        objects = _without_recoil(laboratory, total)
        columns = []
        for momentum, massive in zip(objects, self.massive, strict=True):
            log_mass = 0.5 * torch.log(momentum.mass2)
            columns += [
                _Column(0.5 * torch.log(momentum.pt2)),
                _Column(momentum.rapidity, along_beam=True),
                _Column(torch.where(massive, log_mass, torch.zeros_like(log_mass))),
            ]
        columns += _of_system(total, laboratory[0])
        for first, second in combinations(objects, 2):
            columns += _of_pair(first, second)
        return columns

    def raw(self, x: Events) -> Tensor:
        """Return the features before standardisation, (N, n) -> (N, F)."""
        return torch.stack([column.value for column in self._columns(x)], dim=-1)

    def _signs(self) -> list[_Column]:
        """Return the columns of some event, for their parities."""
        momenta = torch.tensor([[9.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
        x = torch.zeros(1, int(self.columns.max()) + 1, dtype=torch.float64).to(self.mean.device)
        x[:, self.columns] = (momenta.to(x) - self.mean) / self.std
        return self._columns(x)

    def reflection_signs(self) -> list[float]:
        """Return the signs of the features (F,) under py -> -py."""
        return [-1.0 if column.across else 1.0 for column in self._signs()]

    def exchange_signs(self) -> list[float]:
        """Return the signs of the features (F,) under py -> -py, pz -> -pz."""
        return [-1.0 if c.across != c.along_beam else 1.0 for c in self._signs()]


def _without_recoil(objects: Sequence[_Momenta], total: _Momenta) -> list[_Momenta]:
    """Return the objects in the frame where their transverse momenta add up to zero.

    A transverse boost by gamma beta = -K / M, done where the system has rapidity zero.
    """
    longitudinal = torch.sqrt(((total.e - total.pz) * (total.e + total.pz)).clamp_min(TINY))
    mass = torch.sqrt(total.mass2)
    cosh, sinh = total.e / longitudinal, total.pz / longitudinal
    bx, by = -total.px / mass, -total.py / mass
    gamma = torch.sqrt(1.0 + bx.square() + by.square())
    boosted = []
    for p in objects:
        energy, pz = p.e * cosh - p.pz * sinh, p.pz * cosh - p.e * sinh
        along = bx * p.px + by * p.py
        shift = along / (1.0 + gamma) + energy
        energy = gamma * energy + along
        boosted.append(
            _Momenta(
                energy * cosh + pz * sinh,
                p.px + bx * shift,
                p.py + by * shift,
                pz * cosh + energy * sinh,
            )
        )
    return boosted


def _of_system(total: _Momenta, first: _Momenta) -> list[_Column]:
    pt = torch.sqrt(first.pt2)
    along = (total.px * first.px + total.py * first.py) / pt
    across = (total.py * first.px - total.px * first.py) / pt
    return [
        _Column(0.5 * torch.log(total.mass2)),
        _Column(total.rapidity, along_beam=True),
        _Column(torch.asinh(along / RECOIL_SCALE)),
        _Column(torch.asinh(across / RECOIL_SCALE), across=True),
        _Column(torch.log1p(torch.sqrt(total.pt2) / RECOIL_SCALE)),
    ]


def _of_pair(first: _Momenta, second: _Momenta) -> list[_Column]:
    size = torch.sqrt(first.pt2 * second.pt2)
    cosine = (first.px * second.px + first.py * second.py) / size
    sine = (first.px * second.py - first.py * second.px) / size
    return [
        _Column(cosine),
        _Column(sine, across=True),
        _Column(2.0 * cosine.square() - 1.0),
        _Column(2.0 * cosine * sine, across=True),
        _Column(0.5 * torch.log((first + second).mass2)),
    ]
