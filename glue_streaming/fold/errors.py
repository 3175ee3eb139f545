"""Errors of the fold and the views.

FoldError
├── SnapshotUnusable    the staged rows cannot become a table's state: request another snapshot
├── LineBroken          a commit would have put a row on the wrong side of the fold line: a defect, nothing was written
├── BadCut              the watermark view's parameters cannot be read: leave the fold line where it is
├── ViewContested       others kept changing a view: the next fold brings it in line
└── ViewRefused         a view beyond what the catalog can hold, or with another's name: the lake table stays queryable
"""

from __future__ import annotations

from glue_streaming.errors import GlueStreamingError


class FoldError(GlueStreamingError):
    """Base of what a fold of one table may fail with."""


class SnapshotUnusable(FoldError):
    """The staged rows are not what the snapshot's end announced, or lack a value."""


class LineBroken(FoldError):
    """The one assertion: no log row at or below F, no other row above it."""


class BadCut(FoldError):
    """The catalog's watermark entry has parameters that are not ours."""


class ViewContested(FoldError):
    """Other writers changed the view each time that it was to be written."""


class ViewRefused(FoldError):
    """The view's text is larger than the catalog takes, or another table's view has its name."""
