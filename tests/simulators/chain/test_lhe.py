"""LHE files: what is written is what pylhe reads; truncated and foreign files are refused."""

import gzip
import re
from pathlib import Path

import numpy as np
import pylhe
import pytest

from simulators.chain.lhe import accepting_all, scan_lhe, write_lhe
from simulators.errors import InputFileError
from simulators.wbf.parton_events import lhe_events

SHARED = Path(__file__).parents[3] / "../shared/data"
MADGRAPH = SHARED / "pylhe-testfile-madgraph5-3.5.8-pp_to_jj.lhe.gz"


@pytest.mark.parametrize("name", ["a.lhe", "a.lhe.gz"])
def test_what_is_written_is_read_again(partons, tmp_path, name):
    events = lhe_events(partons, "full", "tuned")
    write_lhe(tmp_path / name, events)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    found = list(pylhe.LHEFile.fromfile(tmp_path / name).events)
    assert len(found) == len(partons)
    for number, event in enumerate(found):
        particles = event.particles
        assert [p.id for p in particles] == events.pid[number].tolist()
        assert [p.status for p in particles] == [-1, -1, 1, 1, 1]
        colours = [(p.color1, p.color2) for p in particles]
        assert colours == [tuple(c) for c in events.colours[number].tolist()]
        four = [(p.e, p.px, p.py, p.pz) for p in particles]
        np.testing.assert_allclose(four, events.momenta[number], rtol=1e-10, atol=1e-8)
        weights = list(event.weights.values())
        np.testing.assert_allclose(weights, partons.components[number], rtol=1e-10)
    assert list(found[0].weights) == list(events.weights)


def test_each_quark_line_keeps_its_colour(partons):
    events = lhe_events(partons, "full", "tuned")
    for pid, colours in zip(events.pid, events.colours, strict=True):
        for line, tag in enumerate((501, 502)):
            expected = [tag, 0] if pid[line] > 0 else [0, tag]
            assert colours[line].tolist() == colours[line + 2].tolist() == expected
        assert colours[4].tolist() == [0, 0]


def test_a_summary_has_weights_and_names(lhe_file, partons):
    summary = scan_lhe(lhe_file)
    assert (summary.weight == 1).all()
    assert summary.names[0] == "morphing_0_0"
    np.testing.assert_allclose(summary.weights, partons.components, rtol=1e-10)


@pytest.mark.skipif(not MADGRAPH.exists(), reason="the file of MadGraph is not here")
def test_a_file_of_madgraph():
    """1000 events with 145 weights, counted in the text itself."""
    text = gzip.open(MADGRAPH, "rt").read()
    blocks = re.findall(r"<event>\s*\n\s*\d+\s+\d+\s+(\S+)", text)
    first = re.findall(r"<wgt id='(\d+)'> (\S+) </wgt>", text.split("</event>")[0])
    summary = scan_lhe(MADGRAPH)
    np.testing.assert_allclose(summary.weight, np.array(blocks, dtype=float))
    assert summary.weights.shape == (1000, 145)
    assert summary.names == tuple(name for name, _ in first)
    np.testing.assert_allclose(summary.weights[0], [float(value) for _, value in first])


def test_the_copy_for_pythia_takes_every_event(lhe_file):
    with accepting_all(lhe_file) as copy:
        init = copy.read_text().split("<init>\n")[1].split("\n")[0].split()
        original = lhe_file.read_text().split("<init>\n")[1].split("\n")[0].split()
    assert init[8] == "-4"
    assert original[8] == "3"
    assert [*init[:8], init[9]] == [*original[:8], original[9]]


def truncated(path, text):
    path.write_text(text[: len(text) // 2])


def truncated_gzip(path, text):
    path.write_bytes(gzip.compress(text.encode())[:-300])


def without_events(path, text):
    path.write_text(re.sub(r"<event>.*</event>\n", "", text, flags=re.DOTALL))


def another_weight(path, text):
    head, tail = text.rsplit("<wgt id='morphing_0_2'>", 1)
    path.write_text(f"{head}<wgt id='other'>{tail}")


def no_number(path, text):
    weight = "<wgt id='morphing_0_2'>"
    path.write_text(re.sub(f"{weight}[^<]*<", f"{weight} nan <", text))


def short_event(path, text):
    path.write_text(text.replace(" 0.0 9.0\n", "\n", 1))


def not_closed(path, text):
    path.write_text(text.replace("</rwgt>", "", 1))


def no_momentum(path, text):
    path.write_text(re.sub(r"\d+\.\d+e\+\d+ (\S+ 1\.25)", r"nan \1", text, count=1))


BAD = {
    "no momentum": (no_momentum, "event 0 has momenta that are not finite"),
    "short event": (short_event, "event 0 cannot be read"),
    "not closed": (not_closed, "cannot be read"),
    "truncated": (truncated, "truncated"),
    "truncated gzip": (truncated_gzip, "truncated"),
    "empty": (lambda path, _: path.write_text(""), "starts with ''"),
    "foreign": (lambda path, _: path.write_text("PK\n1 2 3\n"), "no LHE file"),
    "no text": (lambda path, _: path.write_bytes(b"\xff\xfe\x00" * 9), "no text"),
    "no events": (without_events, "no <event>"),
    "another weight": (another_weight, "same weights"),
    "not finite": (no_number, "not finite"),
    "a folder": (lambda path, _: path.mkdir(), "is a folder"),
    "absent": (lambda path, _: None, "does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case, lhe_file, tmp_path):
    spoil, message = BAD[case]
    path = tmp_path / "bad.lhe"
    spoil(path, lhe_file.read_text())
    with pytest.raises(InputFileError, match=message):
        scan_lhe(path)
