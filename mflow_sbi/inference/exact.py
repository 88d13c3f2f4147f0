"""What an event file knows of the truth: its exact likelihood, and its parameter point."""

import numpy as np

from mflow_sbi.errors import MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.inference.likelihood import MorphingLikelihood
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis

__all__ = ["exact_likelihood", "truth_of"]


def exact_likelihood(sample: EventSample) -> MorphingLikelihood:
    """Return the exact likelihood that the events carry: sum log[w.c] - N log[w.C].

    Raises:
        MissingReference: no morphing components, joint ones (with latent variables), or events
            passed through a selection, whose cross section C the file does not carry.
        EventDataError: weighted events.
    """
    sample.require_unweighted()
    if sample.report is not None and sample.report.cuts:
        message = (
            f"the events were selected by {list(sample.report.cuts)}, but the cross section "
            "in the file is that before this selection; read them without it for the exact "
            "likelihood"
        )
        raise MissingReference(message)
    components = sample.require_components()
    morphing = sample.metadata.morphing
    if morphing is None or morphing.likelihood != "exact":
        message = (
            "the morphing components of these events are joint with latent variables; the exact "
            "likelihood of the observables is not in the file"
        )
        raise MissingReference(message)
    basis = MorphingBasis(np.array(morphing.exponents))
    return MorphingLikelihood(
        sample.parameter_names,
        basis,
        components,
        np.array(morphing.cross_section),
        measure=morphing.measure,
        parameter_units={
            parameter.name: parameter.unit for parameter in sample.metadata.parameters
        },
    )


def truth_of(sample: EventSample) -> Array | None:
    """Return the parameters behind observed events, if the file tells one point, (p,)."""
    if sample.theta is None or not len(sample) or np.ptp(sample.theta, axis=0).max() > 0:
        return None
    return sample.theta[0]
