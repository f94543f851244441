"""What the lists of workflows and of cycle instances can be narrowed by. A filter is an address."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, ClassVar

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from scheduling.filters.fields import IdsFilter, ManyFilter, MomentFilter, given
from scheduling.filters.records import RANGE, WINDOW_CHOICES, RecordFilter, RecordForm
from scheduling.models import Team
from scheduling.permissions import places_of
from scheduling.queries import Either
from workflows.models import Backfill, CycleInstance, Mode, RunType, Workflow
from workflows.ranges import CycleRanges
from workflows.states import BackfillState, CycleState

AHEAD = "ahead"
FROZEN, NOT_FROZEN = "yes", "no"
NEVER = "never"


def team_names(user: Any) -> dict[str, int]:
    """The ids of the teams whose workflows `user` sees, by their names, in order."""
    found = Team.objects.filter(pk__in=places_of(user)["team"]).order_by("name")
    return dict(found.values_list("name", "pk"))


class WorkflowsForm(RecordForm):
    """A form in which workflows are named; checks what needs the database."""

    # Whom the form is for sees these; the FilterSet sets it.
    workflows: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.workflow_names: dict[int, str] = {}

    def clean_workflow(self) -> list[int]:
        """The ids of the named workflows."""
        unknown = _("There is no workflow %(words)s to see.")
        self.workflow_names, _teams = self.named("workflow", self.workflows, unknown)
        return list(self.workflow_names)


class CycleForm(WorkflowsForm):
    """Checks what needs the database or more than one field."""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        since, until = cleaned.get("ready_since"), cleaned.get("ready_until")
        if since and until and since >= until:
            self.add_error(
                "ready_until",
                ValidationError(_("The end is not after the beginning. Swap them, or clear one.")),
            )
        return cleaned


class CycleFilter(RecordFilter):
    """Cycle instances by workflow, team, state, run type, freeze and ready time, in a window of cycle times.

    The window says which cycle times are meant: those that have come, or with AHEAD those still to come.
    """

    CHIP_LABELS: ClassVar = {"workflow": gettext_lazy("Workflow"), "cycle": pgettext_lazy("cycle", "Instance")}
    NAMES: ClassVar = {"workflow": "workflow_names"}

    workflow = ManyFilter(label=gettext_lazy("Workflow name contains, or ID"), method="by_workflow")
    cycle = IdsFilter(label=gettext_lazy("Instance ID"), method="by_id")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=CycleState.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    run_type = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Run type"),
        choices=RunType.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    team = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Team"), method="by_team", widget=forms.CheckboxSelectMultiple
    )
    frozen = django_filters.ChoiceFilter(
        label=gettext_lazy("Frozen"),
        method="by_frozen",
        empty_label=gettext_lazy("Any"),
        choices=[(FROZEN, gettext_lazy("Frozen")), (NOT_FROZEN, gettext_lazy("Not frozen"))],
    )
    backfill = IdsFilter(label=gettext_lazy("Backfill"), method="by_backfill")
    ready_since = MomentFilter(label=gettext_lazy("Ready from"), field_name="ready_at", lookup_expr="gte")
    ready_until = MomentFilter(label=gettext_lazy("Ready until"), field_name="ready_at", lookup_expr="lt")
    window = django_filters.ChoiceFilter(
        label=gettext_lazy("Cycle time"),
        method="unchanged",
        empty_label=None,
        choices=[*WINDOW_CHOICES[:-1], (AHEAD, gettext_lazy("Still to come")), WINDOW_CHOICES[-1]],
    )

    class Meta:
        model = CycleInstance
        form = CycleForm
        fields: list[str] = []

    def __init__(self, data: QueryDict, *, user: Any) -> None:
        super().__init__(data, user=user, queryset=CycleInstance.objects.visible_to(user))
        self._teams = team_names(user)
        self.filters["team"].extra["choices"] = [(name, name) for name in self._teams]
        self.form.workflows = Workflow.objects.visible_to(user)

    def by_workflow(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(workflow__in=value) if value else queryset

    def by_id(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(pk__in=value) if value else queryset

    def by_team(self, queryset: Any, name: str, value: list[str]) -> Any:
        return queryset.filter(team__in=[self._teams[each] for each in value]) if value else queryset

    def by_frozen(self, queryset: Any, name: str, value: str) -> Any:
        return queryset.filter(frozen_at__isnull=value == NOT_FROZEN) if value else queryset

    def by_backfill(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(backfill__in=value) if value else queryset

    @property
    def bounds(self) -> tuple[datetime | None, datetime | None]:
        window = self.form.cleaned_data["window"]
        if window == AHEAD:
            return timezone.now(), None
        if window == RANGE:
            return super().bounds
        since, _until = super().bounds
        cleaned = self.form.cleaned_data
        # These are mostly still to come: a list of them goes on beyond now.
        looks_ahead = cleaned["frozen"] == FROZEN or CycleState.NOT_READY in cleaned["state"]
        return since, None if looks_ahead else timezone.now()

    @property
    def names_cycles(self) -> bool:
        """Whether the (valid) filter says which instances it wants, whenever their cycles are."""
        return bool(self.form.cleaned_data["cycle"] or self.form.cleaned_data["backfill"])

    def rows_of(self) -> Any:
        """The instances that match, of the window only; none at all when the filter is invalid.

        Who names instances, or the backfill that made them, means those, however old their cycles are.
        """
        if not self.is_valid():
            return CycleInstance.objects.none()
        if self.names_cycles:
            return self.qs
        return self.qs.cycle_between(*self.bounds)

    @property
    def within(self) -> CycleRanges | Either | None:
        """The ranges that hold exactly `rows_of()`; None where that is nothing or a list of ids."""
        if not self.is_valid() or self.names_cycles:
            return None
        cleaned = self.form.cleaned_data
        since, until = self.bounds
        teams = [self._teams[each] for each in cleaned["team"]]
        asked = {"workflow": cleaned["workflow"], "team": teams, "run_type": cleaned["run_type"]}
        asked = {name: values for name, values in asked.items() if values}
        place = next((name for name in ("workflow", "team") if name in asked), None)
        ranges = CycleRanges(
            {place: asked.pop(place)} if place else {"team": places_of(self.user)["team"]},
            states=cleaned["state"] or CycleState.values,
            since=since,
            until=until,
            also=asked,
            frozen={FROZEN: True, NOT_FROZEN: False}.get(cleaned["frozen"]),
            ready_since=cleaned["ready_since"],
            ready_until=cleaned["ready_until"],
        )
        return ranges if ranges.ready_until is None else _ready_in_time(ranges, cleaned["run_type"])


def _ready_in_time(ranges: CycleRanges, run_types: list[str]) -> Either:
    """The same as `ranges`, which end when something became ready, without a look at cycles that came later.

    What the schedule or a backfill runs is not ready before the time of its cycle; a test may be.
    """
    wanted = run_types or RunType.values
    until = min(filter(None, (ranges.until, ranges.ready_until)))
    in_time = [each for each in wanted if each in {RunType.ONLINE, RunType.BACKFILL}]
    others = [each for each in wanted if each not in in_time]
    parts = [
        replace(ranges, also={**ranges.also, "run_type": in_time}, until=until),
        replace(ranges, also={**ranges.also, "run_type": others}),
    ]
    return Either([part for part in parts if part.also["run_type"]])


class WorkflowFilter(django_filters.FilterSet):  # type: ignore[misc]
    """Workflows by parts of their name, team, mode, whether they are on, and how their last cycle stands."""

    name = ManyFilter(label=gettext_lazy("Name contains"), method="by_name")
    team = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Team"), field_name="team__name", distinct=False, widget=forms.CheckboxSelectMultiple
    )
    mode = django_filters.MultipleChoiceFilter(
        label=pgettext_lazy("workflow", "Mode"),
        choices=Mode.choices,
        distinct=False,
        widget=forms.CheckboxSelectMultiple,
    )
    enabled = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Schedule"),
        method="by_enabled",
        choices=[("yes", gettext_lazy("Enabled")), ("no", gettext_lazy("Disabled"))],
        widget=forms.CheckboxSelectMultiple,
    )
    last = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Last cycle"),
        method="by_last_state",
        choices=[*CycleState.choices, (NEVER, gettext_lazy("Never ran"))],
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = Workflow
        fields: list[str] = []

    def __init__(self, data: Any, *, request: Any) -> None:
        super().__init__(given(data), queryset=Workflow.objects.visible_to(request.user), request=request)
        self.filters["team"].extra["choices"] = [(name, name) for name in team_names(request.user)]

    def by_name(self, queryset: Any, name: str, words: list[str]) -> Any:
        """Workflows whose name has any of `words` in it."""
        return queryset.filter(reduce(or_, (Q(name__icontains=word) for word in words))) if words else queryset

    def by_enabled(self, queryset: Any, name: str, values: list[str]) -> Any:
        """Workflows whose schedule is on, off, or either."""
        return queryset.filter(enabled="yes" in values) if len(set(values)) == 1 else queryset

    def by_last_state(self, queryset: Any, name: str, states: list[str]) -> Any:
        """Workflows whose newest cycle that has come is in any of `states`."""
        if not states:
            return queryset
        wanted = Q(last_state__in=states)
        if NEVER in states:
            wanted |= Q(last_state__isnull=True)
        return queryset.with_last_state(timezone.now()).filter(wanted)

    def rows_of(self) -> Any:
        """The workflows that match; none at all when the filter is invalid."""
        return self.qs if self.is_valid() else Workflow.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.get(name) for name in self.filters)


class BackfillFilter(django_filters.FilterSet):  # type: ignore[misc]
    """Backfills by workflow and state."""

    workflow = ManyFilter(label=gettext_lazy("Workflow name contains, or ID"), method="by_workflow")
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=BackfillState.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )

    class Meta:
        model = Backfill
        form = WorkflowsForm
        fields: list[str] = []

    def __init__(self, data: Any, *, request: Any) -> None:
        super().__init__(given(data), queryset=Backfill.objects.visible_to(request.user), request=request)
        self.form.workflows = Workflow.objects.visible_to(request.user)

    def by_workflow(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(workflow__in=value) if value else queryset

    def rows_of(self) -> Any:
        """The backfills that match; none at all when the filter is invalid."""
        return self.qs.order_by("-created_at", "-pk") if self.is_valid() else Backfill.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.get(name) for name in self.filters)
