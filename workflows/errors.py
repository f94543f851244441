"""What workflows refuses, beyond what scheduling does; messages are for operators."""

from __future__ import annotations

from scheduling.errors import SchedulingError


class WorkflowError(SchedulingError):
    """Base of what workflows refuses."""


class CycleRefused(WorkflowError):
    """The state of a cycle instance or a backfill does not allow what was asked; it was left as it is."""
