"""Invertible maps with the nflows `Transform` interface, free of boolean masks.

`forward` maps data towards the base, `inverse` maps the base towards data; both return the image
and log|det| of the map's Jacobian, (N, d) -> ((N, d), (N,)).
"""

from mflow_sbi.transforms.affine import AffineWhitening, PermutedLULinear
from mflow_sbi.transforms.base import Transform
from mflow_sbi.transforms.composite import Composite
from mflow_sbi.transforms.conditioners import ResidualConditioner
from mflow_sbi.transforms.coupling import AffineMap, Coupling, ElementwiseMap, SplineMap
from mflow_sbi.transforms.splines import rational_quadratic_spline

__all__ = [
    "AffineMap",
    "AffineWhitening",
    "Composite",
    "Coupling",
    "ElementwiseMap",
    "PermutedLULinear",
    "ResidualConditioner",
    "SplineMap",
    "Transform",
    "rational_quadratic_spline",
]
