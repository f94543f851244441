"""What narrows the execution records, and the ranges of an index that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.filters.fields import IdsFilter, ManyFilter, MomentFilter, as_id, given, words_of
from scheduling.journal import SCHEDULE
from scheduling.models import Batch, DeploymentGroup, Task
from scheduling.models.tasks import SCHEDULED, Trigger
from scheduling.permissions import places_of
from scheduling.queries import MACHINES, Either, Ranges
from scheduling.states import BatchState

BASIC = "basic"
WORKFLOW = "workflow"
TRIGGERS = {BASIC: [Trigger.CRON, Trigger.FIXED_RATE, Trigger.MANUAL], WORKFLOW: [Trigger.WORKFLOW]}
# Who begins what: a schedule what is due, a person what is run or rerun by hand, and all of them workflows.
_BEGUN_BY_SCHEDULE = {*SCHEDULED, Trigger.WORKFLOW}
_BEGUN_BY_PERSON = {Trigger.MANUAL, Trigger.WORKFLOW}

WINDOWS = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_WINDOW = "7d"
RANGE = "range"
# A pasted column of ids is one chip.
_MOST_CHIPS = 6
_CHIP_LABELS = {"task": gettext_lazy("Task"), "batch": gettext_lazy("Batch")}


class BatchForm(forms.Form):
    """Checks what needs the database or more than one field."""

    # Whom the form is for sees these; the FilterSet sets it.
    tasks: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task_names: dict[int, str] = {}
        self.task_teams: set[int] = set()

    def clean_task(self) -> list[int]:
        """The ids of the named tasks; a number may be an id or, as tasks may be so named, a name."""
        words: list[str] = self.cleaned_data["task"]
        if not words:
            return []
        numbers = [number for word in words if (number := as_id(word)) is not None]
        found = self.tasks.filter(name__in=words) | self.tasks.filter(pk__in=numbers)
        for pk, name, team in found.values_list("pk", "name", "team"):
            self.task_names[pk] = name
            self.task_teams.add(team)
        known = set(self.task_names.values()) | {str(pk) for pk in self.task_names}
        unknown = [word for word in words if word not in known]
        if unknown:
            raise ValidationError(_("There is no task %(words)s to see.") % {"words": ", ".join(unknown)})
        return list(self.task_names)

    def clean(self) -> dict[str, Any]:
        """A range of time has an end or a beginning, in that order."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if cleaned.get("window") != RANGE or {"since", "until"} & set(self.errors):
            return cleaned
        if since is None and until is None:
            self.add_error("since", _("Say from when or until when."))
        elif since is not None and until is not None and since >= until:
            self.add_error("until", _("The end is not after the beginning. Swap them, or clear one."))
        return cleaned


@dataclass(frozen=True)
class Chip:
    """One value that narrows the list, and the query of the address without it."""

    label: str
    value: str
    without: str


class BatchFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The execution records: one tab of them, by what A5 names, by whom, and in a time window."""

    task = ManyFilter(label=gettext_lazy("Task name or ID"), method="by_task")
    batch = IdsFilter(label=gettext_lazy("Batch ID"), method="by_id")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=BatchState.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    trigger = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Trigger"),
        choices=Trigger.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    group = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Group"), method="by_group", widget=forms.CheckboxSelectMultiple
    )
    by = ManyFilter(label=gettext_lazy("By"), method="by_actor")
    window = django_filters.ChoiceFilter(
        label=gettext_lazy("Begun"),
        method="unchanged",
        empty_label=None,
        choices=[
            ("1d", gettext_lazy("Last 24 hours")),
            ("7d", gettext_lazy("Last 7 days")),
            ("30d", gettext_lazy("Last 30 days")),
            (RANGE, gettext_lazy("From … to …")),
        ],
    )
    since = MomentFilter(label=gettext_lazy("From"), method="unchanged")
    until = MomentFilter(label=gettext_lazy("To"), method="unchanged")

    class Meta:
        model = Batch
        form = BatchForm
        fields: list[str] = []

    def __init__(self, data: QueryDict, *, user: Any) -> None:
        data = given(data)
        ranged = any(data.get(name) for name in ("since", "until"))
        data.setdefault("window", RANGE if ranged else DEFAULT_WINDOW)
        super().__init__(data, queryset=Batch.objects.visible_to(user))
        self.user = user
        self.tab = WORKFLOW if data.get("tab") == WORKFLOW else BASIC
        self._groups = self._visible_groups()
        self.filters["group"].extra["choices"] = [(name, name) for name in self._groups]
        self.filters["trigger"].extra["choices"] = [
            (value, label) for value, label in Trigger.choices if value in TRIGGERS[self.tab]
        ]
        self.form.tasks = Task.objects.visible_to(user)

    def _visible_groups(self) -> dict[str, dict[int, int]]:
        """Ids and their teams by name: groups of two teams may have the same."""
        found: dict[str, dict[int, int]] = {}
        groups = DeploymentGroup.objects.visible_to(self.user).order_by("name")
        for pk, name, team in groups.values_list("pk", "name", "team"):
            found.setdefault(name, {})[pk] = team
        return found

    def _groups_named(self, names: list[str]) -> list[int]:
        """The ids of the groups of these names; those of the tasks' teams, in which alone a task runs."""
        teams = self.form.task_teams
        return [pk for name in names for pk, team in self._groups[name].items() if not teams or team in teams]

    def by_group(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(group__in=self._groups_named(value)) if value else queryset

    def by_task(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(task__in=value) if value else queryset

    def by_id(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(pk__in=value) if value else queryset

    def by_actor(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(actor__in=value) if value else queryset

    def unchanged(self, queryset: Any, name: str, value: Any) -> Any:
        return queryset

    def rows_of(self) -> Any:
        """The batches that match, of the time window only; none at all when the filter is invalid.

        Who names batches by ID means those, however old they are.
        """
        if not self.is_valid():
            return Batch.objects.none()
        rows = self.qs.filter(trigger__in=TRIGGERS[self.tab])
        if self.form.cleaned_data["batch"]:
            return rows
        since, until = self.bounds
        return rows.created_between(since, until)

    @property
    def within(self) -> Ranges | Either | None:
        """The ranges that hold exactly `rows_of()`; None where that is nothing or a list of ids."""
        if not self.is_valid() or self.names_batches:
            return None
        actors = self.form.cleaned_data["by"]
        people = [name for name in actors if name not in MACHINES]
        if people and people != actors:
            return Either([self._begun_by(people), self._begun_by([a for a in actors if a in MACHINES])])
        return self._begun_by(actors)

    def _begun_by(self, actors: list[str]) -> Ranges:
        """The ranges of what these people, or these machines, began; of everything when there are none."""
        cleaned = self.form.cleaned_data
        since, until = self.bounds
        asked: dict[str, list[Any]] = {
            "task": cleaned["task"],
            "group": self._groups_named(cleaned["group"]),
            "actor": actors,
        }
        asked = {name: values for name, values in asked.items() if values or cleaned.get(name)}
        reach = places_of(self.user)
        places = _narrowest(asked) or reach
        if "actor" in places:
            # People work in other teams too. What they did to granted tasks lies in two kinds of place.
            places, asked = (places, asked | reach) if list(reach) == ["team"] else (reach, asked)
        also = {name: values for name, values in asked.items() if name not in places}
        triggers = cleaned["trigger"] or TRIGGERS[self.tab]
        return Ranges(
            places=places,
            triggers=[each for each in triggers if each in _begun_by(actors)],
            states=cleaned["state"] or BatchState.values,
            since=since,
            until=until,
            also=also,
        )

    @property
    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """From when until when the batches of a valid filter were begun (None: no bound)."""
        cleaned = self.form.cleaned_data
        if cleaned["window"] == RANGE:
            return cleaned["since"], cleaned["until"]
        return timezone.now() - WINDOWS[cleaned["window"]], None

    @property
    def names_batches(self) -> bool:
        """Whether the (valid) filter says which batches it wants."""
        return bool(self.form.cleaned_data["batch"])

    @property
    def narrows(self) -> bool:
        """Whether anything but the window is asked for."""
        return any(self.data.get(name) for name in self.filters if name not in {"window", "since", "until"})

    @property
    def words(self) -> dict[str, list[str]]:
        """What stands in each box that takes several words, as it was given."""
        boxes = (name for name, each in self.filters.items() if isinstance(each, ManyFilter))
        return {name: words_of(self.data.getlist(name)) for name in boxes}

    # --- as an address ---

    @property
    def wider(self) -> str:
        """The query of the address that looks further back."""
        data = self.data.copy()
        data["window"] = "30d"
        return self._query(data)

    @property
    def query(self) -> str:
        """The filter as the query of an address: only what it knows, in one order, without what is usual."""
        return self._query(self.data)

    def _query(self, data: QueryDict) -> str:
        kept = QueryDict(mutable=True)
        kept["tab"] = self.tab
        for name, each in self.filters.items():
            many = isinstance(each, ManyFilter)
            values = words_of(data.getlist(name)) if many else [value for value in data.getlist(name) if value]
            if values and (name, values) != ("window", [DEFAULT_WINDOW]):
                kept.setlist(name, values)
        if data.get("window") != RANGE:
            for name in ("since", "until"):
                kept.pop(name, None)
        return kept.urlencode(safe=":,")

    def chips(self) -> list[Chip]:
        """Every value that narrows the list, each with the address without it; wrong values too."""
        found: list[Chip] = []
        for name in ("task", "batch", "state", "trigger", "group", "by"):
            values = self.words.get(name) or self.data.getlist(name)
            label = str(_CHIP_LABELS.get(name) or self.filters[name].label)
            if len(values) > _MOST_CHIPS:
                found.append(Chip(label, _("%d values") % len(values), self._with(name, [])))
                continue
            for value in values:
                others = [each for each in values if each != value]
                found.append(Chip(label, self._said(name, value), self._with(name, others)))
        window = self.data["window"]
        if window != DEFAULT_WINDOW:
            data = self.data.copy()
            for name in ("window", "since", "until"):
                data.pop(name, None)
            found.append(Chip(str(self.filters["window"].label), self._said_window(window), self._query(data)))
        return found

    def _with(self, name: str, values: list[str]) -> str:
        data = self.data.copy()
        data.setlist(name, values)
        return self._query(data)

    def _said(self, name: str, value: str) -> str:
        if name == "task":
            number = as_id(value)
            named = self.form.task_names.get(number) if self.is_valid() and number is not None else None
            return f"{named} ({value})" if named and named != value else value
        choices = dict(self.filters[name].extra.get("choices", []))
        return str(choices.get(value, value))

    def _said_window(self, window: str) -> str:
        if window != RANGE:
            return str(dict(self.filters["window"].extra["choices"]).get(window, window))
        since, until = self.data.get("since", ""), self.data.get("until", "")
        if self.is_valid():
            since, until = (_said_moment(each) for each in self.bounds)
        return f"{since or '…'} – {until or '…'}"


def _narrowest(asked: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Of what was asked for, that which has the fewest batches; empty when nothing narrows well."""
    for name in ("task", "group", "actor"):
        values = asked.get(name)
        if values is not None and not (name == "actor" and set(values) & set(MACHINES)):
            return {name: values}
    return {}


def _begun_by(actors: list[str]) -> set[Trigger]:
    """What some people, or some machines, begin; everything when none are named."""
    if not actors:
        return set(Trigger)
    if SCHEDULE.name in actors:
        return _BEGUN_BY_SCHEDULE
    return {Trigger.WORKFLOW} if set(actors) <= set(MACHINES) else _BEGUN_BY_PERSON


def _said_moment(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else ""
