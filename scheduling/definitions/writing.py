"""Writes definitions as the YAML that `apply` reads: one order, defaults left out, always the same bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from scheduling import kinds, notifications, services
from scheduling.definitions.checking import PLACES, TASK_KEYS
from scheduling.definitions.reading import FLOAT
from scheduling.definitions.sections import sections
from scheduling.models import DeploymentGroup, Task, TaskRevision, Team
from scheduling.models.tasks import Trigger
from scheduling.parameters import format_duration

_DURATIONS = {"timeout", "interval", "retry_interval"}
_BLANK = TaskRevision()
_DEFAULTS = {name: getattr(_BLANK, name) for name in TaskRevision.CONTENT}


def export(teams: Iterable[Team] | None = None) -> str:
    """All that `teams` (every team, without any) define, one YAML document a team."""
    if teams is None:
        teams = Team.objects.all()
    return "---\n".join(_document(team) for team in sorted(teams, key=lambda team: team.name))


def _document(team: Team) -> str:
    groups = [{"name": name} for name in sorted(_names(DeploymentGroup.objects.filter(team=team)))]
    # A task without a revision was never given a content, so there is nothing to say of it.
    tasks = Task.objects.filter(team=team, revision__isnull=False).select_related("revision", "group")
    granted = services.granted_on(tasks)
    forms = [
        task_form(
            name=task.name,
            group=task.group.name,
            enabled=task.enabled,
            content=task.revision.content if task.revision else {},
            retention_days=task.retention_days,
            grants=granted.get(task.pk),
            notify=task.notify,
        )
        # Sorted here: the order must not depend on the server's collation.
        for task in sorted(tasks, key=lambda task: task.name)
    ]
    parts = [dump({"team": team.name})]
    if groups:
        parts.append("groups:\n" + textwrap.indent(dump(groups), "  "))
    listed = [_listed("tasks", forms), *(_listed(each.key, each.forms(team)) for each in sections())]
    listed = [text for text in listed if text]
    return "\n".join([*parts, *listed]) if listed else "".join(parts)


def _listed(key: str, forms: Iterable[Mapping[str, Any]]) -> str:
    """The maps of a list under its key, an empty line between them; nothing when there are none."""
    items = [textwrap.indent(dump([form]), "  ", not_empty) for form in forms]
    return f"{key}:\n" + "\n".join(items) if items else ""


def _names(rows: Any) -> list[str]:
    return list(rows.values_list("name", flat=True))


def not_empty(line: str) -> bool:
    """Whether a line of YAML is to be indented; what looks blank may be the content of a text."""
    return line != "\n"


def task_form(
    *,
    name: str,
    group: str,
    enabled: bool | None,
    content: Mapping[str, Any],
    retention_days: int | None = None,
    grants: Mapping[str, Iterable[str]] | None = None,
    notify: notifications.Rules = (),
) -> dict[str, Any]:
    """A task as its map in the file: canonical order, defaults left out, durations in their short form."""
    values = {
        field: format_duration(value) if field in _DURATIONS and value is not None else value
        for field, value in content.items()
        if field != "spec" and (field == "kind" or value != _DEFAULTS[field])
    }
    if values.get("trigger") in {Trigger.CRON, Trigger.FIXED_RATE}:
        del values["trigger"]
    if "shards" in values:
        values["shards"] = shards_form(values["shards"])
    if "parameters" in values:
        values["parameters"] = sorted_keys(values["parameters"])
    form: dict[str, Any] = {"name": name, "group": group, "kind": values.pop("kind")}
    form |= _spec_form(form["kind"], content["spec"])
    for field, place in PLACES.items():
        if field not in values:
            continue
        if len(place) == 1:
            form[str(place[0])] = values[field]
        else:
            form.setdefault(str(place[0]), {})[place[1]] = values[field]
    if list(form.get("trigger", ())) == ["type"]:
        form["trigger"] = form["trigger"]["type"]
    beside = {
        "retention": None if retention_days is None else f"{retention_days}d",
        "notify": notifications.written_rules(notify) or None,
        "enabled": False if enabled is False else None,
    }
    form |= {name: value for name, value in beside.items() if value is not None}
    return form | _grants_form(grants or {})


def _grants_form(grants: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    listed = {team: [each.removesuffix("_task") for each in grants[team]] for team in sorted(grants)}
    return {"grants": listed} if listed else {}


def _spec_form(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The kind's own fields in the kind's order; those that a task's own key would hide go under `spec`."""
    known = kinds.kinds().get(kind)
    order = [*(known.fields if known else ()), *sorted(spec)]
    ordered = {name: sorted_keys(spec[name]) for name in dict.fromkeys(order) if name in spec}
    plain = {name: value for name, value in ordered.items() if name not in TASK_KEYS}
    hidden = {name: value for name, value in ordered.items() if name in TASK_KEYS}
    return plain | ({"spec": hidden} if hidden else {})


def sorted_keys(value: Any) -> Any:
    """`value` with the keys of every map in it in order: jsonb does not keep the one they were given in."""
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [sorted_keys(inner) for inner in value]
    return value


class _Dumper(yaml.SafeDumper):
    """Block style as a person writes it: lists indented, texts of several lines as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def analyze_scalar(self, scalar: str) -> Any:
        analysis = super().analyze_scalar(scalar)
        # PyYAML shuns tabs and spaces at the end of a line, which a block keeps as they are.
        analysis.allow_block = _is_block(scalar)
        return analysis


def _is_block(text: str) -> bool:
    """Whether `text` has several lines that can stand as they are.

    One that begins with a space or an empty line would need an indentation mark, which nobody reads.
    """
    plain = all(letter.isprintable() or letter in "\n\t" for letter in text)
    return plain and "\n" in text.rstrip("\n") and text[0] not in " \t\n" and text[-1] not in " \t"


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if _is_block(text):
        style = "|"
    elif not text.isprintable():
        # In single quotes a reader would take the rarer line ends, such as U+0085, for spaces.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
# What our reader takes for a number although YAML 1.1 does not must be quoted when it is text.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def written(value: Any) -> str:
    """A value as the file writes it; what the file leaves out is a dash."""
    if value is None:
        return "–"
    if isinstance(value, str) and "\n" in value and all(c.isprintable() or c == "\n" for c in value):
        return value
    return dump(value).removesuffix("\n").removesuffix("\n...")


def dump(data: Any) -> str:
    """`data` as YAML in block style."""
    # No line is ever folded: where to break one is the writer's choice.
    return yaml.dump(
        data, Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=2**30
    )


def shards_form(shards: Sequence[str]) -> int | dict[int, str]:
    """Shards as a file says them: their number, or their parameters by index when any has one."""
    return dict(enumerate(shards)) if any(shards) else len(shards)
