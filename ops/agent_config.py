"""The agent's configuration for a stack: the TOML file that a site would write by hand."""

from __future__ import annotations

import json

from localaws.settings import REGION
from ops import shop
from ops.stack import Stack


def text(stack: Stack) -> str:
    """agent.toml for the demo's tables."""
    facts, names = stack.facts, stack.names
    sections: list[tuple[str, dict[str, object]]] = [
        ("source", {"name": facts.source, "dsn": facts.dsn}),
        ("spool", {"path": str(stack.folder / "spool" / "spool.sqlite")}),
        (
            "aws",
            {
                "stream": names.stream,
                "dynamodb_prefix": names.prefix,
                "region": REGION,
                "endpoint_url": facts.endpoint,
                "claims": f"s3://{names.bucket}/claims",
            },
        ),
        ("health", {"port": facts.health_port}),
    ]
    lines = [line for name, values in sections for line in (f"[{name}]", *_lines(values), "")]
    for table in shop.TABLES:
        append_only = table in shop.APPEND_ONLY
        lanes = 2 if table == "pgbench_accounts" else 1
        lines += ["[[tables]]", *_lines({"name": f"public.{table}", "lanes": lanes, "append_only": append_only}), ""]
    return "\n".join(lines)


def write(stack: Stack) -> None:
    """Writes agent.toml, unless it is there with what its user made of it, and makes the spool's folder."""
    (stack.folder / "spool").mkdir(parents=True, exist_ok=True)
    if not stack.agent_config.exists():
        stack.agent_config.write_text(text(stack))


def _lines(values: dict[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]
