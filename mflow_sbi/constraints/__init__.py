"""Constraints discovered in a sample: the surface on which the events lie."""

from mflow_sbi.constraints.dictionary import Dictionary
from mflow_sbi.constraints.discovery import discover_constraints
from mflow_sbi.constraints.polynomials import Constraints
from mflow_sbi.constraints.projection import ConstraintFunction, project
from mflow_sbi.constraints.report import Discovery

__all__ = [
    "ConstraintFunction",
    "Constraints",
    "Dictionary",
    "Discovery",
    "discover_constraints",
    "project",
]
