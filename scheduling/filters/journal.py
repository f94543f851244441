"""What the journal can be narrowed by. A filter is an address that can be shared.

An invalid filter shows its mistakes and no rows: read `rows_of`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import clocks
from scheduling.deeds import ACTIONS, OBJECTS
from scheduling.filters.fields import IdsFilter, ManyFilter, MomentFilter, given
from scheduling.journal import ENGINE, SCHEDULE
from scheduling.models import JournalEntry
from scheduling.models.journal import Via
from scheduling.queries import ROUTINE

ANY_TIME, RANGE = "all", "range"
WINDOWS = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_WINDOW = "7d"
PEOPLE = ("web", "shell")

_FROM_ENGINE, _FROM_SCHEDULE = "engine", "schedule"


class JournalForm(forms.Form):
    """Checks what concerns two fields."""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        since, until = self.cleaned_data.get("since"), self.cleaned_data.get("until")
        if since and until and since >= until:
            self.add_error("until", ValidationError(_("It is not later than the beginning.")))
        return cleaned


class JournalFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The journal by object, person, action, where it was done, and time."""

    who = ManyFilter(label=gettext_lazy("Who"), method="by_actor")
    action = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Action"),
        choices=lambda: list(ACTIONS.items()),
        method="by_action",
        widget=forms.CheckboxSelectMultiple,
    )
    via = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("From where"),
        choices=[
            (Via.WEB, Via.WEB.label),
            (Via.SHELL, Via.SHELL.label),
            (_FROM_SCHEDULE, gettext_lazy("Schedule")),
            (_FROM_ENGINE, Via.ENGINE.label),
        ],
        method="by_via",
        widget=forms.CheckboxSelectMultiple,
    )
    type = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Kind of object"),
        field_name="object_type",
        choices=lambda: list(OBJECTS.items()),
        distinct=False,
        widget=forms.CheckboxSelectMultiple,
    )
    object = IdsFilter(label=gettext_lazy("ID of the object"), method="by_object")
    name = ManyFilter(label=gettext_lazy("Name of the object"), method="by_name")
    window = django_filters.ChoiceFilter(
        label=gettext_lazy("Time"),
        method="unchanged",
        empty_label=None,
        choices=[
            ("1d", gettext_lazy("Last 24 hours")),
            ("7d", gettext_lazy("Last 7 days")),
            ("30d", gettext_lazy("Last 30 days")),
            (ANY_TIME, gettext_lazy("Any time")),
            (RANGE, gettext_lazy("From … to …")),
        ],
    )
    since = MomentFilter(label=gettext_lazy("From"), field_name="since", method="in_range")
    until = MomentFilter(label=gettext_lazy("Until"), field_name="until", method="in_range")

    class Meta:
        model = JournalEntry
        form = JournalForm
        fields: list[str] = []

    def __init__(self, data: Any, *, request: Any) -> None:
        data = given(data)
        data.setdefault("window", RANGE if data.get("since") or data.get("until") else DEFAULT_WINDOW)
        super().__init__(data, queryset=JournalEntry.objects.all(), request=request)

    def by_actor(self, queryset: Any, name: str, value: list[str]) -> Any:
        if not value:
            return queryset
        queryset = queryset.filter(actor__in=value)
        return queryset if {ENGINE.name, SCHEDULE.name} & set(value) else queryset.by_people()

    def by_action(self, queryset: Any, name: str, value: list[str]) -> Any:
        if not value:
            return queryset
        queryset = queryset.filter(action__in=value)
        # Said for the index on the actions that are rare.
        return queryset if set(ROUTINE) & set(value) else queryset.exclude(action__in=ROUTINE)

    def by_via(self, queryset: Any, name: str, value: list[str]) -> Any:
        if not value:
            return queryset
        people = [each for each in value if each in {Via.WEB, Via.SHELL}]
        wanted = Q(via__in=people) if people else Q()
        of_schedule = Q(via=Via.ENGINE, actor=SCHEDULE.name)
        if _FROM_SCHEDULE in value:
            wanted |= of_schedule
        if _FROM_ENGINE in value:
            wanted |= Q(via=Via.ENGINE) & ~Q(actor=SCHEDULE.name)
        queryset = queryset.filter(wanted)
        return queryset.by_people() if people == value else queryset

    def by_object(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(object_id__in=value) if value else queryset

    def by_name(self, queryset: Any, name: str, value: list[str]) -> Any:
        if not value:
            return queryset
        # The name of a cycle has spaces, so its words came apart.
        whole = clocks.to_store(" ".join(value))
        return queryset.filter(object_name__in=[*value, whole])

    def in_range(self, queryset: Any, name: str, value: Any) -> Any:
        # The boxes keep what was in them while another time is chosen.
        if value is None or self.form.cleaned_data["window"] != RANGE:
            return queryset
        return queryset.filter(at__gte=value) if name == "since" else queryset.filter(at__lt=value)

    def unchanged(self, queryset: Any, name: str, value: str) -> Any:
        return queryset

    def rows_of(self) -> Any:
        """The entries that match, whoever may see them; none at all when the filter is invalid.

        Who names objects by ID means those, however long ago.
        """
        if not self.is_valid():
            return JournalEntry.objects.none()
        window = WINDOWS.get(self.form.cleaned_data["window"])
        if window is None or self.form.cleaned_data["object"]:
            return self.qs
        return self.qs.filter(at__gte=timezone.now() - window)

    @property
    def only_people(self) -> bool:
        """Whether nothing but what people did is asked for."""
        return set(self.data.getlist("via")) == set(PEOPLE)

    @property
    def is_past(self) -> bool:
        """Whether the time that is asked for has an end, so that nothing new can come."""
        cleaned = self.form.cleaned_data
        return cleaned["window"] == RANGE and cleaned["until"] is not None

    @property
    def narrows(self) -> bool:
        """Whether anything but the window is asked for."""
        return any(value for name, value in self.data.items() if name in self.filters and name != "window")
