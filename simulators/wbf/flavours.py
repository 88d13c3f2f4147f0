"""Flavours of the two quark lines, drawn from what the process allows at the parameter point.

    P(q1, q2 | momenta, theta) ~ x1 f_q1(x1) x2 f_q2(x2) w(theta).c_channel(momenta),

where c_channel are the coefficients of |M|^2 of the channel that q1 and q2 belong to.  W exchange
turns u into d and c into s (unit CKM matrix), Z and photon exchange keep flavours.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from simulators.wbf.constants import BEAM_ENERGY_SUM
from simulators.wbf.event_model import monomials
from simulators.wbf.matrix_element import channel_sum, theta_units
from simulators.wbf.parton_density import FLAVOURS, xf
from simulators.wbf.parton_level import check_process

__all__ = ["choose_flavours", "combinations"]

Array = NDArray[np.float64]

UP, DOWN = (2, 4), (1, 3)
_PARTNER = {2: 1, 4: 3, 1: 2, 3: 4}
_NAME = {number: name for name, number in FLAVOURS.items()}

Combination = tuple[str, tuple[int, int], tuple[int, int]]
"""Channel of the matrix element, (q1 in, q1 out), (q2 in, q2 out)."""


@functools.cache
def combinations(channel: str) -> tuple[Combination, ...]:
    """All flavours of a process, by channel of the matrix element.

    Example:
        >>> combinations("ud")
        (('WW_qq', (2, 1), (1, 2)), ('WW_qq', (1, 2), (2, 1)))
    """
    check_process(channel)
    if channel == "ud":
        return (("WW_qq", (2, 1), (1, 2)), ("WW_qq", (1, 2), (2, 1)))
    quarks = [sign * q for q in (*UP, *DOWN) for sign in (1, -1)]
    pairs = [(q1, q2) for q1 in quarks for q2 in quarks]
    charged = [
        ("WW_qq" if q1 * q2 > 0 else "WW_qqb", (q1, _after_w(q1)), (q2, _after_w(q2)))
        for q1, q2 in pairs
        if (_is_up(q1) != _is_up(q2)) == (q1 * q2 > 0)
    ]
    if channel == "ww":
        return tuple(charged)
    neutral = [
        (f"NC_{_type(q1)}{_type(q2)}_{'qq' if q1 * q2 > 0 else 'qqb'}", (q1, q1), (q2, q2))
        for q1, q2 in pairs
    ]
    return (*charged, *neutral)


def choose_flavours(
    momenta: Array, theta: Array, channel: str, setting: str, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Array]:
    """Draw the flavours of every event, and the coefficients of its channel.

    Args:
        momenta: p1, p2, k1, k2, h, (N, 5, 4), GeV.
        theta: (N, 2).
        channel: "ud", "ww" or "full".
        setting: "tuned" or "paper".
        rng: Random numbers.

    Returns:
        Flavours (N, 2, 2) as (line, in/out), and coefficients of |M|^2 in the monomials of theta
        of the channel drawn, (N, 6).
    """
    n = len(momenta)
    options = combinations(channel)
    amplitudes = _amplitudes(momenta, tuple(dict.fromkeys(name for name, _, _ in options)))
    weights = monomials(theta) * theta_units(setting)
    strengths = {name: (weights * c.T).sum(axis=1) for name, c in amplitudes.items()}
    x1, x2 = 2 * momenta[:, 0, 0] / BEAM_ENERGY_SUM, 2 * momenta[:, 1, 0] / BEAM_ENERGY_SUM
    density1, density2 = xf(x1), xf(x2)
    shares = np.stack(
        [
            density1[_NAME[q1]] * density2[_NAME[q2]] * strengths[name]
            for name, (q1, _), (q2, _) in options
        ]
    )
    below = np.cumsum(np.maximum(shares, 0), axis=0)
    chosen = (rng.random(n) * below[-1] >= below).sum(axis=0)
    chosen = np.minimum(chosen, len(options) - 1)
    flavours = np.array([[line1, line2] for _, line1, line2 in options])[chosen]
    names = list(amplitudes)
    row = np.array([names.index(name) for name, _, _ in options])[chosen]
    coefficients = np.stack(list(amplitudes.values()))[row, :, np.arange(n)]
    return flavours, coefficients * theta_units(setting)


def _amplitudes(momenta: Array, names: tuple[str, ...]) -> dict[str, Array]:
    """Coefficients (6, N) of |M|^2 in (1, f, ft, f^2, f ft, ft^2), by channel."""
    p1, p2, k1, k2 = (np.ascontiguousarray(momenta[:, i].T) for i in range(4))
    one = np.ones(len(momenta))
    return {name: channel_sum(p1, p2, k1, k2, {name: one}) for name in names}


def _is_up(quark: int) -> bool:
    return abs(quark) in UP


def _type(quark: int) -> int:
    """Up type 2, down type 1, as the matrix element names them."""
    return 2 if _is_up(quark) else 1


def _after_w(quark: int) -> int:
    return _PARTNER[quark] if quark > 0 else -_PARTNER[-quark]
