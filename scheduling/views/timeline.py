"""What happened to a batch, an instance or another thing of the journal, who asked for it and why, in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.deeds import action_in_words
from scheduling.models import Execution, JournalEntry
from scheduling.reasons import actor_in_words, in_words
from scheduling.states import BatchState


@dataclass(frozen=True)
class Event:
    """Something that happened: `state` is the state or outcome that it brought, for the glyph."""

    at: datetime
    text: str
    who: str = ""
    via: str = ""
    why: str = ""
    state: str = ""
    link: str = ""


def of_journal(entries: Iterable[JournalEntry]) -> list[Event]:
    """The entries of a journal, in their order."""
    return [_of_entry(entry) for entry in entries]


def of_instance(entries: Iterable[JournalEntry], executions: Iterable[Execution]) -> list[Event]:
    """What was asked of an instance and each of its executions, oldest first."""
    events = of_journal(entries)
    for execution in executions:
        words = {"number": execution.number, "node": execution.node.name}
        began = _("Attempt %(number)d began on %(node)s") % words
        cause = str(execution.get_cause_display())
        events.append(Event(execution.started_at, began, why=cause, state="running"))
        if execution.ended_at is not None and execution.outcome:
            words["outcome"] = str(execution.get_outcome_display()).lower()
            ended = _("Attempt %(number)d ended: %(outcome)s") % words
            why = in_words(execution.error)
            events.append(Event(execution.ended_at, ended, why=why, state=execution.outcome))
    return sorted(events, key=lambda event: event.at)


def _of_entry(entry: JournalEntry) -> Event:
    return Event(
        at=entry.at,
        text=_what(entry),
        who=actor_in_words(entry.actor),
        via=str(entry.get_via_display()),
        why=in_words(entry.reason),
        state=_STATE_OF.get(entry.action, "") or str(entry.details.get("state", "")),
        link=reverse("instance-detail", args=[entry.object_id]) if entry.object_type == "instance" else "",
    )


_STATE_OF = {
    "triggered": "waiting",
    "rerun": "waiting",
    "requeued": "waiting",
    "started": "running",
    "stopped": "terminating",
}


_SENTENCES: dict[tuple[str, str], Any] = {
    ("batch", "triggered"): gettext_lazy("Batch begun"),
    ("batch", "started"): gettext_lazy("An instance started; the batch runs"),
    ("batch", "requeued"): gettext_lazy("All its instances wait for their retry"),
    ("batch", "stopped"): gettext_lazy("Stop of the batch asked"),
    ("batch", "condition_not_met"): gettext_lazy("Passed over: its branch was not taken"),
}


def _what(entry: JournalEntry) -> str:
    if sentence := _SENTENCES.get((entry.object_type, entry.action)):
        return str(sentence)
    match entry.object_type, entry.action:
        case "batch", "rerun":
            source = entry.details.get("rerun_of")
            return _("Begun as the rerun of batch %s") % source if source else _("Batch rerun")
        case "batch", "ended":
            state = str(entry.details.get("state", ""))
            label = str(BatchState(state).label).lower() if state in BatchState.values else state
            return _("Batch ended: %s") % label
        case "instance", "stopped":
            return _("Stop of instance %d asked") % entry.object_id
        case "instance", "rerun":
            return _("Rerun of instance %d asked") % entry.object_id
        case _, action:
            return action_in_words(action)
