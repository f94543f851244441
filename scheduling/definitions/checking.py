"""Finds what files of definitions mean, and everything wrong with them, each with file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from scheduling import kinds, notifications, rules, services, validation
from scheduling.definitions.reading import Document, Mistake, Path
from scheduling.definitions.sections import Item, sections
from scheduling.errors import InvalidDefinition, SchedulingError
from scheduling.models import DeploymentGroup, Task, Team
from scheduling.models.teams import Granted

DOCUMENT_KEYS = ("team", "groups", "tasks")
GROUP_KEYS = ("name",)
# Where a field of a revision's content stands in a task's map; the kind's own fields stand beside them.
PLACES: dict[str, Path] = {
    "kind": ("kind",),
    "mode": ("mode",),
    "shards": ("shards",),
    "shard_concurrency": ("shard_concurrency",),
    "trigger": ("trigger", "type"),
    "cron": ("trigger", "cron"),
    "interval": ("trigger", "every"),
    "timezone": ("trigger", "timezone"),
    "parameters": ("params",),
    "timeout": ("timeout",),
    "retry_count": ("retries", "count"),
    "retry_interval": ("retries", "interval"),
    "success_ratio": ("success_ratio",),
    "overlap": ("overlap",),
    "misfire": ("misfire",),
    "priority": ("priority",),
}
TASK_KEYS = tuple(
    dict.fromkeys(
        [
            *("name", "group", *(str(place[0]) for place in PLACES.values())),
            *("retention", "notify", "enabled", "grants", "spec"),
        ]
    )
)

# What a grant is called in a file, and in the database.
GRANTS = {each.value.removesuffix("_task"): each.value for each in Granted}

_NAME = re.compile(r"[-a-zA-Z0-9_]+")


def document_keys() -> list[str]:
    """What a document may have."""
    return [*DOCUMENT_KEYS, *(section.key for section in sections())]


class InvalidDefinitions(SchedulingError):
    """Files of definitions have mistakes; `mistakes` is every one of them, in the order of files and lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = list(dict.fromkeys(mistakes))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True)
class TaskDefinition:
    """A task as a file defines it. `enabled` and `grants` are None where the file leaves them as they are.

    `grants` has the permissions (values of Granted) by the name of the team.
    """

    team: str
    name: str
    group: str
    content: dict[str, Any]
    enabled: bool | None = None
    retention_days: int | None = None
    grants: dict[str, list[str]] | None = None
    notify: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Definitions:
    """What files define: team names, and groups and tasks by (team, name); `files` for the journal.

    `sections` has by its key what each section made of its items, by (team, name) too.
    """

    teams: list[str]
    groups: list[tuple[str, str]]
    tasks: dict[tuple[str, str], TaskDefinition]
    files: list[str]
    sections: dict[str, Mapping[tuple[str, str], Any]] = field(default_factory=dict)


def check(documents: Iterable[Document], mistakes: Iterable[Mistake] = ()) -> Definitions:
    """What `documents` define; raises InvalidDefinitions with these and the given mistakes.

    A task's group may be defined in the files or exist in the database.
    """
    checking = Checking(list(mistakes))
    documents = list(documents)
    for document in documents:
        checking.document(document)
    checking.groups_exist()
    checking.grantees_exist()
    found = {section.key: section.check(checking.items_of(section.key), checking) for section in sections()}
    if checking.mistakes:
        raise InvalidDefinitions(sorted(checking.mistakes))
    return Definitions(
        teams=list(checking.teams),
        groups=list(checking.groups),
        tasks=checking.tasks,
        files=list(dict.fromkeys(document.file for document in documents)),
        sections=found,
    )


@dataclass
class Checking:
    """One pass over documents, which collects what they define and every mistake in it."""

    mistakes: list[Mistake] = field(default_factory=list)
    teams: dict[str, None] = field(default_factory=dict)
    groups: dict[tuple[str, str], None] = field(default_factory=dict)
    tasks: dict[tuple[str, str], TaskDefinition] = field(default_factory=dict)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)
    references: list[tuple[Document, Path, str, str]] = field(default_factory=list)
    grantees: list[tuple[Document, Path, str]] = field(default_factory=list)
    found: dict[str, list[Item]] = field(default_factory=dict)

    def items_of(self, key: str) -> list[Item]:
        """What stands under a section's key, in the order of files and lines."""
        return self.found.get(key, [])

    def named(self, thing: str) -> set[tuple[str, str]]:
        """Team and name of every `thing` that the documents define, also where it has mistakes."""
        return {(team, name) for kind, team, name in self.seen if kind == thing}

    def document(self, document: Document) -> None:
        data = document.data
        if not isinstance(data, dict):
            keys = ", ".join(document_keys()[:-1])
            message = f"A document is a map with {keys} and {document_keys()[-1]}."
            self.mistakes.append(document.mistake((), message))
            return
        self.known_keys(document, (), data, document_keys())
        team = self.name(document, (), data, "team", Team)
        if team:
            self.teams[team] = None
        for path, group in self.items(document, "groups", "{name: etl}"):
            self.known_keys(document, path, group, GROUP_KEYS)
            name = self.name(document, path, group, "name", DeploymentGroup)
            if team and name and self.once(document, (*path, "name"), "group", team, name):
                self.groups[team, name] = None
        for path, task in self.items(document, "tasks", "{name: extract, group: etl, kind: python, …}"):
            self.task(document, path, task, team)
        for section in sections():
            items = self.items(document, section.key, section.example)
            self.found.setdefault(section.key, []).extend(
                Item(document, path, data, team) for path, data in items
            )

    def task(self, document: Document, path: Path, data: dict[str | int, Any], team: str | None) -> None:
        name = self.name(document, path, data, "name", Task)
        group = self.name(document, path, data, "group", DeploymentGroup)
        enabled = self.switch(document, path, data)
        content = self.content(document, path, data)
        grants = self.grants(document, path, data, team)
        retention_days = self.retention(document, path, data)
        notify = self.notify(document, path, data)
        if team and group:
            self.references.append((document, (*path, "group"), team, group))
        unique = bool(team and name) and self.once(document, (*path, "name"), "task", str(team), str(name))
        if unique and team and name and group and content is not None:
            self.tasks[team, name] = TaskDefinition(
                team, name, group, content, enabled, retention_days, grants, notify
            )

    def switch(self, document: Document, path: Path, data: Mapping[str | int, Any]) -> bool | None:
        """Whether a thing is enabled; None where the file does not say."""
        enabled = data.get("enabled")
        if "enabled" in data and not isinstance(enabled, bool):
            self.mistakes.append(document.mistake((*path, "enabled"), "It is neither true nor false."))
            return None
        return enabled

    def retention(self, document: Document, path: Path, data: Mapping[str | int, Any]) -> int | None:
        """The days that a thing's records are kept; None, the installation's default, also when wrong."""
        value = data.get("retention")
        if "retention" not in data:
            return None
        try:
            # Without its unit a number would be seconds in every other duration of the file.
            if not isinstance(value, str):
                raise InvalidDefinition({"retention": validation.not_whole_days(value)})
            return validation.clean_retention(value)
        except InvalidDefinition as wrong:
            self.mistakes.append(document.mistake((*path, "retention"), wrong.errors["retention"]))
            return None

    def notify(
        self,
        document: Document,
        path: Path,
        data: Mapping[str | int, Any],
        events: Sequence[str] = notifications.EVENTS,
    ) -> list[dict[str, Any]]:
        """The rules of who is told of the thing at `path`, for tasks and whatever else has the key `notify`."""
        try:
            return notifications.clean_rules(data.get("notify"), events=events)
        except InvalidDefinition as wrong:
            for place, message in wrong.errors.items():
                self.mistakes.append(document.mistake((*path, *notifications.place(place)), message))
            return []

    def content(self, document: Document, path: Path, data: dict[str | int, Any]) -> dict[str, Any] | None:
        """The cleaned content of a task, or None when something is wrong with it."""
        before = len(self.mistakes)
        given, refused = self.given_content(document, path, data)
        try:
            cleaned = validation.clean_content(given)
        except InvalidDefinition as wrong:
            for name, message in wrong.errors.items():
                place = _place(name, data)
                if place not in refused:
                    self.mistakes.append(document.mistake((*path, *place), message))
            return None
        return cleaned if len(self.mistakes) == before else None

    def given_content(
        self, document: Document, path: Path, data: dict[str | int, Any]
    ) -> tuple[dict[str, Any], set[Path]]:
        """The content as the task's map gives it, and the places that were found wrong already."""
        flat, refused = self.flattened(document, path, data)
        kind = kinds.kinds().get(str(data.get("kind")))
        likely = [kind] if kind else list(kinds.kinds().values())
        fields = [name for each in likely for name in each.fields]
        spec = {str(key): value for key, value in data.items() if key not in TASK_KEYS}
        for key in spec:
            if key not in fields:
                message = rules.unknown_field(key, [*TASK_KEYS, *dict.fromkeys(fields)])
                self.mistakes.append(document.mistake((*path, key), message))
                refused.add((key,))
        given: dict[str, Any] = {"spec": spec}
        if isinstance(explicit := data.get("spec", {}), dict):
            given["spec"] = spec | explicit
        else:
            self.mistakes.append(document.mistake((*path, "spec"), "It is not a map of the kind's own fields."))
        for name, place in PLACES.items():
            if place not in flat:
                continue
            if flat[place] is None and place != ("timeout",):
                self.mistakes.append(
                    document.mistake((*path, *place), "It is empty; write a value, or leave the key out.")
                )
                refused.add(place)
                if name != "kind":
                    continue
            given[name] = flat[place]
        if "shards" in given:
            given["shards"] = as_written(document, (*path, "shards"), given["shards"])
        return given, refused

    def flattened(
        self, document: Document, path: Path, data: dict[str | int, Any]
    ) -> tuple[dict[Path, Any], set[Path]]:
        """The values of a task's map by their place, the two nested maps opened."""
        flat: dict[Path, Any] = {}
        refused: set[Path] = set()
        for key, value in data.items():
            inner = [place[1] for place in PLACES.values() if len(place) == 2 and place[0] == key]
            if not inner:
                flat[(key,)] = value
            elif isinstance(value, dict):
                self.known_keys(document, (*path, key), value, [str(name) for name in inner])
                flat |= {(key, name): value[name] for name in inner if name in value}
            elif key == "trigger" and isinstance(value, str):
                flat["trigger", "type"] = value
            else:
                example = "{cron: 5 0 * * *}" if key == "trigger" else "{count: 2, interval: 30s}"
                self.mistakes.append(document.mistake((*path, key), f"It is not a map; write e.g. {example}."))
                refused |= {(key, name) for name in inner}
        return flat, refused

    def grants(
        self, document: Document, path: Path, data: Mapping[str | int, Any], team: str | None
    ) -> dict[str, list[str]] | None:
        """What the task's map grants to other teams, or None when it does not say."""
        given = data.get("grants", {})
        place = (*path, "grants")
        if not isinstance(given, dict):
            self.mistakes.append(document.mistake(place, "It is not a map; write e.g. {analytics: [rerun]}."))
            return None
        grants: dict[str, list[str]] = {}
        for key, listed in given.items():
            name, at = str(key), (*place, key)
            if name == team:
                self.mistakes.append(document.mistake(at, "It owns the task; grants are for other teams."))
                continue
            self.grantees.append((document, at, name))
            if not isinstance(listed, list) or not listed:
                self.mistakes.append(document.mistake(at, "It is no list of permissions; write e.g. [rerun]."))
                continue
            known = [each for each in listed if isinstance(each, str) and each in GRANTS]
            wrong = [each for each in listed if each not in known]
            self.mistakes += [document.mistake(at, rules.not_among(each, GRANTS)) for each in wrong]
            grants[name] = services.canonical(GRANTS[each] for each in known)
        return grants if "grants" in data else None

    def grantees_exist(self) -> None:
        """Every team that is granted something is the files' or the database's."""
        known = set(Team.objects.values_list("name", flat=True)) | set(self.teams)
        for document, path, name in self.grantees:
            if name not in known:
                message = f"There is no team {rules.shown(name)}; define it, or create it first."
                if close := get_close_matches(name, known, n=1):
                    message += f" Did you mean “{close[0]}”?"
                self.mistakes.append(document.mistake(path, message))

    def groups_exist(self) -> None:
        """Every group that a task names is the files' or the database's, and its own team's."""
        existing = set(DeploymentGroup.objects.values_list("team__name", "name"))
        known = existing | set(self.groups)
        for document, path, team, group in self.references:
            if (team, group) in known:
                continue
            own = sorted(name for owner, name in known if owner == team)
            others = sorted(owner for owner, name in known if name == group)
            message = f"The team {team} has no group {rules.shown(group)}"
            if others:
                message += f"; it belongs to the team {others[0]}, and a task runs on its own team's nodes."
            else:
                message += f"; it has {', '.join(own)}." if own else "; define it under groups."
            if close := get_close_matches(group, own, n=1):
                message += f" Did you mean “{close[0]}”?"
            self.mistakes.append(document.mistake(path, message))

    def once(self, document: Document, path: Path, thing: str, team: str, name: str) -> bool:
        """Whether this is the first definition of the group, task, or whatever the `thing` is called."""
        key = (thing, team, name)
        if key in self.seen:
            message = f"The {thing} {name} of the team {team} is defined twice; first at {self.seen[key]}."
            self.mistakes.append(document.mistake(path, message))
            return False
        self.seen[key] = f"{document.file}:{document.line(path)}"
        return True

    def items(self, document: Document, key: str, example: str) -> Iterable[tuple[Path, dict[str | int, Any]]]:
        """The maps in the list `key` of a document, with their paths."""
        listed = document.data.get(key)
        if listed is None:
            return
        if not isinstance(listed, list):
            self.mistakes.append(document.mistake((key,), f"It is not a list; write - {example}."))
            return
        for index, item in enumerate(listed):
            if isinstance(item, dict):
                yield (key, index), item
            else:
                self.mistakes.append(document.mistake((key, index), f"It is not a map; write {example}."))

    def known_keys(
        self, document: Document, path: Path, data: Mapping[str | int, Any], known: Sequence[str]
    ) -> None:
        for key in data:
            if key not in known:
                self.mistakes.append(document.mistake((*path, str(key)), rules.unknown_field(key, known)))

    def name(
        self, document: Document, path: Path, data: Mapping[str | int, Any], key: str, model: Any
    ) -> str | None:
        """The name under `key`, as written (`007` is a name), or None when it is none."""
        place = (*path, key)
        value = as_written(document, place, data.get(key))
        if value is None:
            self.mistakes.append(document.mistake(place, "It is missing."))
            return None
        longest = model._meta.get_field("name").max_length
        if isinstance(value, str) and _NAME.fullmatch(value) and len(value) <= longest:
            return value
        self.mistakes.append(
            document.mistake(
                place,
                f"{rules.shown(value)} is no name: letters, digits, - and _, at most {longest} of them.",
            )
        )
        return None


def as_written(document: Document, path: Path, value: Any) -> Any:
    """`value` with the numbers and booleans in it as the text that stands in the file."""
    if isinstance(value, dict):
        return {key: as_written(document, (*path, key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_written(document, (*path, index), inner) for index, inner in enumerate(value)]
    return value if value is None else document.written.get(path, value)


def _place(name: str, data: Mapping[str | int, Any]) -> Path:
    """Where in a task's map the field `name` of an InvalidDefinition stands."""
    first, _, rest = name.partition(".")
    if first == "spec":
        explicit = data.get("spec")
        inside = isinstance(explicit, dict) and rest in explicit
        return ("spec", rest) if inside else (rest,) if rest else ()
    if name == "trigger" and not isinstance(data.get("trigger"), dict):
        return ("trigger",)
    return (*PLACES[first], rest) if rest else PLACES[first]
