"""Laws of four-momenta, and the borders of the language."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflow_sbi.errors import EventDataError, ExpressionError
from mflow_sbi.events.expressions import Expression
from mflow_sbi.events.momenta import FourMomentum, PlanarMomentum

pts = st.floats(1e-2, 5e3)
etas = st.floats(-6, 6)
phis = st.floats(-3.14159, 3.14159)
masses = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
momenta = st.builds(
    lambda *parts: FourMomentum.from_pt_eta_phi_m(*([part] for part in parts)),
    pts,
    etas,
    phis,
    masses,
)


@given(pts, etas, phis, masses)
def test_kinematics_survive_the_way_there_and_back(pt, eta, phi, m):
    p = FourMomentum.from_pt_eta_phi_m([pt], [eta], [phi], [m])
    assert p.pt[0] == pytest.approx(pt, rel=1e-13)
    assert p.eta[0] == pytest.approx(eta, rel=1e-12, abs=1e-13)
    assert p.phi[0] == pytest.approx(phi, rel=1e-12, abs=1e-13)
    assert p.m[0] ** 2 == pytest.approx(m**2, abs=1e-14 * p.e[0] ** 2)


@given(momenta)
def test_mass_shell(p):
    p2 = p.px**2 + p.py**2 + p.pz**2
    assert p.e[0] ** 2 == pytest.approx((p2 + p.m**2)[0], rel=1e-14)


@given(momenta, momenta)
def test_sums_are_componentwise_and_commute(p, q):
    for name in ("e", "px", "py", "pz"):
        assert getattr(p + q, name) == getattr(p, name) + getattr(q, name)
        assert getattr(p + q, name) == getattr(q + p, name)
    assert (p + q).m[0] >= (p.m + q.m)[0] - 1e-7 * (p + q).e[0]


@given(pts, etas, phis, pts, etas, phis)
def test_pair_mass_of_massless_objects(pt1, eta1, phi1, pt2, eta2, phi2):
    p = FourMomentum.from_pt_eta_phi_m([pt1], [eta1], [phi1], [0])
    q = FourMomentum.from_pt_eta_phi_m([pt2], [eta2], [phi2], [0])
    expected = 2 * pt1 * pt2 * (np.cosh(eta1 - eta2) - np.cos(phi1 - phi2))
    assert (p + q).m[0] ** 2 == pytest.approx(expected, abs=1e-14 * (p + q).e[0] ** 2)


def names(n=5, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda: FourMomentum.from_pt_eta_phi_m(  # noqa: E731
        rng.uniform(10, 100, n), rng.normal(size=n), rng.uniform(-3, 3, n), rng.uniform(0, 10, n)
    )
    return {
        "a": (draw(), draw()),
        "j": (draw(), draw()),
        "mjj": rng.uniform(size=n),
        "met": PlanarMomentum.from_pt_phi(rng.uniform(10, 100, n), rng.uniform(-3, 3, n)),
        "n(j)": rng.integers(2, 9, n).astype("f8"),
        "sum_pt(j)": rng.uniform(50, 100, n),
    }


def wrapped(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


A, B = names()["a"]
MEANINGS = {
    "a[0].pt": A.pt,
    "(a[0] + a[1]).m": (A + B).m,
    "a[0].eta - a[1].eta": A.eta - B.eta,
    "abs(a[0].eta - a[1].eta)": np.abs(A.eta - B.eta),
    "-a[0].px * 2 / a[1].e + 1.5": -A.px * 2 / B.e + 1.5,
    "2 * (a[0].e + a[1].e)": 2 * (A.e + B.e),
    "mjj + a[0].m": names()["mjj"] + A.m,
    "a[0].pt > 30": A.pt > 30,
    "20 < a[0].pt <= 60": (A.pt > 20) & (A.pt <= 60),
    "a[0].pt > 50 and a[1].pt > 50 or mjj < 0.5": ((A.pt > 50) & (B.pt > 50))
    | (names()["mjj"] < 0.5),
    "not a[0].pt > 50": ~(A.pt > 50),
    "deltaphi(a[0], a[1])": wrapped(A.phi - B.phi),
    "deltaphi(a[0].phi, a[1].phi)": wrapped(A.phi - B.phi),
    "deltaeta(a[0], a[1])": A.eta - B.eta,
    "deltar(a[0], a[1])": np.hypot(A.eta - B.eta, wrapped(A.phi - B.phi)),
    "deltaphi(met, a[0] + a[1])": wrapped(names()["met"].phi - (A + B).phi),
    "met.pt + met.px": names()["met"].pt + names()["met"].px,
    "n(j) >= 4": names()["n(j)"] >= 4,
    "sum_pt(j) / n(j)": names()["sum_pt(j)"] / names()["n(j)"],
    "sqrt(a[0].pt * a[1].pt)": np.sqrt(A.pt * B.pt),
    "exp(log(a[0].pt)) + cos(a[0].phi) + sin(a[0].phi) + tan(1)": np.exp(np.log(A.pt))
    + np.cos(A.phi)
    + np.sin(A.phi)
    + np.tan(1),
    "min(a[0].pt, a[1].pt, 40)": np.minimum(np.minimum(A.pt, B.pt), 40),
    "max(abs(a[0].eta), abs(a[1].eta))": np.maximum(np.abs(A.eta), np.abs(B.eta)),
    "1 < 2 < a[0].pt": A.pt > 2,
    "1 > 2 or a[0].pt > 50": A.pt > 50,
    "a[0].pt / 0": np.full(len(A), np.inf),
    "a[0].pt + 1 / 0": np.full(len(A), np.inf),
}


def test_transverse_mass():
    met = names()["met"]
    expected = np.sqrt(2 * A.pt * met.pt * (1 - np.cos(A.phi - met.phi)))
    np.testing.assert_allclose(Expression("mt(a[0], met)")(names()), expected, rtol=1e-12)


def test_a_column_may_be_called_like_an_attribute_or_a_function():
    columns = {"met": np.array([1.0]), "n": np.array([2.0]), "min": np.array([3.0])}
    assert Expression("met + n + min")(columns) == [6.0]


@pytest.mark.parametrize("text", MEANINGS)
def test_meaning(text):
    np.testing.assert_array_equal(Expression(text)(names()), MEANINGS[text])


NOT_IN_THE_LANGUAGE = {
    "__import__('os').system('true')": "needs a momentum|not in the language|no function",
    "__import__('os')": "no function '__import__'",
    "eval('1')": "no function 'eval'",
    "getattr(a[0], 'pt')": "no function 'getattr'",
    "deltaphi.__globals__": "needs a momentum",
    "(lambda: 1)()": "not in the language",
    "a[0].__class__": "no attribute '__class__'",
    "(a[0] + a[1]).Charge": "no attribute 'Charge'",
    "a[0]._Charge": "no attribute '_Charge'",
    "a[0].Pt": "no attribute 'Pt' Did you mean 'pt'",
    "a[-1].pt": "not in the language",
    "a['0'].pt": "needs a number",
    "a[True].pt": "needs a number",
    "a[0:2].pt": "not in the language",
    "a.pt": "needs a momentum, 'a' is a number",
    "a[0] - a[1]": "needs a number, 'a\\[0\\]' is a momentum",
    "a[0] + 1": "needs a momentum",
    "1 + a[0]": "needs a number",
    "abs(a[0])": "needs a number",
    "abs(a[0].pt, 2)": "needs 1 number, got 2",
    "sqrt(a[0])": "needs a number",
    "sqrt(x=a[0].pt)": "not in the language",
    "sqr(a[0].pt)": "no function 'sqr' Did you mean 'sqrt'",
    "min(a[0].pt)": "needs 2 or more numbers",
    "deltaphi(a[0])": "needs two operands",
    "deltaphi(a[0], 1)": "two momenta or two azimuths",
    "deltar(met, a[0])": "'met' is a number",
    "met.eta": "met has no attribute 'eta'",
    "met + a[0]": "needs a number",
    "n(j[0])": "needs one kind of objects",
    "n()": "needs one kind of objects",
    "a[0].pt ** 2": "not in the language",
    "a[0].pt if 1 else 2": "not in the language",
    "lambda: 1": "not in the language",
    "[a[0].pt]": "not in the language",
    "a[0].pt and 1": "needs a truth",
    "True": "not in the language",
    "'text'": "not in the language",
    "a[0].pt >": "does not parse",
    "": "does not parse",
    "a[0].pt\0": "does not parse",
    "+".join(["1"] * 400): "longer than",
    "a[0].pt in (1, 2)": "not in the language",
    "a[0].pt > " + "9" * 400: "beyond all numbers",
    "a[0].pt > 1e400": "beyond all numbers",
    "-" * 400 + "a[0].pt": "nested more than 200 levels",
    "(x := 1)": "not in the language",
}


@pytest.mark.parametrize("text", NOT_IN_THE_LANGUAGE)
def test_refused(text):
    with pytest.raises(ExpressionError, match=NOT_IN_THE_LANGUAGE[text]):
        Expression(text)


@given(st.text(alphabet="aj01[]().+-*/<>abset m,:nphirl", max_size=30))
def test_any_text_is_a_sentence_or_refused(text):
    try:
        Expression(text)
    except ExpressionError:
        return


def test_what_a_sentence_needs():
    sentence = Expression("(a[0] + a[2]).m + j[1].pt + mjj")
    assert sentence.objects == {"a": 3, "j": 2}
    assert Expression("m[1].Charge * m[0].Charge + m[0].pt").further == {"m": ["Charge"]}
    assert Expression("n(j) + sum_pt(a) + a[0].pt").objects == {"j": 0, "a": 1}
    assert Expression("mt(a[0], met) + met.pt").planar == ["met"]
    assert sentence.columns == ["mjj"]
    with pytest.raises(ExpressionError, match="no objects 'j' here"):
        sentence.require_names(["a"], ["mjj"])
    with pytest.raises(ExpressionError, match="no column 'mjj'.*mean 'm_jj'"):
        sentence.require_names(["a", "j"], ["m_jj"])
    with pytest.raises(ExpressionError, match="is a number; expected a truth"):
        sentence.require_kind("truth", "selection")


def test_comparing_what_is_not_finite_is_refused():
    along_the_beam = FourMomentum(*(np.array([v]) for v in (5.0, 0.0, 0.0, 5.0)))
    with pytest.raises(EventDataError, match=r"'a\[0\].eta' is not finite in 1 event"):
        Expression("a[0].eta < 2")({"a": [along_the_beam]})
