"""The items of the DynamoDB table `tables`, one for each `source.table` that somebody or something spoke of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal


def items_with(
    dynamodb: Any, table_name: str, names: Sequence[str], how: Literal["AND", "OR"]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The items that have all (AND) or any (OR) of the attributes, with these only, by `source.table`."""
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table_name,
        FilterExpression=f" {how} ".join(f"attribute_exists({name})" for name in names),
        ProjectionExpression=", ".join(["#table", *names]),
        ExpressionAttributeNames={"#table": "table"},
    )
    return ((item["table"]["S"], item) for page in pages for item in page["Items"])
