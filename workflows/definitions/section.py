"""The key `workflows` of definition files: checked, compared, saved and exported."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from django.db.models import Q

from scheduling import journal, rules
from scheduling.definitions.checking import Checking, as_written
from scheduling.definitions.planning import Change, DefinitionsMoved, Step, changes
from scheduling.definitions.reading import Document, Path
from scheduling.definitions.sections import Item
from scheduling.errors import InvalidDefinition
from scheduling.models import Team
from scheduling.services import content_digest
from workflows import services
from workflows.definitions.form import (
    KEYS,
    SCHEDULE_KEYS,
    WorkflowDefinition,
    by_node,
    clean_starts,
    content_of,
    content_place,
    form_of,
    given_content,
    workflow_form,
)
from workflows.definitions.warnings import warnings_of
from workflows.known import End, Known, Stored, reference
from workflows.models import Mode, Workflow
from workflows.validation import clean_content


class WorkflowSection:
    """Workflows as a section of documents; see scheduling.definitions.sections.Section."""

    key = "workflows"
    thing = "workflow"
    example = "{name: flights_daily, schedule: {cron: 0 1 * * *}, nodes: [{key: extract, task: extract}]}"

    def check(self, items: Sequence[Item], checking: Checking) -> dict[End, WorkflowDefinition]:
        """What the items define; tasks and workflows that they name may stand anywhere in the files."""
        known = Together.of(items, checking)
        found = (check_item(item, checking, known) for item in items)
        return {(each.team, each.name): each for each in found if each}

    def steps(self, wanted: Mapping[End, WorkflowDefinition]) -> list[Step]:
        """One step a workflow, what others wait for first."""
        stored = {
            (workflow.team.name, workflow.name): workflow
            for workflow in _named(wanted).select_related("team", "revision__workflow")
        }
        return [workflow_step(wanted[end], stored.get(end)) for end in _in_order(wanted)]

    def existing(self, teams: Collection[str]) -> list[End]:
        return list(Workflow.objects.filter(team__name__in=teams).values_list("team__name", "name"))

    def lock(self, names: Collection[End]) -> bool:
        return bool(Workflow.objects.locked(_named(names).values_list("pk", flat=True)))

    def save(
        self, wanted: WorkflowDefinition, team: Team, *, new: bool, by: journal.By, reason: str
    ) -> Workflow:
        """Make a workflow what is wanted; raises DefinitionsMoved when it was to be `new` and exists."""
        workflow = services.save_workflow(
            team=team,
            name=wanted.name,
            content=wanted.content,
            mode=wanted.mode,
            starts_at=wanted.starts_at,
            retention_days=wanted.retention_days,
            notify=wanted.notify,
            by=by,
            reason=reason,
        )
        if new and workflow.current.number != 1:
            raise DefinitionsMoved(
                f"somebody created the workflow {wanted.name} a moment ago; nothing was applied. "
                "Run apply again."
            )
        if wanted.enabled is not None:
            workflow = services.set_enabled(workflow, wanted.enabled, by=by, reason=reason)
        return workflow

    def forms(self, team: Team) -> list[dict[str, Any]]:
        """The team's workflows by name; one without a revision was never given a content and is left out."""
        rows = Workflow.objects.filter(team=team, revision__isnull=False).select_related("revision__workflow")
        # Sorted here: the order must not depend on the server's collation.
        return [form_of(workflow) for workflow in sorted(rows, key=lambda workflow: workflow.name)]


WORKFLOWS = WorkflowSection()


def _named(names: Collection[End]) -> Any:
    wanted = Q(pk__in=[])
    for team in {team for team, _name in names}:
        wanted |= Q(team__name=team, name__in=[name for owner, name in names if owner == team])
    return Workflow.objects.filter(wanted)


# --- checking ----------------------------------------------------------------------------------------


@dataclass
class Together:
    """What files and database know together; where both define a workflow, the files are right."""

    stored: Stored
    defined_tasks: set[End]
    crons: dict[End, str]
    ways: dict[End, set[End]]

    @classmethod
    def of(cls, items: Iterable[Item], checking: Checking) -> Together:
        """With what `items` define, as far as it can be read."""
        together = cls(Stored(), checking.named("task"), {}, {})
        for item in items:
            name = as_written(item.document, (*item.path, "name"), item.data.get("name"))
            if item.team and isinstance(name, str):
                together.add((item.team, name), item.data)
        return together

    def add(self, ours: End, data: Mapping[str | int, Any]) -> None:
        """Take in a workflow that is being defined."""
        schedule, listed = data.get("schedule"), data.get("depends_on")
        self.crons[ours] = str(schedule.get("cron") or "") if isinstance(schedule, Mapping) else ""
        named = [each.get("workflow") for each in listed or () if isinstance(each, Mapping)]
        self.ways[ours] = {reference(ours[0], name) for name in named if isinstance(name, str)} - {ours}

    def tasks(self, team: str, names: Collection[str]) -> set[str]:
        ours = {name for owner, name in self.defined_tasks if owner == team}
        return self.stored.tasks(team, names) | (ours & set(names))

    def cron(self, workflow: End) -> str | None:
        return self.crons[workflow] if workflow in self.crons else self.stored.cron(workflow)

    def upstreams(self, workflow: End) -> Collection[End]:
        return self.ways[workflow] if workflow in self.ways else self.stored.upstreams(workflow)

    def dependants(self, workflow: End) -> Collection[End]:
        return {end for end in self.stored.dependants(workflow) if end not in self.ways}


def check_item(item: Item, checking: Checking, known: Known) -> WorkflowDefinition | None:
    """What one map defines; every mistake goes to `checking`, and then the answer is None."""
    document, path, data = item.document, item.path, item.data
    before = len(checking.mistakes)
    checking.known_keys(document, path, data, KEYS)
    name = checking.name(document, path, data, "name", Workflow)
    if item.team and name:
        checking.once(document, (*path, "name"), "workflow", item.team, name)
    schedule = data.get("schedule", {})
    if isinstance(schedule, Mapping):
        checking.known_keys(document, (*path, "schedule"), schedule, SCHEDULE_KEYS)
    else:
        message = "It is not a map; write e.g. {cron: 0 1 * * *, timezone: America/New_York}."
        checking.mistakes.append(document.mistake((*path, "schedule"), message))
    definition = WorkflowDefinition(
        team=item.team or "",
        name=name or "",
        content=_content(item, checking, known, name or ""),
        mode=_field(item, checking, "mode", rules.choice(Mode), Mode.ONLINE.value),
        starts_at=_starts(item, checking),
        enabled=checking.switch(document, path, data),
        retention_days=checking.retention(document, path, data),
        notify=checking.notify(document, path, data),
    )
    return definition if item.team and len(checking.mistakes) == before else None


def _content(item: Item, checking: Checking, known: Known, name: str) -> dict[str, Any]:
    data = _names_as_written(item.document, item.path, item.data)
    try:
        return clean_content(item.team or "", name, given_content(data), known)
    except InvalidDefinition as wrong:
        for field, message in wrong.errors.items():
            # Tasks cannot be found without their team, whose lack is told already.
            if item.team or not field.endswith(".task"):
                place = (*item.path, *content_place(field))
                checking.mistakes.append(item.document.mistake(place, message))
        return {}


def _field(item: Item, checking: Checking, name: str, rule: Any, default: Any) -> Any:
    if name not in item.data:
        return default
    try:
        return rule(item.data[name])
    except rules.Mistake as mistake:
        checking.mistakes.append(item.document.mistake((*item.path, name), str(mistake)))
        return default


def _starts(item: Item, checking: Checking) -> Any:
    schedule = item.data.get("schedule")
    zone = schedule.get("timezone", "UTC") if isinstance(schedule, Mapping) else "UTC"
    try:
        rules.zone(zone)
    except rules.Mistake:
        zone = "UTC"
    return _field(item, checking, "starts", lambda value: clean_starts(value, zone), None)


def _names_as_written(document: Document, path: Path, data: Mapping[str | int, Any]) -> dict[str | int, Any]:
    """A workflow's map in which names are texts also where they look like numbers."""
    clean = dict(data)
    for key in ("nodes", "depends_on"):
        if isinstance(data.get(key), list):
            clean[key] = [
                _named_as_written(document, (*path, key, index), each) for index, each in enumerate(data[key])
            ]
    return clean


def _named_as_written(document: Document, path: Path, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    names = {key: as_written(document, (*path, key), given[key]) for key in NAMES if key in given}
    if isinstance(given.get("after"), list):
        at = (*path, "after")
        names["after"] = [
            _named_as_written(document, (*at, index), each)
            if isinstance(each, dict)
            else as_written(document, (*at, index), each)
            for index, each in enumerate(given["after"])
        ]
    return given | names


# Keys whose values are names.
NAMES = ("key", "task", "node", "workflow")


# --- planning ----------------------------------------------------------------------------------------


def _in_order(wanted: Mapping[End, WorkflowDefinition]) -> list[End]:
    """The workflows in an order in which each may be saved: after all that it waits for, also indirectly.

    One without a schedule comes last: nothing waits for it then, and what did so must have let go of it before.
    """
    stored = Stored()
    ways: dict[End, Collection[End]] = dict(stored.ways) | {
        end: {reference(end[0], each["workflow"]) for each in definition.content["depends_on"]} - {end}
        for end, definition in wanted.items()
    }
    ordered = [end for end in TopologicalSorter(ways).static_order() if end in wanted]
    return sorted(ordered, key=lambda end: not wanted[end].content["cron"])


def workflow_step(wanted: WorkflowDefinition, existing: Workflow | None) -> Step:
    """What saving `wanted` over `existing` would change."""
    after = workflow_form(
        name=wanted.name,
        content=wanted.content,
        mode=wanted.mode,
        starts_at=wanted.starts_at,
        enabled=wanted.enabled,
        retention_days=wanted.retention_days,
        notify=wanted.notify,
    )
    warnings = warnings_of(wanted, existing)
    if existing is None or existing.revision is None:
        added = changes({}, by_node(after))
        return Step("new", "workflow", wanted.team, wanted.name, added, warnings)
    content = content_of(existing.revision)
    starts_at = wanted.starts_at or existing.starts_at
    enabled = existing.enabled if wanted.enabled is None else wanted.enabled
    then = (existing.mode, existing.starts_at, existing.enabled, existing.retention_days, existing.notify)
    now = (wanted.mode, starts_at, enabled, wanted.retention_days, wanted.notify)
    if then == now and existing.revision.digest == content_digest(wanted.content):
        return Step("unchanged", "workflow", wanted.team, wanted.name)
    before = form_of(existing, content)
    if existing.starts_at == starts_at:
        # Moved to another zone it is the same instant, written otherwise.
        before.pop("starts")
        after.pop("starts", None)
    for each in (before, after):
        each.pop("enabled", None)
    if existing.enabled != enabled:
        before["enabled"], after["enabled"] = existing.enabled, enabled
    return Step("changed", "workflow", wanted.team, wanted.name, _changes(before, after), warnings)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Field by field, nodes by their keys; that they stand in another order is a change of its own."""
    found = changes(by_node(before), by_node(after))
    old, new = ([node["key"] for node in form["nodes"]] for form in (before, after))
    if sorted(old) == sorted(new) and old != new:
        found = (*found, Change("nodes", old, new))
    return found
