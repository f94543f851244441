"""What the journal's actions, objects and details are called on a page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling import parameters
from scheduling.models.tasks import Misfire, Trigger
from scheduling.models.teams import Granted, Role
from scheduling.states import BatchState

ACTIONS: dict[str, Any] = {
    "triggered": pgettext_lazy("journal", "Triggered"),
    "started": pgettext_lazy("journal", "Started"),
    "ended": pgettext_lazy("journal", "Ended"),
    "requeued": pgettext_lazy("journal", "Queued again"),
    "stopped": pgettext_lazy("journal", "Stopped"),
    "rerun": pgettext_lazy("journal", "Rerun"),
    "judged": pgettext_lazy("journal", "Judged anew"),
    "marked": pgettext_lazy("journal", "Marked"),
    "report_refused": pgettext_lazy("journal", "Refused a late report"),
    "given_up": pgettext_lazy("journal", "Given up"),
    "condition_not_met": pgettext_lazy("journal", "Passed over"),
    "trigger_skipped": pgettext_lazy("journal", "Skipped a run"),
    "trigger_failed": pgettext_lazy("journal", "Failed to trigger"),
    "misfired": pgettext_lazy("journal", "Missed due times"),
    "unscheduled": pgettext_lazy("journal", "Lost its schedule"),
    "created": pgettext_lazy("journal", "Created"),
    "edited": pgettext_lazy("journal", "Edited"),
    "deleted": pgettext_lazy("journal", "Deleted"),
    "enabled": pgettext_lazy("journal", "Enabled"),
    "disabled": pgettext_lazy("journal", "Disabled"),
    "granted": pgettext_lazy("journal", "Granted"),
    "revoked": pgettext_lazy("journal", "Revoked"),
    "joined": pgettext_lazy("journal", "Joined"),
    "role_changed": pgettext_lazy("journal", "Role changed"),
    "left": pgettext_lazy("journal", "Left"),
    "password_set": pgettext_lazy("journal", "Set the password"),
    "ready": pgettext_lazy("journal", "Became ready"),
    "frozen": pgettext_lazy("journal", "Frozen"),
    "unfrozen": pgettext_lazy("journal", "Unfrozen"),
    "cancelled": pgettext_lazy("journal", "Cancelled"),
    "timed_out": pgettext_lazy("journal", "Timed out"),
    "tried_again": pgettext_lazy("journal", "Tried again"),
    "node_online": pgettext_lazy("journal", "Came online"),
    "node_draining": pgettext_lazy("journal", "Began to drain"),
    "node_offline": pgettext_lazy("journal", "Went offline"),
}

OBJECTS: dict[str, Any] = {
    "batch": _("Batch"),
    "instance": _("Instance"),
    "task": _("Task"),
    "node": _("Node"),
    "deploymentgroup": _("Deployment group"),
    "notification": _("Notification"),
    "team": _("Team"),
    "user": _("Account"),
    "workflow": _("Workflow"),
    "cycleinstance": _("Cycle instance"),
}

DETAILS: dict[str, Any] = {
    "trigger": _("Trigger"),
    "instances": _("Instances"),
    "rerun_of": _("Rerun of"),
    "state": _("State"),
    "revision": _("Revision"),
    "digest": _("Content hash"),
    "due": _("Due"),
    "unfinished_batch": _("Unfinished batch"),
    "policy": _("Misfire policy"),
    "count": _("Due times missed"),
    "count_is_exact": _("Counted to the end"),
    "first_due": _("First due"),
    "last_due": _("Last due"),
    "state_before": _("State before"),
    "state_after": _("State after"),
    "ratio_before": _("Success ratio before"),
    "ratio_after": _("Success ratio after"),
    "succeeded": _("Succeeded"),
    "total": _("Of"),
    "confirmed": _("Seen to be dead"),
    "task": _("Task"),
    "user": _("User"),
    "role": _("Role"),
    "role_before": _("Role before"),
    "team": _("Team"),
    "group": _("Deployment group"),
    "permission": _("Permission"),
    "fields": _("Fields"),
    "run_type": _("Run type"),
    "execution": _("Execution"),
    "node": _("Node"),
}

# Details that are ids: the name of the page of what they name, where it is another by the type of the object.
_NAMED: dict[tuple[str, str], str] = {
    ("", "rerun_of"): "batch-detail",
    ("", "unfinished_batch"): "batch-detail",
}
# What the states of a type of object are, where they are not those of batches.
_STATES: dict[str, Any] = {}

_MOMENTS = frozenset({"due", "first_due", "last_due"})
_CHOICES: dict[str, Any] = {
    "trigger": Trigger,
    "policy": Misfire,
    "permission": Granted,
    "role": Role,
    "role_before": Role,
    "state": BatchState,
    "state_before": BatchState,
    "state_after": BatchState,
}


def extend(
    *,
    actions: Mapping[str, Any],
    objects: Mapping[str, Any],
    details: Mapping[str, Any],
    choices: Mapping[str, Any],
    states: Mapping[str, Any],
    named: Mapping[tuple[str, str], str],
) -> None:
    """Let an app above have words of its own; called once, when the app is ready.

    `choices` are the labels of a detail's values, `states` those of a type of object; `named` says by (type of
    object, detail) which page shows what a detail names by its id.
    """
    ACTIONS.update(actions)
    OBJECTS.update(objects)
    DETAILS.update(details)
    _CHOICES.update(choices)
    _STATES.update(states)
    _NAMED.update(named)


def state_of(object_type: str, told: Any) -> Any:
    """The state that an entry about such an object tells of; None when it is none."""
    states = _STATES.get(object_type, BatchState)
    return states(told) if isinstance(told, str) and told in states else None


def page_named_by(object_type: str, key: str) -> str:
    """The name of the page of what a detail names by its id; empty when it names nothing."""
    return _NAMED.get((object_type, key)) or _NAMED.get(("", key), "")


def action_in_words(action: str) -> str:
    """What an action is called; one that is not known here goes by its own name."""
    return str(ACTIONS.get(action, action.replace("_", " ")))


def object_in_words(object_type: str) -> str:
    """What a type of object is called."""
    return str(OBJECTS.get(object_type, object_type))


def detail_in_words(key: str) -> str:
    """What a detail is called."""
    return str(DETAILS.get(key, key.replace("_", " ")))


def value_of_detail(key: str, value: Any) -> Any:
    """A detail as a page writes it: a moment as such, a choice by its label, anything else as it is."""
    if key in _MOMENTS and isinstance(value, str):
        moment: datetime | None = parse_datetime(value)
        return moment or value
    choices = _CHOICES.get(key)
    if choices is not None and isinstance(value, str) and value in choices:
        return choices(value).label
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return parameters.written(value) if isinstance(value, dict | list) else value
