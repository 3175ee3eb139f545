"""Erasures over real tables: every tier, what still arrives, key changes, raw bytes, and a run that is killed."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glue_streaming import commit, erase
from glue_streaming.erasures import Erasure, Erasures, digest, given_texts, key_texts
from glue_streaming.fold import expiry, run
from glue_streaming.fold.keep import Keep
from glue_streaming.fold.plan import FoldSettings
from glue_streaming.plan_lambda import read_cut
from glue_streaming.state import stream_state
from schemas.position import Line, Position

SECRET = b"s" * 32
SETTINGS = FoldSettings(max_age_seconds=0, horizon_seconds=5)
KEEP = Keep(longest_query_seconds=0)


def erasures(value: str, lsn: int, column: str = "id") -> Erasures:
    return Erasures(
        SECRET,
        (Erasure((column,), digest(SECRET, [value]), digest(SECRET, [f"{column}={value}"]), Line(1, lsn)),),
    )


def fold(lake: Any, kind: str = "auto", meant: Erasures | None = None) -> run.Folded | None:
    cut = read_cut(lake.aws.client("glue"), lake.source)
    return run.fold_table(
        lake.aws.catalog, lake.source, lake.table, cut, kind, SETTINGS, datetime.now(UTC), erasures=meant
    )


def carry_out(lake: Any, meant: Erasures) -> erase.Erased:
    return erase.erase_table(lake.aws.catalog, (f"{lake.source}_lake", lake.table), meant, KEEP, datetime.now(UTC))


def live_bytes(lake: Any) -> bytes:
    """All that the live files of the table hold, uncompressed."""
    table, found = lake.load(), []
    for task in table.scan().plan_files():
        with table.io.new_input(task.file.file_path).open() as source:
            out = io.BytesIO()
            pq.write_table(pq.read_table(source), out, compression="none", use_dictionary=False)
            found.append(out.getvalue())
    return b"".join(found)


@pytest.fixture
def lake(make_table: Any, complete_snapshot: Any) -> Any:
    """Key 1 in every tier: base and history (20), delta (30), log (33), and staged rows of a snapshot (39)."""
    lake = make_table()
    lake.append(
        [lake.row("r", 9, n, "staged", id=n, name=f"base-of-{n}") for n in range(3)], {1: complete_snapshot(8, (10, 3))}
    )
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    lake.append([lake.row("u", 25, 0, id=1, name="delta-of-1"), lake.row("u", 25, 1, id=2, name="delta-of-2")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    assert fold(lake, "minor") is not None
    lake.append([lake.row("u", 33, 0, id=1, name="log-of-1"), lake.row("u", 33, 1, id=0, name="log-of-0")])
    staged = [lake.row("r", 39, n, "staged", id=n, name=f"staged-of-{n}") for n in range(3)]
    lake.append(staged, {2: complete_snapshot(38, (40, 3))})
    return lake


def test_every_version_of_the_key_goes_and_nothing_else(lake: Any, athena: Any) -> None:
    """All tiers are rewritten in one commit; no live file holds a value of the key; others keep theirs."""
    before = live_bytes(lake)
    assert all(f"{tier}-of-1".encode() in before for tier in ("base", "delta", "log", "staged"))
    done = carry_out(lake, erasures("1", 100))
    assert done.files == {"base": 1, "delta": 1, "history": 2, "log": 1, "staged": 1}
    after = live_bytes(lake)
    assert b"-of-1" not in after
    kept = (b"base-of-0", b"base-of-2", b"delta-of-2", b"log-of-0", b"staged-of-0", b"staged-of-2")
    assert all(value in after for value in kept)
    assert carry_out(lake, erasures("1", 100)).files == {}
    assert len(lake.load().metadata.snapshots) <= 2


def test_a_snapshot_with_an_erased_row_still_counts_and_is_activated_without_it(lake: Any) -> None:
    """Its rows were announced: the erased one is blanked in staged, and dropped by the fold that activates it."""
    meant = erasures("1", 100)
    carry_out(lake, meant)
    lake.publish(50, 120.0)
    lake.publish(51, 126.0)
    folded = fold(lake, meant=meant)
    assert folded is not None and folded.work.kind == "activate"
    assert sorted(r["id"] for r in lake.rows("base")) == [0, 2]
    assert b"-of-1" not in live_bytes(lake) and None not in {r["id"] for r in lake.rows("history")}


def test_a_key_that_comes_back_behind_the_line_lives(lake: Any) -> None:
    """Only positions up to the erasure's line are meant."""
    lake.append([lake.row("c", 45, id=1, name="back-of-1")])
    carry_out(lake, erasures("1", 44))
    assert [r["name"] for r in lake.rows("log")] == ["log-of-0", "back-of-1"]
    assert carry_out(lake, erasures("1", 44)).files == {}


def test_a_fold_drops_what_slipped_into_the_log(make_table: Any, complete_snapshot: Any) -> None:
    """Rows of a batch that knew nothing of the erasure: the fold takes them for good and puts them nowhere."""
    lake = make_table()
    lake.append([lake.row("r", 9, 0, "staged", id=0, name="zero")], {1: complete_snapshot(8, (10, 1))})
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    lake.append([lake.row("c", 25, 0, id=1, name="slipped"), lake.row("c", 25, 1, id=2, name="kept")])
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    assert fold(lake, "minor", erasures("1", 30)) is not None
    assert [r["name"] for r in lake.rows("delta")] == ["kept"]
    assert b"slipped" not in live_bytes(lake)


def test_a_fold_drops_what_slipped_into_a_snapshot(make_table: Any, complete_snapshot: Any) -> None:
    """Rows of a batch that knew nothing of the erasure, with nothing in the log beside them."""
    lake = make_table()
    staged = [lake.row("r", 9, n, "staged", id=n, name=f"staged-of-{n}") for n in range(3)]
    lake.append(staged, {1: complete_snapshot(8, (10, 3))})
    lake.publish(20, 100.0)
    assert fold(lake, meant=erasures("1", 100)) is not None
    assert sorted(r["id"] for r in lake.rows("base")) == [0, 2]
    assert b"-of-1" not in live_bytes(lake)


def test_a_key_change_away_from_the_key_keeps_its_own_values(make_table: Any, complete_snapshot: Any) -> None:
    """The row moved to another key and left a value out: the table waits for the fold, which gives it the value; then
    the old key is gone, also as the old key's text."""
    lake = make_table()
    lake.append([lake.row("r", 9, 0, "staged", id=1, name="inherited")], {1: complete_snapshot(8, (10, 1))})
    lake.publish(20, 100.0)
    assert fold(lake) is not None
    change = lake.row("c", 25, 1, id=7, amount=Decimal("1.00"), _unchanged=["name"], _old_key="id=1")
    lake.append([lake.row("d", 25, 0, id=1), change])
    meant = erasures("1", 30)
    waits = carry_out(lake, meant)
    assert (waits.waiting, waits.files) == (1, {})
    lake.publish(30, 110.0)
    lake.publish(31, 116.0)
    assert fold(lake, "minor", meant) is not None
    done = carry_out(lake, meant)
    assert done.waiting == 0 and done.files
    assert [(r["id"], r["name"]) for r in lake.rows("delta")] == [(7, "inherited")]
    assert lake.rows("base") == []
    assert {(r["id"], r["_old_key"]) for r in lake.rows("history")} == {(7, None)}


def test_a_killed_run_leaves_the_table_and_the_next_one_does_it(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with all files written and nothing committed."""
    with monkeypatch.context() as patch:
        patch.setattr(commit, "replace", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            carry_out(lake, erasures("1", 100))
    assert b"base-of-1" in live_bytes(lake)
    assert carry_out(lake, erasures("1", 100)).files
    assert b"-of-1" not in live_bytes(lake)


def test_days_that_were_kept_for_time_travel_go_too(lake: Any) -> None:
    """Their snapshots hold the key, whatever the table's policy says."""
    keep, yesterday = Keep(longest_query_seconds=0, time_travel_days=3), datetime.now(UTC) - timedelta(days=1)
    with expiry.pinned(lake.aws.catalog, lake.load(), yesterday) as pin:
        lake.append([lake.row("u", 34, 0, id=0, name="more")])
    expiry.expire(lake.load(), keep, yesterday, pin)
    assert any(name.startswith(expiry.DAY) for name in lake.load().metadata.refs)
    name = (f"{lake.source}_lake", lake.table)
    erase.erase_table(lake.aws.catalog, name, erasures("1", 100), keep, datetime.now(UTC))
    assert not any(name.startswith(expiry.DAY) for name in lake.load().metadata.refs)


def test_an_append_beside_an_erasure_is_kept(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The streaming job never waits; its properties and totals stand, and the tail counts what is left of the log."""
    original = commit.replace

    def beside(*arguments: Any, **named: Any) -> None:
        lake.append([lake.row("u", 60, id=2, name="beside")])
        original(*arguments, **named)

    monkeypatch.setattr(commit, "replace", beside)
    carry_out(lake, erasures("1", 100))
    assert [r["name"] for r in lake.rows("log")] == ["log-of-0", "beside"]
    state, taken = stream_state(lake.load().properties), lake.state()["totals"].log_rows_taken
    assert state.totals.rows - taken == len(lake.rows("log"))


def test_texts_are_the_same_whoever_wrote_them() -> None:
    """What a person writes hashes as what a file holds, for every kind of key."""
    for written, value, kind in (
        ("007", 7, pa.int64()),
        ("1.5", Decimal("1.50"), pa.decimal128(10, 2)),
        ("2026-01-02", datetime(2026, 1, 2).date(), pa.date32()),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5), pa.timestamp("us")),
        ("x'y", "x'y", pa.string()),
        ("00ff", b"\x00\xff", pa.binary()),
        ("true", True, pa.bool_()),
    ):
        rows = pa.table({"k": pa.array([value], kind)})
        assert given_texts({"k": written}, {"k": kind}) == key_texts(rows, ["k"])[0]
    with pytest.raises(ValueError, match="'seven' is no value of k"):
        given_texts({"k": "seven"}, {"k": pa.int64()})


def test_each_record_has_its_own_line() -> None:
    """Of two erased keys each is meant up to its own line, whatever the other's."""
    records = [Erasure(("id",), digest(SECRET, [key]), "", Line(1, lsn)) for key, lsn in (("1", 20), ("2", 100))]
    rows = pa.table({"_era": [1, 1, 1], "_lsn": [20, 50, 50], "_idx": [0, 0, 1], "id": [1, 1, 2]})
    assert Erasures(SECRET, tuple(records)).meant(rows) == [True, False, True]


def test_an_old_key_is_forgotten_by_its_text_or_by_its_place() -> None:
    """The delete of an erased key may lie in another batch than the insert of the new one; and its text may be written
    otherwise than the key was given. Behind the record's line, and behind another row, it stays."""
    columns: dict[str, list[Any]] = {"_era": [1] * 5, "_lsn": [20, 20, 30, 101, 40], "_idx": [1, 3, 1, 1, 1]}
    columns |= {"_old_key": ["id=1", "id=01", "id=01", "id=1", None], "_raw": [None] * 5, "id": [7, 8, 9, 10, 11]}
    meant, rows = erasures("1", 100), pa.table(columns)
    assert meant.old_keys(rows, ()) == [True, False, False, False, False]
    assert meant.old_keys(rows, {Position(1, 20, 2), Position(1, 40, 0)}) == [True, True, False, False, False]
    assert meant.apply(rows, "log", {Position(1, 20, 2)}).column("_old_key").to_pylist() == [
        None, None, "id=01", "id=1", None
    ]  # fmt: skip


def test_a_digest_says_nothing_without_the_secret() -> None:
    """The hash is keyed: who has the records alone cannot try keys."""
    assert digest(SECRET, ["1"]) != digest(b"t" * 32, ["1"])
    assert digest(SECRET, ["1", None]) != digest(SECRET, [None, "1"])
