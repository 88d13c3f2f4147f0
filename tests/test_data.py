"""The committed event files are the ones their manifest describes."""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from simulators.__main__ import main

DATA = Path(__file__).resolve().parent.parent / "data"
MANIFEST = json.loads((DATA / "MANIFEST.json").read_text("utf-8"))


def columns(path):
    file: Any = uproot.open(path)
    tree = file["Delphes"]
    return {name: np.array(tree[name].array().tolist()) for name in tree.keys()}


def test_every_event_file_is_listed_and_all_are_small():
    files = list(DATA.glob("**/*.root"))
    assert {str(path.relative_to(DATA)) for path in files} == set(MANIFEST)
    assert sum(path.stat().st_size for path in files) < 5_000_000


@pytest.mark.parametrize("name", MANIFEST)
def test_the_digest_holds(name):
    digest = hashlib.sha256((DATA / name).read_bytes()).hexdigest()
    assert digest == MANIFEST[name]["sha256"]


@pytest.mark.parametrize("name", MANIFEST)
def test_the_file_records_its_events_and_command(name):
    file: Any = uproot.open(DATA / name)
    record = json.loads(str(file["mflow_sbi"]))
    assert file["Delphes"].num_entries == record["n_events"] == MANIFEST[name]["n_events"]
    assert record["command"] == MANIFEST[name]["command"].replace("data/", "")


@pytest.mark.parametrize("name", [name for name in MANIFEST if "observed" in name])
def test_the_command_makes_the_same_events(name, tmp_path):
    words = shlex.split(MANIFEST[name]["command"])[3:-1]
    assert main([*words, str(tmp_path / name)]) == 0
    made, kept = columns(tmp_path / name), columns(DATA / name)
    for branch, values in kept.items():
        np.testing.assert_allclose(made[branch], values, rtol=1e-4, atol=1e-30, err_msg=branch)
