"""Tags of Glue connections, which ministack drops."""

from collections.abc import Mapping
from typing import Any


def install() -> None:
    """Keep the tags that CreateConnection brings."""
    from ministack.services import glue

    create, delete = glue._create_connection, glue._delete_connection

    def create_connection(data: Mapping[str, Any]) -> Any:
        reply = create(data)
        if reply[0] == 200 and data.get("Tags"):
            glue._tags[glue._arn("connection", data["ConnectionInput"]["Name"])] = dict(data["Tags"])
        return reply

    def delete_connection(data: Mapping[str, Any]) -> Any:
        glue._tags.pop(glue._arn("connection", str(data.get("ConnectionName"))), None)
        return delete(data)

    glue._create_connection, glue._delete_connection = create_connection, delete_connection
