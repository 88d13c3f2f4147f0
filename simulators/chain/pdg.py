"""What a detector makes of a particle number: neutrino, charged hadron, electron, muon, photon."""

import functools

import numpy as np
from numpy.typing import NDArray
from particle import PDGID

__all__ = [
    "CHARGED_HADRON",
    "ELECTRON",
    "INVISIBLE",
    "MUON",
    "NEUTRAL_HADRON",
    "PHOTON",
    "charge_sign",
    "kinds",
]

INVISIBLE, CHARGED_HADRON, ELECTRON, MUON, PHOTON, NEUTRAL_HADRON = range(6)
_NAMED = {11: ELECTRON, 13: MUON, 22: PHOTON}
_DARK = frozenset({12, 14, 16, 18, 1000022, 1000023, 1000025, 1000035, 1000039, 1000045})
"""Neutrinos, neutralinos and the gravitino: nothing of them is seen."""
_TABLE_SIZE = 10_000


def kinds(pid: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Kind of every particle, by its number.

    Anything charged that is no electron or muon counts as a charged hadron, anything neutral that
    is no photon and not invisible as a neutral hadron.

    Example:
        >>> kinds(np.array([22, -211, 130, 12, -11], dtype=np.int32)).tolist()
        [4, 1, 5, 0, 2]
    """
    number = np.abs(pid)
    small = number < _TABLE_SIZE
    result = _table()[np.where(small, number, 0)]
    for large in np.unique(number[~small]):
        result[number == large] = _kind(int(large))
    return result


def charge_sign(pid: NDArray[np.int32]) -> NDArray[np.int32]:
    """Charge of electrons and muons in units of e: -1 for e-, mu- (numbers 11, 13)."""
    return np.where(pid > 0, -1, 1).astype(np.int32)


@functools.cache
def _table() -> NDArray[np.uint8]:
    return np.array([_kind(number) for number in range(_TABLE_SIZE)], dtype=np.uint8)


def _kind(number: int) -> int:
    if number in _NAMED:
        return _NAMED[number]
    if number in _DARK:
        return INVISIBLE
    return CHARGED_HADRON if PDGID(number).three_charge else NEUTRAL_HADRON
