r"""The maximum of a likelihood: MIGRAD with our gradient, HESSE covariance and MINOS errors.

    V = [-d^2 log L / d theta d theta^T]^-1   at the maximum (HESSE),
    max over the others log L(theta_k = value + error) = log L_max - 1/2   (MINOS, 68.3%).

All three are iminuit's.  A likelihood quadratic in amplitudes has several maxima, so MIGRAD is
begun at several starts (`starts_in_box`, `starts_from_prior`); the further maxima it finds are
kept beside the highest.  MINOS errors belong to the highest alone; for disjoint intervals see
`profile`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from iminuit import Minuit
from iminuit.util import MError
from numpy.typing import ArrayLike
from scipy.stats import chi2

from mflow_sbi.errors import IntervalError, ShapeError
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Likelihood
from mflow_sbi.intervals.parameters import Limits, Region, region_of

__all__ = ["ONE_SIGMA", "MaximumLikelihood", "Mode", "maximise"]

ONE_SIGMA = float(chi2.cdf(1.0, 1))  # 0.6827
_TOLERANCES = (1e-3, 1e-2, 1e-1)  # EDM 1e-6 to 1e-4: coarser where rounding does not allow more
_SAME_GAIN = 1e-2  # log-likelihood by which two runs of MIGRAD may differ at one maximum
_SAME_PLACE = 0.3  # standard deviations
_RESTARTS = 3
_LARGEST_LEVEL = 0.95  # of one or two parameters, drawn or quoted
_MARGIN = 2.0  # of 2 Delta log L above it, within which further maxima are worth a remark


@dataclass(frozen=True, eq=False)
class Mode:
    """One local maximum.

    Args:
        values: parameters, (p,).
        log_likelihood: log L there.
        std: HESSE errors, 0 for fixed parameters, (p,).
    """

    values: Array
    log_likelihood: float
    std: Array


@dataclass(frozen=True, eq=False)
class MaximumLikelihood:
    """The highest maximum found, its errors, and whether they can be trusted.

    Args:
        parameter_names: the p names.
        values: parameters at the maximum, (p,).
        log_likelihood: log L there.
        covariance: HESSE, 0 for fixed parameters, (p, p).
        minos: lower (negative) and upper error of each parameter at `level`, (p, 2): NaN for
            fixed parameters and where MINOS found no crossing.
        level: confidence level of the MINOS errors.
        modes: all local maxima found, the highest first.
        complaints: in words, whatever makes maximum or covariance invalid; empty when valid.
        remarks: in words, what else a reader should know.
    """

    parameter_names: tuple[str, ...]
    values: Array
    log_likelihood: float
    covariance: Array
    minos: Array
    level: float
    modes: tuple[Mode, ...]
    complaints: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether there is nothing to complain about."""
        return not self.complaints

    @property
    def std(self) -> Array:
        """HESSE errors, (p,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Array:
        """Correlations, (p, p); 0 with fixed parameters."""
        std = np.where(self.std > 0, self.std, np.inf)
        return self.covariance / np.outer(std, std)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values; what MINOS did not find is None."""
        return {
            "parameter_names": list(self.parameter_names),
            "values": self.values.tolist(),
            "log_likelihood": self.log_likelihood,
            "covariance": self.covariance.tolist(),
            "minos": [[None if np.isnan(x) else float(x) for x in row] for row in self.minos],
            "level": self.level,
            "modes": [
                {"values": m.values.tolist(), "log_likelihood": m.log_likelihood}
                for m in self.modes
            ],
            "complaints": list(self.complaints),
            "remarks": list(self.remarks),
        }


def maximise(
    likelihood: Likelihood,
    starts: ArrayLike,
    *,
    limits: Limits | None = None,
    fixed: Mapping[str, float] | None = None,
    level: float = ONE_SIGMA,
) -> MaximumLikelihood:
    """Return the highest maximum that MIGRAD finds from the starts, with its errors.

    Args:
        likelihood: log L of the observation; its gradient is used if it has one.
        starts: one point (p,) or several (R, p), finite and inside the limits.
        limits: (low, high) by name, None for an open side.
        fixed: values of the parameters to be held.
        level: confidence level of the MINOS errors.

    Raises:
        IntervalError: an unknown parameter, impossible limits, a start that is not finite or not
            inside them, no start with a positive likelihood, a level not between 0 and 1.
        ShapeError: starts of another shape.
        LikelihoodError: the likelihood is NaN or +inf somewhere on the way.

    >>> from mflow_sbi.inference import FlatLikelihood
    >>> flat = maximise(FlatLikelihood(("CWL2",)), [0.0], limits={"CWL2": (-1, 1)})
    >>> flat.valid, flat.complaints[-1][:29]
    (False, 'HESSE: the likelihood is flat')
    """
    names = tuple(likelihood.parameter_names)
    region = region_of(names, limits, fixed)
    points = _as_starts(starts, region)
    if not 0 < level < 1:
        message = f"level: expected a number between 0 and 1, got {level:g}"
        raise IntervalError(message)
    height = _Height(likelihood)
    fits = [_migrad(height, start, region) for start in points if height.positive(start)]
    if not fits:
        message = (
            f"the likelihood vanishes at all of {len(points)} starts, the first "
            f"{dict(zip(names, points[0].tolist(), strict=True))}; begin elsewhere, e.g. with "
            "starts_in_box"
        )
        raise IntervalError(message)
    best = min(fits, key=_depth)
    best = _with_errors(best, height, region, level)
    return _result(best, fits, region, level)


class _Height:
    """-log L and its gradient for Minuit; the last point is kept, which MIGRAD asks for twice."""

    def __init__(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood
        self._slopes = isinstance(likelihood, DifferentiableLikelihood)
        self._last: tuple[bytes, float, Array | None] | None = None

    def depth(self, theta: Array) -> float:
        return self._at(theta)[0]

    def gradient(self, theta: Array) -> Array:
        slope = self._at(theta)[1]
        assert slope is not None
        return slope

    @property
    def gradient_if_known(self) -> Any:  # noqa: ANN401
        return self.gradient if self._slopes else False

    def positive(self, theta: Array) -> bool:
        """Return whether the likelihood is positive at a point."""
        return self.depth(theta) < np.inf

    def _at(self, theta: Array) -> tuple[float, Array | None]:
        point = np.asarray(theta, dtype=np.float64)[None]
        key = point.tobytes()
        if not np.isfinite(point).all():
            return np.inf, np.zeros_like(point[0])
        if self._last is None or self._last[0] != key:
            likelihood = self._likelihood
            if isinstance(likelihood, DifferentiableLikelihood):
                value, slope = likelihood.value_and_gradient(point)
                self._last = key, -float(value[0]), -slope[0]
            else:
                self._last = key, -float(likelihood(point)[0]), None
        return self._last[1:]


def _as_starts(starts: ArrayLike, region: Region) -> Array:
    """Return starts as (R, p) points of the region."""
    points = np.atleast_2d(np.asarray(starts, dtype=np.float64))
    if points.ndim != 2 or len(points) == 0:
        message = f"starts: expected (p,) or (R, p), got shape {np.shape(starts)}"
        raise ShapeError(message)
    return region.points(points)


def _migrad(height: _Height, start: Array, region: Region) -> Minuit:
    """Return MIGRAD's end from one start, as precise as rounding allows."""
    cost: Any = height.depth  # iminuit asks an array where it has names and one array to begin
    fit = Minuit(cost, start, grad=height.gradient_if_known, name=region.names)
    fit.errordef = Minuit.LIKELIHOOD
    fit.limits = [tuple(side) for side in region.box]
    for k in np.flatnonzero(~region.free).tolist():
        fit.fixed[k] = True
    with _quiet(fit):
        for tolerance in _TOLERANCES:
            fit.tol = tolerance
            fit.migrad()
            if fit.valid:
                break
    return fit


@contextmanager
def _quiet(fit: Minuit) -> Iterator[None]:
    """Keep Minuit from printing: its words are told by the result."""
    before = fit.print_level
    fit.print_level = -1
    try:
        yield
    finally:
        fit.print_level = before


def _depth(fit: Minuit) -> float:
    """Return -log L at the end of a fit, inf where it is not a number."""
    depth = np.inf if fit.fval is None else float(fit.fval)
    return depth if np.isfinite([depth, *fit.values]).all() else np.inf


def _with_errors(fit: Minuit, height: _Height, region: Region, level: float) -> Minuit:
    """Run HESSE and MINOS; begin again where MINOS finds a higher maximum."""
    for _ in range(_RESTARTS):
        if not region.free.any():
            break
        with _quiet(fit):
            fit.hesse()
            if not fit.valid:
                break
            depth = _depth(fit)
            fit.minos(cl=level)
        if not any(error.lower_new_min or error.upper_new_min for error in fit.merrors.values()):
            break
        again = _migrad(height, np.array(fit.values), region)
        if _depth(again) >= depth - _SAME_GAIN:
            break
        fit = again
    return fit


def _result(
    best: Minuit, fits: Sequence[Minuit], region: Region, level: float
) -> MaximumLikelihood:
    """Put a fit, and what became of the others, into words and arrays."""
    n = len(region.names)
    covariance = np.zeros((n, n)) if best.covariance is None else np.array(best.covariance)
    minos = np.full((n, 2), np.nan)
    for name, error in best.merrors.items():
        minos[region.index(name)] = (
            error.lower if _found(error, "lower") else np.nan,
            error.upper if _found(error, "upper") else np.nan,
        )
    modes = _modes([best, *fits])
    return MaximumLikelihood(
        parameter_names=region.names,
        values=np.array(best.values),
        log_likelihood=-_depth(best),
        covariance=covariance,
        minos=minos,
        level=level,
        modes=modes,
        complaints=_complaints(best, region),
        remarks=(*_limits_touched(best, region), *_minos_remarks(best), *_further(modes, region)),
    )


def _modes(fits: Sequence[Minuit]) -> tuple[Mode, ...]:
    """Return the different valid maxima, the highest first; the first fit is one in any case."""
    kept: list[Mode] = []
    for fit in [fits[0], *sorted((f for f in fits[1:] if f.valid), key=_depth)]:
        free = ~np.array(fit.fixed)
        mode = Mode(np.array(fit.values), -_depth(fit), np.where(free, np.array(fit.errors), 0.0))
        if not any(_same(mode, other) for other in kept):
            kept.append(mode)
    return tuple(kept)


def _same(mode: Mode, other: Mode) -> bool:
    reach = np.maximum(mode.std, other.std)
    near = np.abs(mode.values - other.values) <= _SAME_PLACE * reach
    return bool(near.all())


def _complaints(fit: Minuit, region: Region) -> tuple[str, ...]:
    found, state = [], fit.fmin
    if not region.free.any() or state is None:
        return ()
    if not fit.valid:
        reasons = {
            "the call limit was reached": state.has_reached_call_limit,
            f"{state.edm:.2g} of log L is estimated to be left": state.is_above_max_edm
            and np.isfinite(state.edm),
        }
        why = ", ".join(words for words, holds in reasons.items() if holds) or "no descent"
        found.append(f"MIGRAD found no valid maximum: {why}; try other starts or limits")
    if state.hesse_failed or not fit.accurate:
        found.append(
            "HESSE: the likelihood is flat or not curved downwards in some direction, so that the "
            "covariance is not to be trusted; fix a parameter or use profile intervals"
        )
    return tuple(found)


def _limits_touched(fit: Minuit, region: Region) -> list[str]:
    found = []
    for k in np.flatnonzero(region.free).tolist():
        value, (low, high) = fit.values[k], region.box[k]
        slack = 1e-3 * (high - low) if np.isfinite(high - low) else 1e-3 * max(1.0, abs(value))
        for side, limit in (("lower", low), ("upper", high)):
            if abs(value - limit) < slack:
                found.append(
                    f"{region.names[k]} is at its {side} limit {limit:g}: its HESSE error means "
                    "nothing, its MINOS error is one-sided"
                )
    return found


def _minos_remarks(fit: Minuit) -> list[str]:
    return [
        f"MINOS {side} error of {name}: {_minos_reason(error, side)}"
        for name, error in fit.merrors.items()
        for side in ("lower", "upper")
        if not _found(error, side)
    ]


def _found(error: MError, side: str) -> bool:
    """Return whether MINOS found the crossing on one side, inside the limits."""
    return bool(getattr(error, f"{side}_valid") and not getattr(error, f"at_{side}_limit"))


def _minos_reason(error: MError, side: str) -> str:
    if getattr(error, f"at_{side}_limit"):
        return "no crossing inside the limits (open)"
    if getattr(error, f"{side}_new_min"):
        return "a higher maximum lies that way; give more starts"
    return "no crossing found; use profile intervals"


def _further(modes: Sequence[Mode], region: Region) -> list[str]:
    """Return a remark if further maxima are so high that intervals or contours may reach them."""
    gaps = [2 * (modes[0].log_likelihood - mode.log_likelihood) for mode in modes[1:]]
    regions_of = min(2, int(region.free.sum()))
    matter = [gap for gap in gaps if gap < chi2.ppf(_LARGEST_LEVEL, regions_of) + _MARGIN]
    if not matter:
        return []
    gap = gaps[0]
    place = ", ".join(
        f"{name} = {value:.4g}" for name, value in zip(region.names, modes[1].values, strict=True)
    )
    return [
        f"{len(matter)} further maxima, the next with 2 Delta log L = {gap:.3g} at {place}; "
        "HESSE and MINOS describe the highest only, intervals may be disjoint: use profile"
    ]
