"""Schedules, policies and dependencies of workflows in the words of a person who was asked."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from scheduling import words
from scheduling.models.tasks import Misfire
from workflows.models import WorkflowDependency, WorkflowRevision
from workflows.models.definitions import Condition, Offset


class _Schedule:
    """A revision's calendar as `scheduling.words` reads it."""

    interval = None

    def __init__(self, revision: WorkflowRevision) -> None:
        self.trigger, self.cron, self.timezone = "cron", revision.cron, revision.timezone


def of_schedule(revision: WorkflowRevision | None) -> str:
    """When its cycles are: `every day at 01:00 America/New_York`."""
    if revision is None:
        return _("no content yet")
    return words.of_trigger(_Schedule(revision)) if revision.cron else _("by hand only")


def of_offset(dependency: WorkflowDependency) -> str:
    """Which cycles of the upstream it waits for."""
    match dependency.offset:
        case Offset.SAME:
            return _("its cycle for the same data")
        case Offset.PREVIOUS:
            return _("its cycle before")
        case Offset.LAST:
            return (
                ngettext("its last cycle", "its last %d cycles", dependency.count) % dependency.count
                if dependency.count > 1
                else pgettext("of one", "its last cycle")
            )
        case _:
            return _("all its cycles within the period of the data")


def of_condition(condition: str, expected: Any) -> str:
    """When an edge lets its target run, as a drawing says it: nothing on success."""
    match condition:
        case Condition.SUCCESS:
            return ""
        case Condition.RESULT if isinstance(expected, dict):
            return ", ".join(
                f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in expected.items()
            )
        case Condition.RESULT:
            return f"= {json.dumps(expected, ensure_ascii=False)}"
        case _:
            return str(Condition(condition).label)


def of_misfire(revision: WorkflowRevision) -> str:
    """What happens to cycles that were missed while it was switched off or no scheduler ran."""
    return {
        Misfire.SKIP: _("Cycles that were missed are skipped."),
        Misfire.RUN_ONCE: _("Of the cycles that were missed, only the newest runs."),
        Misfire.RUN_ALL: _("Cycles that were missed all run."),
    }[Misfire(revision.misfire)]


def of_holder(holder: str) -> str:
    """What holds a cycle or keeps an instance frozen: `rerun:12` as "rerun 12"."""
    kind, _colon, pk = holder.partition(":")
    return _("rerun %d") % int(pk) if kind == "rerun" and pk.isdigit() else holder


def of_parallelism(revision: WorkflowRevision) -> str:
    """How many of its cycles run at once."""
    if not revision.parallelism:
        return _("As many cycles run at once as are ready.")
    return ngettext(
        "One cycle runs at a time.", "At most %(count)d cycles run at a time.", revision.parallelism
    ) % {"count": revision.parallelism}


def of_timeout(revision: WorkflowRevision) -> str:
    """When a cycle is ended for taking too long."""
    if revision.timeout is None:
        return _("A cycle may take as long as it needs.")
    return _("A cycle is ended after %s.") % words.length(timedelta(seconds=revision.timeout))
