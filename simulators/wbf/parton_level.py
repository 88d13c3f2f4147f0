"""Differential parton-level cross section of q q' -> q q' h, polynomial in (f, ft).

d sigma/(dy1 dy2 dyh d^2pT1 d^2pT2)
    = (hbar c)^2 / (8 (2 pi)^5 shat^2) sum_channels [x1 f][x2 f] |M|^2.
"""

import math

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InvalidRequest
from simulators.wbf.constants import BEAM_ENERGY_SUM, PB_GEV2
from simulators.wbf.matrix_element import channel_sum
from simulators.wbf.parton_density import X_MIN, quark_sums

__all__ = ["FLUX", "PROCESSES", "check_process", "differential_coefficients", "luminosities"]

Array = NDArray[np.float64]

PROCESSES = ("ud", "ww", "full")
"""`ud`: u d -> d u h by W exchange only; `ww`: all quarks and antiquarks, W exchange; `full`: plus
Z and photon exchange."""

_VALENCE = (("u",), ("d",))
_SUMS = (("u", "c"), ("d", "s"), ("ubar", "cbar"), ("dbar", "sbar"))
FLUX = PB_GEV2 / (8 * (2 * math.pi) ** 5)


def check_process(channel: str) -> None:
    """Raise InvalidRequest unless `channel` is one of `PROCESSES`."""
    if channel not in PROCESSES:
        msg = f"unknown channel {channel!r}: expected one of {', '.join(PROCESSES)}"
        raise InvalidRequest(msg)


def luminosities(x1: Array, x2: Array, channel: str) -> dict[str, Array]:
    """[x1 f][x2 f] for every channel of the matrix element that the process needs.

    Args:
        x1: Momentum fractions from beam A (+z), (N,).
        x2: Momentum fractions from beam B, (N,).
        channel: One of `PROCESSES`.
    """
    if channel == "ud":
        u1, d1 = quark_sums(x1, _VALENCE)
        u2, d2 = quark_sums(x2, _VALENCE)
        return {"WW_qq": u1 * d2 + d1 * u2}
    up1, down1, anti_up1, anti_down1 = quark_sums(x1, _SUMS)
    up2, down2, anti_up2, anti_down2 = quark_sums(x2, _SUMS)
    charged = {
        "WW_qq": up1 * down2 + down1 * up2 + anti_up1 * anti_down2 + anti_down1 * anti_up2,
        "WW_qqb": up1 * anti_up2 + anti_up1 * up2 + down1 * anti_down2 + anti_down1 * down2,
    }
    if channel == "ww":
        return charged
    quark1, anti1 = {2: up1, 1: down1}, {2: anti_up1, 1: anti_down1}
    quark2, anti2 = {2: up2, 1: down2}, {2: anti_up2, 1: anti_down2}
    neutral = {}
    for n1 in (2, 1):
        for n2 in (2, 1):
            pairs = f"NC_{n1}{n2}"
            neutral[pairs + "_qq"] = quark1[n1] * quark2[n2] + anti1[n1] * anti2[n2]
            neutral[pairs + "_qqb"] = quark1[n1] * anti2[n2] + anti1[n1] * quark2[n2]
    return charged | neutral


def differential_coefficients(k1: Array, k2: Array, higgs: Array, channel: str) -> Array:
    """Parton-level d sigma/(dy1 dy2 dyh d^2pT1 d^2pT2) in pb GeV^-4, by powers of (f, ft).

    Zero where the momentum fractions exceed 1.

    Args:
        k1: Massless outgoing quark of the line from beam A (+z), (4, N) as (E, px, py, pz), GeV.
        k2: Massless outgoing quark of the line from beam B, (4, N).
        higgs: Higgs boson, (4, N), on shell; transverse momenta add up to zero.
        channel: One of `PROCESSES`.

    Returns:
        Coefficients of (1, f, ft, f^2, f ft, ft^2), (6, N); f and ft in GeV^-2.
    """
    energy = k1[0] + k2[0] + higgs[0]
    momentum = k1[3] + k2[3] + higgs[3]
    x1 = (energy + momentum) / BEAM_ENERGY_SUM
    x2 = (energy - momentum) / BEAM_ENERGY_SUM
    shat = x1 * x2 * BEAM_ENERGY_SUM**2
    weights = luminosities(np.maximum(x1, X_MIN), np.maximum(x2, X_MIN), channel)
    zero = np.zeros_like(energy)
    half1, half2 = 0.5 * BEAM_ENERGY_SUM * x1, 0.5 * BEAM_ENERGY_SUM * x2
    p1 = np.stack([half1, zero, zero, half1])
    p2 = np.stack([half2, zero, zero, -half2])
    return channel_sum(p1, p2, k1, k2, weights) * (FLUX / (shat * shat))
