"""What a task may be: the same rules for `apply`, the admin and the shell, every mistake told at once.

`clean_content` turns what a person wrote into the one form that is stored: defaults filled in, durations in
seconds, shards as a list. Cleaning what is clean changes nothing, and what comes back from the database is
equal to what went in, so the content hash of a task is the same on every way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.utils.translation import gettext as _

from scheduling import kinds, rules
from scheduling import parameters as job_parameters
from scheduling.errors import InvalidDefinition
from scheduling.models import TaskRevision
from scheduling.models.tasks import Misfire, Mode, Overlap, Trigger

MOST_RETRIES = 1000
MOST_RETENTION_DAYS = 3650


def clean_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The whole content of a revision, from what a person gave of it; raises InvalidDefinition.

    Takes the fields of `TaskRevision.CONTENT`. Durations may be seconds or text such as `10m`; shards a list,
    a map of index to parameter, or `0=a,1=b`; `trigger` may be left out when `cron` or `interval` says it.
    The errors of nested fields have dotted names: `spec.command`, `parameters.day`.
    """
    return _Cleaning(content).finish()


def clean_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that a person gives to one batch; raises InvalidDefinition, its fields `parameters.<name>`."""
    errors: dict[str, str] = {}
    cleaned = rules.parameters(parameters, errors)
    if errors:
        raise InvalidDefinition(errors)
    return cleaned


def clean_retention(value: Any) -> int | None:
    """For how many days a task's records are kept: whole days, or text such as `30d`; None is the default.

    Raises InvalidDefinition, its field `retention`.
    """
    try:
        if value is None or isinstance(value, int):
            return rules.optional(rules.whole(1, MOST_RETENTION_DAYS))(value)
        seconds = job_parameters.parse_duration(value)
        if seconds % 86400 or not str(value).strip()[-1:].isalpha():
            raise rules.Mistake(not_whole_days(value))
        return rules.whole(1, MOST_RETENTION_DAYS)(seconds // 86400)
    except ValueError as mistake:
        raise InvalidDefinition({"retention": rules.sentence(str(mistake))}) from None


def not_whole_days(value: object) -> str:
    """What to say of a value that is no number of days."""
    return _("%(value)s is not whole days; write e.g. 30d.") % {"value": rules.shown(value)}


class _Cleaning:
    """One pass over a content: each field is cleaned alone, then those that must fit one another."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.given = content
        self.errors: dict[str, str] = {}
        blank = TaskRevision()
        self.clean: dict[str, Any] = {name: getattr(blank, name) for name in TaskRevision.CONTENT}

    def finish(self) -> dict[str, Any]:
        for name in self.given:
            if name not in TaskRevision.CONTENT:
                self.errors[str(name)] = rules.unknown_field(name, TaskRevision.CONTENT)
        self.job()
        self.sharding()
        self.schedule()
        for name, rule in _RULES.items():
            self.field(name, rule)
        self.clean["parameters"] = rules.parameters(self.given.get("parameters", {}), self.errors)
        if self.errors:
            raise InvalidDefinition(self.errors)
        return self.clean

    def field(self, name: str, rule: Callable[[Any], Any]) -> bool:
        """Clean one field if it was given; whether its value can be relied upon."""
        if name in self.given:
            try:
                self.clean[name] = rule(self.given[name])
            except rules.Mistake as mistake:
                self.errors[name] = str(mistake)
        return name not in self.errors

    def job(self) -> None:
        known = kinds.kinds()
        name = self.given.get("kind")
        if name is None or name == "":
            self.errors["kind"] = _("It is missing; it is one of %(kinds)s.") % {"kinds": ", ".join(known)}
            return
        if not isinstance(name, str) or name not in known:
            self.errors["kind"] = rules.not_among(name, known)
            return
        self.clean["kind"] = name
        try:
            spec = known[name].clean(self.given.get("spec", {}))
        except kinds.SpecErrors as wrong:
            for field, message in wrong.errors.items():
                self.errors[f"spec.{field}" if field else "spec"] = message
        else:
            self.clean["spec"] = rules.json(spec, "spec", self.errors)

    def sharding(self) -> None:
        sound = self.field("mode", rules.choice(Mode)) & self.field("shards", rules.shards)
        sound &= self.field("shard_concurrency", rules.whole(0, 32767))
        if not sound:
            return
        if self.clean["mode"] == Mode.SHARDED:
            if not self.clean["shards"]:
                self.errors["shards"] = _(
                    "It is missing; a sharded task has at least one shard, e.g. {0: a, 1: b}."
                )
            return
        for name in ("shards", "shard_concurrency"):
            if self.clean[name]:
                self.errors[name] = _(
                    "It belongs to the mode “sharded”, and this task's mode is “%(mode)s”."
                ) % {"mode": self.clean["mode"]}

    def schedule(self) -> None:
        has_cron, has_interval = (self.given.get(name) not in (None, "") for name in ("cron", "interval"))
        if "trigger" not in self.given:
            if has_cron and has_interval:
                self.errors["trigger"] = _(
                    "It has both a cron expression and an interval; a task has one of them."
                )
            elif has_cron or has_interval:
                self.clean["trigger"] = Trigger.CRON.value if has_cron else Trigger.FIXED_RATE.value
        sound = self.field("trigger", rules.choice(Trigger))
        zone = self.field("timezone", rules.zone)
        self.field("cron", lambda value: rules.cron(value, self.clean["timezone"] if zone else "UTC"))
        self.field("interval", rules.optional(rules.seconds(1)))
        if not sound:
            return
        for name, needed_by, example in (
            ("cron", Trigger.CRON, "5 0 * * *"),
            ("interval", Trigger.FIXED_RATE, "30s"),
        ):
            given, needed = (has_cron if name == "cron" else has_interval), self.clean["trigger"] == needed_by
            if needed and not given:
                self.errors[name] = _(
                    "It is missing; the trigger “%(trigger)s” needs it, e.g. %(example)s."
                ) % {
                    "trigger": needed_by.value,
                    "example": example,
                }
            elif given and not needed:
                self.errors[name] = _(
                    "It belongs to the trigger “%(trigger)s”, and this task's is “%(is)s”."
                ) % {
                    "trigger": needed_by.value,
                    "is": self.clean["trigger"],
                }


_RULES: dict[str, Callable[[Any], Any]] = {
    "timeout": rules.optional(rules.seconds(1)),
    "retry_count": rules.whole(0, MOST_RETRIES),
    "retry_interval": rules.seconds(0),
    "success_ratio": rules.whole(1, 100),
    "overlap": rules.choice(Overlap),
    "misfire": rules.choice(Misfire),
    "priority": rules.whole(-100, 100),
}


# --- JSON ------------------------------------------------------------------------------------------
