"""Campaigns: equal events whatever the workers, what is kept and what is made again."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from simulators.campaign import (
    Campaign,
    DaskWorkers,
    SerialWorkers,
    content_digest,
    read_manifest,
    run_campaign,
)
from simulators.campaign.__main__ import main
from simulators.campaign.shards import make_shard
from simulators.campaign.workers import local_client, open_workers
from simulators.errors import InvalidRequest, OutputError, SimulatorError, WorkerError

CIRCLE = Campaign(("circle", "--theta", "-0.3"), events=605, seed=7, n_shards=6)


@pytest.fixture(scope="module")
def client():
    pytest.importorskip("distributed")
    with local_client(2) as client:
        yield client


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    run_campaign(CIRCLE, folder, SerialWorkers())
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Return a finished campaign that a test may harm."""
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _lasting(folder: Path) -> dict:
    """Return the manifest without what depends on the time and on who made it."""
    values = json.loads((folder / "manifest.json").read_text())
    for shard in values["shards"]:
        del shard["made"], shard["sha256"]
    return values


def _open(path: Path) -> Any:
    return uproot.open(path)


def _count(make):
    """Return a maker of shards that lists the files it made."""
    made = []

    def counted(task):
        made.append(task.shard.file)
        return make(task)

    return made, counted


def test_shards_share_the_events_and_have_seeds_of_their_own():
    assert sum(shard.events for shard in CIRCLE.shards) == CIRCLE.events
    assert {shard.events for shard in CIRCLE.shards} == {100, 101}
    assert len({shard.seed for shard in CIRCLE.shards}) == CIRCLE.n_shards
    child = np.random.SeedSequence(7).spawn(6)[4]
    assert CIRCLE.shards[4].seed == int(child.generate_state(1, np.uint64)[0]) >> 11
    other = Campaign(CIRCLE.command, 605, 8, 6)
    assert not {s.seed for s in other.shards} & {s.seed for s in CIRCLE.shards}


def test_the_shards_hold_different_events_and_all_of_them(finished):
    x = [_open(p)["events"]["x0"].array(library="np") for p in finished.glob("*.root")]
    assert len(np.unique(np.concatenate(x))) == CIRCLE.events


def test_a_worker_is_killed_and_the_campaign_is_that_of_one_process(client, finished, tmp_path):
    struck = tmp_path / "struck"
    third = CIRCLE.shards[2].file

    def make(task):
        if task.shard.file == third and not struck.exists():
            struck.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return make_shard(task)

    folder = tmp_path / "campaign"
    workers = DaskWorkers(client, at_once=2)
    result = run_campaign(CIRCLE, folder, workers, make=make)
    assert struck.exists()
    assert result.retried == 1
    attempts = {f: r.made.attempts for f, r in result.manifest.records.items()}
    assert attempts == {shard.file: 1 + (shard.file == third) for shard in CIRCLE.shards}
    assert _lasting(folder) == _lasting(finished)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in finished.iterdir())


def test_a_shard_that_kills_every_worker_fails_and_the_others_do_not(client, tmp_path):
    campaign = Campaign(CIRCLE.command, 40, 1, 4)

    def make(task):
        if task.shard.file == "shard_0001.root":
            os.kill(os.getpid(), signal.SIGKILL)
        return make_shard(task)

    client.wait_for_workers(2, timeout=60)  # one may be starting again
    workers = DaskWorkers(client, at_once=2)
    result = run_campaign(campaign, tmp_path, workers, make=make, retries=0)
    assert list(result.manifest.failures) == ["shard_0001.root"]
    assert "KilledWorker" in result.manifest.failures["shard_0001.root"]
    assert len(result.manifest.records) == 3


def test_wbf_events_do_not_depend_on_the_workers(client, tmp_path):
    campaign = Campaign(("wbf", "--theta-prior", "normal"), 90, 3, 3)
    one, two = tmp_path / "one", tmp_path / "two"
    run_campaign(campaign, one, SerialWorkers())
    run_campaign(campaign, two, DaskWorkers(client, at_once=2))
    assert _lasting(one) == _lasting(two)


def test_a_failing_shard_is_tried_again_and_then_told(tmp_path):
    campaign = Campaign(CIRCLE.command, 30, 1, 3)
    tries = {shard.file: 0 for shard in campaign.shards}

    def make(task):
        tries[task.shard.file] += 1
        if task.shard.file == "shard_0001.root" and tries[task.shard.file] < 3:
            message = "a disk that comes and goes"
            raise RuntimeError(message)
        if task.shard.file == "shard_0002.root":
            message = "no such physics"
            raise SimulatorError(message)
        return make_shard(task)

    result = run_campaign(campaign, tmp_path, SerialWorkers(), make=make, retries=2)
    assert tries == {"shard_0000.root": 1, "shard_0001.root": 3, "shard_0002.root": 1}
    assert result.manifest.failures == {"shard_0002.root": "no such physics"}
    assert result.retried == 2
    stored = read_manifest(tmp_path)
    assert stored is not None
    assert stored.failures == result.manifest.failures
    made, again = _count(make_shard)
    mended = run_campaign(campaign, tmp_path, SerialWorkers(), make=again)
    assert made == ["shard_0002.root"]
    assert not mended.manifest.failures


def test_an_interrupted_campaign_goes_on_with_what_is_missing(finished, tmp_path):
    def make(task):
        if task.shard.file == "shard_0003.root":
            raise KeyboardInterrupt
        return make_shard(task)

    with pytest.raises(KeyboardInterrupt):
        run_campaign(CIRCLE, tmp_path, SerialWorkers(), make=make)
    made, rest = _count(make_shard)
    result = run_campaign(CIRCLE, tmp_path, SerialWorkers(), make=rest)
    assert made == [shard.file for shard in CIRCLE.shards[3:]]
    assert result.kept == tuple(shard.file for shard in CIRCLE.shards[:3])
    assert _lasting(tmp_path) == _lasting(finished)


def _rewrite(path: Path, change) -> None:
    """Write the events of a file again, changed, with the same record."""
    with _open(path) as file:
        record, columns = str(file["mflow_sbi"]), file["events"].arrays(library="np")
    columns = change(columns)
    with uproot.recreate(path) as file:
        file["mflow_sbi"] = record
        file.mktree("events", {n: c.dtype for n, c in columns.items()}).extend(columns)


def test_only_changed_and_missing_shards_are_made_again(folder, finished):
    cut = folder / "shard_0001.root"
    cut.write_bytes(cut.read_bytes()[:-2000])
    _rewrite(folder / "shard_0003.root", lambda c: {**c, "x0": np.nextafter(c["x0"], 2)})
    (folder / "shard_0004.root").unlink()
    flipped = bytearray((folder / "shard_0005.root").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "shard_0005.root").write_bytes(flipped)
    made, make = _count(make_shard)
    result = run_campaign(CIRCLE, folder, SerialWorkers(), make=make)
    assert made == [f"shard_000{k}.root" for k in (1, 3, 4, 5)]
    assert result.redone == tuple(made)
    assert _lasting(folder) == _lasting(finished)


def test_a_shard_that_comes_out_otherwise_than_before_is_told(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    values["shards"][2]["digest"] = "0" * 64
    path.write_text(json.dumps(values))
    (folder / "shard_0002.root").unlink()
    result = run_campaign(CIRCLE, folder, SerialWorkers())
    assert "computes otherwise" in result.manifest.failures["shard_0002.root"]


def test_the_content_digest_sees_names_values_types_shapes_and_records(tmp_path):
    def digest(columns, record="{}"):
        path = tmp_path / "events.root"
        with uproot.recreate(path) as file:
            types = {name: np.dtype((c.dtype, c.shape[1:])) for name, c in columns.items()}
            file.mktree("events", types).extend(columns)
            file["mflow_sbi"] = record
        return content_digest(path)

    x = np.arange(4.0)
    digests = [
        digest({"x": x}),
        digest({"y": x}),
        digest({"x": np.nextafter(x, 9)}),
        digest({"x": x.astype(np.float32)}),
        digest({"x": x.reshape(2, 2)}),
        digest({"x": x}, "{ }"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest({"x": x}) == digests[0]


def test_another_campaign_in_the_folder_is_refused(folder):
    for other, what in (
        (Campaign(("circle", "--theta", "0.3"), 605, 7, 6), "command"),
        (Campaign(CIRCLE.command, 606, 7, 6), "events 605"),
        (Campaign(CIRCLE.command, 605, 8, 6), "seed 7"),
        (Campaign(CIRCLE.command, 605, 7, 5), "n_shards 6"),
    ):
        with pytest.raises(OutputError, match=f"another campaign .{what}"):
            run_campaign(other, folder, SerialWorkers())


def test_shards_of_other_versions_are_not_mixed(folder, monkeypatch):
    monkeypatch.setattr("simulators.campaign.manifest.__version__", "9.9")
    with pytest.raises(OutputError, match=r"simulators 0\.\d\.\d \(here 9.9\)"):
        run_campaign(CIRCLE, folder, SerialWorkers())


def test_a_worker_with_other_software_makes_no_shard(tmp_path):
    def make(task):
        finished = make_shard(task)
        finished.versions["numpy"] = "1.0"
        return finished

    campaign = Campaign(CIRCLE.command, 2, 1, 1)
    result = run_campaign(campaign, tmp_path, SerialWorkers(), make=make)
    assert "numpy 1.0 (here" in result.manifest.failures["shard_0000.root"]


def test_one_process_at_a_time(folder):
    def again(task):
        run_campaign(CIRCLE, folder, SerialWorkers())
        return make_shard(task)

    (folder / "shard_0000.root").unlink()
    result = run_campaign(CIRCLE, folder, SerialWorkers(), make=again)
    assert "a campaign is running here" in result.manifest.failures["shard_0000.root"]


@pytest.mark.parametrize("harm", [lambda text: text[:80], lambda text: text.replace("seed", "sd")])
def test_a_harmed_manifest_is_refused(folder, harm):
    manifest = folder / "manifest.json"
    manifest.write_text(harm(manifest.read_text()))
    with pytest.raises(OutputError, match="unreadable"):
        run_campaign(CIRCLE, folder, SerialWorkers())


WORDS = ["circle", "--theta", "-1e-3", "--events", "20", "--seed", "1", "--shards", "2"]


def test_the_command_line_makes_resumes_and_tells(tmp_path, capsys):
    words = [*WORDS, "--workers", "serial", "--out", str(tmp_path / "c")]
    assert main(words) == 0
    assert "2 of 2 shards" in capsys.readouterr().out
    assert main(words) == 0
    assert "2 were there" in capsys.readouterr().out
    stored = read_manifest(tmp_path / "c")
    assert stored is not None
    assert stored.campaign.command == ("circle", "--theta", "-1e-3")


def test_failed_shards_are_told_with_an_exit_code(tmp_path, capsys, monkeypatch):
    def refuse(words):  # noqa: ARG001
        message = "no such physics"
        raise SimulatorError(message)

    monkeypatch.setattr("simulators.campaign.shards._simulate", refuse)
    assert main([*WORDS, "--workers", "serial", "--out", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert "shard_0001.root failed: no such physics" in told
    assert "2 shards failed" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"circle": "circl"}, "invalid choice: 'circl'"),
        ({"20": "0"}, "expected an integer >= 1"),
        ({"2": "21"}, "21 shards of 20 events"),
        ({"--shards": "--shard"}, "--shards"),
        ({"-1e-3": "nan"}, "expected a finite number"),
        ({"serial": "locally"}, "expected serial, local"),
        ({"serial": "local:0"}, "expected serial, local"),
        ({"circle": ""}, "invalid choice"),
    ],
)
def test_bad_command_lines_are_one_line_and_make_no_folder(tmp_path, capsys, change, message):
    words = [*WORDS, "--workers", "serial", "--out", str(tmp_path / "c")]
    assert main([change.get(word, word) for word in words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_shards_do_not_write_one_file(tmp_path):
    command = ("wbf-chain", "--theta", "0", "0", "--keep-lhe", str(tmp_path / "all.lhe"))
    with pytest.raises(InvalidRequest, match="--keep-lhe: all shards"):
        run_campaign(Campaign(command, 4, 1, 2), tmp_path / "c", SerialWorkers())
    assert not (tmp_path / "c").exists()


def test_no_simulator_is_refused():
    with pytest.raises(InvalidRequest, match="no simulator"):
        Campaign((), 10, 1, 2)


def test_without_dask_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(WorkerError, match=r"pip install 'mflow_sbi\[cluster\]'"),
        open_workers("local"),
    ):
        pass


def test_no_scheduler_is_told(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(address, timeout):  # noqa: ARG001
        message = "timed out"
        raise OSError(message)

    monkeypatch.setattr(distributed, "Client", refuse)
    with (
        pytest.raises(WorkerError, match="no Dask scheduler answers"),
        open_workers("tcp://localhost:1"),
    ):
        pass
