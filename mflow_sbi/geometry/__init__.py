"""Questions about the learned surface: is an event on it?"""

from mflow_sbi.geometry.placement import PLACEMENT_HEADER, Placement, place
from mflow_sbi.geometry.surface_reference import (
    REFERENCE,
    SurfaceReference,
    load_reference,
    save_reference,
    surface_reference,
)
from mflow_sbi.geometry.tails import TrainingTail

__all__ = [
    "PLACEMENT_HEADER",
    "REFERENCE",
    "Placement",
    "SurfaceReference",
    "TrainingTail",
    "load_reference",
    "place",
    "save_reference",
    "surface_reference",
]
