r"""What a sample says about the surface it lies on: the result of a discovery, in print."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mflow_sbi.constraints.dictionary import Dictionary, Features
from mflow_sbi.constraints.polynomials import Constraints
from mflow_sbi.constraints.sparse import Polynomial

__all__ = ["Discovery", "Verdict"]

Verdict = Literal["exact", "inconclusive", "none"]


@dataclass(frozen=True)
class Discovery:
    """The constraints of a sample and how sure they are.

    Args:
        verdict: "exact": the constraints hold to the precision and stand out; "none": no
            polynomial of the dictionary vanishes; "inconclusive": some do, but their number or
            their independence is not clear.
        reason: the verdict in words.
        names: of the observables.
        dictionary: the assumption made.
        features: the features it meant for these events.
        precision: precision of the observables that was assumed, relative to their size or to
            their spread, whichever is larger.
        codimension: rank of the gradients, median over points; 0 if none.
        n_linear: vanishing polynomials of degree one in the features.
        n_vanishing: all vanishing polynomials of the dictionary, products of others included.
        singular_value_gap: decades between the vanishing and the other polynomials.
        gradient_gaps: decades by which the gradients' rank stands out, at each point.
        codimensions: rank of the gradients at each point.
        polynomials: the verified constraints, in physical units; all of them if exact.
        residuals: largest |F| of each on events not used in the search, physical units.
        largest_residual: the largest of them in units of the propagated precision.
        conditioning: smallest over events of s_min / s_max of the normalised gradients.
        constraints: a minimal independent set as a module; None unless exact.
    """

    verdict: Verdict
    reason: str
    names: tuple[str, ...]
    dictionary: Dictionary
    features: Features
    precision: float
    codimension: int = 0
    n_linear: int = 0
    n_vanishing: int = 0
    singular_value_gap: float = 0.0
    gradient_gaps: tuple[float, ...] = ()
    codimensions: tuple[int, ...] = ()
    polynomials: tuple[Polynomial, ...] = ()
    residuals: tuple[float, ...] = ()
    largest_residual: float = float("nan")
    conditioning: float = float("nan")
    constraints: Constraints | None = None

    @property
    def latent_dim(self) -> int:
        """Dimension of the surface, n - codimension."""
        return len(self.names) - self.codimension

    def describe(self) -> str:
        """Return the verdict, the dictionary and the constraints, one a line."""
        sinh = ", ".join(self.names[i] for i in self.features.sinh_of) or "none"
        gap = f"{np.median(self.gradient_gaps):.1f}" if self.gradient_gaps else "-"
        lines = [
            f"{self.verdict}: {self.reason}",
            f"dictionary: monomials to degree {self.dictionary.degree} of {len(self.names)} "
            f"observables and sinh of ({sinh}); relative precision {self.precision:.1e}",
            f"{self.n_vanishing} vanishing polynomials ({self.n_linear} linear), "
            f"{self.singular_value_gap:.1f} decades below the next; rank of the gradients "
            f"{self.codimension}, median gap {gap} decades",
        ]
        labels = ["", *self.names, *(f"sinh({self.names[i]})" for i in self.features.sinh_of)]
        lines += [
            f"{_sentence(polynomial, labels)} = 0  (largest |residual| {residual:.1e})"
            for polynomial, residual in zip(self.polynomials, self.residuals, strict=True)
        ]
        return "\n".join(lines)


def _sentence(polynomial: Polynomial, labels: list[str]) -> str:
    """Return e.g. 'pt^2 - px^2 - py^2', positive terms first."""
    positive, negative = [], []
    for factors, c in zip(polynomial.monomials, polynomial.coefficients, strict=True):
        powers = {labels[f]: int(np.sum(factors == f)) for f in factors if f}
        product = " ".join(f"{k}^{v}" if v > 1 else k for k, v in powers.items())
        size = "" if abs(c) == 1 and product else f"{abs(c):.8g}"
        (negative if c < 0 else positive).append(" ".join(filter(None, (size, product))))
    text = " + ".join(positive) + "".join(f" - {word}" for word in negative)
    return text.strip()
