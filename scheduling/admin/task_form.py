"""The form of a task: the same rules as `apply`, every mistake at its field, and what would change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import definitions, kinds, notifications, services, validation
from scheduling.definitions import Step, TaskDefinition
from scheduling.definitions.reading import dotted
from scheduling.errors import InvalidDefinition
from scheduling.models import Task, TaskRevision
from scheduling.models.tasks import Misfire, Mode, Overlap, Trigger
from scheduling.parameters import format_duration

# Fields that a person writes as YAML, and those whose seconds are written as durations.
YAML = ("spec", "parameters", "shards")
DURATIONS = ("interval", "timeout", "retry_interval")
# In brackets at the end of a label, in whatever language.
_UNIT = re.compile(r"\s*[(（][^()（）]*[)）]$")


def _field(name: str) -> Any:
    return TaskRevision._meta.get_field(name)


def _label(name: str) -> Any:
    return capfirst(_field(name).verbose_name)


def _text(name: str, **attrs: Any) -> forms.CharField:
    widget = forms.TextInput(
        attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"} | attrs
    )
    return forms.CharField(label=_label(name), required=False, widget=widget)


def _yaml(name: str, rows: int, help_text: Any) -> forms.CharField:
    widget = forms.Textarea(
        attrs={"class": "vLargeTextField code", "rows": rows, "cols": 80, "spellcheck": "false"}
    )
    # What a job is given may well end in a line break.
    return forms.CharField(label=_label(name), required=False, strip=False, widget=widget, help_text=help_text)


def _whole(name: str) -> forms.IntegerField:
    field = _field(name)
    return forms.IntegerField(
        label=_label(name),
        required=False,
        help_text=field.help_text,
        widget=forms.NumberInput(attrs={"class": "vIntegerField"}),
    )


def _choice(name: str, choices: Any) -> forms.ChoiceField:
    return forms.ChoiceField(label=_label(name), choices=choices)


def form_of(task: Task) -> dict[str, Any]:
    """A task as its map in a file; needs `group` and `revision`, and a task without content has none."""
    content = task.revision.content if task.revision else {"kind": "", "spec": {}}
    return definitions.task_form(
        name=task.name,
        group=task.group.name,
        enabled=task.enabled,
        content=content,
        retention_days=task.retention_days,
        notify=task.notify,
    )


def stamp(task: Task | None) -> str:
    """What tells one state of a task from every other, so that nobody overwrites what they have not seen."""
    return services.content_digest(form_of(task)) if task is not None and task.revision else ""


class TaskForm(forms.ModelForm):  # type: ignore[type-arg]
    """Content as text and choices. After `is_valid`, `wanted` is the definition and `step` what it changes."""

    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    kind = forms.ChoiceField(label=_label("kind"), choices=[])
    spec = _yaml("spec", 8, "")
    parameters = _yaml("parameters", 4, gettext_lazy("YAML, e.g. day: ${data_date}"))
    mode = _choice("mode", Mode.choices)
    shards = _yaml(
        "shards", 3, gettext_lazy("YAML, e.g. {0: AA, 1: UA}, 0=AA,1=UA, or a number; for the mode “sharded”")
    )
    shard_concurrency = _whole("shard_concurrency")
    trigger = _choice("trigger", Trigger.choices)
    cron = _text("cron", placeholder="5 0 * * *")
    interval = _text("interval", placeholder="30s")
    timezone = _text("timezone", placeholder="UTC")
    timeout = _text("timeout", placeholder="10m")
    retry_count = _whole("retry_count")
    retry_interval = _text("retry_interval", placeholder="30s")
    success_ratio = _whole("success_ratio")
    overlap = _choice("overlap", Overlap.choices)
    misfire = _choice("misfire", Misfire.choices)
    priority = _whole("priority")
    retention = forms.CharField(
        label=gettext_lazy("Records are kept"),
        required=False,
        help_text=gettext_lazy("e.g. 30d; empty: as long as the installation keeps them"),
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )

    notify = forms.CharField(
        label=gettext_lazy("Notifications"),
        required=False,
        help_text=gettext_lazy(
            "YAML, e.g. - {channel: ops, on: [failure, late], late_after: 2h}. Events are success, "
            "failure, stopped and late; the address of the channel ops is TAILRACE_CHANNEL_OPS in the "
            "scheduler's environment."
        ),
        widget=forms.Textarea(
            attrs={"class": "vLargeTextField code", "rows": 4, "cols": 80, "spellcheck": "false"}
        ),
    )

    wanted: TaskDefinition
    step: Step
    stored: Task | None = None

    class Meta:
        model = Task
        fields = ("name", "group", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = kinds.kinds()
        kind: Any = self.fields["kind"]
        kind.choices = [(name, name) for name in known]
        self.fields["spec"].help_text = _("YAML, the fields of the kind. %(fields)s") % {
            "fields": "; ".join(f"{name}: {', '.join(kind.fields)}" for name, kind in known.items())
        }
        # Whose labels say seconds may be given minutes.
        for name in DURATIONS:
            self.fields[name].label = _UNIT.sub("", str(self.fields[name].label))
            self.fields[name].help_text = _("e.g. 45s, 10m, 1h30m, 2d")
        task = self.instance if self.instance.pk else None
        revision = task.revision if task is not None and task.revision else TaskRevision()
        for name, value in _written(revision).items():
            self.initial.setdefault(name, value)
        if task is not None and task.retention_days is not None:
            self.initial["retention"] = f"{task.retention_days}d"
        if task is not None and task.notify:
            self.initial["notify"] = definitions.dump(notifications.written_rules(task.notify))
        self.initial["seen"] = stamp(task)

    @property
    def now(self) -> str:
        """The stamp of the task as it is stored now."""
        return stamp(self.stored)

    @property
    def moved(self) -> bool:
        """Whether somebody changed the task since this form was filled from it."""
        return bool(self.cleaned_data["seen"] != self.now)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.instance.pk:
            # As it is stored now, not as the page that was sent has it.
            tasks = Task.objects.select_related("team", "group", "revision")
            self.stored = tasks.get(pk=self.instance.pk)
        content, retention, notify = self._content(), self._retention(), self._notify()
        name = self.stored.name if self.stored else cleaned.get("name")
        group = cleaned.get("group")
        if self.stored is None and name and group and Task.objects.filter(team=group.team, name=name).exists():
            self.add_error("name", _("The team %(team)s has a task of this name.") % {"team": group.team.name})
        if self.errors or content is None or name is None or group is None:
            return cleaned
        self.wanted = TaskDefinition(
            team=group.team.name,
            name=name,
            group=group.name,
            content=content,
            enabled=cleaned["enabled"],
            retention_days=retention,
            notify=notify,
        )
        self.step = definitions.task_step(self.wanted, self.stored, {})
        if "_edit" in self.data:
            raise ValidationError(_("Nothing is saved yet. Change what you like, and go on."))
        return cleaned

    def _content(self) -> dict[str, Any] | None:
        """The cleaned content, or None when something is wrong with it, which then stands at its field."""
        given: dict[str, Any] = {}
        for name in TaskRevision.CONTENT:
            value = self.cleaned_data.get(name)
            if name in YAML:
                value = self._read(name, value or "")
            if value not in (None, ""):
                given[name] = value
        try:
            cleaned = validation.clean_content(given)
        except InvalidDefinition as wrong:
            refused = set(self.errors)
            for path, message in wrong.errors.items():
                name, _dot, rest = path.partition(".")
                if name not in refused:
                    self.add_error(
                        name if name in self.fields else None, f"{rest}: {message}" if rest else message
                    )
            return None
        return cleaned if not self.errors else None

    def _retention(self) -> int | None:
        try:
            return validation.clean_retention(self.cleaned_data.get("retention") or None)
        except InvalidDefinition as wrong:
            self.add_error("retention", wrong.errors["retention"])
            return None

    def _notify(self) -> list[dict[str, Any]]:
        written = self._read("notify", self.cleaned_data.get("notify") or "")
        try:
            return notifications.clean_rules(written or None)
        except InvalidDefinition as wrong:
            for place, message in wrong.errors.items():
                where = dotted(notifications.place(place)[1:])
                self.add_error("notify", f"{where}: {message}" if where else message)
            return []

    def _read(self, name: str, text: str) -> Any:
        documents, mistakes = definitions.read("", text.replace("\r\n", "\n").encode())
        for mistake in mistakes:
            place = _("Line %(line)d: ") % {"line": mistake.line} if mistake.line else ""
            self.add_error(name, place + ": ".join(filter(None, [mistake.path, mistake.message])))
        if len(documents) > 1:
            self.add_error(name, _("It is one map, not several documents."))
        if not documents or mistakes:
            return None if name == "shards" else {}
        [document] = documents[:1]
        # Shards are texts, also those that look like numbers.
        return definitions.as_written(document, (), document.data) if name == "shards" else document.data


def _written(revision: TaskRevision) -> dict[str, Any]:
    """The content of `revision` as the fields of the form show it."""
    shown: dict[str, Any] = dict(revision.content)
    for name in DURATIONS:
        shown[name] = format_duration(shown[name]) if shown[name] is not None else ""
    for name in ("spec", "parameters"):
        shown[name] = definitions.dump(_ordered(shown[name], revision.kind)) if shown[name] else ""
    shards = definitions.shards_form(shown["shards"])
    shown["shards"] = definitions.dump(shards) if isinstance(shards, dict) else str(shards or "")
    return shown


def _ordered(value: Mapping[Any, Any], kind: str) -> dict[Any, Any]:
    """A map with its keys in the order of the kind's fields, then by name; jsonb keeps no order."""
    known = list(kinds.kinds()[kind].fields) if kind in kinds.kinds() else []
    place = {name: index for index, name in enumerate(known)}
    return {key: value[key] for key in sorted(value, key=lambda key: (place.get(key, len(place)), key))}
