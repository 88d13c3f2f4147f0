"""Streamed events: every one once an epoch, in an order that can be made again, in flat memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.errors import EventDataError, MissingReference, TrainingError
from mflow_sbi.events import EventSample
from mflow_sbi.training import FitSettings, StreamingSettings, TrainingEvents, fit
from mflow_sbi.training.gathering import digest_of, gathered_events
from mflow_sbi.training.sources import EpochSeed
from mflow_sbi.training.streamed import StreamedEvents

from .curves import (
    METADATA,
    SomeChunks,
    curve_sample,
    curve_schedule,
    numbers_of,
    small_mflow,
    told,
)

SETTINGS = FitSettings(seed=3)
SMALL_BUFFER = StreamingSettings(chunk_events=128, buffer_chunks=2)


def _numbered(n: int) -> EventSample:
    """Return events whose first observable is their number."""
    x = np.column_stack([np.arange(n), np.ones(n), np.ones(n)]).astype(np.float64)
    return EventSample(x=x, metadata=METADATA, theta=np.zeros((n, 1)))


def _numbers(batches) -> list[int]:
    return [int(number) for batch in batches for number in batch.x[:, 0]]


def _orders(streaming: StreamingSettings, n: int = 1000, size: int = 30):
    """Return the numbers of held-out events, and those of two epochs, the first one twice."""
    with gathered_events(SomeChunks(_numbered(n), 128), SETTINGS, streaming) as gathered:
        source = StreamedEvents(gathered, told, SETTINGS.seed)
        events = source.phase_events(None, {})
        seeds = [EpochSeed(3, 0, 0, epoch) for epoch in (0, 0, 1)]
        epochs = [_numbers(events.batches(size, seed)) for seed in seeds]
        return _numbers([events.held_out]), epochs


@pytest.mark.parametrize("buffer_chunks", [1, 2, 50])
def test_an_epoch_has_every_training_event_once_and_never_a_held_out_one(buffer_chunks: int):
    held_out, (epoch, again, other) = _orders(StreamingSettings(128, buffer_chunks))
    assert len(held_out) == 100
    for numbers in (epoch, other):
        assert len(set(numbers)) == len(numbers) == 900 // 30 * 30
        assert not set(numbers) & set(held_out)
    _, (all_of_them, _, _) = _orders(StreamingSettings(128, buffer_chunks), size=1)
    assert set(all_of_them) | set(held_out) == set(range(1000))
    assert epoch == again
    assert epoch != other
    assert sorted(epoch) != epoch


def test_every_epoch_begins_with_other_events():
    _, (epoch, _, other) = _orders(StreamingSettings(128, 1))
    both = set(epoch[:270]) & set(other[:270])
    assert 40 < len(both) < 140  # 81 by chance


def test_neighbours_in_a_file_do_not_stay_neighbours():
    _, (epoch, _, _) = _orders(SMALL_BUFFER)
    places = np.empty(1000, dtype=int)
    places[epoch] = np.arange(len(epoch))
    known = np.array(sorted(epoch))
    apart = np.abs(np.diff(places[known])[np.diff(known) == 1])
    assert (apart == 1).mean() < 0.02  # 0.002 by chance
    assert np.median(apart) > 150  # 264 by chance, 1 in the order of the file
    first_half = np.array(epoch[:450])
    assert abs(first_half.mean() - 500) < 60  # of all chunks, not of the first ones


def test_held_out_events_are_the_same_fixed_share_of_every_chunk():
    held_out = [_orders(SMALL_BUFFER)[0] for _ in range(2)]
    assert held_out[0] == held_out[1]
    chunks = np.bincount(np.array(held_out[0]) // 128, minlength=8)
    assert chunks[:7].min() >= 12
    assert chunks[:7].max() <= 13


def test_what_is_held_out_is_capped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mflow_sbi.training.gathering.HELD_OUT_ROWS", 40)
    held_out, (epoch, _, _) = _orders(SMALL_BUFFER, size=1)
    assert len(held_out) == 40
    assert len(epoch) == 960


def _trained(sample: EventSample, chunk: int, streaming: StreamingSettings, **kwargs):
    surrogate = kwargs.pop("surrogate", None) or small_mflow()
    folder = kwargs.get("checkpoint_folder")
    with gathered_events(
        SomeChunks(sample, chunk), SETTINGS, streaming, folder=folder and folder / "events"
    ) as gathered:
        source = StreamedEvents(gathered, told, SETTINGS.seed)
        history = fit(surrogate, source, kwargs.pop("schedule"), SETTINGS, **kwargs)
    return surrogate, [(r.train, r.validation) for r in history]


def test_events_that_fit_the_buffer_train_as_those_in_memory_bit_for_bit():
    sample, schedule = curve_sample(1200), curve_schedule()
    surrogate = small_mflow()
    history = fit(surrogate, told(sample), schedule, SETTINGS)
    streamed, rows = _trained(sample, 1200, StreamingSettings(600, 2), schedule=schedule)
    assert torch.equal(numbers_of(surrogate), numbers_of(streamed))
    assert [(r.train, r.validation) for r in history] == rows


def test_many_buffers_learn_as_much_as_events_in_memory():
    sample, schedule, test = curve_sample(2000), curve_schedule(4), told(curve_sample(1000, 9))
    surrogate = small_mflow()
    fit(surrogate, told(sample), schedule, SETTINGS)
    streamed, _ = _trained(sample, 300, StreamingSettings(300, 2), schedule=schedule)
    with torch.no_grad():
        expected, got = (s.log_prob(test.x, test.theta).mean() for s in (surrogate, streamed))
        errors = [s.reconstruction_error(test.x).median() for s in (surrogate, streamed)]
    assert abs(float(got - expected)) < 0.1
    assert errors[1] < 2 * errors[0]


class _CutError(Exception):
    pass


@pytest.mark.parametrize("cut_after", [1, 5])
def test_a_streamed_run_that_was_cut_resumes_bit_for_bit(tmp_path: Path, cut_after: int):
    sample, schedule = curve_sample(900), curve_schedule()
    whole, expected = _trained(sample, 150, SMALL_BUFFER, schedule=schedule)

    def cut(record):
        if seen.append(record) is None and len(seen) == cut_after:
            raise _CutError

    seen: list = []
    resumable = {"schedule": schedule, "checkpoint_folder": tmp_path}
    with pytest.raises(_CutError):
        _trained(sample, 150, SMALL_BUFFER, on_epoch=cut, **resumable)
    encoded = tmp_path / "events" / "encoded.npy"
    assert encoded.exists() == (cut_after > 2)  # while the chart moves, no encoding rests
    resumed, history = _trained(
        sample, 150, SMALL_BUFFER, surrogate=small_mflow(seed=5), **resumable
    )
    assert torch.equal(numbers_of(resumed), numbers_of(whole))
    assert history == expected


def test_an_encoding_is_found_again_and_made_again_where_the_surrogate_differs(tmp_path: Path):
    asked: list[int] = []

    def encoder(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return 2 * x

    resting = {"weight": torch.ones(3)}
    for state, expected in ((resting, 902), (resting, 0), ({"weight": torch.zeros(3)}, 902)):
        with gathered_events(
            SomeChunks(_numbered(1000), 128), SETTINGS, SMALL_BUFFER, folder=tmp_path
        ) as gathered:
            source = StreamedEvents(gathered, told, SETTINGS.seed)
            _ = source.held_out
            events = source.phase_events(encoder, state)
            assert sum(asked) == expected + 100  # those held out, in memory
            asked.clear()
            batch = next(events.batches(50, EpochSeed(3, 0, 0, 0)))
            assert batch.resting is not None
            assert torch.equal(batch.resting, 2 * batch.x)


@pytest.mark.parametrize("other", ["events", "chunks", "buffer"])
def test_refuses_a_checkpoint_of_other_events_or_another_order(tmp_path: Path, other: str):
    schedule = curve_schedule(1)
    _trained(curve_sample(900), 150, SMALL_BUFFER, schedule=schedule, checkpoint_folder=tmp_path)
    seed, chunk, buffer = {"events": (1, 150, 2), "chunks": (0, 200, 2), "buffer": (0, 150, 3)}[
        other
    ]
    with pytest.raises(TrainingError, match="set of events"):
        _trained(
            curve_sample(900, seed),
            chunk,
            StreamingSettings(128, buffer),
            schedule=schedule,
            checkpoint_folder=tmp_path,
        )


def test_the_digest_is_that_of_the_events_whatever_the_chunks():
    sample = curve_sample(500)
    digests = {digest_of(SomeChunks(sample, size)) for size in (100, 130, 500)}
    with gathered_events(SomeChunks(sample, 60), SETTINGS, SMALL_BUFFER) as gathered:
        digests.add(gathered.digest)
    assert len(digests) == 1
    assert digest_of(SomeChunks(sample, 100), max_events=499) not in digests


def test_max_events_are_the_first():
    chunks = SomeChunks(_numbered(1000), 128)
    with gathered_events(chunks, SETTINGS, SMALL_BUFFER, max_events=300) as gathered:
        assert gathered.n_events == 300
        assert gathered.drawn.x[:, 0].max() < 300
        assert len(gathered.drawn) == 128


def _weighted(n: int, signed: float = 0.15) -> EventSample:
    rng = np.random.default_rng(5)
    weight = rng.uniform(0.5, 1.5, n) * np.where(rng.random(n) < signed, -1.0, 1.0)
    return replace(curve_sample(n), weight=7.0 * weight)


def test_weighted_events_train_as_those_in_memory():
    sample, schedule = _weighted(1200), curve_schedule(1)
    weights = (torch.from_numpy(w) for w in (sample.training_weight, sample.theta_weight))
    surrogate = small_mflow()
    events = TrainingEvents(*told(sample)[:4], *weights)
    history = fit(surrogate, events, schedule, SETTINGS)
    streamed, rows = _trained(sample, 1200, StreamingSettings(1200, 1), schedule=schedule)
    assert torch.allclose(numbers_of(surrogate), numbers_of(streamed), atol=1e-4)
    expected = [(r.train, r.validation) for r in history]
    assert np.allclose(rows, expected, rtol=1e-5)


def test_weights_are_summed_up_over_all_chunks():
    sample = _weighted(1000)
    with gathered_events(SomeChunks(sample, 128), SETTINGS, SMALL_BUFFER) as gathered:
        assert gathered.weight_notes == sample.weight_notes
        source = StreamedEvents(gathered, told, 3)
        batches = list(source.phase_events(None, {}).batches(1, EpochSeed(3, 0, 0, 0)))
        means = [torch.cat([getattr(b, k) for b in batches]).mean() for k in _KINDS]
        assert np.allclose(means, 1.0)
        assert min(float(batch.theta_weight.min()) for batch in batches) >= 0  # pyright: ignore[reportOptionalMemberAccess]


_KINDS = ("weight", "theta_weight")


def test_equal_weights_are_none():
    sample = replace(curve_sample(500), weight=np.full(500, 3.0))
    with gathered_events(SomeChunks(sample, 128), SETTINGS, SMALL_BUFFER) as gathered:
        assert gathered.weights is None
        assert set(gathered.columns) == {"x", "theta"}


def test_refuses_what_cannot_be_trained_on():
    def gather(sample: EventSample) -> None:
        with gathered_events(SomeChunks(sample, 128), SETTINGS, SMALL_BUFFER):
            pass

    bad = _numbered(300)
    bad.x[200, 1] = np.nan
    rare = np.zeros(300)
    rare[0] = 1.0
    negative = np.ones(300)
    negative[:128] = -0.5
    for sample, error, said in (
        (_numbered(4), TrainingError, "both sides of the split"),
        (bad, TrainingError, "finite numbers: 1 of 128"),
        (replace(_numbered(300), theta=None), MissingReference, "theta"),
        (replace(_numbered(300), weight=rare), EventDataError, "effective size"),
        (replace(_numbered(300), weight=negative), EventDataError, "positive sum in every chunk"),
    ):
        with pytest.raises(error, match=said):
            gather(sample)


MEMORY = """
import sys
import numpy as np
import torch
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.streamed_training import train_streamed
from mflow_sbi.training import FitSettings, StreamingSettings

torch.set_num_threads(1)
METADATA = EventMetadata(
    "toy", "Events", "flat",
    observables=tuple(Observable(f"x{k}") for k in range(40)), parameters=(Parameter("t"),),
)

class Chunks:
    metadata = METADATA
    def __init__(self, n): self.n, self.n_entries = n, 20_000 * n
    def __len__(self): return self.n
    def __iter__(self):
        for k in range(self.n):
            rng = np.random.default_rng(k)
            theta = rng.normal(size=(20_000, 1))
            x = rng.normal(size=(20_000, 40)) + theta
            yield EventSample(x=x, metadata=METADATA, theta=theta)

flow = {"layers": 1, "hidden": 8, "bins": 4}
from mflow_sbi.recipes import find_recipe
recipe = find_recipe("nre")
options = {"hidden": 8, "layers": 1}
schedule = recipe.schedule_for(recipe.parse_options(options))
schedule = schedule.with_phases(ratio={"epochs": 1, "batch_size": 2000})
train_streamed(
    Chunks(int(sys.argv[1])), "nre", options=options, schedule=schedule,
    streaming=StreamingSettings(20_000, 1), settings=FitSettings(1, 0.01),
)
lines = open("/proc/self/status").read().splitlines()
peak = next(line for line in lines if line.startswith("VmHWM"))  # ru_maxrss is its parent's too
sys.stdout.write(str(int(peak.split()[1]) / 1024))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_events():
    peaks = []
    for n_chunks in (2, 12):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", MEMORY, str(n_chunks)], capture_output=True, check=True
        )
        peaks.append(float(done.stdout))
    events_mb = 10 * 20_000 * 41 * 8 / 2**20
    assert peaks[1] - peaks[0] < 0.5 * events_mb  # in memory: at least 2 copies of them
