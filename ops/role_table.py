"""The table of roles in docs/security.md, from the policies in terraform/*.tf: `python -m ops.role_table --write`.

It reads the few shapes that the policies there are written in, and refuses what it does not know.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = _ROOT / "docs" / "security.md"
BEGIN: Final = "<!-- roles: made by python -m ops.role_table --write -->"
END: Final = "<!-- end of roles -->"

_BLOCK: Final = re.compile(r'^(resource|data) "([a-z_]+)" "([a-z_0-9]+)" \{', re.MULTILINE)
_STATEMENT: Final = re.compile(r'^\s*(?:dynamic "statement"|statement) \{', re.MULTILINE)
_ATTACHED: Final = re.compile(r"policy\s*=\s*data\.aws_iam_policy_document\.([a-z_]+)(?:\[[^\]]+\])?\.json")
_INCLUDED: Final = re.compile(r'data\.aws_iam_policy_document\.([a-z_]+)(?:\[(?:"([a-z_0-9-]+)"|[^\]"]+)\])?\.json')
_LOOPED: Final = re.compile(r"for \w+ in \[([^\]]*)\]")
_KEY_USE: Final = re.compile(
    r'^\s*([a-z0-9-]+)\s*=\s*\{ service = "([a-z0-9]+)", sid = "(\w+)", actions = \[([^\]]*)\] \}', re.MULTILINE
)

_TESTS: Final = {
    "StringEquals": "is",
    "ArnEquals": "is",
    "StringLike": "like",
    "StringLikeIfExists": "is not named, or like",
    "ArnLike": "like",
    "StringNotEquals": "is not",
    "ForAllValues:StringEquals": "all are",
    "ForAllValues:StringLike": "all like",
}

# How expressions read to a person. What is not here stands as it is written in Terraform.
_WORDS: Final = (
    (r"flatten\(\[for suffix in local\.database_suffixes : local\.catalog_resources\[suffix\]\]\)", "all databases"),
    (r"\$\{local\.catalog_arn\}:connection/", "connection "),
    (r"\$\{local\.catalog_arn\}:database/", "database "),
    (r"\$\{local\.bucket_arn\}/", "bucket/"),
    (r"local\.bucket_arn", "bucket"),
    (r'local\.table_arns\["([a-z]+)"\]', r"table \1"),
    (r"\$\{local\.arn_start\.dynamodb\}:table/\$\{var\.name\}-([a-z]+)", r"table \1"),
    (r"\$\{local\.arn_start\.kinesis\}:stream/\$\{local\.stream_name\}", "stream"),
    (r"aws_kinesis_stream\.changes\.arn|local\.stream_arn", "stream"),
    (r"\$\{local\.log_arn\}:/", "log group /"),
    (r"\$\{local\.ec2_arn\}:", "ec2 "),
    (r"for \w+ in [\w.]+ : ", ""),
    (r"group\.arn", "the jobs' security group"),
    (r"\$\{subnet\}", "<subnet>"),
    (r"statement\.value(\.arn)?", "own database secret"),
    (r"([a-z0-9]+)\.\$\{local\.region\}\.amazonaws\.com", r"\1"),
    (r"\$\{local\.catalog_arn\}:job/\$\{local\.([a-z_]+)\}", r"job \1"),
    (r"\$\{local\.catalog_arn\}:catalog", "catalog"),
    (r'local\.catalog_resources\["([a-z_]*)"\]', r"databases <source>\1"),
    (r"aws_sfn_state_machine\.([a-z]+)\.arn", r"\1 workflow"),
    (r"aws_lambda_function\.plan\.arn", "planning function"),
    (r"aws_athena_workgroup\.this\.arn", "workgroup"),
    (r"aws_sqs_queue\.dead_letters\.arn", "dead letters"),
    (r"local\.topic_arn", "topic"),
    (r"local\.kms_key_arn", "key"),
    (r"\$\{local\.log_arn\}:\$\{each\.value\}/\*", "own log groups"),
    (r"\$\{aws_cloudwatch_log_group\.plan\.arn\}:\*", "own log group"),
    (r"\$\{each\.key\}|each\.key", "<source>"),
    (r"\$\{var\.name\}", "<name>"),
    (r"arn:\$\{local\.partition\}:([a-z0-9]+):\$\{local\.region\}:\$\{local\.account_id\}:", r"\1 "),
)


class UnknownShape(Exception):
    """A policy is written in a way that this module does not read; the message names it."""


@dataclass(frozen=True)
class Statement:
    """One statement of a policy: `condition` names what narrows it further."""

    sid: str
    effect: str
    actions: tuple[str, ...]
    resources: str
    condition: str


@dataclass(frozen=True)
class Role:
    name: str
    statements: tuple[Statement, ...]


def roles(folder: Path = _ROOT / "terraform") -> tuple[Role, ...]:
    """Every role that has a policy, by name, with all statements of its policy and of what that includes."""
    documents: dict[str, str] = {}
    attached: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*.tf")):
        text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)
        for kind, name, body in _blocks(text):
            if kind == "aws_iam_policy_document":
                documents[name] = body
            elif kind == "aws_iam_role":
                names[name] = _in_words(_required(r'\n\s*name\s*=\s*"([^\n]+)"', body))
            elif kind == "aws_iam_role_policy":
                found = _ATTACHED.search(body)
                holders = re.findall(r"aws_iam_role\.([a-z_]+)", body)
                if found is None or not holders:
                    raise UnknownShape(f"{path.name}: aws_iam_role_policy.{name}")
                for role in holders:
                    attached.setdefault(role, []).append(found[1])
    return tuple(
        Role(
            names[role], tuple(statement for name in attached[role] for statement in _statements(documents, name, None))
        )
        for role in sorted(attached)
    )


def table(found: tuple[Role, ...]) -> str:
    """The Markdown table: a row a statement."""
    lines = ["| role | statement | may (or must not) | on | only where |", "|---|---|---|---|---|"]
    for role in found:
        for at, statement in enumerate(role.statements):
            actions = ", ".join(f"`{action}`" for action in statement.actions)
            actions = f"**never** {actions}" if statement.effect == "Deny" else actions
            shown = role.name if at == 0 else ""
            lines.append(f"| {shown} | {statement.sid} | {actions} | {statement.resources} | {statement.condition} |")
    return "\n".join(lines)


def placed(text: str, made: str) -> str:
    """The document with the table between its marks replaced."""
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise UnknownShape(f"{DOCUMENT.name}: the marks {BEGIN} and {END} are missing")
    return f"{head}{BEGIN}\n{made}\n{END}{tail}"


def _blocks(text: str) -> Iterator[tuple[str, str, str]]:
    for match in _BLOCK.finditer(text):
        yield match[2], match[3], _body(text, match.end())


def _body(text: str, at: int) -> str:
    """The text up to the brace that closes the one just before `at`."""
    depth = 1
    for end in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[at:end]
    raise UnknownShape(text[max(0, at - 80) : at])


def _statements(documents: Mapping[str, str], name: str, key: str | None) -> Iterator[Statement]:
    if name not in documents:
        raise UnknownShape(f"the policy document {name} is nowhere")
    body = documents[name]
    if name == "key_through":
        yield _through_service(body, key)
        return
    first = _STATEMENT.search(body)
    head = body[: first.start()] if first else body
    loops = [_quoted(found) for found in _LOOPED.findall(head)]
    for included in _INCLUDED.finditer(head):
        keys = [included[2]] if included[2] or not loops else loops.pop(0)
        for part in keys:
            yield from _statements(documents, included[1], part)
    at = 0
    while match := _STATEMENT.search(body, at):
        inner = _body(body, match.end())
        at = match.end() + len(inner)
        content = re.search(r"content \{", inner)
        yield _statement(name, _body(inner, content.end()) if content else inner)


def _statement(document: str, body: str) -> Statement:
    actions = re.search(r"actions\s*=\s*\[([^\]]*)\]", body)
    resources = re.search(r"resources\s*=\s*(.*?)(?=\n\s*(?:condition|principals|\}|$)|\Z)", body, re.DOTALL)
    if actions is None or resources is None:
        raise UnknownShape(f"a statement of {document}: {body.strip()[:80]}")
    sid = re.search(r'sid\s*=\s*"(\w+)"', body)
    effect = re.search(r'effect\s*=\s*"(\w+)"', body)
    conditions = re.findall(r'test\s*=\s*"([\w:]+)"\s*variable\s*=\s*"([^"]+)"\s*values\s*=\s*(\[[^\]]*\])', body)
    return Statement(
        sid=sid[1] if sid else "",
        effect=effect[1] if effect else "Allow",
        actions=tuple(_quoted(actions[1])),
        resources=_in_words(resources[1]),
        condition=", ".join(
            f"`{variable}` {_TESTS.get(test, test)} {_condition_value(variable, values)}"
            for test, variable, values in conditions
        ),
    )


def _condition_value(name: str, values: str) -> str:
    return "the VPC" if name == "aws:SourceVpc" else _in_words(values)


def _through_service(body: str, key: str | None) -> Statement:
    for use, service, sid, actions in _KEY_USE.findall(body):
        if use == key:
            return Statement(sid, "Allow", tuple(_quoted(actions)), "key", f"`kms:ViaService` is {service}")
    raise UnknownShape(f"key_through has no use named {key}")


def _required(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise UnknownShape(f"{pattern} is not in: {text.strip()[:80]}")
    return found[1]


def _quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]+)"', text)


def _in_words(expression: str) -> str:
    for pattern, word in _WORDS:
        expression = re.sub(pattern, word, expression)
    expression = re.sub(r"concat\(|[\[\]()\"]", " ", expression)
    parts = [part.strip() for part in expression.replace("\n", ",").split(",")]
    shown = ", ".join(part for part in parts if part)
    return re.sub(r"\s+", " ", shown).replace("*", "\\*").replace("<", "\\<").replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.role_table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/security.md")
    made = table(roles())
    if parser.parse_args().write:
        DOCUMENT.write_text(placed(DOCUMENT.read_text(), made))
    else:
        print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
