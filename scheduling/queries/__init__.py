"""Named QuerySets and keyset pages. Every list and look-up of a page goes through `visible_to`."""

from scheduling.queries.chains import Relative, chain_of
from scheduling.queries.journal import ROUTINE, JournalQuerySet
from scheduling.queries.notifications import NotificationQuerySet
from scheduling.queries.paging import BadCursor, Cursor, Page, capped_count, newest_first
from scheduling.queries.ranges import MACHINES, BatchRanges, Either, Ranges
from scheduling.queries.records import (
    BatchQuerySet,
    Capacity,
    ExecutionQuerySet,
    GroupQuerySet,
    InstanceQuerySet,
    LogQuerySet,
    NodeQuerySet,
    TaskQuerySet,
    colleagues_of,
    executing_on,
    newest_runs,
)

__all__ = [
    "MACHINES",
    "ROUTINE",
    "BadCursor",
    "BatchQuerySet",
    "BatchRanges",
    "Capacity",
    "Cursor",
    "Either",
    "ExecutionQuerySet",
    "GroupQuerySet",
    "InstanceQuerySet",
    "JournalQuerySet",
    "LogQuerySet",
    "NodeQuerySet",
    "NotificationQuerySet",
    "Page",
    "Ranges",
    "Relative",
    "TaskQuerySet",
    "capped_count",
    "chain_of",
    "colleagues_of",
    "executing_on",
    "newest_first",
    "newest_runs",
]
