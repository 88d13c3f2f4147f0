r"""Which polynomial constraints does a sample obey to the precision of its numbers?

1. Linear combinations of the features that vanish (`nullspace`); their pivots are eliminated.
2. Polynomials in the remaining features that vanish: all others, modulo the linear ones.
3. The rank of all their gradients at points of the sample is the codimension.  Judged by its gap,
   with the median over the points, and by whether a ten times larger threshold changes it.
4. A minimal set of that many sparse polynomials, each verified on events not used before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from mflow_sbi.constraints.circuits import pivots
from mflow_sbi.constraints.dictionary import Dictionary, Features, Indices
from mflow_sbi.constraints.minimal import Candidates
from mflow_sbi.constraints.nullspace import NullSpace, null_space
from mflow_sbi.constraints.polynomials import Constraints
from mflow_sbi.constraints.report import Discovery
from mflow_sbi.constraints.sparse import Polynomial
from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array

__all__ = ["discover_constraints"]

FLOAT32 = 2.0**-24
FLOAT64 = 2.0**-48
"""Relative precisions: float32 rounding; float64 after some arithmetic (16 units)."""

THRESHOLD = 5.0
"""Largest residual of a vanishing polynomial in units of the propagated precision."""

MIN_GAP = 2.0
"""Decades by which the gradients' rank must stand out, median over points."""

MIN_CONDITIONING = 1e-7

N_EVENTS = 5000
"""Events used, 4 of 5 for the search and the rest for verification."""

N_POINTS = 16


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
        precision: error of the observables relative to their size or their spread,
            whichever is larger; None: that of float32 if all numbers are
            float32 ones, otherwise that of float64, and if nothing is found, of float32.
        weights: of the events, (N,), not negative; equal if left out.
        seed: of the choice of events.

    Raises:
        ShapeError: x is not (N, n), or mean, std, names, weights do not fit it.
        EventDataError: values that are not finite, or fewer events than the dictionary needs.
    """
    y = np.asarray(x_physical, dtype=np.float64)
    labels, weight = _checked(y, mean, std, names, weights)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(weight > 0))[:N_EVENTS]
    y, weight = y[order], weight[order]
    dictionary = dictionary or Dictionary()
    features = dictionary.features_of(y, np.asarray(std, dtype=np.float64))
    if precision is not None:
        ladder: tuple[float, ...] = (precision,)
    else:
        is_float32 = np.array_equal(y, y.astype(np.float32))
        ladder = (FLOAT32,) if is_float32 else (FLOAT64, FLOAT32)
    found = [
        _Search(y, weight, labels, dictionary, features, ladder[0], seed).run(),
    ]
    if found[0].verdict != "exact" and len(ladder) > 1:
        found.append(_Search(y, weight, labels, dictionary, features, ladder[1], seed).run())
    order_of_verdicts = ("exact", "inconclusive", "none")
    best = min(found, key=lambda discovery: order_of_verdicts.index(discovery.verdict))
    if best.verdict != "exact":
        return best
    constraints = _as_module(features, best.polynomials, np.asarray(mean, dtype=np.float64), y)
    conditioning = _conditioning(constraints, y)
    if conditioning < MIN_CONDITIONING:
        reason = "the constraints' gradients are dependent at some events"
        return replace(best, verdict="inconclusive", reason=reason, conditioning=conditioning)
    return replace(best, conditioning=conditioning, constraints=constraints)


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
    """One search at one precision."""

    y: Array
    weight: Array
    names: tuple[str, ...]
    dictionary: Dictionary
    features: Features
    precision: float
    seed: int

    @property
    def n_fit(self) -> int:
        return len(self.y) * 4 // 5

    def run(self) -> Discovery:
        spaces = self._null_spaces()
        points = self.y[:: max(len(self.y) // N_POINTS, 1)][:N_POINTS]
        values, gradients = self._at(points, spaces, THRESHOLD)
        found = self._counts(spaces)
        if not gradients.shape[1]:
            return found
        codimensions, gaps, conormals = _ranks(gradients)
        m = int(np.median(codimensions))
        found = replace(
            found,
            verdict="inconclusive",
            codimension=m,
            gradient_gaps=tuple(gaps),
            codimensions=tuple(codimensions),
        )
        same = np.flatnonzero(np.array(codimensions) == m)
        if np.median(gaps) < MIN_GAP or 2 * len(same) <= len(codimensions):
            reason = (
                f"the rank of the gradients stands out by {np.median(gaps):.1f} decades "
                f"(expected {MIN_GAP}); ranks {sorted(set(codimensions))} at {len(gaps)} points"
            )
            return replace(found, reason=reason)
        if self._distance(points, values, gradients, m) > 2 * THRESHOLD:
            reason = (
                "only products of near-constraints vanish: the events lie further from the zero "
                "set than their precision"
            )
            return replace(found, verdict="none", reason=reason, codimension=0)
        loose = _ranks(self._at(points, spaces, 10 * THRESHOLD)[1])[0]
        polynomials = self._minimal(spaces, points[same], conormals[same][:, :m], m)
        return self._judge(found, polynomials, int(np.median(loose)))

    def _null_spaces(self) -> list[NullSpace]:
        """Return the linear combinations, then those of higher degree modulo the linear ones."""
        everything = np.arange(1, self.features.n_features + 1, dtype=np.int64)
        linear = self._null_space(everything, 1)
        if self.dictionary.degree == 1:
            return [linear]
        null = linear.below(THRESHOLD)[:, 1:]  # the constant is never eliminated
        gone = everything[pivots(null)[: len(null)]] if len(null) else everything[:0]
        return [linear, self._null_space(np.setdiff1d(everything, gone), self.dictionary.degree)]

    def _null_space(self, kept: Indices, degree: int) -> NullSpace:
        n_columns = self.features.count(len(kept), degree)
        needed = -(-n_columns * 15 // 8)
        if len(self.y) < needed:
            message = (
                f"discover_constraints: {n_columns} monomials to degree {degree} of {len(kept)} "
                f"features need at least {needed} events, got {len(self.y)}; give more events, "
                "fewer observables, or a smaller dictionary, e.g. Dictionary(degree=1)"
            )
            raise EventDataError(message)
        monomials = self.features.monomials(kept.tolist(), degree)
        y, weight = self.y[: self.n_fit], self.weight[: self.n_fit]
        return null_space(self.features, y, monomials, self.precision, weight)

    def _at(self, points: Array, spaces: list[NullSpace], limit: float) -> tuple[Array, Array]:
        """Return F, (P, K), and std dF/dy, (P, K, n), of the vanishing polynomials.

        In units of the propagated precision, each point's monomials scaled to rms 1.
        """
        values, gradients = [], []
        for space in spaces:
            null = space.below(limit) / space.scale
            design = self.features.evaluate(points, space.monomials)
            size = np.sqrt(np.mean(np.square(design * self.precision / space.scale), axis=1))
            slopes = self.features.gradients(points, space.monomials) * self.features.spread
            values.append(design @ null.T / size[:, None])
            gradients.append(
                np.einsum("kt,pti->pki", null, slopes, optimize=True) / size[:, None, None]
            )
        return np.concatenate(values, axis=1), np.concatenate(gradients, axis=1)

    def _distance(self, points: Array, values: Array, gradients: Array, m: int) -> float:
        """Return the events' distance from the zero set in units of the precision, median."""
        units = self.precision * self.features.sizes(points) / np.asarray(self.features.spread)
        left, singular, _ = np.linalg.svd(gradients * units[:, None], full_matrices=False)
        steps = np.einsum("pkj,pk->pj", left[:, :, :m], values) / singular[:, :m]
        return float(np.median(np.sqrt(np.mean(np.square(steps), axis=1))))

    def _counts(self, spaces: list[NullSpace]) -> Discovery:
        n_linear = len(spaces[0].below(THRESHOLD))
        n_vanishing = n_linear
        if len(spaces) > 1:
            n, degree = self.features.n_features, self.dictionary.degree
            products = self.features.count(n, degree) - self.features.count(n - n_linear, degree)
            n_vanishing = products + len(spaces[1].below(THRESHOLD))
        return Discovery(
            verdict="none",
            reason="no polynomial of the dictionary vanishes at this precision",
            names=self.names,
            dictionary=self.dictionary,
            features=self.features,
            precision=self.precision,
            n_linear=n_linear,
            n_vanishing=n_vanishing,
            singular_value_gap=spaces[-1].gap_at(THRESHOLD),
        )

    def _minimal(
        self, spaces: list[NullSpace], points: Array, conormals: Array, m: int
    ) -> tuple[Polynomial, ...]:
        """Return up to m independent sparse polynomials that stand verification."""
        search = Candidates(
            self.features,
            self.y[: self.n_fit],
            self.weight[: self.n_fit],
            self.y[self.n_fit :],
            points,
            self.precision,
            THRESHOLD,
            self.seed,
        )
        _, flat = self._at(points, spaces[:1], THRESHOLD)
        if flat.shape[1]:
            search.collect(_ranks(flat)[2][:, : flat.shape[1]], min(flat.shape[1], m), 1)
        search.collect(conormals, m, self.dictionary.degree)
        for space in reversed(spaces):
            search.collect_combinations(space, m)
        return tuple(search.chosen)

    def _judge(
        self, found: Discovery, polynomials: tuple[Polynomial, ...], loose: int
    ) -> Discovery:
        m, fresh = found.codimension, self.y[self.n_fit :]
        if not polynomials:
            return replace(found, reason=f"none of {m} constraints stands verification")
        residuals = [p.residual(self.features, fresh, self.precision) for p in polynomials]
        found = replace(
            found,
            polynomials=polynomials,
            residuals=tuple(
                float(np.abs(p.values(self.features, fresh)).max()) for p in polynomials
            ),
            largest_residual=float(np.max(residuals)),
        )
        if len(polynomials) < m:
            reason = f"{len(polynomials)} of {m} constraints stand verification"
        elif loose != m:
            reason = f"at a ten times larger threshold the codimension is {loose} instead of {m}"
        else:
            reason = f"{m} constraints, a surface of {found.latent_dim} dimensions"
            return replace(found, verdict="exact", reason=reason)
        return replace(found, reason=reason)


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
    features: Features, chosen: Sequence[Polynomial], mean: Array, y: Array
) -> Constraints:
    """Return the polynomials as a module, each scaled to gradients of rms 1 (standardised)."""
    std = np.asarray(features.spread)
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


def _conditioning(constraints: Constraints, y: Array) -> float:
    """Return the smallest s_min / s_max of the normalised gradients over events."""
    x = (torch.from_numpy(y) - constraints.mean) / constraints.std
    jacobian = constraints.with_jacobian(x)[1]
    unit = jacobian / torch.linalg.vector_norm(jacobian, dim=2, keepdim=True)
    squared = torch.linalg.eigvalsh(unit @ unit.mT)
    return float((squared[:, 0].clamp_min(0) / squared[:, -1]).sqrt().min())
