"""The records on disk: what is written is read, in order, and a torn write is dropped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws import kinesis_log
from localaws.kinesis_log import Record, ShardLog


def record(counter: int, size: int = 10, arrival: int | None = None) -> Record:
    return Record(counter, counter if arrival is None else arrival, b"key", bytes([counter % 256]) * size)


def counters(log: ShardLog, start: int = 0) -> list[int]:
    return [found.counter for found in log.read_from(start)]


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=40), start=st.integers(0, 90))
def test_reading_gives_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], start: int
) -> None:
    """Over several segments, from any counter, before and after the log is opened anew."""
    folder = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinesis_log, "SEGMENT_BYTES", 500)
        written = [record(2 * n, size) for n, size in enumerate(sizes)]
        log = ShardLog(folder)
        for at in range(0, len(written), 3):
            log.append(written[at : at + 3])
        expected = [r for r in written if r.counter >= start]
        assert list(log.read_from(start)) == expected
        log.close()
        again = ShardLog(folder)
        assert list(again.read_from(start)) == expected
        assert again.last_counter == written[-1].counter
        again.close()


@pytest.mark.parametrize(("suffix", "cut"), [(".data", 1), (".index", 1), (".index", 33)])
def test_torn_write_drops_only_the_torn_records(tmp_path: Path, suffix: str, cut: int) -> None:
    """Whichever file is short: the log opens with the whole records before, and goes on behind them."""
    log = ShardLog(tmp_path / "shard")
    log.append([record(n) for n in range(5)])
    log.close()
    file = next((tmp_path / "shard").glob(f"*{suffix}"))
    file.write_bytes(file.read_bytes()[:-cut])
    log = ShardLog(tmp_path / "shard")
    kept = counters(log)
    assert kept == list(range(5))[: len(kept)]
    assert len(kept) == (3 if cut == 33 else 4)
    log.append([record(10)])
    log.close()
    again = list(ShardLog(tmp_path / "shard").read_from(0))
    assert again == [*(record(n) for n in kept), record(10)]


def test_trim_forgets_and_frees_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records before the time are not read any more; segments of nothing else are deleted."""
    monkeypatch.setattr(kinesis_log, "SEGMENT_BYTES", 100)
    log = ShardLog(tmp_path / "shard")
    for n in range(50):
        log.append([record(n)])
    files = len(list((tmp_path / "shard").iterdir()))
    log.trim(33)
    assert counters(log) == list(range(33, 50))
    assert log.oldest_arrival_from(0) == 33
    assert len(list((tmp_path / "shard").iterdir())) < files / 2
    log.append([record(60)])
    assert counters(log, 49) == [49, 60]


def test_time_finds_the_first_record_that_arrived_then_or_later(tmp_path: Path) -> None:
    log = ShardLog(tmp_path / "shard")
    log.append([record(1, arrival=100), record(2, arrival=200), record(3, arrival=200)])
    assert [log.counter_at(millis) for millis in (0, 100, 101, 200, 201)] == [1, 1, 2, 2, None]
