r"""Which polynomial constraints does a sample obey to the precision of its numbers?

1. Linear combinations of the features that vanish (`nullspace`); their pivots are eliminated.
2. Polynomials in the remaining features that vanish: all others, modulo the linear ones.
3. The rank of all their gradients at points of the sample is the codimension.  Judged by its gap,
   with the median over the points, and by whether a ten times larger threshold changes it.
4. A minimal set of that many sparse polynomials, each verified on events not used before: its
   values must be explained by the rounding of the observables, propagated through its gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import qr

from mflow_sbi.constraints.dictionary import Dictionary, Features
from mflow_sbi.constraints.nullspace import NullSpace, null_space
from mflow_sbi.constraints.polynomials import Constraints
from mflow_sbi.constraints.sparse import Polynomial, circuit_polynomial, find_circuits
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["Discovery", "discover_constraints"]

FLOAT32 = 2.0**-24
FLOAT64 = 2.0**-48
"""Relative precisions: float32 rounding; float64 after some arithmetic (16 units)."""

THRESHOLD = 5.0
"""Largest residual of a vanishing polynomial in units of the propagated precision."""

MIN_GAP = 2.0
"""Decades by which the gradients' rank must stand out, median over points."""

N_EVENTS = 4000
N_POINTS = 16
N_BASES = 150
Verdict = Literal["exact", "inconclusive", "none"]


@dataclass(frozen=True)
class Discovery:
    """What a sample says about the surface it lies on.

    Args:
        verdict: "exact": the constraints hold to the precision and stand out; "none": no
            polynomial of the dictionary vanishes; "inconclusive": some do, but their number or
            their independence is not clear.
        reason: the verdict in words.
        constraints: a minimal independent set; None unless exact.
        codimension: rank of the gradients (of what was found, if inconclusive).
        latent_dim: n - codimension.
        n_linear: vanishing polynomials of degree one in the features.
        n_vanishing: all vanishing polynomials of the dictionary, products of others included.
        singular_value_gap: decades between the vanishing and the other polynomials.
        gradient_gaps: decades by which the gradients' rank stands out, at each point.
        codimensions: rank of the gradients at each point.
        precision: relative precision of the observables that was assumed.
        largest_residual: of any constraint on events not used in the search, in units of the
            propagated precision.
        conditioning: smallest over events of s_min / s_max of the normalised gradients.
        names: of the observables.
        dictionary: the assumption made.
        features: the features it meant for these events.
        polynomials: the constraints in physical units.
    """

    verdict: Verdict
    reason: str
    constraints: Constraints | None
    codimension: int
    latent_dim: int
    n_linear: int
    n_vanishing: int
    singular_value_gap: float
    gradient_gaps: tuple[float, ...]
    codimensions: tuple[int, ...]
    precision: float
    largest_residual: float
    conditioning: float
    names: tuple[str, ...]
    dictionary: Dictionary
    features: Features
    polynomials: tuple[Polynomial, ...]
    residuals: tuple[float, ...]

    def describe(self) -> str:
        """Return the verdict, the dictionary and the constraints, one a line."""
        sinh = ", ".join(self.names[i] for i in self.features.sinh_of) or "none"
        gaps = f"{np.median(self.gradient_gaps):.1f}" if self.gradient_gaps else "-"
        lines = [
            f"{self.verdict}: {self.reason}",
            f"dictionary: monomials to degree {self.dictionary.degree} of {len(self.names)} "
            f"observables and sinh of ({sinh}); relative precision {self.precision:.1e}",
            f"{self.n_vanishing} vanishing polynomials ({self.n_linear} linear), "
            f"{self.singular_value_gap:.1f} decades below the next; rank of the gradients "
            f"{self.codimension}, median gap {gaps} decades",
        ]
        for polynomial, residual in zip(self.polynomials, self.residuals, strict=True):
            lines.append(f"{self._sentence(polynomial)} = 0  (largest |residual| {residual:.1e})")
        return "\n".join(lines)

    def _sentence(self, polynomial: Polynomial) -> str:
        labels = ["", *self.names, *(f"sinh({self.names[i]})" for i in self.features.sinh_of)]
        words = []
        for factors, c in zip(polynomial.monomials, polynomial.coefficients, strict=True):
            counts = {labels[f]: int(np.sum(factors == f)) for f in factors if f}
            product = " ".join(f"{k}^{v}" if v > 1 else k for k, v in counts.items())
            size = "" if abs(c) == 1 and product else f"{abs(c):.8g} "
            words.append((c < 0, (size + product).strip()))
        words.sort(key=lambda word: word[0])
        text = " ".join(f"{'-' if negative else '+'} {word}" for negative, word in words)
        return text.removeprefix("+ ")


def discover_constraints(
    x_physical: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    dictionary: Dictionary | None = None,
    precision: float | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> Discovery:
    """Return the polynomial constraints that events obey to the precision of their numbers.

    Args:
        x_physical: events in physical units, (N, n), float32 or float64; 4,000 are used.
        mean: of the standardised observables the constraints will be evaluated at, (n,).
        std: likewise, (n,).
        names: of the observables.
        dictionary: monomials that may take part.
        precision: relative error of the observables; None: that of float32 if all numbers are
            float32 ones, otherwise that of float64, and if nothing is found, of float32.
        weights: of the events, (N,), not negative; equal if left out.
        seed: of the choice of events.

    Raises:
        ShapeError: x is not (N, n), or mean, std, names, weights do not fit it.
        EventDataError: values that are not finite, or fewer events than the dictionary needs.
    """
    y = np.asarray(x_physical, dtype=np.float64)
    names, weight = _checked(y, mean, std, names, weights)
    scales = (np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64))
    order = np.random.default_rng(seed).permutation(np.flatnonzero(weight > 0))
    order = order[: N_EVENTS * 5 // 4]
    y, weight = y[order], weight[order]
    if precision is not None:
        ladder: tuple[float, ...] = (precision,)
    elif np.array_equal(y, y.astype(np.float32)):
        ladder = (FLOAT32,)
    else:
        ladder = (FLOAT64, FLOAT32)
    dictionary = dictionary or Dictionary()
    best: Discovery | None = None
    for value in ladder:
        search = _Search(y, weight, scales, names, dictionary, value, seed)
        found = search.run()
        if found.verdict == "exact":
            return found
        best = found if best is None or found.verdict == "inconclusive" else best
    assert best is not None  # noqa: S101
    return best


def _checked(
    y: Array,
    mean: ArrayLike,
    std: ArrayLike,
    names: Sequence[str] | None,
    weights: ArrayLike | None,
) -> tuple[tuple[str, ...], Array]:
    """Return names and weights, or say what does not fit."""
    if y.ndim != 2 or np.shape(mean) != y.shape[1:] or np.shape(std) != y.shape[1:]:
        message = (
            f"discover_constraints: expected events (N, n), mean and std (n,); got {y.shape}, "
            f"{np.shape(mean)} and {np.shape(std)}"
        )
        raise ShapeError(message)
    labels = tuple(names) if names is not None else tuple(f"x{i + 1}" for i in range(y.shape[1]))
    weight = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(labels) != y.shape[1] or weight.shape != y.shape[:1]:
        message = (
            f"discover_constraints: expected {y.shape[1]} names and weights of shape "
            f"({len(y)},); got {len(labels)} and {weight.shape}"
        )
        raise ShapeError(message)
    usable = np.isfinite(y).all() and np.isfinite(weight).all() and (weight >= 0).all()
    if not usable or not (weight > 0).any():
        message = (
            "discover_constraints: expected finite observables and finite weights >= 0, some of "
            "them positive; drop the other events"
        )
        raise EventDataError(message)
    return labels, weight


@dataclass(frozen=True)
class _Search:
    y: Array
    weight: Array
    scales: tuple[Array, Array]
    names: tuple[str, ...]
    dictionary: Dictionary
    precision: float
    seed: int

    @property
    def features(self) -> Features:
        return self.dictionary.features_of(self.y)

    def run(self) -> Discovery:
        features = self.features
        n_fit = len(self.y) * 4 // 5
        linear, rest = self._null_spaces(features, n_fit)
        spaces = [linear] if rest is None else [linear, rest]
        points = self.y[:: max(len(self.y) // N_POINTS, 1)][:N_POINTS]
        gradients = self._gradients(features, points, spaces, THRESHOLD)
        blank = self._blank(features, spaces, linear)
        if gradients.shape[1] == 0:
            return blank
        codimensions, gaps, conormals = _ranks(gradients)
        loose = _ranks(self._gradients(features, points, spaces, 10 * THRESHOLD))[0]
        m = int(np.median(codimensions))
        found = replace(
            blank,
            verdict="inconclusive",
            codimension=m,
            latent_dim=features.ambient_dim - m,
            gradient_gaps=tuple(gaps),
            codimensions=tuple(codimensions),
        )
        same = [p for p, c in enumerate(codimensions) if c == m]
        if np.median(gaps) < MIN_GAP or 2 * len(same) <= len(codimensions):
            reason = (
                f"the rank of the gradients stands out by {np.median(gaps):.1f} decades only "
                f"(expected {MIN_GAP}); ranks {sorted(set(codimensions))} at {len(gaps)} points"
            )
            return replace(found, reason=reason)
        normals = np.stack([conormals[p][:m] for p in same])
        chosen = self._sparse(features, normals, points[same], m, n_fit)
        return self._verdict(found, chosen, m, int(np.median(loose)), n_fit)

    def _null_spaces(self, features: Features, n_fit: int) -> tuple[NullSpace, NullSpace | None]:
        y, weight = self.y[:n_fit], self.weight[:n_fit]
        everything = range(1, features.n_features + 1)
        self._require_events(features.n_features + 1, 1, n_fit)
        linear = null_space(features, y, features.monomials(everything, 1), self.precision, weight)
        if self.dictionary.degree == 1:
            return linear, None
        null = linear.below(THRESHOLD)
        # the constant (column 0) is never eliminated
        gone = qr(null[:, 1:], mode="r", pivoting=True)[1][: len(null)] + 1 if len(null) else []
        kept = np.setdiff1d(np.arange(1, features.n_features + 1), gone)
        monomials = features.monomials(kept, self.dictionary.degree)
        self._require_events(len(monomials), self.dictionary.degree, n_fit)
        return linear, null_space(features, y, monomials, self.precision, weight)

    def _require_events(self, n_columns: int, degree: int, n_fit: int) -> None:
        needed = n_columns * 3 // 2
        if n_fit < needed:
            message = (
                f"discover_constraints: {n_columns} monomials to degree {degree} need at least "
                f"{-(-needed * 5 // 4)} events, got {len(self.y)}; give more events, fewer "
                "observables, or a smaller dictionary, e.g. Dictionary(degree=1)"
            )
            raise EventDataError(message)

    def _gradients(
        self, features: Features, points: Array, spaces: list[NullSpace], threshold: float
    ) -> Array:
        """Return std dF/dy of all vanishing polynomials, in units of precision, (P, K, n)."""
        blocks = []
        for space in spaces:
            null = space.below(threshold) / space.scale
            design = features.evaluate(points, space.monomials) * self.precision / space.scale
            size = np.sqrt(np.mean(np.square(design * 1.0), axis=1))[:, None, None]
            gradient = np.einsum(
                "kt,pti->pki", null, features.gradients(points, space.monomials), optimize=True
            )
            blocks.append(gradient * self.scales[1] / size)
        return np.concatenate(blocks, axis=1)

    def _blank(self, features: Features, spaces: list[NullSpace], linear: NullSpace) -> Discovery:
        degree, n_linear = self.dictionary.degree, len(linear.below(THRESHOLD))
        n_vanishing = n_linear
        if len(spaces) > 1:
            n_all = features.n_features
            products = features.count(n_all, degree) - features.count(n_all - n_linear, degree)
            n_vanishing = products + len(spaces[1].below(THRESHOLD))
        return Discovery(
            verdict="none",
            reason="no polynomial of the dictionary vanishes at this precision",
            constraints=None,
            codimension=0,
            latent_dim=features.ambient_dim,
            n_linear=n_linear,
            n_vanishing=n_vanishing,
            singular_value_gap=spaces[-1].largest_gap_at(THRESHOLD),
            gradient_gaps=(),
            codimensions=(),
            precision=self.precision,
            largest_residual=float("nan"),
            conditioning=float("nan"),
            names=self.names,
            dictionary=self.dictionary,
            features=features,
            polynomials=(),
            residuals=(),
        )

    def _sparse(
        self, features: Features, normals: Array, points: Array, m: int, n_fit: int
    ) -> list[Polynomial]:
        """Return up to m independent sparse polynomials that stand verification."""
        y, weight = self.y[:n_fit], self.weight[:n_fit]
        generator = np.random.default_rng(self.seed)
        chosen: list[Polynomial] = []
        span = _Span(len(points), features.ambient_dim)
        for circuit in find_circuits(normals, N_BASES, generator):
            if len(chosen) == m:
                break
            inside = _direction_within(normals, circuit)
            if inside is None or span.gain(inside) < 0.02:
                continue
            polynomial = circuit_polynomial(
                features, y, circuit, self.dictionary.degree, self.precision, THRESHOLD, weight
            )
            if polynomial is None or not self._holds(features, polynomial, n_fit):
                continue
            gradient = polynomial.gradients(features, points) * self.scales[1]
            if span.gain(gradient) > 0.02:
                span.add(gradient)
                chosen.append(polynomial)
        return chosen

    def _holds(self, features: Features, polynomial: Polynomial, n_fit: int) -> bool:
        residual = polynomial.residual(features, self.y[n_fit:], self.precision)
        return bool(np.quantile(residual, 0.99) < 2 * THRESHOLD)

    def _verdict(
        self, found: Discovery, chosen: list[Polynomial], m: int, loose: int, n_fit: int
    ) -> Discovery:
        features, fresh = found.features, self.y[n_fit:]
        if not chosen:
            reason = "what vanishes are products of near-constraints: none stands verification"
            return replace(
                found,
                verdict="none",
                reason=reason,
                codimension=0,
                latent_dim=features.ambient_dim,
            )
        found = replace(
            found,
            polynomials=tuple(chosen),
            residuals=tuple(float(np.abs(p.values(features, fresh)).max()) for p in chosen),
            largest_residual=max(
                float(p.residual(features, fresh, self.precision).max()) for p in chosen
            ),
        )
        if len(chosen) < m:
            reason = f"{len(chosen)} of {m} constraints stand verification"
            return replace(found, reason=reason)
        constraints = _as_module(features, chosen, self.scales, self.y)
        conditioning = _conditioning(constraints, self.y, self.scales)
        found = replace(found, conditioning=conditioning)
        if loose != m:
            reason = f"at a ten times larger threshold the codimension is {loose} instead of {m}"
            return replace(found, reason=reason)
        if conditioning < 1e-7:
            return replace(found, reason="the constraints' gradients are dependent at some events")
        reason = f"{m} constraints, a surface of {found.latent_dim} dimensions"
        return replace(found, verdict="exact", reason=reason, constraints=constraints)


class _Span:
    """Orthonormal gradients chosen so far, at each point."""

    def __init__(self, n_points: int, n: int) -> None:
        self._basis = np.zeros((n_points, 0, n))

    def _rest(self, gradient: Array) -> Array:
        unit = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        for _ in range(2):
            unit = unit - np.einsum(
                "pk,pki->pi", np.einsum("pki,pi->pk", self._basis, unit), self._basis
            )
        return unit

    def gain(self, gradient: Array) -> float:
        """Return the median over points of the part of a unit gradient outside the span."""
        return float(np.median(np.linalg.norm(self._rest(gradient), axis=1)))

    def add(self, gradient: Array) -> None:
        rest = self._rest(gradient)
        rest /= np.linalg.norm(rest, axis=1, keepdims=True)
        self._basis = np.concatenate([self._basis, rest[:, None]], axis=1)


def _direction_within(normals: Array, circuit: Sequence[int]) -> Array | None:
    """Return the conormal that is closest to living on the circuit's observables, (P, n)."""
    outside = np.setdiff1d(np.arange(normals.shape[2]), circuit)
    if not len(outside):
        return normals[:, 0]
    left, _, _ = np.linalg.svd(normals[:, :, outside])
    return np.einsum("pk,pki->pi", left[:, :, -1], normals)


def _ranks(gradients: Array) -> tuple[list[int], list[float], Array]:
    """Return rank and its gap in decades at each point, and the right singular vectors."""
    _, singular, vectors = np.linalg.svd(gradients)
    padded = np.maximum(np.hstack([singular, np.ones((len(singular), 1))]), 1.0)
    padded = padded[:, : gradients.shape[2] + 1]
    gaps = np.log10(padded[:, :-1] / padded[:, 1:])
    rank = gaps.argmax(axis=1)
    best = gaps[np.arange(len(gaps)), rank]
    return [int(r) + 1 for r in rank], [float(g) for g in best], vectors


def _as_module(
    features: Features, chosen: list[Polynomial], scales: tuple[Array, Array], y: Array
) -> Constraints:
    """Return the polynomials as a module, each scaled to gradients of rms 1 (standardised)."""
    mean, std = scales
    width = max(p.monomials.shape[1] for p in chosen)
    factors, owner, coefficients = [], [], []
    for k, polynomial in enumerate(chosen):
        gradient = polynomial.gradients(features, y) * std
        size = np.sqrt(np.mean(np.sum(np.square(gradient), axis=1)))
        missing = width - polynomial.monomials.shape[1]
        factors.append(np.pad(polynomial.monomials, ((0, 0), (missing, 0))))
        owner += [k] * len(polynomial.monomials)
        coefficients.append(polynomial.coefficients / size)
    module = Constraints(
        features.ambient_dim, len(chosen), len(owner), width, len(features.sinh_of)
    )
    module.mean.copy_(torch.from_numpy(mean))
    module.std.copy_(torch.from_numpy(std))
    module.sinh_of.copy_(torch.tensor(features.sinh_of, dtype=torch.int64))
    module.factors.copy_(torch.from_numpy(np.concatenate(factors)))
    module.owner.copy_(torch.tensor(owner))
    module.coefficients.copy_(torch.from_numpy(np.concatenate(coefficients)))
    return module


def _conditioning(constraints: Constraints, y: Array, scales: tuple[Array, Array]) -> float:
    x = torch.from_numpy((y - scales[0]) / scales[1])
    jacobian = constraints.with_jacobian(x)[1]
    unit = jacobian / torch.linalg.vector_norm(jacobian, dim=2, keepdim=True)
    squared = torch.linalg.eigvalsh(unit @ unit.mT)
    return float((squared[:, 0].clamp_min(0) / squared[:, -1]).sqrt().min())
