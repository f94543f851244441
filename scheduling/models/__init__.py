"""Tables of scheduling, one aggregate a module."""

from scheduling.models.batches import Batch, Execution, Instance, LogChunk
from scheduling.models.journal import JournalEntry
from scheduling.models.nodes import DeploymentGroup, Node, SchedulerProcess
from scheduling.models.notifications import Deadline, Notification
from scheduling.models.saved import SavedFilter
from scheduling.models.tasks import Task, TaskRevision
from scheduling.models.teams import Membership, TaskGrant, Team

__all__ = [
    "Batch",
    "Deadline",
    "DeploymentGroup",
    "Execution",
    "Instance",
    "JournalEntry",
    "LogChunk",
    "Membership",
    "Node",
    "Notification",
    "SavedFilter",
    "SchedulerProcess",
    "Task",
    "TaskGrant",
    "TaskRevision",
    "Team",
]
