"""What the record lists can be narrowed by. A filter is an address that can be shared.

An invalid filter shows its mistakes and no rows: read `rows_of`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from scheduling.filters.batches import BASIC, WORKFLOW, BatchFilter
from scheduling.filters.instances import InstanceFilter
from scheduling.filters.journal import PEOPLE, JournalFilter
from scheduling.filters.notifications import NotificationFilter
from scheduling.filters.tasks import TaskFilter

__all__ = [
    "BASIC",
    "PEOPLE",
    "WORKFLOW",
    "BatchFilter",
    "InstanceFilter",
    "JournalFilter",
    "NotificationFilter",
    "TaskFilter",
]
