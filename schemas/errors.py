"""Errors of the contract.

SchemasError
├── MalformedBlock        the bytes are no block of ours: keep them, open a hole
├── ChecksumMismatch      a block whose payload changed on the way: keep it, open a hole
├── IncompatibleSchema    a change of structure that readers could not follow: do not register
├── UnknownFingerprint    nothing is registered under it (yet): retry, then open a hole
└── RegistryConflict      another writer registered the same version first: read again, retry
"""

from __future__ import annotations


class SchemasError(Exception):
    """Base of all errors of this package."""


class MalformedBlock(SchemasError):
    """The bytes do not parse as a block."""


class ChecksumMismatch(SchemasError):
    """The payload's CRC-32 is not the one its header carries."""


class IncompatibleSchema(SchemasError):
    """The new schema cannot read what older versions wrote. `problems` lists every reason."""

    def __init__(self, subject: str, problems: list[str]) -> None:
        super().__init__(f"{subject}: " + "; ".join(problems))
        self.subject = subject
        self.problems = problems


class UnknownFingerprint(SchemasError):
    """No schema is registered under this fingerprint."""


class RegistryConflict(SchemasError):
    """The version was taken by another writer between the read and the conditional put."""
