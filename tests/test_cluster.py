"""Who does the work: words of the command line, this process, and what is refused."""

import sys

import pytest

from mflow_sbi.cluster import SerialMap, open_cluster
from mflow_sbi.errors import ClusterError, ConfigurationError


def test_the_serial_map_keeps_order_and_tells_progress():
    told = []
    with open_cluster(None) as tasks:
        assert isinstance(tasks, SerialMap)
        assert tasks.map(str, [3, 1, 2], lambda *n: told.append(n)) == ["3", "1", "2"]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("text", ["", "locally", "local:0", "local:-1", "tcp:host", "ssh"])
def test_other_words_are_refused(text):
    with pytest.raises(ConfigurationError, match="expected local, local:N"), open_cluster(text):
        pass


def test_without_dask_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    match = r"pip install 'mflow_sbi\[cluster\]'"
    with pytest.raises(ClusterError, match=match), open_cluster("local:2"):
        pass


def test_no_scheduler_is_told(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(address, timeout):  # noqa: ARG001
        message = "timed out"
        raise OSError(message)

    monkeypatch.setattr(distributed, "Client", refuse)
    match = "no Dask scheduler answers"
    with pytest.raises(ClusterError, match=match), open_cluster("tcp://localhost:1"):
        pass
