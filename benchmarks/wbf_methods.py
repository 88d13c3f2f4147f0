"""The methods of `wbf_comparison.py`, what each is told, and the sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "COMPONENTS",
    "METHODS",
    "POLY",
    "SCORE",
    "SIZES",
    "SURFACE",
    "SYM",
    "Method",
    "Size",
    "X",
]

SYMMETRIES = {
    "reflection": True,
    "exchange": True,
    "odd_parameters": ["CPWL2"],
    "objects": ["aa", "j1", "j2"],
}
X, SYM, POLY = "x, theta", "symmetries", "polynomial form and cross section"
SCORE, COMPONENTS = "joint score", "joint components"
SURFACE = "the surface"


@dataclass(frozen=True)
class Method:
    """One method: its run configuration, and what it is told.

    Args:
        title: in tables.
        told: of the training events and of the theory.
        run: keys of the run configuration.
        settings: of the simulator, in which it runs at every size that has them.
        seeds: at most so many.
    """

    title: str
    told: tuple[str, ...]
    run: Mapping[str, Any]
    settings: tuple[str, ...] = ("tuned",)
    seeds: int = 5


def _run(recipe: str, /, **keys: Any) -> Mapping[str, Any]:  # noqa: ANN401
    return {"recipe": recipe, **keys}


def _ratio(kind: str, inputs: str, **options: Any) -> Mapping[str, Any]:  # noqa: ANN401
    return {"density": {"kind": kind, "inputs": inputs, **SYMMETRIES}, **options}


def _until_it_stops(recipe: str, /, **keys: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the run of a method of sbi that ends by its rule (20 epochs without gain)."""
    phases = {"inference": {"epochs": 150, "patience": 20}}
    return _run(recipe, phases=phases, **keys)


BOTH = ("tuned", "paper")
INVERTIBLE, IMPLICIT = {"chart": "invertible"}, {"chart": "implicit"}
TOLD_POLY = (X, SYM, POLY)

METHODS: Mapping[str, Method] = {
    "af": Method("ambient flow", (X,), _run("af"), BOTH),
    "af_scandal": Method("ambient flow + SCANDAL", (X, SCORE), _run("af", scandal=2.0)),
    "pie_original": Method("PIE, surface per theta", (X,), _run("pie", options={"width": 0.1})),
    "pie": Method("PIE", (X,), _run("pie", options={"width": 0.1, "surface_per_theta": False})),
    "pae": Method("PAE", (X,), _run("pae")),
    "mflow_flow": Method("M-flow, learned surface", (X,), _run("mflow", options=INVERTIBLE), BOTH),
    "mflow_scandal": Method(
        "M-flow, learned surface + SCANDAL",
        (X, SCORE),
        _run("mflow", options=INVERTIBLE, scandal=2.0),
    ),
    "mflow_simultaneous": Method(
        "M-flow, learned surface, simultaneous",
        (X,),
        _run("mflow", options=INVERTIBLE, schedule="simultaneous"),
        seeds=1,
    ),
    "emflow": Method("M_e-flow", (X,), _run("emflow")),
    "fom": Method("known surface, flow", (X, SURFACE), _run("fom")),
    "mflow_residual": Method(
        "M-flow, residual density",
        (X, SYM),
        _run("mflow", options=_ratio("residual", "samples", **IMPLICIT)),
    ),
    "mflow": Method(
        "M-flow, morphing density",
        TOLD_POLY,
        _run("mflow", options=_ratio("morphing", "samples", **IMPLICIT)),
        BOTH,
    ),
    "mflow_score": Method(
        "M-flow, morphing density, scores",
        (*TOLD_POLY, SCORE),
        _run("mflow", options=_ratio("morphing", "score", **IMPLICIT)),
    ),
    "mflow_components": Method(
        "M-flow, morphing density, components",
        (*TOLD_POLY, COMPONENTS),
        _run("mflow", options=_ratio("morphing", "components", **IMPLICIT)),
        BOTH,
    ),
    "fom_morphing": Method(
        "known surface, morphing density",
        (*TOLD_POLY, SURFACE),
        _run("fom", options=_ratio("morphing", "samples")),
    ),
    "nre": Method("NRE (CARL)", (X, SYM), _run("nre", options=SYMMETRIES), BOTH),
    "alices": Method("ALICES", (X, SYM, COMPONENTS), _run("alices", options=SYMMETRIES), BOTH),
    "sally": Method("SALLY", (X, SYM, COMPONENTS), _run("sally", options=SYMMETRIES)),
    "histogram": Method("histogram of two observables", (X, COMPONENTS), _run("histogram")),
    "sbi_npe": Method("NPE of sets (sbi)", (X, COMPONENTS), _run("sbi_npe"), seeds=1),
    "sbi_npe_single": Method("NPE of events (sbi)", (X,), _run("sbi_npe_single")),
    "sbi_nle_maf": Method("NLE, MAF (sbi)", (X,), _run("sbi_nle_maf")),
    "sbi_nle_maf_latents": Method(
        "NLE, MAF, on the surface (sbi)",
        (X, SURFACE),
        _run("sbi_nle_maf", options={"inputs": "prescribed"}),
    ),
    "sbi_nle_nsf_latents": Method(
        "NLE, NSF, on the surface (sbi)",
        (X, SURFACE),
        _run("sbi_nle_nsf", options={"inputs": "prescribed"}),
        seeds=1,
    ),
    "sbi_nre_a": Method("NRE-A (sbi)", (X,), _run("sbi_nre_a")),
    "sbi_nre_b": Method("NRE-B (sbi)", (X,), _run("sbi_nre_b")),
    "sbi_nre_c": Method("NRE-C (sbi)", (X,), _run("sbi_nre_c")),
    "sbi_nle_maf_long": Method(
        "NLE, MAF (sbi), until it stops", (X,), _until_it_stops("sbi_nle_maf"), seeds=1
    ),
    "sbi_nle_maf_latents_long": Method(
        "NLE, MAF, on the surface (sbi), until it stops",
        (X, SURFACE),
        _until_it_stops("sbi_nle_maf", options={"inputs": "prescribed"}),
        seeds=1,
    ),
    "sbi_nre_c_long": Method(
        "NRE-C (sbi), until it stops", (X,), _until_it_stops("sbi_nre_c"), seeds=1
    ),
}
"""sbi's trainers get about as much CPU time as ours; `_long` tells what more would bring them."""


@dataclass(frozen=True)
class Size:
    """Training events, seeds, sets per truth and for calibration, test events, settings.

    Args:
        events: of the training, the same for every method and seed.
        seeds: of every setting.
        sets: of 20 observed events at every truth.
        calibration: sets at theta ~ prior.
        test: events on which surfaces are measured.
        methods: by name; none: all.
    """

    events: int
    seeds: Mapping[str, int]
    sets: int
    calibration: int
    test: int = 1000
    methods: tuple[str, ...] = field(default=())


SIZES = {
    "small": Size(
        10_000, {"tuned": 1}, 3, 10, 200, ("mflow", "mflow_components", "nre", "histogram")
    ),
    "medium": Size(100_000, {"tuned": 3, "paper": 1}, 30, 100),
    "large": Size(1_000_000, {"tuned": 5, "paper": 5}, 100, 500),
}
