"""Errors of the streaming job.

GlueStreamingError
├── BadSettings      an argument or a setting is wrong: names it, and what is expected
├── StaleWriter      another writer holds the table or the job: stop, write nothing
├── CommitUnknown    a commit's outcome could not be looked up: start again from the tables' marks
├── DecoderHangs     a thread that cannot be stopped burns a core; all is committed: start again
└── TableRefused     a structure that the lake table cannot take: a hole in that table, others go on
"""

from __future__ import annotations


class GlueStreamingError(Exception):
    """Base of all errors of this package."""


class BadSettings(GlueStreamingError):
    """Arguments or settings that cannot be used; the message lists all of them."""


class StaleWriter(GlueStreamingError):
    """Another writer moved what this one expected to find, or has a newer epoch."""


class CommitUnknown(GlueStreamingError):
    """The catalog answered neither the commit nor the question whether it is there."""


class DecoderHangs(GlueStreamingError):
    """The Avro reader never returned from a block. The block is a hole, and everything is committed."""


class TableRefused(GlueStreamingError):
    """A change of structure that the lake table cannot follow; names table, column and both types."""
