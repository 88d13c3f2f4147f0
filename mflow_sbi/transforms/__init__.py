"""Invertible maps with the nflows `Transform` interface, free of boolean masks.

`forward` maps data towards the base, `inverse` maps the base towards data; both return the image
and log|det| of the map's Jacobian, (*batch, d) -> ((*batch, d), (*batch,)).
`inverse_with_tangents` carries tangents along.
"""

from mflow_sbi.transforms.affine import AffineWhitening, PermutedLULinear
from mflow_sbi.transforms.base import Transform
from mflow_sbi.transforms.compiled import compiled_layers
from mflow_sbi.transforms.composite import Composite
from mflow_sbi.transforms.conditioners import ResidualConditioner
from mflow_sbi.transforms.coupling import Coupling
from mflow_sbi.transforms.elementwise import (
    AffineMap,
    ElementwiseMap,
    SplineMap,
    VolumePreservingMap,
)

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
    "VolumePreservingMap",
    "compiled_layers",
]
