"""What the list of tasks can be narrowed by. A filter is an address that can be shared.

An invalid filter shows its mistakes and no rows: read `rows_of`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import django_filters
from django import forms
from django.db.models import Q
from django.utils.translation import gettext_lazy

from scheduling import kinds
from scheduling.filters.fields import ManyFilter, given
from scheduling.models import Batch, DeploymentGroup, Task
from scheduling.states import ListedState

NEVER = "never"


class TaskFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The tasks by parts of their name, group, kind, whether they are on, and how their last run stands."""

    name = ManyFilter(label=gettext_lazy("Name contains"), method="by_name")
    group = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Deployment group"),
        field_name="group__name",
        distinct=False,
        widget=forms.CheckboxSelectMultiple,
    )
    kind = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Kind"),
        field_name="revision__kind",
        distinct=False,
        widget=forms.CheckboxSelectMultiple,
    )
    last = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Last run"),
        method="by_last_state",
        choices=[*ListedState.choices, (NEVER, gettext_lazy("Never ran"))],
        widget=forms.CheckboxSelectMultiple,
    )
    enabled = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Schedule"),
        method="by_enabled",
        choices=[("yes", gettext_lazy("Enabled")), ("no", gettext_lazy("Disabled"))],
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = Task
        fields: list[str] = []

    def __init__(self, data: Any, *, request: Any) -> None:
        super().__init__(given(data), queryset=Task.objects.visible_to(request.user), request=request)
        groups = DeploymentGroup.objects.visible_to(request.user).order_by("name")
        names = dict.fromkeys(groups.values_list("name", flat=True))
        self.filters["group"].extra["choices"] = [(name, name) for name in names]
        self.filters["kind"].extra["choices"] = [(name, name) for name in kinds.kinds()]

    def by_name(self, queryset: Any, name: str, words: list[str]) -> Any:
        """Tasks whose name has any of `words` in it."""
        return queryset.filter(reduce(or_, (Q(name__icontains=word) for word in words))) if words else queryset

    def by_last_state(self, queryset: Any, name: str, states: list[str]) -> Any:
        """Tasks whose newest batch is in any of `states`."""
        if not states:
            return queryset
        wanted = Q(last_state__in=states)
        if NEVER in states:
            wanted |= Q(last_state__isnull=True)
        return queryset.with_last_state(Batch.objects.all()).filter(wanted)

    def by_enabled(self, queryset: Any, name: str, values: list[str]) -> Any:
        """Tasks whose schedule is on, off, or either."""
        return queryset.filter(enabled="yes" in values) if len(set(values)) == 1 else queryset

    def rows_of(self) -> Any:
        """The tasks that match; none at all when the filter is invalid."""
        return self.qs if self.is_valid() else Task.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.get(name) for name in self.filters)
