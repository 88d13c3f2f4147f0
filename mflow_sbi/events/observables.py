"""Observables of an event: names, units and sentences; the 40 of the published WBF study.

Four-momenta are built in float64 from (pT, eta, phi, mass), so that the redundancies among the
observables hold to rounding: 40 numbers, 14 degrees of freedom. The closure test asks of any 40
numbers by how much they violate those 26 redundancies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import ConfigDict

from mflow_sbi.errors import EventDataError, ExpressionError, ShapeError
from mflow_sbi.events.expressions import Expression, Namespace
from mflow_sbi.events.wording import counted
from mflow_sbi.interfaces import Array

__all__ = [
    "CLOSURE_TERMS",
    "NAMED_SETS",
    "WBF_OBSERVABLES",
    "ClosureTerm",
    "Observable",
    "as_observables",
    "closure",
    "closure_violations",
    "compute",
]


@dataclass(frozen=True)
class Observable:
    """One column of x.

    Attributes:
        name: Its name in tables and plots.
        expression: The sentence that computes it (in flat files: the branch); `name` if empty.
        unit: "GeV", or "1" for pure numbers.
        periodic: Whether it is an angle, period 2 pi.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: str
    expression: str = ""
    unit: str = "1"
    periodic: bool = False

    @property
    def source(self) -> str:
        """The sentence or branch that gives the values."""
        return self.expression or self.name


def _wbf_observables() -> tuple[Observable, ...]:
    units = {"eta": "1"}
    single = [
        Observable(f"{attr}_{symbol}{i + 1}", f"{symbol}[{i}].{attr}", units.get(attr, "GeV"))
        for symbol in "aj"
        for i in (0, 1)
        for attr in ("e", "px", "py", "pz", "pt", "eta")
    ]
    pairs = [
        [
            Observable(f"{attr}_{s}{s}", f"({s}[0] + {s}[1]).{attr}", units.get(attr, "GeV"))
            for attr in ("e", "px", "py", "pz", "pt", "m", "eta")
        ]
        + [Observable(f"deltaeta_{s}{s}", f"{s}[0].eta - {s}[1].eta")]
        for s in "aj"
    ]
    return (*single, *pairs[0], *pairs[1])


WBF_OBSERVABLES: tuple[Observable, ...] = _wbf_observables()
"""The 40 observables of the published study in its order (arXiv:2003.13913)."""

_BY_NAME = {observable.name: observable for observable in WBF_OBSERVABLES}


NAMED_SETS: dict[str, tuple[Observable, ...]] = {"wbf40": WBF_OBSERVABLES}
"""Sets of observables that one word stands for."""


def as_observables(items: str | Iterable[str | Observable]) -> tuple[Observable, ...]:
    """Return observables from names of the 40 or of a set, sentences, or observables.

    Raises:
        ExpressionError: Two observables share a name, or the list is empty or one string.

    >>> [o.name for o in as_observables(["m_aa", "j[0].pt"])], len(as_observables("wbf40"))
    (['m_aa', 'j[0].pt'], 40)
    """
    if isinstance(items, str):
        if items not in NAMED_SETS:
            sets = ", ".join(map(repr, NAMED_SETS))
            msg = (
                f"observables={items!r} is one string; expected a list, e.g. [{items!r}], or the "
                f"name of a set: {sets}."
            )
            raise ExpressionError(msg)
        items = (items,)
    observables = tuple(observable for item in items for observable in _meant(item))
    names = [observable.name for observable in observables]
    if not names:
        msg = "observables=[] is empty; name at least one, or leave it out for the default ones."
        raise ExpressionError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"observables {twice} are named more than once; every column needs its own name."
        raise ExpressionError(msg)
    return observables


def _meant(item: str | Observable) -> tuple[Observable, ...]:
    if isinstance(item, Observable):
        return (item,)
    if not isinstance(item, str):
        msg = f"observable {item!r} is no text; expected a name, a sentence or an Observable."
        raise ExpressionError(msg)
    return NAMED_SETS.get(item) or (_BY_NAME.get(item, Observable(item, item)),)


def compute(observables: Sequence[Observable], particles: Namespace) -> Array:
    """Return x[i, k] = value of observable k in event i, (N, n) float64.

    Args:
        observables: The n columns.
        particles: Leading objects by symbol, each N events long (or columns by name).

    Raises:
        ExpressionError: A sentence is not a number, or names what `particles` lacks.
        EventDataError: A value is not finite (e.g. eta of an object along the beam).

    >>> from mflow_sbi.events.momenta import FourMomentum
    >>> jet = FourMomentum.from_pt_eta_phi_m([30.0], [1.0], [0.5], [4.0])
    >>> compute([Observable("mass", "j[0].m")], {"j": [jet]}).round(9)
    array([[4.]])
    """
    columns = [name for name, value in particles.items() if isinstance(value, np.ndarray)]
    objects = [name for name, value in particles.items() if isinstance(value, list | tuple)]
    firsts = (value[:1] if name in objects else [value] for name, value in particles.items())
    sizes = {len(value) for values in firsts for value in values}
    x = np.empty((max(sizes, default=0), len(observables)))
    cache: dict = {}
    for k, observable in enumerate(observables):
        if observable.source in columns:  # a branch name need not be a sentence
            x[:, k] = particles[observable.source]
            continue
        sentence = Expression(observable.source).require_kind("number", "observable")
        sentence.require_names(objects, columns)
        for name, n_needed in sentence.objects.items():
            if len(particles[name]) < n_needed:
                msg = (
                    f"observable {observable.source!r} needs {n_needed} leading objects {name!r}; "
                    f"{len(particles[name])} were given."
                )
                raise ExpressionError(msg)
        x[:, k] = sentence(particles, cache)
    _require_finite(x, observables)
    return x


def _require_finite(x: Array, observables: Sequence[Observable]) -> None:
    n_bad = np.count_nonzero(~np.isfinite(x), axis=0)
    if n_bad.any():
        k = int(np.argmax(n_bad > 0))
        msg = (
            f"observable {observables[k].name!r} ({observables[k].source}) is not finite in "
            f"{counted(int(n_bad[k]), 'event')}; expected finite numbers (an object along the "
            "beam has no eta). Drop those events by a selection, e.g. '(a[0]+a[1]).pt > 1'."
        )
        raise EventDataError(msg)


class ClosureTerm(NamedTuple):
    """One redundancy and its weight (1 / GeV, or 1 for pseudorapidities)."""

    name: str
    weight: float


CLOSURE_TERMS: tuple[ClosureTerm, ...] = tuple(
    ClosureTerm(name, weight)
    for name, weight in (
        ("pt_a1 - hypot(px, py)", 0.00573312),
        ("pt_a2 - hypot(px, py)", 0.0193736),
        ("pt_j1 - hypot(px, py)", 0.00560185),
        ("pt_j2 - hypot(px, py)", 0.0132463),
        ("pt_aa - hypot(px, py)", 0.00514927),
        ("pt_jj - hypot(px, py)", 0.00528593),
        ("eta_a1 - arcsinh(pz / pt)", 0.75112),
        ("eta_a2 - arcsinh(pz / pt)", 0.683745),
        ("eta_j1 - arcsinh(pz / pt)", 0.479496),
        ("eta_j2 - arcsinh(pz / pt)", 0.354116),
        ("eta_aa - arcsinh(pz / pt)", 0.69444),
        ("eta_jj - arcsinh(pz / pt)", 0.458107),
        ("e_a1 - |p|", 0.00338315),
        ("e_a2 - |p|", 0.00899004),
        ("e_aa - sqrt(p^2 + m^2)", 0.00294437),
        ("e_jj - sqrt(p^2 + m^2)", 0.00115098),
        ("e_aa - e_a1 - e_a2", 0.0027067),
        ("e_jj - e_j1 - e_j2", 0.0010182),
        ("px_aa - px_a1 - px_a2", 0.00376239),
        ("px_jj - px_j1 - px_j2", 0.00373527),
        ("py_aa - py_a1 - py_a2", 0.00377451),
        ("py_jj - py_j1 - py_j2", 0.00372355),
        ("pz_aa - pz_a1 - pz_a2", 0.00189952),
        ("pz_jj - pz_j1 - pz_j2", 0.000785023),
        ("|deltaeta_aa| - |eta_a1 - eta_a2|", 1.10838),
        ("|deltaeta_jj| - |eta_j1 - eta_j2|", 0.472021),
    )
)
"""The 26 redundancies of the 40 observables with their published weights (arXiv:2003.13913)."""

_COLUMN = {observable.name: k for k, observable in enumerate(WBF_OBSERVABLES)}
_CLIP = 10.0


def closure_violations(x: Array) -> Array:
    """Return |v_i(x)|, the violation of each of the 26 redundancies, (N, 40) -> (N, 26).

    Args:
        x: The 40 `WBF_OBSERVABLES` in physical units, (N, 40).

    Returns:
        Absolute violations in the order of `CLOSURE_TERMS`, GeV (or 1 for pseudorapidities),
        neither weighted nor clipped.

    Raises:
        ShapeError: x does not have 40 columns.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(WBF_OBSERVABLES):
        msg = (
            f"closure needs the {len(WBF_OBSERVABLES)} WBF observables, (N, 40); "
            f"got an array of shape {x.shape}."
        )
        raise ShapeError(msg)

    def of(kind: str, *objects: str) -> Array:
        return x[:, [_COLUMN[f"{kind}_{name}"] for name in objects]]

    every = ("a1", "a2", "j1", "j2", "aa", "jj")
    pairs, first, second = ("aa", "jj"), ("a1", "j1"), ("a2", "j2")
    pt = np.hypot(of("px", *every), of("py", *every))
    p = np.hypot(pt, of("pz", *every))
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.arcsinh(of("pz", *every) / pt)
    sums = [of(k, *pairs) - of(k, *first) - of(k, *second) for k in ("e", "px", "py", "pz")]
    separation = np.abs(of("eta", *first) - of("eta", *second))
    return np.abs(
        np.hstack(
            [
                of("pt", *every) - pt,
                of("eta", *every) - eta,
                of("e", "a1", "a2") - p[:, :2],
                of("e", *pairs) - np.hypot(p[:, 4:], of("m", *pairs)),
                *sums,
                np.abs(of("deltaeta", *pairs)) - separation,
            ]
        )
    )


def closure(x: Array) -> float:
    """Return mean_{events, i} min(w_i |v_i|, 10): 0 on the manifold of physical events.

    Args:
        x: The 40 `WBF_OBSERVABLES` in physical units, (N, 40).
    """
    weights = np.array([term.weight for term in CLOSURE_TERMS])
    return float(np.minimum(closure_violations(x) * weights, _CLIP).mean())
