"""Which densities `density.py` measures at each size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SIZES", "Case", "Size"]

SETTINGS = ("tuned", "paper")
SYMMETRIES = {
    "reflection": True,
    "exchange": True,
    "odd_parameters": ["CPWL2"],
    "objects": ["aa", "j1", "j2"],
}


@dataclass(frozen=True)
class Case:
    """One density: recipe, options, what it learns from, events in thousands, epochs, seeds.

    Ratio estimators have no density to choose: theirs is empty.
    """

    recipe: str
    density: Mapping[str, Any]
    inputs: str
    thousands: int
    epochs: int
    seeds: int
    settings: tuple[str, ...] = SETTINGS
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """<recipe>_<inputs>."""
        return f"{self.label or self.recipe}_{self.inputs}"

    @property
    def phase(self) -> str:
        """The phase that learns the dependence on theta."""
        return "density" if self.density.get("kind") == "flow" else "ratio"


MORPHING, RESIDUAL = ({"kind": kind, **SYMMETRIES} for kind in ("morphing", "residual"))
FLOW = {"kind": "flow"}
TUNED = ("tuned",)
IMPLICIT = {"chart": "implicit"}


@dataclass(frozen=True)
class Size:
    """The densities, observed sets per truth of 20 events, and of 200, sets for calibration."""

    cases: tuple[Case, ...]
    sets: int
    large_sets: int
    calibration_sets: int


SIZES = {
    "small": Size(
        (
            Case("fom", MORPHING, "samples", 50, 4, 1, TUNED),
            Case("fom", MORPHING, "components", 50, 4, 1, TUNED),
        ),
        5,
        2,
        50,
    ),
    "medium": Size(
        (
            Case("fom", MORPHING, "samples", 900, 10, 5, TUNED),
            Case("fom", MORPHING, "samples", 300, 10, 5, ("paper",)),
            Case("fom", MORPHING, "components", 300, 10, 5),
            Case("mflow", MORPHING, "components", 300, 10, 1, TUNED, IMPLICIT),
            Case("fom", MORPHING, "score", 300, 12, 1, TUNED),
            Case("fom", RESIDUAL, "samples", 300, 8, 1, TUNED, label="fom_residual"),
            Case("nre", {}, "samples", 300, 8, 1, TUNED, SYMMETRIES),
            Case("alices", {}, "components", 300, 8, 1, TUNED, SYMMETRIES),
            Case("fom", FLOW, "samples", 300, 8, 1, TUNED, label="fom_flow"),
        ),
        50,
        10,
        500,
    ),
    "large": Size(
        (
            Case("fom", MORPHING, "samples", 2000, 10, 5),
            Case("fom", MORPHING, "components", 1000, 12, 5),
            Case("fom", MORPHING, "score", 1000, 12, 5),
            Case("mflow", MORPHING, "samples", 1000, 10, 5, options=IMPLICIT),
            Case("mflow", MORPHING, "components", 300, 12, 5, options=IMPLICIT),
            Case("fom", RESIDUAL, "samples", 1000, 12, 5, label="fom_residual"),
            Case("fom", FLOW, "samples", 1000, 12, 5, label="fom_flow"),
            Case("nre", {}, "samples", 300, 8, 1, TUNED, SYMMETRIES),
            Case("alices", {}, "components", 300, 8, 1, TUNED, SYMMETRIES),
        ),
        100,
        30,
        2000,
    ),
}
