"""Observed events off the curve, at its ends or beyond them are found; training-like ones stay."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import (
    ConfigurationError,
    EventDataError,
    MissingReference,
    OffManifoldError,
    RunFolderError,
    ShapeError,
)
from mflow_sbi.geometry import (
    PLACEMENT_HEADER,
    REFERENCE,
    SurfaceReference,
    load_reference,
    place,
    save_reference,
    surface_reference,
)
from mflow_sbi.geometry.surface_reference import event_quantities
from mflow_sbi.surrogates import TrainedSurrogate

from .toys import RatioOnly, curve_surrogate, on_curve, plane_surrogate, trained, training_events


@pytest.fixture(scope="module")
def surrogate() -> TrainedSurrogate:
    return curve_surrogate()


@pytest.fixture(scope="module")
def reference(surrogate: TrainedSurrogate) -> SurfaceReference:
    return surface_reference(surrogate, training_events(20_000), seed=3)


def test_training_like_events_are_outside_as_often_as_claimed(surrogate, reference) -> None:
    placement = place(surrogate, reference, training_events(20_000, seed=9).x, level=0.02)
    placed = ~placement.has_point
    assert placed.mean() < 2e-3  # |u| > 4 is rare, in training too
    assert (placement.outside & ~placed).mean() == pytest.approx(0.01, abs=0.003)  # error: floor
    assert placement.expected_by_chance == pytest.approx(400)


def test_events_off_the_curve_are_outside(surrogate, reference) -> None:
    x = on_curve(np.linspace(-1, 1, 8))
    x[3, 1] += 0.05
    placement = place(surrogate, reference, x)
    assert np.flatnonzero(placement.outside).tolist() == [3]
    assert placement.quantities["reconstruction error"][3] == pytest.approx(1e-3)
    assert placement.error_percentile is not None
    assert placement.error_percentile[3] == 100.0
    assert np.flatnonzero(placement.kept).tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_rounding_to_float32_is_never_outside(surrogate, reference) -> None:
    x = on_curve(np.linspace(-1.5, 1.5, 500)).astype(np.float32).astype(np.float64)
    placement = place(surrogate, reference, x)
    errors = placement.quantities["reconstruction error"]
    assert np.median(errors) > 1e-9  # far beyond every training event, at 1e-16
    assert placement.below_floor.all()
    assert not placement.outside.any()
    assert "(rounding)" in placement.rows(np.array([0]))[0][2]


def test_rare_events_on_the_curve_are_outside(surrogate, reference) -> None:
    placement = place(surrogate, reference, on_curve(np.array([0.0, 3.9])), level=0.01)
    assert placement.outside.tolist() == [False, True]
    assert placement.log_density_percentile is not None
    assert placement.log_density_percentile[1] < 0.2
    assert placement.log_density_percentile[0] > 50


def test_events_without_a_point_are_outside_at_every_level(surrogate) -> None:
    many_lost = training_events(2000)
    rows = many_lost.x.copy()
    rows[:400] = on_curve(np.full(400, 5.0))  # a fifth of the training has no point either
    reference = surface_reference(surrogate, replace(many_lost, x=rows), seed=3)
    placement = place(surrogate, reference, on_curve(np.array([0.0, 4.5])), level=0.002)
    assert placement.has_point.tolist() == [True, False]
    assert placement.p_value[1] > 0.2
    assert placement.outside.tolist() == [False, True]
    assert placement.rows()[0][2] == "no point"
    assert placement.beyond["reconstruction error"][1] == pytest.approx(20, abs=0.2)
    assert "1 have no point" in placement.statement


def test_the_density_is_averaged_over_training_thetas(surrogate, reference) -> None:
    x = on_curve(np.array([-0.7, 0.2, 2.0]))
    thetas = np.array(reference.thetas)
    direct = np.array([surrogate.log_prob(x, theta[None]) for theta in thetas])
    expected = np.log(np.exp(direct).mean(axis=0))
    log_density = place(surrogate, reference, x).log_density
    assert log_density is not None
    np.testing.assert_allclose(log_density, expected, rtol=1e-10)
    assert len(thetas) == 32
    assert np.ptp(thetas) > 0.5


def test_an_ambient_density_has_no_reconstruction_error() -> None:
    plane, events = plane_surrogate(), training_events(1000)
    placement = place(plane, surface_reference(plane, events), events.x[:5], level=0.01)
    assert list(placement.quantities) == ["low density"]
    assert placement.error_percentile is None
    assert placement.has_point.all()


def test_a_ratio_alone_is_judged_by_its_observables() -> None:
    ratio, events = trained(RatioOnly()), training_events(5000)
    reference = surface_reference(ratio, events)
    placement = place(ratio, reference, np.array([[100.0, 100.0], [100.0, 600.0]]))
    assert list(placement.quantities) == ["largest observable"]
    assert placement.quantities["largest observable"].tolist() == [0.0, 10.0]
    assert placement.outside.tolist() == [False, True]
    assert placement.log_density is None


def test_strict_use_refuses_with_the_list(surrogate, reference) -> None:
    x = on_curve(np.zeros(10))
    place(surrogate, reference, x).require_inside()
    x[:7, 1] += 1.0
    placement = place(surrogate, reference, x)
    with pytest.raises(OffManifoldError, match=re.escape("7 of 10 observed events lie outside")):
        placement.require_inside()
    assert "0, 1, 2, 3, 4 and 2 more" in placement.statement
    assert len(placement.rows()) == 14
    assert all(len(row) == len(PLACEMENT_HEADER) for row in placement.rows())


def test_a_seed_gives_the_same_reference(surrogate, reference) -> None:
    assert surface_reference(surrogate, training_events(20_000), seed=3) == reference
    assert reference.n_events == 5000


def test_the_reference_survives_its_file(reference, tmp_path: Path) -> None:
    path = save_reference(reference, tmp_path / "surrogate")
    assert path.name == REFERENCE
    assert load_reference(tmp_path / "surrogate") == reference


def test_quantities_without_any_point(surrogate) -> None:
    found = event_quantities(surrogate, on_curve(np.array([5.0, 6.0])), np.zeros((1, 1)))
    assert all(np.isposinf(values).all() for values in found.extremities.values())


def test_another_surrogate_is_refused(reference) -> None:
    other = trained(RatioOnly(), {"training_events": "0" * 64})
    with pytest.raises(RunFolderError, match="make it again"):
        place(other, reference, on_curve(np.zeros(2)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object, got list"),
        ('{"format": "other"}', "expected mflow_sbi.surface_reference version 1"),
        (
            '{"format": "mflow_sbi.surface_reference", "format_version": 1, "recipe": "mflow"}',
            "not a readable record",
        ),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / REFERENCE).write_text(text)
    with pytest.raises(RunFolderError, match=words):
        load_reference(tmp_path)


def test_tampered_tails_are_refused(reference) -> None:
    record = json.loads(json.dumps(reference.to_dict()))
    record["tails"]["low density"]["values"][0] = -1e9
    with pytest.raises(RunFolderError, match="not a readable record"):
        SurfaceReference.from_dict(record)


ERRORS = {
    "no file": (lambda s, r: load_reference(Path("/nowhere")), RunFolderError, "found none"),
    "shape": (lambda s, r: place(s, r, np.zeros((2, 3))), ShapeError, "(N, 2), got (2, 3)"),
    "nan": (
        lambda s, r: place(s, r, np.array([[np.nan, 0.0]])),
        EventDataError,
        "got 1 with 1 not finite",
    ),
    "no events": (lambda s, r: place(s, r, np.empty((0, 2))), EventDataError, "got 0 with"),
    "level": (
        lambda s, r: place(s, r, on_curve(np.zeros(1)), level=1e-4),
        ConfigurationError,
        "level: expected a number between 0.0004",
    ),
    "no training events": (
        lambda s, r: surface_reference(s, training_events(5), n_events=0),
        EventDataError,
        "expected training events",
    ),
    "no theta": (
        lambda s, r: surface_reference(s, replace(training_events(5), theta=None)),
        MissingReference,
        "do not carry the parameters",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(surrogate, reference, call, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call(surrogate, reference)
