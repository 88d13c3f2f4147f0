"""Manifests of campaigns: what they mean, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import uproot

from mflow_sbi.errors import EventFileError, MetadataError, MflowSbiError
from mflow_sbi.events import inspect_file, read_events
from mflow_sbi.events.manifest import read_manifest
from mflow_sbi.events.paths import resolve_paths
from mflow_sbi.run_files import file_digests

EVENTS = (5, 4, 3)


def _write(folder: Path, events: tuple[int, ...] = EVENTS) -> Path:
    """Write a campaign by hand, as the format says; return its manifest."""
    folder.mkdir()
    rng, shards = np.random.default_rng(1), []
    for k, n in enumerate(events):
        path = folder / f"shard_{k:04}.root"
        with uproot.recreate(path) as file:
            file.mktree("events", {"x0": "float64"}).extend({"x0": rng.normal(size=n)})
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        shards.append({"file": path.name, "events": n, "size": len(content), "sha256": sha256})
    manifest = folder / "manifest.json"
    manifest.write_text(
        json.dumps(
            {
                "format": "mflow_sbi.campaign",
                "format_version": 1,
                "command": ["toy"],
                "events": sum(events),
                "seed": 1,
                "n_shards": len(events),
                "shards": shards,
                "failures": {},
            }
        )
    )
    return manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return _write(tmp_path / "campaign")


def _change(manifest: Path, change) -> None:
    values = json.loads(manifest.read_text())
    change(values)
    manifest.write_text(json.dumps(values))


def test_a_manifest_or_its_folder_stands_for_its_files_in_order(manifest):
    files = sorted(manifest.parent.glob("*.root"))
    assert read_manifest(manifest) == read_manifest(manifest.parent) == files
    assert resolve_paths([manifest]) == resolve_paths(str(manifest.parent)) == files
    together = read_events(manifest, observables=["x0"])
    np.testing.assert_array_equal(together.x, read_events(files, observables=["x0"]).x)
    assert len(together) == sum(EVENTS)


def test_a_file_is_not_counted_twice(manifest):
    with pytest.raises(EventFileError, match="given 2 times"):
        resolve_paths([manifest, manifest.parent / "shard_0001.root"])


def test_files_of_one_name_in_two_campaigns_both_have_digests(manifest, tmp_path):
    other = _write(tmp_path / "other", (2, 2))
    assert len(file_digests([str(manifest), str(other)])) == len(EVENTS) + 2
    assert set(file_digests(str(other))) == {"shard_0000.root", "shard_0001.root"}


def _drop_a_shard(values):
    del values["shards"][1]
    values["failures"] = {"shard_0001.root": "no"}


def test_an_incomplete_campaign_is_read_only_if_asked_for(manifest):
    _change(manifest, _drop_a_shard)
    with pytest.raises(EventFileError, match=r"2 of 3 shards \(shard_0001.root failed\)"):
        resolve_paths(manifest)
    assert [p.name for p in read_manifest(manifest, incomplete=True)] == [
        "shard_0000.root",
        "shard_0002.root",
    ]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_flip, "changed since its digest"),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), "changed since its digest"),
        (lambda path: path.unlink(), "is not there, but listed"),
    ],
    ids=["a bit", "longer", "gone"],
)
def test_a_shard_that_changed_is_refused(manifest, harm, message):
    harm(manifest.parent / "shard_0001.root")
    with pytest.raises(EventFileError, match=message) as caught:
        read_events(manifest, observables=["x0"])
    assert "shard_0001.root" in str(caught.value)


def _set(key, value):
    return lambda values: values.update({key: value})


def _of_first(key, value):
    return lambda values: values["shards"][0].update({key: value})


MALFORMED = {
    "another file": (_set("format", "toy"), "expected a campaign's manifest"),
    "a later version": (_set("format_version", 2), "version 2"),
    "no number": (_set("n_shards", "3"), "n_shards"),
    "a boolean": (_set("n_shards", True), "n_shards"),  # noqa: FBT003
    "other events": (_set("events", 13), "are 12"),
    "no list": (_set("shards", {}), "expected a list"),
    "no size": (_of_first("size", None), r"shards\[0\]"),
    "another folder": (_of_first("file", "../shard_0000.root"), "beside the manifest"),
    "twice": (_of_first("file", "shard_0001.root"), "listed twice"),
}


@pytest.mark.parametrize(("change", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_manifests_are_refused(manifest, change, message):
    _change(manifest, change)
    with pytest.raises(MetadataError, match=message):
        resolve_paths(manifest)


def test_what_is_no_json_or_not_there_is_refused(manifest, tmp_path):
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(MetadataError, match="not readable JSON"):
        resolve_paths(manifest)
    with pytest.raises(MflowSbiError, match="cannot be read"):
        resolve_paths(tmp_path / "nothing.json")


def test_a_campaign_is_inspected_as_one(manifest):
    summary = inspect_file(manifest.parent, observables=["x0"])
    assert summary.readable
    assert summary.n_files == len(EVENTS)
    assert summary.report is not None
    assert summary.report.n_read == sum(EVENTS)
    assert ("files", "3, the first of them told") in summary.rows()
