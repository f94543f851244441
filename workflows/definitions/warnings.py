"""Warnings about a workflow that is valid, and would not do what its author expects."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.utils.translation import gettext as _

from config import clock
from workflows import periods
from workflows.definitions.form import WorkflowDefinition, written_starts
from workflows.known import reference
from workflows.models import Mode, Workflow, WorkflowRevision
from workflows.models.definitions import Offset

_MOMENT = timedelta(microseconds=1)


def warnings_of(wanted: WorkflowDefinition, existing: Workflow | None) -> tuple[str, ...]:
    """What to say of saving `wanted` over `existing`, in sentences."""
    never = _never_begins(wanted, existing)
    return (never,) if never else ()


def _never_begins(wanted: WorkflowDefinition, existing: Workflow | None) -> str:
    """Whether its first cycle waits for its own previous one, which lies in the past and is never made."""
    if wanted.mode != Mode.ONLINE or not wanted.content["cron"] or not _waits_for_itself(wanted):
        return ""
    had_schedule = existing is not None and existing.mode == Mode.ONLINE and _cron_of(existing)
    if had_schedule:
        return ""
    calendar = WorkflowRevision(cron=wanted.content["cron"], timezone=wanted.content["timezone"])
    now = clock.now()
    starts_at = wanted.starts_at or (existing.starts_at if existing else now)
    first = periods.next_slot(calendar, max(now, starts_at - _MOMENT))
    before = periods.previous_slot(calendar, first) if first else None
    if first is None or before is None or before < starts_at:
        return ""
    zone = wanted.content["timezone"]
    words: dict[str, Any] = {
        "first": _clock(first, zone),
        "previous": _clock(before, zone),
        "starts": written_starts(first, zone),
    }
    return (
        _(
            "No cycle begins: the first, %(first)s, waits for the previous, %(previous)s, which is past and "
            "not generated. Write starts: %(starts)s, or backfill %(previous)s without waiting for upstream "
            "cycles."
        )
        % words
    )


def _waits_for_itself(wanted: WorkflowDefinition) -> bool:
    ours = (wanted.team, wanted.name)
    return any(
        each["cycles"] == Offset.PREVIOUS and reference(wanted.team, each["workflow"]) == ours
        for each in wanted.content["depends_on"]
    )


def _cron_of(workflow: Workflow) -> str:
    return workflow.revision.cron if workflow.revision else ""


def _clock(at: datetime, zone: str) -> str:
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"
