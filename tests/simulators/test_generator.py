"""Generated events follow the exact density; the tests are bounded or of known variance."""

import numpy as np
import pytest
from scipy import stats

from simulators.errors import InvalidRequest
from simulators.wbf.adaptation import adapted_proposal
from simulators.wbf.event_model import (
    density_coefficients,
    inside_cuts,
    log_likelihood,
    monomials,
)
from simulators.wbf.generator import generate_events, momenta_from_coordinates
from simulators.wbf.matrix_element import theta_units
from simulators.wbf.phase_space import N_BINS, MixtureProposal, refine_separable
from simulators.wbf.proposals import draw_proposals

POINTS = ((0.0, 0.0), (0.5, 0.0), (-1.0, -1.0), (0.1, 0.4))
PAIRS = [(a, b) for a in range(len(POINTS)) for b in range(a)]
N_EVENTS = 12_000


@pytest.fixture(scope="module", params=[("ud", "paper"), ("ud", "tuned"), ("full", "paper")])
def simulated(request):
    """Channel, setting and events at each of `POINTS`."""
    channel, setting = request.param
    rng = np.random.default_rng(11)
    events = [generate_events([p] * N_EVENTS, rng, channel, setting) for p in POINTS]
    return channel, setting, events


def test_bounded_self_test_of_density_cross_section_and_generator(simulated):
    """E_p[r] + E_q[r] = 1 for r = q/(p + q): p, q both densities, events from both."""
    channel, setting, events = simulated
    for a, b in PAIRS:
        total, variance = 0.0, 0.0
        for sample in (events[a], events[b]):
            momenta = sample.momenta
            p = log_likelihood(momenta, POINTS[a], channel, setting)
            q = log_likelihood(momenta, POINTS[b], channel, setting)
            r = 1 / (1 + np.exp(p - q))
            total += r.mean()
            variance += r.var() / len(r)
        assert abs(total - 1) < 3.5 * np.sqrt(variance), (POINTS[a], POINTS[b])


def test_unweighted_events_reproduce_weighted_means(simulated):
    channel, setting, events = simulated
    rng = np.random.default_rng(12)
    mixture = adapted_proposal(channel).mixture
    pools = [draw_proposals(rng, mixture, channel) for _ in range(60)]
    coefficients = np.concatenate([p.coefficients for p in pools], axis=1)

    def summaries(j1, j2, a1, a2):
        pts = [np.hypot(p[1], p[2]) for p in (j1, j2, a1, a2)]
        mjj = (j1 + j2)[0] ** 2 - ((j1 + j2)[1:] ** 2).sum(axis=0)
        azimuth = np.arctan2(j1[2], j1[1]) - np.arctan2(j2[2], j2[1])
        jets, photons = np.maximum(*pts[:2]), np.maximum(*pts[2:])
        columns = [jets, photons, np.log(mjj), np.cos(azimuth), (a1 + a2)[3], j1[3] * j2[3] > 0]
        return np.stack(columns)

    pooled = np.concatenate([summaries(*p.momenta) for p in pools], axis=1)
    for theta, sample in zip(POINTS, events, strict=True):
        weight = (monomials(theta) * theta_units(setting)) @ coefficients
        mean = pooled @ weight / weight.sum()
        spread = (pooled - mean[:, None]) * weight / weight.sum()
        direct = summaries(*np.moveaxis(sample.momenta, 0, -1))
        error = np.sqrt((spread**2).sum(axis=1) + direct.var(axis=1) / N_EVENTS)
        assert np.max(np.abs(direct.mean(axis=1) - mean) / error) < 4.5


def test_events_are_inside_the_cuts_ordered_and_carry_their_own_truth(simulated):
    channel, setting, events = simulated
    for sample in events:
        assert inside_cuts(sample.momenta).all()
        assert (sample.jets[:, 0, 0] >= sample.jets[:, 1, 0]).all()
        assert (sample.photons[:, 0, 0] >= sample.photons[:, 1, 0]).all()
        again = density_coefficients(sample.momenta, "pole", channel, setting)
        np.testing.assert_allclose(sample.components, again, rtol=1e-12)
        assert np.isfinite(sample.score).all()
        assert sample.overweight_fraction < 2e-3


@pytest.mark.parametrize(("channel", "setting"), [("ud", "tuned"), ("ud", "paper")])
def test_drawn_parameter_points_stay_and_nothing_is_used_twice(channel, setting):
    theta = np.random.default_rng(13).standard_normal((20_000, 2))
    events = generate_events(theta, np.random.default_rng(14), channel, setting)
    np.testing.assert_array_equal(events.theta, theta)
    assert len(np.unique(events.jets.reshape(len(theta), -1), axis=0)) == len(theta)
    assert events.overweight_fraction < 1e-3


@pytest.mark.parametrize("setting", ["tuned", "paper"])
def test_events_belong_to_their_own_parameter_point(setting):
    """E[z - 2 z^2] = 0 for z = p/(p + p') - 1/2, theta' another draw: p/(p + p') is calibrated."""
    rng = np.random.default_rng(15)
    theta, other = rng.standard_normal((2, 20_000, 2))
    events = generate_events(theta, rng, setting=setting)
    own = log_likelihood(events.momenta, theta, setting=setting)
    foreign = log_likelihood(events.momenta, other, setting=setting)
    z = 1 / (1 + np.exp(foreign - own)) - 0.5
    deviation = z - 2 * z**2
    error = deviation.std() / np.sqrt(len(z))
    assert abs(deviation.mean()) < 4 * error
    assert 2 * (z**2).mean() > 20 * error  # events of another theta would be noticed


def test_the_same_state_gives_the_same_events():
    theta = np.random.default_rng(1).standard_normal((300, 2))
    one, two, other = (generate_events(theta, np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.jets, two.jets)
    np.testing.assert_array_equal(one.components, two.components)
    assert (one.jets != other.jets).any()


def test_progress_is_reported_up_to_the_end():
    seen = []
    generate_events(
        np.zeros((500, 2)), np.random.default_rng(1), progress=lambda *now: seen.append(now)
    )
    assert seen[-1] == (500, 500)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_momenta_have_the_coordinates_they_were_built_from():
    jets = np.array([[[100.0, 1.5, 2.0, 10.0], [50.0, -3.0, -1.0, 5.0]]], dtype=np.float32)
    photons = np.array([[[80.0, 0.5, 1.0], [30.0, -0.5, -2.0]]], dtype=np.float32)
    p = momenta_from_coordinates(jets, photons)[0]
    np.testing.assert_allclose(np.hypot(p[:, 1], p[:, 2]), [100, 50, 80, 30])
    mass2 = p[:, 0] ** 2 - (p[:, 1:] ** 2).sum(axis=1)
    np.testing.assert_allclose(mass2, [100, 25, 0, 0], atol=1e-8)
    np.testing.assert_allclose(
        np.arcsinh(p[:, 3] / np.hypot(p[:, 1], p[:, 2])), [1.5, -3, 0.5, -0.5]
    )


@pytest.mark.parametrize("theta", [np.zeros((0, 2)), np.zeros(2), np.zeros((3, 3))])
def test_theta_of_another_shape_is_refused(theta):
    with pytest.raises(InvalidRequest, match=r"shape \(N, 2\)"):
        generate_events(theta, np.random.default_rng(1))


def test_unknown_names_are_refused():
    with pytest.raises(InvalidRequest, match="unknown setting"):
        generate_events([[0, 0]], np.random.default_rng(1), setting="loud")
    with pytest.raises(InvalidRequest, match="unknown channel"):
        generate_events([[0, 0]], np.random.default_rng(1), channel="zz")


def test_a_mixture_proposal_is_normalised_and_knows_its_density():
    """The mean of 1/g over g is the volume 1; histograms of u follow the mean of the rows."""
    rng = np.random.default_rng(16)
    rows = rng.gamma(2.0, size=(3, 6, N_BINS))
    proposal = MixtureProposal(rows)
    u, g = proposal.sample(rng, 200_000)
    assert u.shape == (7, 200_000)
    assert (1 / g).mean() == pytest.approx(1, abs=5 * (1 / g).std() / np.sqrt(g.size))
    expected = proposal.density.mean(axis=0) / N_BINS * g.size
    for row, values in zip(expected, u, strict=False):
        counts = np.bincount((values * N_BINS).astype(int), minlength=N_BINS)
        chi2 = ((counts - row) ** 2 / row).sum()
        assert stats.chi2.sf(chi2, N_BINS - 1) > 1e-4


def test_refinement_finds_a_separable_integrand():
    """For an integrand that is a product, the refined proposal has nearly no variance left."""

    def weight(u):
        return np.prod([1 + 3 * np.sin(4 * v) ** 2 for v in u[:6]], axis=0)

    rng = np.random.default_rng(17)
    u, g = MixtureProposal(refine_separable(weight, rng, 6, 80_000)).sample(rng, 50_000)
    refined = weight(u) / g
    flat = weight(rng.random((7, 50_000)))
    assert refined.std() / refined.mean() < 0.15 < flat.std() / flat.mean()
