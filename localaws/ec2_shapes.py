"""EC2's query parameters and XML answers, by the shapes of its API's own model."""

import functools
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape


@functools.cache
def shape(name: str) -> Any:
    """A shape of EC2's model, by its name."""
    import boto3

    return boto3.session.Session().client("ec2", region_name="us-east-1").meta.service_model.shape_for(name)


def parse(of: Any, parameters: Mapping[str, Any], prefix: str) -> Any:
    """The value under a prefix of flat parameters: a dictionary, a list, or a text; None where there is none."""
    if of.type_name == "structure":
        members = {name: parse(member, parameters, f"{prefix}.{_asked(name, member)}") for name, member in _members(of)}
        return {name: value for name, value in members.items() if value is not None} or None
    if of.type_name == "list":
        found: list[Any] = []
        while (value := parse(of.member, parameters, f"{prefix}.{len(found) + 1}")) is not None:
            found.append(value)
        return found or None
    value = parameters.get(prefix)
    return value[0] if isinstance(value, list) else value


def render(of: Any, value: Any) -> str:
    """The XML inside a member's element; members that the shape does not know are left out."""
    if of.type_name == "structure":
        return "".join(
            _element(_told(name, member), member, value[name]) for name, member in _members(of) if name in value
        )
    if of.type_name == "list":
        return "".join(_element("item", of.member, each) for each in value)
    text = str(value)
    return escape(text.lower() if of.type_name == "boolean" else text)


def _members(of: Any) -> Any:
    return of.members.items()


def _element(name: str, of: Any, value: Any) -> str:
    return f"<{name}>{render(of, value)}</{name}>"


def _asked(name: str, member: Any) -> str:
    """The name in a request: the query name, or the answer's name with a capital."""
    serialized = member.serialization
    told = serialized.get("name", name)
    return str(serialized.get("queryName") or told[:1].upper() + told[1:])


def _told(name: str, member: Any) -> str:
    return str(member.serialization.get("name", name))
