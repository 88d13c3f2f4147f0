"""Distances between directions."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["delta_r2"]

Array = NDArray[np.float64]


def delta_r2(eta: Array, phi: Array, other_eta: Array, other_phi: Array) -> Array:
    """(dR)^2 = (d eta)^2 + (d phi)^2, d phi the smaller way round.

    Example:
        >>> round(float(delta_r2(np.array(0.0), np.array(3.1), np.array(0.0), np.array(-3.1))), 4)
        0.0069
    """
    delta_eta = eta - other_eta
    delta_phi = np.abs(phi - other_phi)
    delta_phi = np.minimum(delta_phi, 2 * math.pi - delta_phi)
    return delta_eta * delta_eta + delta_phi * delta_phi
