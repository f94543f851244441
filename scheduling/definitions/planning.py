"""What applying definitions would change, in words, and doing exactly that."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from scheduling import journal, services
from scheduling.definitions.checking import Definitions, TaskDefinition
from scheduling.definitions.sections import sections
from scheduling.definitions.writing import task_form, written
from scheduling.errors import SchedulingError
from scheduling.models import DeploymentGroup, Task, Team

# One apply at a time in an installation; the number only has to be no other's.
_APPLY_LOCK = 7_421_001


class DefinitionsMoved(SchedulingError):
    """Between showing the changes and applying them somebody changed what they were computed from."""


@dataclass(frozen=True)
class Change:
    """One field of a thing: dotted name, and its values before and after as in the file (None: left out)."""

    field: str
    before: Any
    after: Any

    @property
    def difference(self) -> list[str]:
        """The lines of a unified diff, each with its mark; empty when both values fit on a line."""
        before, after = ("" if value is None else written(value) for value in (self.before, self.after))
        if "\n" not in before + after:
            return []
        return list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2))[2:]


@dataclass(frozen=True)
class Step:
    """What happens to one thing: `action` is new, changed or unchanged.

    `thing` is team, group, task, or what a section calls its own. `warnings` are sentences about what would
    not work as its author may expect.
    """

    action: str
    thing: str
    team: str
    name: str
    changes: tuple[Change, ...] = ()
    # They name moments that pass while a person reads the plan, and are no change of it.
    warnings: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Plan:
    """Every step in the order of application, and how many of these teams' things the files do not mention.

    `left_alone` counts them by what they are called.
    """

    steps: tuple[Step, ...]
    left_alone: Mapping[str, int]

    @property
    def counts(self) -> Counter[str]:
        """How many things are new, changed and unchanged."""
        return Counter(step.action for step in self.steps)

    @property
    def changes_nothing(self) -> bool:
        return all(step.action == "unchanged" for step in self.steps)

    def differing(self, shown: Plan) -> list[Step]:
        """The steps that would do something else than in the plan that was `shown`.

        A thing that became as the files want it meanwhile needs no step, and differs from nothing.
        """
        agreed = {(step.thing, step.team, step.name): step for step in shown.steps}
        return [
            step
            for step in self.steps
            if step.action != "unchanged" and step != agreed.get((step.thing, step.team, step.name))
        ]


def plan(definitions: Definitions) -> Plan:
    """What applying `definitions` to the database as it is now would change."""
    teams = set(Team.objects.filter(name__in=definitions.teams).values_list("name", flat=True))
    groups = set(
        DeploymentGroup.objects.filter(team__name__in=definitions.teams).values_list("team__name", "name")
    )
    tasks = {
        (task.team.name, task.name): task
        for task in Task.objects.filter(team__name__in=definitions.teams).select_related(
            "team", "group", "revision"
        )
    }
    granted = services.granted_on(tasks.values())
    steps = [
        *(Step("unchanged" if name in teams else "new", "team", name, name) for name in definitions.teams),
        *(Step("unchanged" if key in groups else "new", "group", *key) for key in definitions.groups),
        *(task_step(task, tasks.get(key), granted) for key, task in definitions.tasks.items()),
    ]
    left_alone = {"task": len(tasks.keys() - definitions.tasks.keys())}
    for section in sections():
        wanted = definitions.sections.get(section.key, {})
        steps += section.steps(wanted)
        left_alone[section.thing] = len(set(section.existing(definitions.teams)) - wanted.keys())
    return Plan(tuple(steps), left_alone)


def task_step(
    wanted: TaskDefinition, existing: Task | None, granted: Mapping[int, Mapping[str, list[str]]]
) -> Step:
    """What saving `wanted` over `existing` would change; `granted` is what `services.granted_on` says of it."""
    after = task_form(
        name=wanted.name,
        group=wanted.group,
        enabled=wanted.enabled,
        content=wanted.content,
        retention_days=wanted.retention_days,
        grants=wanted.grants,
        notify=wanted.notify,
    )
    if existing is None or existing.revision is None:
        return Step("new", "task", wanted.team, wanted.name, changes({}, after))
    grants = granted.get(existing.pk, {}) if wanted.grants is not None else None
    before = task_form(
        name=existing.name,
        group=existing.group.name,
        enabled=existing.enabled,
        content=existing.revision.content,
        retention_days=existing.retention_days,
        grants=grants,
        notify=existing.notify,
    )
    enabled = existing.enabled if wanted.enabled is None else wanted.enabled
    same_content = existing.revision.digest == services.content_digest(wanted.content)
    same_grants = before.get("grants") == after.get("grants")
    rules = (existing.enabled, existing.retention_days, existing.notify)
    same_rules = rules == (enabled, wanted.retention_days, wanted.notify)
    if same_content and same_grants and same_rules and existing.group.name == wanted.group:
        return Step("unchanged", "task", wanted.team, wanted.name)
    if wanted.enabled is None:
        before.pop("enabled", None)
    elif existing.enabled != enabled:
        before["enabled"], after["enabled"] = existing.enabled, enabled
    return Step("changed", "task", wanted.team, wanted.name, changes(before, after))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The fields in which two maps of a file differ, the name left out."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return tuple(
        Change(name, old.get(name), new.get(name))
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name) and name != "name"
    )


def _leaves(form: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in form.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@transaction.atomic
def apply(definitions: Definitions, expected: Plan | None = None, *, by: journal.By = None) -> Plan:
    """Apply all of `definitions` or nothing, and return what was done.

    With `expected`, the plan that a person agreed to, raises DefinitionsMoved when something else would happen
    to what the files define. Changes to other things of the same teams are no conflict.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_APPLY_LOCK])
    current = plan(definitions)
    # Nobody edits what is about to change between looking and writing.
    if _lock(current):
        current = plan(definitions)
    if expected is not None and (differing := current.differing(expected)):
        names = ", ".join(f"{step.thing} {step.name}" for step in differing)
        raise DefinitionsMoved(
            f"changed by somebody else after the changes were shown: {names}; nothing was applied. "
            "Run apply again."
        )
    _carry_out(definitions, current, by)
    return current


def _lock(current: Plan) -> bool:
    """Lock what would change; whether there is anything."""

    def changed(thing: str) -> set[tuple[str, str]]:
        return {
            (step.team, step.name) for step in current.steps if (step.thing, step.action) == (thing, "changed")
        }

    names = changed("task")
    tasks = Task.objects.filter(
        team__name__in={team for team, _ in names}, name__in={name for _, name in names}
    )
    found = bool(tasks.order_by("pk").select_for_update(no_key=True, of=("self",)).values_list("pk", flat=True))
    locked = [section.lock(changed(section.thing)) for section in sections()]
    return found or any(locked)


def _carry_out(definitions: Definitions, current: Plan, by: journal.By) -> None:
    reason = f"apply {' '.join(map(_named, definitions.files))}"
    by_thing = {section.thing: section for section in sections()}
    teams = {team.name: team for team in Team.objects.filter(name__in=definitions.teams)}
    for step in current.steps:
        if step.action == "unchanged":
            continue
        match step.thing:
            case "team":
                teams[step.name] = services.create_team(name=step.name, by=by, reason=reason)
            case "group":
                services.create_group(team=teams[step.team], name=step.name, by=by, reason=reason)
            case "task":
                task = _save(definitions.tasks[step.team, step.name], teams[step.team], by, reason)
                if step.action == "new" and task.revision and task.revision.number != 1:
                    raise DefinitionsMoved(
                        f"somebody created the task {step.name} a moment ago; nothing was applied. "
                        "Run apply again."
                    )
            case thing:
                section = by_thing[thing]
                wanted = definitions.sections[section.key][step.team, step.name]
                new = step.action == "new"
                section.save(wanted, teams[step.team], new=new, by=by, reason=reason)


def _named(file: str) -> str:
    """A file as the journal names it: as it was given, but never by where on this machine it lies."""
    path, here = Path(file), Path.cwd()
    if not path.is_absolute():
        return file
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _save(wanted: TaskDefinition, team: Team, by: journal.By, reason: str) -> Task:
    enabled = wanted.enabled
    if enabled is None:
        existing = Task.objects.filter(team=team, name=wanted.name).values_list("enabled", flat=True).first()
        enabled = existing is not False
    task = services.save_task(
        team=team,
        group=DeploymentGroup.objects.get(team=team, name=wanted.group),
        name=wanted.name,
        content=wanted.content,
        enabled=enabled,
        retention_days=wanted.retention_days,
        notify=wanted.notify,
        by=by,
        reason=reason,
    )
    if wanted.grants is not None:
        services.set_grants(task, wanted.grants, by=by, reason=reason)
    return task
