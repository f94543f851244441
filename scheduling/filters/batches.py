"""What narrows the execution records, and the ranges of an index that answer it."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.filters.fields import IdsFilter, ManyFilter
from scheduling.filters.records import WINDOW_CHOICES, RecordFilter, RecordForm
from scheduling.journal import SCHEDULE
from scheduling.models import Batch, DeploymentGroup, Task
from scheduling.models.tasks import SCHEDULED, Trigger
from scheduling.permissions import places_of
from scheduling.queries import MACHINES, BatchRanges, Either
from scheduling.states import ListedState

BASIC = "basic"
WORKFLOW = "workflow"
TRIGGERS = {BASIC: [Trigger.CRON, Trigger.FIXED_RATE, Trigger.MANUAL], WORKFLOW: [Trigger.WORKFLOW]}
# Who begins what: a schedule what is due, a person what is run or rerun by hand, and all of them workflows.
_BEGUN_BY_SCHEDULE = {*SCHEDULED, Trigger.WORKFLOW}
_BEGUN_BY_PERSON = {Trigger.MANUAL, Trigger.WORKFLOW}


class BatchForm(RecordForm):
    """Checks what needs the database."""

    # Whom the form is for sees these; the FilterSet sets it.
    tasks: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task_names: dict[int, str] = {}
        self.task_teams: set[int] = set()

    def clean_task(self) -> list[int]:
        """The ids of the named tasks."""
        unknown = _("There is no task %(words)s to see.")
        self.task_names, self.task_teams = self.named("task", self.tasks, unknown)
        return list(self.task_names)


class BatchFilter(RecordFilter):
    """The execution records: one tab of them, by what A5 names, by whom, and in a time window."""

    CHIP_LABELS: ClassVar = {"task": gettext_lazy("Task"), "batch": gettext_lazy("Batch")}
    NAMES: ClassVar = {"task": "task_names"}

    task = ManyFilter(label=gettext_lazy("Task name contains, or ID"), method="by_task")
    batch = IdsFilter(label=gettext_lazy("Batch ID"), method="by_id")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        field_name="listed_state",
        choices=ListedState.choices,
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
        label=gettext_lazy("Begun"), method="unchanged", empty_label=None, choices=WINDOW_CHOICES
    )

    class Meta:
        model = Batch
        form = BatchForm
        fields: list[str] = []

    def __init__(self, data: QueryDict, *, user: Any) -> None:
        super().__init__(data, user=user, queryset=Batch.objects.visible_to(user))
        self.tab = WORKFLOW if self.data.get("tab") == WORKFLOW else BASIC
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

    def fixed(self) -> dict[str, str]:
        return {"tab": self.tab}

    def by_group(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(group__in=self._groups_named(value)) if value else queryset

    def by_task(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(task__in=value) if value else queryset

    def by_id(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(pk__in=value) if value else queryset

    def by_actor(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(actor__in=value) if value else queryset

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
    def within(self) -> BatchRanges | Either | None:
        """The ranges that hold exactly `rows_of()`; None where that is nothing or a list of ids."""
        if not self.is_valid() or self.names_batches:
            return None
        actors = self.form.cleaned_data["by"]
        people = [name for name in actors if name not in MACHINES]
        if people and people != actors:
            return Either([self._begun_by(people), self._begun_by([a for a in actors if a in MACHINES])])
        return self._begun_by(actors)

    def _begun_by(self, actors: list[str]) -> BatchRanges:
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
        return BatchRanges(
            places=places,
            triggers=[each for each in triggers if each in _begun_by(actors)],
            states=cleaned["state"] or ListedState.values,
            since=since,
            until=until,
            also=also,
        )

    @property
    def names_batches(self) -> bool:
        """Whether the (valid) filter says which batches it wants."""
        return bool(self.form.cleaned_data["batch"])


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
    return _BEGUN_BY_SCHEDULE if SCHEDULE.name in actors else _BEGUN_BY_PERSON
