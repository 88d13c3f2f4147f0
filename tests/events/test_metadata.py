"""The metadata record: a round trip for what is right, a sentence for what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mflow_sbi.errors import MetadataError
from mflow_sbi.events import EventMetadata, Observable, Parameter
from mflow_sbi.events.merging import merge


def test_record_of_the_contract_round_trips(record_of):
    record = record_of(10)
    metadata = EventMetadata.from_json(json.dumps(record))
    assert metadata.parameter_names == ("CWL2", "CPWL2")
    assert metadata.morphing is not None
    assert metadata.morphing.exponents[4] == (1, 1)
    assert EventMetadata.from_json(metadata.to_json()) == metadata
    for parameter in record["parameters"]:
        parameter["low"], parameter["high"] = -5.0, 5.0
    assert json.loads(metadata.to_json()) == record


def test_floats_survive_exactly(record_of):
    metadata = replace(
        EventMetadata.from_json(json.dumps(record_of(3))),
        sum_of_weights=0.1 + 0.2,
        parameters=(Parameter("a", low=-1 / 3, high=1e-300), Parameter("b")),
        observables=(Observable("phi", unit="rad", periodic=True), Observable("m", "j[0].m")),
    )
    assert EventMetadata.from_json(metadata.to_json()) == metadata


@pytest.mark.parametrize(
    "sampling",
    [
        {"kind": "fixed", "value": [0.5, 0.0]},
        {"kind": "uniform", "low": [-1, -1], "high": [1, 1]},
        None,
    ],
)
def test_samplings(record_of, sampling):
    text = json.dumps(record_of(3, theta_sampling=sampling))
    EventMetadata.from_json(text)


def _with(path, value):
    def change(record):
        *parents, last = path
        for key in parents:
            record = record[key]
        record[last] = value

    return change


MALFORMED = {
    "another format": (_with(["format"], "root"), "not of the format 'mflow_sbi.events'"),
    "newer version": (_with(["format_version"], 2), "format_version 2; this mflow_sbi reads 1"),
    "version as text": (_with(["format_version"], "1"), "format_version '1'"),
    "unknown key": (_with(["proces"], "x"), "unknown key 'proces'.*Did you mean 'process'"),
    "unknown nested key": (
        _with(["morphing", "crosssection"], [1]),
        "unknown key 'morphing.crosssection'.*Did you mean 'cross_section'",
    ),
    "unknown key of a parameter": (
        _with(["parameters", 1, "hi"], 1),
        "unknown key 'parameters.1.hi'.*Did you mean 'high'",
    ),
    "layout": (_with(["layout"], "lhe"), "'layout'.*'flat' or 'declared'; got 'lhe'"),
    "text for a number": (_with(["n_events"], "10"), "'n_events'.*integer; got '10'"),
    "fraction of an event": (_with(["n_events"], 1.5), "'n_events'"),
    "infinite": (_with(["sum_of_weights"], float("inf")), "'sum_of_weights'.*finite"),
    "nan": (_with(["morphing", "cross_section", 0], float("nan")), "cross_section.0.*finite"),
    "short cross section": (
        _with(["morphing", "cross_section"], [1.0]),
        r"equally long and not empty; got lengths \[6, 1, 6\]",
    ),
    "negative power": (_with(["morphing", "exponents", 0], [-1, 0]), "numbers >= 0"),
    "ragged powers": (_with(["morphing", "exponents", 0], [0]), "K rows of p numbers"),
    "powers of others": (
        _with(["parameters"], [{"name": "CWL2"}]),
        "exponents of 2 parameters, but 1 parameters",
    ),
    "likelihood": (_with(["morphing", "likelihood"], "approximate"), "'exact' or 'joint'"),
    "same name twice": (
        _with(["parameters"], [{"name": "c"}, {"name": "c"}]),
        "parameters: every name must be used once",
    ),
    "sampling": (
        _with(["theta_sampling"], {"kind": "normal", "value": [1]}),
        r"takes \['mean', 'std'\]; got \['value'\]",
    ),
    "no process": (lambda record: record.pop("process"), "'process'.*required"),
}


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
def test_malformed_records_are_refused(record_of, case):
    change, message = case
    record = record_of(10)
    change(record)
    with pytest.raises(MetadataError, match=message):
        EventMetadata.from_json(json.dumps(record))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\0"])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(MetadataError):
        EventMetadata.from_json(text)


def records(record_of, *changes):
    return [EventMetadata.from_json(json.dumps(record_of(10, **change))) for change in changes]


def test_merging_adds_counts_and_widens_ranges(record_of):
    low = [{"name": "CWL2", "low": -9, "high": 1}, {"name": "CPWL2", "low": -1, "high": 9}]
    merged = merge(records(record_of, {"seed": 1}, {"seed": 2, "parameters": low}))
    assert (merged.n_events, merged.sum_of_weights) == (20, 20.0)
    assert merged.sum_of_weights_before_selection == 60.0
    assert merged.seed is None
    np.testing.assert_array_equal(merged.parameter_ranges, [[-9, 5], [-5, 9]])


def test_statistics_of_a_run_may_differ(record_of):
    simulator = record_of(1)["simulator"]
    first, second = ({"simulator": simulator | {"statistics": {"tries": n}}} for n in (5, 6))
    merged = merge(records(record_of, first, second))
    assert merged.simulator is not None
    assert merged.simulator.settings == {"channel": "ud"}
    assert merged.simulator.statistics == {}
    (one,) = records(record_of, first)
    assert EventMetadata.from_json(one.to_json()) == merge([one]) == one


def test_merging_one_record_changes_nothing(record_of):
    (record,) = records(record_of, {})
    assert merge([record]) == record


def test_independent_cross_sections_combine(record_of):
    first, second = (dict(record_of(1)["morphing"]) for _ in range(2))
    second["cross_section"] = [1.02, -0.5, 0.0, 2.0, 0.0, 2.0]
    second["cross_section_error"] = [0.02] * 6
    morphing = merge(records(record_of, {"morphing": first}, {"morphing": second})).morphing
    assert morphing is not None
    assert morphing.cross_section[0] == pytest.approx((1.0 / 1 + 1.02 / 4) / (1 + 1 / 4))
    assert morphing.cross_section_error[0] == pytest.approx(0.01 / np.sqrt(1.25))


DIFFERENT = {
    "process": ({"process": "other"}, "differ in process: wbf_h_aa and other"),
    "settings": (
        {"simulator": {"name": "wbf", "version": "0.1.0", "settings": {"channel": "full"}}},
        "differ in simulator: {'channel': 'ud'} and {'channel': 'full'}",
    ),
    "version": (
        {"simulator": {"name": "wbf", "version": "0.2.0", "settings": {"channel": "ud"}}},
        "differ in simulator: wbf 0.1.0 and wbf 0.2.0",
    ),
    "unknown simulator": ({"simulator": None}, "differ in simulator: wbf 0.1.0 and None"),
    "parameters": (
        {"parameters": [{"name": "A"}, {"name": "B"}], "morphing": None},
        "differ in parameters",
    ),
    "morphing": ({"morphing": None}, "differ in morphing"),
}


@pytest.mark.parametrize("case", DIFFERENT.values(), ids=DIFFERENT)
def test_files_that_do_not_belong_together(record_of, case):
    change, message = case
    with pytest.raises(MetadataError, match=message):
        merge(records(record_of, {}, change))


@pytest.mark.parametrize("error", [0.0, 0.01])
def test_cross_sections_that_disagree(record_of, error):
    first, second = (dict(record_of(1)["morphing"]) for _ in range(2))
    first["cross_section_error"] = second["cross_section_error"] = [error] * 6
    second["cross_section"] = [1.0, -0.5, 0.0, 2.1, 0.0, 2.0]
    with pytest.raises(MetadataError, match="disagree on the cross section of component 3"):
        merge(records(record_of, {"morphing": first}, {"morphing": second}))
