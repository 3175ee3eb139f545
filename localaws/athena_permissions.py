"""What a query may read and write: Athena asks Glue, S3 and KMS with the permissions of the query's caller."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlparse

from .athena_catalog import Catalog, Entry
from .athena_errors import QueryDenied
from .athena_files import Files


class Permissions(Protocol):
    """Whether the caller of the request at hand may do something."""

    def refusal(self, action: str, resource: str, headers: Mapping[str, str] | None = None) -> str | None:
        """Why not; None when it may. For objects, headers ask for another encryption than the bucket's."""


class Unlimited:
    """Everybody may do everything."""

    def refusal(self, action: str, resource: str, headers: Mapping[str, str] | None = None) -> str | None:
        return None


class GuardedCatalog:
    """The catalog as the caller may see it. A table needs its database and the catalog as well."""

    def __init__(self, catalog: Catalog, permissions: Permissions, arn: Callable[[str], str]) -> None:
        self._catalog, self._permissions, self._arn = catalog, permissions, arn

    def databases(self) -> Sequence[str]:
        self._require("glue:GetDatabases", "catalog")
        return self._catalog.databases()

    def tables(self, database: str) -> Sequence[Entry]:
        self._require("glue:GetTables", "catalog", f"database/{database}", f"table/{database}/*")
        return self._catalog.tables(database)

    def table(self, database: str, name: str) -> Entry | None:
        self._require("glue:GetTable", "catalog", f"database/{database}", f"table/{database}/{name}")
        entry = self._catalog.table(database, name)
        location = ((entry or {}).get("Parameters") or {}).get("metadata_location")
        if location:  # what a table's files hold may be remembered from another caller's query
            require_object(self._permissions, location)
        return entry

    def database_refusal(self, database: str) -> str | None:
        """Why the caller may not run a query in a database."""
        for resource in ("catalog", f"database/{database}"):
            if why := self._permissions.refusal("glue:GetDatabase", self._arn(resource)):
                return why
        return None

    def _require(self, action: str, *resources: str) -> None:
        for resource in resources:
            if why := self._permissions.refusal(action, self._arn(resource)):
                raise QueryDenied(f"Insufficient permissions to execute the query. {why}")


class GuardedFiles:
    """The lake's files that the caller may read."""

    def __init__(self, files: Files, permissions: Permissions) -> None:
        self._files, self._permissions = files, permissions

    def path(self, location: str) -> Path | None:
        require_object(self._permissions, location)
        return self._files.path(location)


def require_object(permissions: Permissions, location: str) -> None:
    """Raises QueryDenied unless the caller may read the object, and use the key that encrypts it."""
    if location.startswith("s3") and (why := permissions.refusal("s3:GetObject", object_arn(location))):
        raise QueryDenied(f"PERMISSION_DENIED: Access Denied (Service: Amazon S3; Status Code: 403): {location}: {why}")


def object_arn(location: str) -> str:
    parsed = urlparse(location, allow_fragments=False)
    return f"arn:aws:s3:::{parsed.netloc}{parsed.path}"


def bucket_arn(location: str) -> str:
    return f"arn:aws:s3:::{urlparse(location, allow_fragments=False).netloc}"


def encryption_headers(configuration: Mapping[str, str]) -> dict[str, str]:
    """S3's headers for an EncryptionConfiguration of query results."""
    option, key = configuration.get("EncryptionOption"), configuration.get("KmsKey")
    if option == "SSE_KMS" and key:
        return {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": key}
    return {"x-amz-server-side-encryption": "AES256"} if option == "SSE_S3" else {}
