"""An Iceberg table's metadata tables, with the columns that Trino gives them: "t$snapshots", "t$files" and so on."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pyarrow as pa

from .athena_iceberg import Lake, TableVersion

_INSTANT = pa.timestamp("us", "UTC")
_TEXTS = pa.map_(pa.string(), pa.string())
_COUNTS = pa.map_(pa.int32(), pa.int64())


def _instant(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def _rows(schema: pa.Schema, rows: list[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def snapshots(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("committed_at", _INSTANT), ("snapshot_id", pa.int64()), ("parent_id", pa.int64()), ("operation", pa.string()),
        ("manifest_list", pa.string()), ("summary", _TEXTS),
    ])  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for each in version.metadata.snapshots:
        summary = dict(each.summary.additional_properties) if each.summary else {}
        operation = each.summary.operation.value if each.summary else None
        told = (_instant(each.timestamp_ms), each.snapshot_id, each.parent_snapshot_id, operation, each.manifest_list)
        rows.append((*told, list(summary.items())))
    return _rows(schema, rows)


def history(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("made_current_at", _INSTANT), ("snapshot_id", pa.int64()), ("parent_id", pa.int64()),
        ("is_current_ancestor", pa.bool_()),
    ])  # fmt: skip
    parents = {each.snapshot_id: each.parent_snapshot_id for each in version.metadata.snapshots}
    ancestors, step = set(), version.metadata.current_snapshot_id
    while step is not None and step not in ancestors:
        ancestors.add(step)
        step = parents.get(step)
    return _rows(schema, [
        (_instant(each.timestamp_ms), each.snapshot_id, parents.get(each.snapshot_id), each.snapshot_id in ancestors)
        for each in version.metadata.snapshot_log
    ])  # fmt: skip


def files(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("content", pa.int32()), ("file_path", pa.string()), ("file_format", pa.string()), ("spec_id", pa.int32()),
        ("partition", _TEXTS), ("record_count", pa.int64()), ("file_size_in_bytes", pa.int64()),
        ("column_sizes", _COUNTS), ("value_counts", _COUNTS), ("null_value_counts", _COUNTS),
        ("split_offsets", pa.list_(pa.int64())), ("sort_order_id", pa.int32()),
    ])  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for each in lake.files(version):
        file = each.file
        counts = (file.column_sizes, file.value_counts, file.null_value_counts)
        rows.append((
            int(file.content), file.file_path, str(file.file_format.value), file.spec_id, _partition(each.partition),
            file.record_count, file.file_size_in_bytes, *(list((count or {}).items()) for count in counts),
            file.split_offsets, file.sort_order_id,
        ))  # fmt: skip
    return _rows(schema, rows)


def _partition(values: Mapping[str, object]) -> list[tuple[str, str | None]]:
    return [(name, None if value is None else str(value)) for name, value in values.items()]


def partitions(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("partition", _TEXTS), ("record_count", pa.int64()), ("file_count", pa.int64()), ("total_size", pa.int64()),
    ])  # fmt: skip
    totals: dict[tuple[tuple[str, str | None], ...], tuple[int, int, int]] = {}
    for each in lake.files(version):
        if not each.is_data:
            continue
        key = tuple(_partition(each.partition))
        records, count, size = totals.get(key, (0, 0, 0))
        totals[key] = (records + each.file.record_count, count + 1, size + each.file.file_size_in_bytes)
    return _rows(schema, [(list(key), *total) for key, total in totals.items()])


def manifests(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("path", pa.string()), ("length", pa.int64()), ("partition_spec_id", pa.int32()),
        ("added_snapshot_id", pa.int64()), ("added_data_files_count", pa.int32()), ("added_rows_count", pa.int64()),
        ("existing_data_files_count", pa.int32()), ("existing_rows_count", pa.int64()),
        ("deleted_data_files_count", pa.int32()), ("deleted_rows_count", pa.int64()),
    ])  # fmt: skip
    return _rows(schema, [
        (each.manifest_path, each.manifest_length, each.partition_spec_id, each.added_snapshot_id,
         each.added_files_count, each.added_rows_count, each.existing_files_count, each.existing_rows_count,
         each.deleted_files_count, each.deleted_rows_count)
        for each in lake.manifests(version)
    ])  # fmt: skip


def properties(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([("key", pa.string()), ("value", pa.string())])
    return _rows(schema, list(version.metadata.properties.items()))


def refs(lake: Lake, version: TableVersion) -> pa.Table:
    schema = pa.schema([
        ("name", pa.string()), ("type", pa.string()), ("snapshot_id", pa.int64()),
        ("max_reference_age_in_ms", pa.int64()), ("min_snapshots_to_keep", pa.int32()),
        ("max_snapshot_age_in_ms", pa.int64()),
    ])  # fmt: skip
    return _rows(schema, [
        (name, ref.snapshot_ref_type.value.upper(), ref.snapshot_id, ref.max_ref_age_ms, ref.min_snapshots_to_keep,
         ref.max_snapshot_age_ms)
        for name, ref in version.metadata.refs.items()
    ])  # fmt: skip


METADATA_TABLES: Mapping[str, Callable[[Lake, TableVersion], pa.Table]] = {
    "snapshots": snapshots, "history": history, "files": files, "partitions": partitions, "manifests": manifests,
    "properties": properties, "refs": refs,
}  # fmt: skip
