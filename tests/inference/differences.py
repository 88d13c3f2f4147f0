"""Derivatives from values alone."""

from collections.abc import Callable

import numpy as np

from mflow_sbi.interfaces import Array


def central_differences(
    function: Callable[[Array], Array], theta: Array, step: float = 1e-3
) -> Array:
    """Return the gradient (M, p) of a function (M, p) -> (M,), fourth order in the step."""
    columns = []
    for shift in step * np.eye(theta.shape[1]):
        near = function(theta + shift) - function(theta - shift)
        far = function(theta + 2 * shift) - function(theta - 2 * shift)
        columns.append((8 * near - far) / (12 * step))
    return np.stack(columns, axis=1)
