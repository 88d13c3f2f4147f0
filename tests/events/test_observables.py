"""The 40 observables and their 26 redundancies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, ExpressionError, ShapeError
from mflow_sbi.events import (
    CLOSURE_TERMS,
    WBF_OBSERVABLES,
    Observable,
    closure,
    closure_violations,
    compute,
)
from mflow_sbi.events.momenta import FourMomentum
from mflow_sbi.events.observables import as_observables

PUBLISHED_ORDER = (
    "e_a1 px_a1 py_a1 pz_a1 pt_a1 eta_a1 e_a2 px_a2 py_a2 pz_a2 pt_a2 eta_a2 "
    "e_j1 px_j1 py_j1 pz_j1 pt_j1 eta_j1 e_j2 px_j2 py_j2 pz_j2 pt_j2 eta_j2 "
    "e_aa px_aa py_aa pz_aa pt_aa m_aa eta_aa deltaeta_aa "
    "e_jj px_jj py_jj pz_jj pt_jj m_jj eta_jj deltaeta_jj"
).split()
PUBLISHED_STD = np.array(
    """299.353 211.859 212.032 399.084 166.121 1.05612 111.998 64.1617 64.0838 147.269 48.9009
    1.11545 634.265 222.85 223.116 935.708 171.673 1.75557 597.842 90.1358 90.2379 819.164 73.6871
    2.31722 337.309 250.674 250.83 501.648 181.563 46.1194 1.16467 0.840492 868.109 237.498 237.659
    1025.47 177.307 762.625 1.87385 3.466""".split(),
    dtype=float,
)


def particles(n=200, seed=0):
    rng = np.random.default_rng(seed)

    def draw(mass):
        return FourMomentum.from_pt_eta_phi_m(
            rng.exponential(80, n) + 5,
            rng.normal(0, 2, n).clip(-5, 5),
            rng.uniform(-np.pi, np.pi, n),
            np.full(n, mass),
        )

    return {"a": (draw(0), draw(0)), "j": (draw(7), draw(20))}


def scale(x):
    """The size of the numbers that enter each of the 26 terms, (N, 26)."""
    index = {o.name: k for k, o in enumerate(WBF_OBSERVABLES)}
    e = {name: np.abs(x[:, index[f"e_{name}"]]) for name in ("a1", "a2", "j1", "j2", "aa", "jj")}
    one = np.ones(len(x))
    energies = [e[k] for k in ("a1", "a2", "j1", "j2", "aa", "jj")]
    return np.column_stack(
        energies
        + [one * 5] * 6
        + [e["a1"], e["a2"], e["aa"], e["jj"]]
        + [e["aa"], e["jj"]] * 4
        + [one * 10] * 2
    )


def test_names_and_units_are_the_published_ones():
    assert [o.name for o in WBF_OBSERVABLES] == PUBLISHED_ORDER
    assert {o.unit for o in WBF_OBSERVABLES if "eta" in o.name} == {"1"}
    assert {o.unit for o in WBF_OBSERVABLES if "eta" not in o.name} == {"GeV"}


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_computed_observables_obey_all_constraints(seed):
    x = compute(WBF_OBSERVABLES, particles(seed=seed))
    assert x.shape == (200, 40)
    assert x.dtype == np.float64
    assert (closure_violations(x) <= 1e-12 * scale(x)).all()
    assert closure(x) < 1e-12


def test_observables_by_hand():
    a1 = FourMomentum.from_pt_eta_phi_m([40.0], [0.5], [0.3], [0.0])
    a2 = FourMomentum.from_pt_eta_phi_m([30.0], [-0.2], [2.0], [0.0])
    j1 = FourMomentum.from_pt_eta_phi_m([90.0], [2.5], [-2.0], [9.0])
    j2 = FourMomentum.from_pt_eta_phi_m([50.0], [-3.0], [1.0], [6.0])
    x = compute(WBF_OBSERVABLES, {"a": [a1, a2], "j": [j1, j2]})[0]
    value = dict(zip(PUBLISHED_ORDER, x, strict=True))
    assert value["px_a1"] == pytest.approx(40 * np.cos(0.3))
    assert value["pz_j2"] == pytest.approx(50 * np.sinh(-3.0))
    assert value["e_j1"] == pytest.approx(np.sqrt((90 * np.cosh(2.5)) ** 2 + 81))
    assert value["deltaeta_aa"] == pytest.approx(0.7)
    assert value["deltaeta_jj"] == pytest.approx(5.5)
    m2 = 2 * 40 * 30 * (np.cosh(0.7) - np.cos(1.7))
    assert value["m_aa"] == pytest.approx(np.sqrt(m2))
    assert value["eta_jj"] == pytest.approx(np.arcsinh(value["pz_jj"] / value["pt_jj"]))


def test_closure_terms_are_the_published_ones():
    assert len(CLOSURE_TERMS) == 26
    assert len({term.name for term in CLOSURE_TERMS}) == 26
    # the published weights are 1 / std of what they weigh, up to the std of sums and masses
    by_name: dict[str, float] = dict(zip(PUBLISHED_ORDER, PUBLISHED_STD.tolist(), strict=True))
    for term in CLOSURE_TERMS[:12]:
        observable = term.name.split()[0]
        spread = by_name[observable]
        assert term.weight == pytest.approx(1 / spread, rel=0.35), term


@pytest.mark.parametrize("k", range(40))
def test_every_observable_is_guarded_by_a_constraint(k):
    """Moving one of the 40 numbers off the manifold is seen by exactly the terms that use it."""
    x = compute(WBF_OBSERVABLES, particles(n=20))
    moved = x.copy()
    moved[:, k] += 0.01 * (1 + np.abs(x[:, k]))
    change = closure_violations(moved).mean(axis=0)
    objects = PUBLISHED_ORDER[k].split("_")[1]
    seen = [t.name for t, size in zip(CLOSURE_TERMS, change, strict=True) if size > 1e-6]
    assert seen
    for name in seen:
        assert objects in name or f"_{objects[0] * 2}" in name


def test_violations_are_measured_in_natural_units():
    x = compute(WBF_OBSERVABLES, particles(n=3))
    x[:, PUBLISHED_ORDER.index("e_a1")] += 2.0
    v = dict(zip((t.name for t in CLOSURE_TERMS), closure_violations(x).T, strict=True))
    np.testing.assert_allclose(v["e_a1 - |p|"], 2.0)
    np.testing.assert_allclose(v["e_aa - e_a1 - e_a2"], 2.0)
    expected = 2.0 * (0.00338315 + 0.0027067) / 26
    assert closure(x) == pytest.approx(expected, rel=1e-9)
    x[:, PUBLISHED_ORDER.index("e_a1")] += 1e9
    assert closure(x) == pytest.approx(2 * 10 / 26, rel=1e-9)


def test_separation_is_compared_without_sign():
    x = compute(WBF_OBSERVABLES, particles(n=3))
    x[:, PUBLISHED_ORDER.index("deltaeta_aa")] *= -1
    assert closure(x) < 1e-12


def test_closure_does_not_hide_nan():
    x = compute(WBF_OBSERVABLES, particles(n=3))
    x[0, 3] = np.nan
    assert np.isnan(closure(x))


def test_closure_wants_forty_columns():
    with pytest.raises(ShapeError, match=r"\(N, 40\); got an array of shape \(3, 14\)"):
        closure(np.zeros((3, 14)))


def test_names_and_sentences_become_observables():
    first, second = as_observables(["m_aa", "j[0].pt / j[1].pt"])
    assert first in WBF_OBSERVABLES
    assert second == Observable("j[0].pt / j[1].pt", "j[0].pt / j[1].pt")


REFUSED = {
    "one string": (lambda: as_observables("m_aa"), "is one string; expected a list"),
    "none": (lambda: as_observables([]), "is empty"),
    "twice": (lambda: as_observables(["m_aa", "m_aa"]), "'m_aa'.*more than once"),
    "a truth": (lambda: compute([Observable("x", "a[0].pt > 1")], particles()), "is a truth"),
    "absent object": (lambda: compute([Observable("x", "l[0].pt")], particles()), "no objects"),
    "third photon": (lambda: compute([Observable("x", "a[2].pt")], particles()), "needs 3"),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_refused(make):
    with pytest.raises(ExpressionError, match=make[1]):
        make[0]()


def test_values_that_are_not_finite_are_named():
    along_the_beam = FourMomentum(*(np.array([v, v]) for v in (5.0, 0.0, 0.0, 5.0)))
    with pytest.raises(EventDataError, match="'eta_a1'.*not finite in 2 events"):
        compute(WBF_OBSERVABLES[:6], {"a": [along_the_beam]})
