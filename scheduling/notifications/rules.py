"""Rules: which channel is told of which events. A list of maps, as a file has it and as a table keeps it.

    notify:
      - {channel: ops, on: [failure, late], late_after: 2h}
      - {channel: team-chat, on: [success]}

A rule belongs to whatever can be told of: tasks keep theirs in `Task.notify`, and any other model may have a
field like it, which `clean_rules` validates with the events that exist there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import parameters, words
from scheduling.errors import InvalidDefinition
from scheduling.notifications.channels import CHANNEL_NAME
from scheduling.rules import not_among, shown, unknown_field

SUCCESS, FAILURE, STOPPED, LATE = "success", "failure", "stopped", "late"
EVENTS = (SUCCESS, FAILURE, STOPPED, LATE)
"""What tasks tell of."""
WORDS: dict[str, Any] = {
    SUCCESS: gettext_lazy("Success"),
    FAILURE: gettext_lazy("Failure"),
    STOPPED: gettext_lazy("Stopped"),
    LATE: gettext_lazy("Late"),
}
"""What events are called; an app above adds its own when it starts."""

KEYS = ("channel", "on", "late_after")
MOST_RULES = 20
LONGEST_LATENESS = 30 * 86400

type Rules = Sequence[Mapping[str, Any]]


def clean_rules(value: Any, *, events: Sequence[str] = EVENTS, field: str = "notify") -> list[dict[str, Any]]:
    """Rules in the one form that is stored, from what a person wrote; None and an empty list are no rules.

    Raises InvalidDefinition with every mistake; its fields are dotted, as `notify.0.on`, and `place` turns
    them into a path. Cleaning what is clean changes nothing.
    """
    if value in (None, [], ()):
        return []
    if not isinstance(value, list | tuple):
        raise InvalidDefinition({field: _("It is not a list; write - {channel: ops, on: [failure]}.")})
    if len(value) > MOST_RULES:
        raise InvalidDefinition(
            {
                field: _("It has %(count)d rules, and at most %(most)d are possible.")
                % {"count": len(value), "most": MOST_RULES}
            }
        )
    errors: dict[str, str] = {}
    cleaned = [_rule(each, f"{field}.{index}", events, errors) for index, each in enumerate(value)]
    if not errors:
        _twice(cleaned, field, errors)
    if errors:
        raise InvalidDefinition(errors)
    return cleaned


def _rule(value: Any, field: str, events: Sequence[str], errors: dict[str, str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        errors[field] = _("It is not a map; write {channel: ops, on: [failure]}.")
        return {}
    known = KEYS if LATE in events else KEYS[:2]
    for key in value:
        if key not in known:
            errors[f"{field}.{key}"] = unknown_field(key, known)
    rule: dict[str, Any] = {
        "channel": _channel(value.get("channel"), field, errors),
        "on": _on(value.get("on"), field, events, errors),
    }
    limit = _late_after(value.get("late_after"), field, errors)
    if limit is not None and LATE not in rule["on"] and f"{field}.on" not in errors:
        errors.setdefault(f"{field}.late_after", _("It belongs to the event “late”, which `on` does not name."))
    if limit is not None:
        rule["late_after"] = limit
    elif LATE in rule["on"]:
        errors.setdefault(f"{field}.late_after", _("It is missing; the event “late” needs it, e.g. 2h."))
    return rule


def _channel(value: Any, field: str, errors: dict[str, str]) -> str:
    if value is None:
        errors[f"{field}.channel"] = _("It is missing; name the channel that is told, e.g. ops.")
    elif not isinstance(value, str) or not re.fullmatch(CHANNEL_NAME, value):
        errors[f"{field}.channel"] = _(
            "%(value)s is no name of a channel: small letters, digits, - and _, at most 40 of them, "
            "a letter first. Its address belongs into the environment."
        ) % {"value": _shown_name(value)}
    else:
        return value
    return ""


def _shown_name(value: Any) -> str:
    """A channel that is none, as a message may quote it: somebody may have written an address there."""
    text = str(value)
    return _("An address") if "://" in text or "@" in text else shown(value)


def _on(value: Any, field: str, events: Sequence[str], errors: dict[str, str]) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        errors[f"{field}.on"] = _("It is no list of events; write e.g. [failure]. They are %(events)s.") % {
            "events": ", ".join(events)
        }
        return []
    wrong = [each for each in value if each not in events]
    if wrong:
        errors[f"{field}.on"] = not_among(wrong[0], events)
    return [each for each in events if each in value]


def _late_after(value: Any, field: str, errors: dict[str, str]) -> int | None:
    if value is None:
        return None
    try:
        seconds = parameters.parse_duration(value)
    except ValueError as error:
        errors[f"{field}.late_after"] = f"{error}."
        return None
    if not 1 <= seconds <= LONGEST_LATENESS:
        errors[f"{field}.late_after"] = _("%(value)s is not between 1s and 30d.") % {"value": shown(value)}
    return seconds


def _twice(rules: Rules, field: str, errors: dict[str, str]) -> None:
    seen: set[tuple[Any, ...]] = set()
    for index, rule in enumerate(rules):
        for event in rule["on"]:
            told = (rule["channel"], event, rule["late_after"] if event == LATE else None)
            if told in seen:
                errors[f"{field}.{index}"] = _(
                    "The channel %(channel)s is told of “%(event)s” by an earlier rule already."
                ) % {"channel": rule["channel"], "event": event}
            seen.add(told)


def place(field: str) -> tuple[str | int, ...]:
    """Where in a file the field of a mistake stands: `notify.0.on` as `("notify", 0, "on")`."""
    return tuple(int(part) if part.isdigit() else part for part in field.split("."))


# --- asked of clean rules --------------------------------------------------------------------------


def channels_for(rules: Rules, event: str) -> list[str]:
    """The channels that are told of `event`, each once."""
    return list(dict.fromkeys(rule["channel"] for rule in rules if event in rule["on"]))


def late_limits(rules: Rules) -> list[int]:
    """After how many seconds something counts as late, each limit once."""
    return sorted({rule["late_after"] for rule in rules if LATE in rule["on"]})


def channels_for_lateness(rules: Rules, after: int) -> list[str]:
    """The channels that are told when something has not ended `after` seconds after its time."""
    found = (rule["channel"] for rule in rules if LATE in rule["on"] and rule["late_after"] == after)
    return list(dict.fromkeys(found))


# --- shown -----------------------------------------------------------------------------------------


def written_rules(rules: Rules) -> list[dict[str, Any]]:
    """Rules as a file has them: the keys in their order, durations in their short form."""
    return [
        {"channel": rule["channel"], "on": list(rule["on"])}
        | ({"late_after": parameters.format_duration(rule["late_after"])} if "late_after" in rule else {})
        for rule in rules
    ]


def event_in_words(event: str) -> str:
    """What an event is called; one that is not known here goes by its own name."""
    return str(WORDS.get(event, event.replace("_", " ")))


def told_in_words(rules: Rules) -> list[tuple[str, str]]:
    """Each channel with what it is told of: `("ops", "failure; not ended 2 h after it was due")`."""
    told: dict[str, list[str]] = {}
    for rule in rules:
        told.setdefault(rule["channel"], []).extend(_event_of(rule, event) for event in rule["on"])
    return [(channel, "; ".join(dict.fromkeys(said))) for channel, said in told.items()]


def _event_of(rule: Mapping[str, Any], event: str) -> str:
    if event != LATE:
        return event_in_words(event).lower()
    return _("not ended %(limit)s after it was due") % {
        "limit": words.length(timedelta(seconds=rule["late_after"]))
    }


def sum_up(events: Iterable[str]) -> str:
    """How many of which events, in words: `12 failure, 3 late`."""
    counts: dict[str, int] = {}
    for event in events:
        counts[event] = counts.get(event, 0) + 1
    return ", ".join(f"{count} × {event_in_words(event).lower()}" for event, count in counts.items())
