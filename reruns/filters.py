"""What the list of reruns, and the items of one, can be narrowed by. A filter is an address."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django import forms
from django.db.models import Exists, Func, OuterRef, Q, TextField, Value
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy

from reruns.models import Rerun, RerunItem
from reruns.states import ItemState, RerunState
from scheduling import clocks
from scheduling.filters.fields import ManyFilter, given
from scheduling.filters.records import RecordFilter
from workflows.filters import WorkflowsForm, team_names
from workflows.models import Workflow

SUBMITTED = [choice for choice in RerunState.choices if choice[0] != RerunState.DRAFT]


class RerunFilter(RecordFilter):
    """Submitted reruns by state, team, person and workflow, in a window of the time of their submit.

    A team or a workflow means the reruns that touch a cycle of it, wherever they begin.
    """

    CHIP_LABELS: ClassVar = {"workflow": gettext_lazy("Workflow")}
    NAMES: ClassVar = {"workflow": "workflow_names"}

    workflow = ManyFilter(label=gettext_lazy("Workflow name contains, or ID"), method="by_workflow")
    by = ManyFilter(label=gettext_lazy("By"), method="by_actor")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"), choices=SUBMITTED, widget=forms.CheckboxSelectMultiple, distinct=False
    )
    team = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Team"), method="by_team", widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = Rerun
        form = WorkflowsForm
        fields: list[str] = []

    def __init__(self, data: QueryDict, *, user: Any) -> None:
        submitted = Rerun.objects.visible_to(user).exclude(state=RerunState.DRAFT)
        super().__init__(data, user=user, queryset=submitted)
        self._teams = team_names(user)
        self.filters["team"].extra["choices"] = [(name, name) for name in self._teams]
        self.form.workflows = Workflow.objects.visible_to(user)

    def by_workflow(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(_touching(workflow__in=value)) if value else queryset

    def by_actor(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(actor__in=value) if value else queryset

    def by_team(self, queryset: Any, name: str, value: list[str]) -> Any:
        teams = [self._teams[each] for each in value]
        return queryset.filter(Q(team__in=teams) | Q(_touching(team__in=teams))) if value else queryset

    def rows_of(self) -> Any:
        """The reruns that match, of the window only; none at all when the filter is invalid."""
        if not self.is_valid():
            return Rerun.objects.none()
        since, until = self.bounds
        bounds = {"submitted_at__gte": since, "submitted_at__lt": until}
        return self.qs.filter(**{name: moment for name, moment in bounds.items() if moment is not None})


def _touching(**which: Any) -> Exists:
    return Exists(RerunItem.objects.filter(rerun=OuterRef("pk"), **which))


class _AsRead(Func):
    """The name of an item by the reader's clock, without its zone."""

    template = (
        "regexp_replace(name, ' [-0-9]{10} [0-9]{2}:[0-9]{2} UTC$', '') "
        "|| to_char(timezone(%(expressions)s, cycle_time), ' YYYY-MM-DD HH24:MI')"
    )
    output_field = TextField()


class ItemFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The items of one rerun by state, team, workflow and parts of their names."""

    name = ManyFilter(label=gettext_lazy("Name contains"), method="by_name")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=[choice for choice in ItemState.choices if choice[0] != ItemState.PLANNED],
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    team = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Team"), field_name="team", widget=forms.CheckboxSelectMultiple, distinct=False
    )
    # What a box of the flow stands for leads here.
    workflow = django_filters.NumberFilter(field_name="workflow", widget=forms.HiddenInput)
    wave = django_filters.NumberFilter(field_name="wave", widget=forms.HiddenInput)

    class Meta:
        model = RerunItem
        fields: list[str] = []

    def __init__(self, data: QueryDict, *, rerun: Rerun, teams: dict[int, str]) -> None:
        super().__init__(given(data), queryset=RerunItem.objects.filter(rerun=rerun.pk))
        self.filters["team"].extra["choices"] = [(str(pk), name) for pk, name in teams.items()]

    def by_name(self, queryset: Any, name: str, words: list[str]) -> Any:
        """Items whose name has all of `words` in it: a workflow and a date are two words.

        A link names an item as it is stored, in UTC; a person as they read it, by their own clock.
        """
        zone = Value(timezone.get_current_timezone_name())
        for word in clocks.without_zone(" ".join(words)).split():
            queryset = queryset.alias(shown=_AsRead(zone)).filter(shown__icontains=word)
        return queryset

    def rows_of(self) -> Any:
        """The items that match; none at all when the filter is invalid."""
        return self.qs if self.is_valid() else RerunItem.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.get(name) for name in self.filters)
