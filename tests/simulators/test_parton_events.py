"""Parton-level events: physical, unweighted, and with weights that are the squared amplitude."""

import numpy as np
import pytest

from simulators.errors import InvalidRequest
from simulators.wbf.event_model import monomials, tabulated_cross_section
from simulators.wbf.flavours import choose_flavours, combinations
from simulators.wbf.integration import estimate_cross_section
from simulators.wbf.matrix_element import squared_amplitude_coefficients
from simulators.wbf.parton_density import FLAVOURS, xf
from simulators.wbf.parton_events import generate_parton_events, lhe_events, parton_cross_section
from simulators.wbf.parton_level import FLUX, differential_coefficients

N = 1500
NAME = {number: name for name, number in FLAVOURS.items()}


@pytest.fixture(scope="module", params=[("ud", "paper"), ("ww", "tuned"), ("full", "paper")])
def generated(request):
    rng = np.random.default_rng(31)
    return *request.param, generate_parton_events(rng.standard_normal((N, 2)), rng, *request.param)


def test_momentum_is_conserved_and_masses_are_on_shell(generated):
    *_, events = generated
    p = events.momenta
    np.testing.assert_allclose(p[:, :2].sum(axis=1), p[:, 2:].sum(axis=1), rtol=1e-12, atol=1e-9)
    mass2 = p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(axis=-1)
    scale = p[..., 0] ** 2
    expected = np.array([0, 0, 0, 0, 125.0**2])
    assert (np.abs(mass2 - expected) < 1e-9 * scale + 1e-6).all()
    assert (p[:, :2, 0] < 6500).all()


def test_partons_pass_the_generator_cuts(generated):
    *_, events = generated
    quarks, higgs = events.momenta[:, 2:4], events.momenta[:, 4]
    pt = np.hypot(quarks[..., 1], quarks[..., 2])
    assert pt.min() > 18
    assert pt.min() < 20  # the cut is where it is said to be
    assert np.abs(np.arcsinh(quarks[..., 3] / pt)).max() < 5
    assert np.abs(np.arctanh(higgs[:, 3] / higgs[:, 0])).max() < 2.5


def test_charge_is_conserved_and_flavours_belong_to_the_process(generated):
    channel, _, events = generated
    charge = np.where(np.abs(events.flavours) % 2 == 0, 2, -1) * np.sign(events.flavours)
    assert (charge[..., 0].sum(axis=1) == charge[..., 1].sum(axis=1)).all()
    allowed = {(line1, line2) for _, line1, line2 in combinations(channel)}
    found = {tuple(map(tuple, row)) for row in events.flavours.tolist()}
    assert found <= allowed
    assert len(found) > 0.3 * len(allowed)


def amplitude_channel(channel, flavours):
    """The channel of the matrix element of one event, from its flavours alone."""
    (q1, k1), (q2, _) = flavours
    pair = "qq" if q1 * q2 > 0 else "qqb"
    types = [2 if abs(q) % 2 == 0 else 1 for q in (q1, q2)]
    return f"WW_{pair}" if abs(k1) != abs(q1) else f"NC_{types[0]}{types[1]}_{pair}"


def test_weights_are_the_polynomial_at_any_theta(generated):
    """w(theta').r = |M|^2(theta')/|M|^2(theta), and 1 at the event's own theta."""
    channel, setting, events = generated
    own = (monomials(events.theta) * events.components).sum(axis=1)
    np.testing.assert_allclose(own, 1, rtol=1e-12)
    for number in range(40):
        p1, p2, k1, k2 = events.momenta[number, :4, None]
        name = amplitude_channel(channel, events.flavours[number].tolist())
        c = squared_amplitude_coefficients(p1, p2, k1, k2, name, setting)[0]
        for theta in ([0.0, 0.0], [0.5, -1.3]):
            expected = (monomials(theta) @ c) / (monomials(events.theta[number]) @ c)
            found = monomials(theta) @ events.components[number]
            assert found == pytest.approx(expected, rel=1e-8)


def test_flavours_add_up_to_the_cross_section_of_the_process(generated):
    """Sum over flavours of x f x f |M|^2 is what the generator integrates."""
    channel, setting, events = generated
    p = events.momenta[:20]
    k1, k2, higgs = (np.ascontiguousarray(p[:, i].T) for i in (2, 3, 4))
    x1, x2 = p[:, 0, 0] / 6500, p[:, 1, 0] / 6500
    f1, f2 = xf(x1), xf(x2)
    total = 0.0
    for name, (q1, _), (q2, _) in combinations(channel):
        c = squared_amplitude_coefficients(p[:, 0], p[:, 1], p[:, 2], p[:, 3], name, "paper")
        total = total + (f1[NAME[q1]] * f2[NAME[q2]])[:, None] * c
    flux = FLUX / (x1 * x2 * 13000.0**2) ** 2
    s = 165.2e-6
    units = np.array([1, s, s, s * s, s * s, s * s])
    expected = differential_coefficients(k1, k2, higgs, channel).T * units
    np.testing.assert_allclose(total * flux[:, None], expected, rtol=1e-7, atol=1e-12 * flux.max())


def test_flavours_follow_the_parton_densities():
    """u d against d u at one configuration: a count against x f x f."""
    rng = np.random.default_rng(5)
    one = generate_parton_events([[0.0, 0.0]], rng).momenta
    many = np.repeat(one, 4000, axis=0)
    flavours, _ = choose_flavours(many, np.zeros((4000, 2)), "ud", "tuned", rng)
    f1, f2 = xf(one[0, 0, 0] / 6500), xf(one[0, 1, 0] / 6500)
    up_down = float(f1["u"] * f2["d"])
    share = up_down / (up_down + float(f1["d"] * f2["u"]))
    error = np.sqrt(share * (1 - share) / 4000)
    assert (flavours[:, 0, 0] == 2).mean() == pytest.approx(share, abs=4.5 * error)


def test_weights_average_to_the_ratio_of_cross_sections(generated):
    """E_p[r] + E_q[r] = 1 for r = q/(p + q), the joint densities at two parameter points."""
    channel, setting, _ = generated
    total, _ = parton_cross_section(channel, setting)
    points = np.array([[0.0, 0.0], [0.4, -0.3]])
    rng = np.random.default_rng(6)
    sums, variance = 0.0, 0.0
    for point in points:
        events = generate_parton_events([point] * 6000, rng, channel, setting)
        p, q = ((events.components @ w) / (w @ total) for w in monomials(points))
        r = q / (p + q)
        sums += r.mean()
        variance += r.var() / len(r)
    assert sums == pytest.approx(1, abs=4 * np.sqrt(variance))


@pytest.mark.parametrize("channel", ["ud", "ww", "full"])
def test_the_committed_cross_sections_are_reproduced(channel):
    estimate = estimate_cross_section(channel, 150_000, np.random.default_rng(8), level="parton")
    value, error = tabulated_cross_section("parton_cross_section.json", channel, "tuned")
    scale = 33.04 ** np.array([0, 1, 1, 2, 2, 2])
    even = [0, 1, 3, 5]
    spread = np.hypot(estimate.error * scale, error)
    pull = (estimate.value * scale - value)[even] / spread[even]
    assert np.abs(pull).max() < 4.5
    assert (error[even] < 0.002 * np.abs(value[even])).all()


def test_the_same_state_gives_the_same_events():
    theta = np.random.default_rng(1).standard_normal((200, 2))
    one, two, other = (generate_parton_events(theta, np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.momenta, two.momenta)
    np.testing.assert_array_equal(one.flavours, two.flavours)
    assert (one.momenta != other.momenta).any()


def test_lhe_events_say_what_they_are():
    events = generate_parton_events([[0.5, 0.0]] * 3, np.random.default_rng(1), "ud", "paper")
    record = lhe_events(events, "ud", "paper")
    w = monomials([0.5, 0.0])
    assert record.cross_section[0] == pytest.approx(w @ parton_cross_section("ud", "paper")[0])
    assert record.comments[0] == "theta 0.5 0.0"
    assert record.descriptions["morphing_1_1"] == "coefficient of CWL2^1 CPWL2^1"


def test_theta_of_another_shape_is_refused():
    with pytest.raises(InvalidRequest, match=r"shape \(N, 2\)"):
        generate_parton_events(np.zeros(2), np.random.default_rng(1))
