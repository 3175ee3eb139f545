"""What the contenders of a benchmark get: the same changes, in the same order, whatever the form."""

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest

from bench import corpus as corpora
from bench import harness
from bench.change_rows import ENVELOPES, SOURCE, TABLE, changes, peers_avro_schema, table_schema
from bench.corpus import Corpus, FedStream
from bench.feed import FileKinesis
from bench.harness import Row, report
from glue_streaming.shards import Start, fetch
from schemas import block as blocks
from schemas.control import partition_key

ROWS = 500
COLUMNS = [column.name for column in table_schema().columns]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    folder = tmp_path_factory.mktemp("corpus") / "forms"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "BLOCK_ROWS", 100)
        return corpora.make(ROWS, folder, ["avro", "flat", *ENVELOPES]), folder


def payloads(folder: Path, form: str) -> list[bytes]:
    return pq.read_table(folder / f"{form}.parquet")["value"].to_pylist()  # type: ignore[no-any-return]


def datums(data: bytes, schema: dict[str, Any]) -> list[dict[str, Any]]:
    parsed, stream, found = fastavro.parse_schema(schema), io.BytesIO(data), []
    while stream.tell() < len(data):
        found.append(fastavro.schemaless_reader(stream, parsed, None))
    return found


def test_all_forms_hold_the_same_rows(made: tuple[Corpus, Path]) -> None:
    """Blocks, one datum a record, flat JSON and Debezium's envelope: no contender has less to read."""
    corpus, folder = made
    wanted = [(c.op, c.lsn, {name: c.row.get(name) for name in COLUMNS}) for c in changes(ROWS)]
    assert [of_avro(row) for block in corpus.blocks for row in in_block(block)] == wanted
    schema = peers_avro_schema(table_schema())
    assert [of_avro(row) for item in payloads(folder, "avro") for row in datums(item, schema)] == wanted
    assert [of_flat(json.loads(item)) for item in payloads(folder, "flat")] == wanted
    for form, envelope in ENVELOPES.items():
        messages = [json.loads(item) for item in payloads(folder, form)]
        assert [of_envelope(item["payload"] if envelope.schema else item) for item in messages] == wanted


def test_an_envelope_is_what_its_setup_makes_of_it(made: tuple[Corpus, Path]) -> None:
    """Times with zone are text, the row before an update comes with REPLICA IDENTITY FULL alone, and a schema part
    names every field of the rows."""
    _, folder = made
    first = {form: [json.loads(item) for item in payloads(folder, form)] for form in ENVELOPES}
    assert {type(item["after"]["ordered_at"]) for item in first["debezium"] if item["after"]} == {str}
    assert {type(item["after"]["ordered_at"]) for item in first["debezium-numbers"] if item["after"]} == {int}
    updates = [at for at, item in enumerate(first["debezium"]) if item["op"] == "u"]
    assert all(first["debezium"][at]["before"] is None for at in updates)
    assert all(first["debezium-before"][at]["before"] for at in updates)
    described = first["debezium-schema"][0]["schema"]["fields"]
    assert [field["field"] for field in described[1]["fields"]] == COLUMNS


def test_a_lane_is_the_corpus_under_another_name(made: tuple[Corpus, Path]) -> None:
    """It opens with a block that has no predecessor, so that each run can load it anew."""
    corpus, _ = made
    sent = [blocks.decode(data) for _, _, data in corpus.lane("7", slice(2, 4))]
    assert [(block.lane, block.records) for block in sent] == [("7", block.records) for block in corpus.blocks[2:4]]
    assert [block.prev for block in sent] == [None, sent[0].last]


def test_a_stream_of_files_is_read_as_kinesis_is(tmp_path: Path) -> None:
    """From the oldest record, or behind a sequence number; what is sent later comes later."""
    stream, kinesis = FedStream(tmp_path, 2), FileKinesis(tmp_path)
    stream.send(1, [(TABLE, "0", b"a"), (TABLE, "0", b"b")])
    names = [shard["ShardId"] for shard in kinesis.list_shards()["Shards"]]

    def read(start: Start) -> list[tuple[str, bytes, str]]:
        found = fetch(kinesis, "stream", names[1], start, max_bytes=100, max_seconds=1)
        assert found.at_tip
        return [(record.sequence, record.data, record.partition_key) for record in found.records]

    (first, a, _), (second, b, of) = read(Start())
    assert (a, b, of) == (b"a", b"b", partition_key(SOURCE, TABLE, "0"))
    assert int(first) < int(second)
    stream.send(1, [(TABLE, "0", b"c")])
    assert [data for _, data, _ in read(Start(second))] == [b"c"]
    assert [data for _, data, _ in read(Start(second, inclusive=True))] == [b"b", b"c"]


def test_a_part_that_is_run_again_replaces_its_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other parts' rows stay as they were measured, with the commit that they were measured at."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    report("x", [Row("a", "s", (1.0,), part="one")])
    report("x", [Row("b", "s", (2.0,), part="two")])
    report("x", [Row("a", "s", (3.0,), part="one")])
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert {row["measure"]: row["ours"] for row in rows} == {"a": 3.0, "b": 2.0}
    assert all(row["commit"] for row in rows)


def in_block(block: blocks.Block) -> list[dict[str, Any]]:
    found = datums(blocks.datums(block), table_schema().to_avro())
    assert len(found) == block.count
    return found


def of_avro(row: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    return row["_op"], row["_lsn"], {name: row[name] for name in COLUMNS}


def of_flat(row: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    values = {name: row.get(name) for name in COLUMNS}
    if values["price"] is not None:
        values["price"] = Decimal(str(values["price"])).quantize(Decimal("0.01"))
    for name in ("ordered_at", "shipped_at"):
        values[name] = None if values[name] is None else datetime.fromisoformat(values[name])
    return row["_op"], row["_lsn"], values


def of_envelope(change: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    values = dict(change["after"] or change["before"])
    values["price"] = None if values["price"] is None else Decimal(values["price"])
    for name in ("ordered_at", "shipped_at"):
        values[name] = None if values[name] is None else moment(values[name])
    return change["op"], change["source"]["lsn"], values


def moment(value: str | int) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value / 1e6, UTC)
