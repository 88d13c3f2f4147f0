"""Histogram and SALLY: laws of templates, the score's optimum, what is lost, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mflow_sbi.config import read_config
from mflow_sbi.densities.event_mixture import EventMixture
from mflow_sbi.densities.named_observables import NamedObservables
from mflow_sbi.densities.quantile_bins import QuantileBins
from mflow_sbi.errors import ConfigurationError, EventDataError, MissingReference
from mflow_sbi.events import EventSample, SelectionReport, read_events
from mflow_sbi.inference import CachedLikelihood
from mflow_sbi.interfaces import Array, CondensingSurrogate, EncodedLikelihood
from mflow_sbi.morphing import MorphingBasis
from mflow_sbi.recipes import RECIPES, load_surrogate, train
from mflow_sbi.run_files import read_history
from mflow_sbi.runs import compare_runs, evaluate_run, train_run
from mflow_sbi.surrogates import TrainedSurrogate
from mflow_sbi.surrogates.histogram import HistogramEstimator, LocalScoreEstimator
from mflow_sbi.training import FitSettings

from .toys import CROSS_SECTION, EXPONENTS, components, monomials, toy_events

DATA = Path(__file__).parents[2] / "data"
TRAIN, TEST = toy_events(16_000, 1), toy_events(6000, 2)
THETA, TEST_THETA = TRAIN.require_theta(), TEST.require_theta()
REFERENCE = (0.5, -0.3)
GRID = np.random.default_rng(4).uniform(-2.5, 2.5, size=(60, 2))
SMALL = {"hidden": 32, "layers": 2, "reference": list(REFERENCE)}


def _only_x0(events: EventSample) -> EventSample:
    """Return the events with x_1 unobserved: components scatter around those of x_0."""
    metadata = replace(events.metadata, observables=events.metadata.observables[:1])
    return replace(events, x=events.x[:, :1], metadata=metadata)


def _histogram(events: EventSample, **options: object) -> TrainedSurrogate:
    return train(events, "histogram", options=options).surrogate


def _sally(events: EventSample, epochs: int = 6, **options: object) -> TrainedSurrogate:
    quick: dict[str, object] = {"epochs": epochs, "batch_size": 200}
    schedule = RECIPES["sally"].schedule.with_phases(score=quick)
    settings = FitSettings(seed=2)
    given = {**SMALL, **options}
    return train(events, "sally", options=given, schedule=schedule, settings=settings).surrogate


def _module(surrogate: TrainedSurrogate) -> Any:  # noqa: ANN401
    return surrogate.surrogate


def _probabilities(surrogate: TrainedSurrogate, theta: Array) -> Array:
    at = torch.from_numpy(surrogate.record.parameters.transform(theta))
    return _module(surrogate).templates.probabilities(at).numpy()


@pytest.fixture(scope="module")
def both() -> dict[str, TrainedSurrogate]:
    torch.set_num_threads(1)
    return {"histogram": _histogram(TRAIN, observables=["x0"], bins=30), "sally": _sally(TRAIN)}


@pytest.fixture(params=["histogram", "sally"])
def trained(request: pytest.FixtureRequest, both: dict[str, TrainedSurrogate]) -> TrainedSurrogate:
    return both[request.param]


@pytest.fixture
def sally(both: dict[str, TrainedSurrogate]) -> TrainedSurrogate:
    return both["sally"]


def test_templates_are_probabilities_at_any_theta(trained):
    p = _probabilities(trained, 3 * GRID)
    assert p.min() >= 0
    assert np.abs(p.sum(axis=1) - 1).max() < 1e-12
    # averaged over the training thetas they are the shares of the training events, exactly
    share = _module(trained).templates.share.numpy()
    assert np.abs(_probabilities(trained, THETA).mean(axis=0) - share).max() < 1e-8
    counts = np.bincount(
        _module(trained).bin_of(trained.standardise(TRAIN.x)), minlength=len(share)
    )
    assert np.allclose(share, counts / len(TRAIN.x))
    assert counts.max() - counts.min() <= counts.mean() * 0.05 + 2  # quantiles
    # the sum of templates is the cross section, here known, to the Monte Carlo error
    w = monomials(GRID)
    learned = w @ _module(trained).templates.cross_section.numpy()
    assert np.std(np.log(learned / (w @ CROSS_SECTION))) < 0.03


def test_the_likelihood_is_that_of_the_bins(trained):
    x, at = TEST.x[:200], np.array([0.7, -0.4])
    bins = _module(trained).bin_of(trained.standardise(x)).numpy()
    share = _module(trained).templates.share.numpy()
    expected = np.log(_probabilities(trained, at[None])[0] / share)[bins]
    assert np.allclose(trained.log_likelihood(x, at), expected, atol=1e-5)
    kept: tuple[object, object] = (trained, trained.surrogate)
    assert isinstance(kept[0], EncodedLikelihood)
    assert isinstance(kept[1], CondensingSurrogate)
    assert trained.encode(x).shape == (200, len(EXPONENTS))
    cached = CachedLikelihood(trained, x)(THETA[:30])
    direct = np.array([trained.log_likelihood(x, point).sum() for point in THETA[:30]])
    assert np.abs(cached - direct).max() < 1e-3
    value, slope = CachedLikelihood(trained, x).value_and_gradient(at[None])
    moved = CachedLikelihood(trained, x)(at[None] + [[1e-5, 0.0]])
    assert (moved - value)[0] / 1e-5 == pytest.approx(slope[0, 0], rel=1e-3)


def test_save_and_load_give_the_same_numbers(trained, tmp_path: Path):
    trained.save(tmp_path)
    loaded = load_surrogate(tmp_path)
    here, there = (s.log_likelihood(TEST.x[:99], [0.3, 0.1]) for s in (trained, loaded))
    assert np.array_equal(here, there)
    assert loaded.record.notes == trained.record.notes


def test_what_needs_a_density_is_refused(trained):
    calls = {
        "log_prob": lambda: trained.log_prob(TEST.x[:2], [0.0, 0.0]),
        "samples": lambda: trained.sample([[0.0, 0.0]], seed=1),
        "latents": lambda: _module(trained).encode(trained.standardise(TEST.x[:2])),
    }
    assert not trained.generates
    for what, call in calls.items():
        with pytest.raises(ConfigurationError, match=f"{what}.*: a histogram knows"):
            call()


def _log_ratio(c: Array, theta: Array) -> Array:
    """Return log p(x_i|theta_i) / q(x_i) of events with these components."""
    own, every = (w / (w @ CROSS_SECTION)[:, None] for w in (monomials(theta), monomials(THETA)))
    return np.log((c * own).sum(axis=1) / (c @ every.mean(axis=0)))


def _components_of_x0(x: Array) -> Array:
    """Return components where x_1 is not observed: quadratic in it, so two points do."""
    return np.mean([components(np.stack([x, 0 * x + n], axis=1)) for n in (-1.0, 1.0)], axis=0)


def test_fine_bins_of_what_matters_tend_to_the_exact_ratio():
    seen, x = _only_x0(TRAIN), TEST.x[:, 0]
    exact, off = _log_ratio(_components_of_x0(x), TEST_THETA), []
    for bins in (3, 10, 100):
        learned = _histogram(seen, observables=["x0"], bins=bins)
        off.append(np.abs(learned.log_likelihood(x[:, None], TEST_THETA) - exact).mean())
    assert off[0] > 2 * off[1] > 4 * off[2]
    assert off[2] < 0.04
    assert np.abs(exact).mean() > 0.2


def test_less_is_lost_by_bins_of_the_score(both):
    exact = _log_ratio(components(TEST.x), TEST_THETA)
    lost = [
        (exact - s.log_likelihood(TEST.x, TEST_THETA)).mean()
        for s in (both["histogram"], _histogram(TRAIN, observables=["x0", "x1"]), both["sally"])
    ]
    assert exact.mean() > 0.2
    assert 0.03 < lost[0] < exact.mean()
    assert 0 < lost[1] < lost[0]
    assert 0 < lost[2] < 0.8 * lost[0]


def _exact_score(c: Array) -> Array:
    """Return the score of densities w . c / w . C at the reference, (N, 2)."""
    basis, at = MorphingBasis(EXPONENTS), np.array([REFERENCE])
    w, slope = basis.weights(at)[0], basis.gradient(at)[0]
    return (c @ slope) / (c @ w)[:, None] - CROSS_SECTION @ slope / (CROSS_SECTION @ w)


def _unexplained(surrogate: TrainedSurrogate, x: Array, exact: Array) -> Array:
    """Return 1 - R^2 of events at the reference."""
    ratio = np.exp(_log_ratio(components(TEST.x), np.array([REFERENCE])))
    with torch.no_grad():
        learned = _module(surrogate).score_at_reference(surrogate.standardise(x)).numpy()
    return (ratio @ np.square(learned - exact)) / (ratio @ np.square(exact))


def test_the_score_is_that_at_the_reference(sally):
    assert (_unexplained(sally, TEST.x, _exact_score(components(TEST.x))) < 0.2).all()


def test_noise_of_what_is_unobserved_leaves_the_score_in_place():
    x = TEST.x[:, 0]
    exact, joint = _exact_score(_components_of_x0(x)), _exact_score(components(TEST.x))
    assert (np.square(joint - exact).mean(axis=0) > exact.var(axis=0)).all()
    unexplained = _unexplained(_sally(_only_x0(TRAIN)), x[:, None], exact)
    assert (unexplained < 0.1).all()


def test_selected_events_have_their_own_cross_section():
    events = TRAIN.take(TRAIN.x[:, 0] > 0)
    report = SelectionReport(len(TRAIN.x), len(events), {}, ("x0 > 0",))
    surrogate = _histogram(replace(events, report=report), observables=["x1"], bins=10)
    # int_{x0 > 0} N c dx
    exact = np.array([0.5, 2 / np.sqrt(2 * np.pi), 0.0, 0.625, 0.0, 0.625])
    w = monomials(GRID)
    learned = w @ _module(surrogate).templates.cross_section.numpy()
    assert np.std(np.log(learned / (w @ exact))) < 0.04
    assert np.std(np.log((w @ CROSS_SECTION) / (w @ exact))) > 0.2
    share = _module(surrogate).templates.share.numpy()
    assert (
        np.abs(_probabilities(surrogate, events.require_theta()).mean(axis=0) - share).max() < 1e-8
    )


def test_the_metadata_only_say_where_to_start():
    basis = MorphingBasis(EXPONENTS)
    given = (basis, TRAIN.require_components(), THETA)
    one, other = (
        EventMixture.of(*given, np.array(start)) for start in (CROSS_SECTION, [3.0, 0, 0, 1, 0, 9])
    )
    ratio = (basis.weights(GRID) @ one.cross_section) / (basis.weights(GRID) @ other.cross_section)
    assert np.ptp(ratio / ratio.mean()) < 1e-6
    at = np.array(REFERENCE)
    step = 1e-6 * np.eye(2)
    slopes = [(one.weights_at(at + s) - one.weights_at(at - s)) / 2e-6 for s in step]
    assert np.allclose(one.slopes_at(at), np.transpose(slopes), atol=1e-6)
    u = one.components @ one.weights_at(at)
    assert u.mean() == pytest.approx(1, abs=1e-8)  # E_q[p / q]
    assert np.abs((one.components @ one.slopes_at(at)).mean(axis=0)).max() < 1e-8  # E_p[t] = 0


def test_weights_count_events():
    # every event twice is every weight doubled, and half of the events at weight zero are none
    few = TRAIN.take(np.arange(3000))
    weight = np.tile([1.0, 3.0], 1500)
    rows = np.repeat(np.arange(3000), np.tile([1, 3], 1500))
    weighted, repeated = (
        EventMixture.of(
            MorphingBasis(EXPONENTS), s.require_components(), s.require_theta(), CROSS_SECTION, w
        )
        for s, w in ((few, (weight, weight)), (few.take(rows), (None, None)))
    )
    assert np.allclose(weighted.cross_section, repeated.cross_section, rtol=1e-9)
    p = _histogram(replace(few, weight=weight), observables=["x0"], bins=5)
    assert np.abs(_probabilities(p, GRID).sum(axis=1) - 1).max() < 1e-12
    bins = _module(p).bin_of(p.standardise(few.x)).numpy()
    share = np.bincount(bins, weights=weight) / weight.sum()
    assert np.allclose(_module(p).templates.share.numpy(), share)


def test_every_value_is_in_a_filled_bin():
    rng = np.random.default_rng(3)
    one = rng.integers(0, 4, size=4000)  # values that repeat
    two = one + 1e-3 * rng.normal(size=4000)  # correlated with it
    values = torch.from_numpy(np.stack([one, two], axis=1))
    bins = QuantileBins(2, 6).fit(values)
    filled = set(bins(values).tolist())
    anywhere = torch.from_numpy(rng.uniform(-3, 7, size=(20_000, 2)))
    assert set(bins(anywhere).tolist()) <= filled
    assert len(filled) == 4 * 6
    assert np.bincount(bins(values)).max() < 4000 / 24 * 1.3


def test_the_angle_between_jets():
    names = [f"{c}_{j}" for j in ("j1", "j2") for c in ("px", "py", "pz")]
    rng = np.random.default_rng(1)
    p = rng.normal(size=(50, 2, 3)) * 30
    mean, std = rng.normal(size=6), rng.uniform(1, 2, size=6)

    def angle(momenta: Array) -> Array:
        made = NamedObservables.named(["delta_phi(j1, j2)", "pz_j2"], names, mean, std)
        return made(torch.from_numpy((momenta.reshape(-1, 6) - mean) / std)).numpy()

    phi, eta = np.arctan2(p[..., 1], p[..., 0]), np.arcsinh(p[..., 2] / np.hypot(*p.T[:2]).T)
    signed = np.where(eta[:, 0] > eta[:, 1], 1, -1) * (phi[:, 0] - phi[:, 1])
    assert np.allclose(np.exp(1j * angle(p)[:, 0]), np.exp(1j * signed))
    assert np.allclose(angle(p)[:, 1], p[:, 1, 2])
    assert np.allclose(angle(p[:, ::-1].copy())[:, 0], angle(p)[:, 0])  # whichever is harder
    assert np.allclose(angle(p * [1, -1, 1])[:, 0], -angle(p)[:, 0])  # reflection
    assert np.allclose(angle(p * [1, -1, -1])[:, 0], angle(p)[:, 0])  # exchange of the beams


NO_COMPONENTS = replace(TRAIN, components=None)


@pytest.mark.parametrize(
    ("recipe", "events", "options", "error", "message"),
    [
        ("histogram", NO_COMPONENTS, {"observables": ["x0"]}, MissingReference, "'nre'"),
        ("sally", NO_COMPONENTS, {}, MissingReference, "components in the file.*'nre'"),
        ("histogram", TRAIN, {}, ConfigurationError, r"'toy' is without.*say what to bin.*'x0'"),
        ("histogram", TRAIN, {"observables": ["x3"]}, ConfigurationError, "unknown 'x3'.*x0"),
        (
            "histogram",
            TRAIN,
            {"observables": ["delta_phi(j1, j2)"]},
            ConfigurationError,
            "missing observables.*px_j1",
        ),
        ("histogram", TRAIN, {"observables": ["x0"], "bins": 1}, ConfigurationError, "at least 2"),
        ("sally", TRAIN, {"bins": 100}, ConfigurationError, "10,000 bins for 16,000 events"),
        ("sally", TRAIN, {"reference": [0.0]}, ConfigurationError, "for each of .*'t1'"),
        ("sally", TRAIN.take(np.arange(150)), {"bins": 2}, EventDataError, "are worth .* events"),
        ("sally", TRAIN, {"odd_parameters": ["t1"]}, ConfigurationError, "reflection"),
        (
            "sally",
            TRAIN,
            {"reflection": True, "odd_parameters": ["t1"], "reference": [0.0, 0.5]},
            ConfigurationError,
            r"reference: \['t1'\] are odd",
        ),
    ],
)
def test_impossible_trainings_are_refused(recipe, events, options, error, message):
    with pytest.raises(error, match=message):
        train(events, recipe, options=options)


SYMMETRIES = {"reflection": True, "exchange": True, "odd_parameters": ["CPWL2"]}


def test_scores_of_wbf_events_are_symmetric():
    events = read_events(DATA / "wbf_tuned_train_small.root").take(np.arange(1000))
    quick: dict[str, object] = {"epochs": 1, "batch_size": 250}
    surrogate = train(
        events,
        "sally",
        options={"hidden": 16, **SYMMETRIES},
        schedule=RECIPES["sally"].schedule.with_phases(score=quick),
    ).surrogate
    module = _module(surrogate)
    assert isinstance(module, LocalScoreEstimator)
    odd = np.array([n.startswith("py_") for n in events.observable_names])
    with torch.no_grad():
        here, there = (
            module.score_at_reference(surrogate.standardise(x)).numpy()
            for x in (events.x, np.where(odd, -events.x, events.x))
        )
    assert here.std(axis=0).min() > 0
    assert np.allclose(there, here * [1, -1], atol=1e-4 * np.abs(here).max())
    # in training, one image of every event: their mean over a turn of the group is the average
    features = torch.randn(3, module.features.feature_dim).repeat_interleave(4, dim=0)
    each = module.score.in_turn(features).unflatten(0, (3, 4)).mean(dim=1)
    assert torch.allclose(each, module.score(features[::4]), atol=1e-6)


RUN = """
name: {name}
events: {events}
max_events: 1000
recipe: {name}
options: {options}
{phases}
"""


def test_runs_are_trained_evaluated_and_compared(tmp_path: Path):
    phases = "phases: {score: {epochs: 1, batch_size: 250}}"
    runs = {"histogram": ("{}", ""), "sally": ("{hidden: 16}", phases)}
    folders = [tmp_path / name for name in runs]
    data = DATA / "wbf_tuned_train_small.root"
    for folder, (options, changes) in zip(folders, runs.values(), strict=True):
        config = tmp_path / f"{folder.name}.yaml"
        config.write_text(
            RUN.format(name=folder.name, events=data, options=options, phases=changes)
        )
        train_run(read_config(config), folder)
        last = read_history(folder)[-1]
        assert last["phase"] == "templates"
        assert float(last["train"]) < 0
        assert (folder / "figures" / "history.png").is_file()
    assert isinstance(load_surrogate(folders[0]).surrogate, HistogramEstimator)
    observed = str(DATA / "wbf_tuned_observed_theta_0.5_0.root")
    metrics = evaluate_run(folders[0], str(data))
    assert "a histogram knows" in metrics["lacks"]
    assert metrics["ratio"]["reliability"]["calibration_error"] < 0.1
    comparison = compare_runs(folders, observed, tmp_path / "table")
    for title in ("histogram", "SALLY"):
        row = comparison.table.row(title)
        assert row.surface.closure is None
        assert 0 < (row.posterior.total_variation or 0) < 1
        assert f"{title}: a histogram knows" in comparison.table.caption
