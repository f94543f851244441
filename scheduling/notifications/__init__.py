"""Notifications: who is told when something succeeded, failed or is late, by mail, webhook or chat.

Rules name channels (rules.py); events are posted into an outbox in their own transaction (outbox.py); a sender
beside the leading scheduler takes them out (engine/sender.py) and tells the channels (channels.py). What has a
time by which it should have ended is watched by deadlines.py. An app above uses these:

    rules = clean_rules(given, events=("success", "failure", "late"))   # what a person wrote, or its mistakes
    if told := channels_for(rules, "failure"):                          # in the transaction of the event
        post(f"cycle:{pk}:failure", event="failure", channels=told, team_id=…, subject=…, text=…, path=…)
    watch("cycle", [(pk, ready_at, after) for after in late_limits(rules)])
    ended("cycle", pk)
    @when_late("cycle")                                                 # tells of those whose time has passed
"""

from scheduling.notifications.channels import NotSent, known_channels, send
from scheduling.notifications.deadlines import ended, watch, when_late
from scheduling.notifications.outbox import link_to, post, remove_old, try_again
from scheduling.notifications.rules import (
    EVENTS,
    Rules,
    channels_for,
    channels_for_lateness,
    clean_rules,
    event_in_words,
    late_limits,
    place,
    told_in_words,
    written_rules,
)

__all__ = [
    "EVENTS",
    "NotSent",
    "Rules",
    "channels_for",
    "channels_for_lateness",
    "clean_rules",
    "ended",
    "event_in_words",
    "known_channels",
    "late_limits",
    "link_to",
    "place",
    "post",
    "remove_old",
    "send",
    "told_in_words",
    "try_again",
    "watch",
    "when_late",
    "written_rules",
]
