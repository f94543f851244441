"""What the record lists can be narrowed by. A filter is an address that can be shared.

An invalid filter shows its mistakes and no rows: read `rows_of`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.models import Batch, DeploymentGroup, Task
from scheduling.models.tasks import Trigger
from scheduling.states import BatchState

_LARGEST_ID = 2**63 - 1
# So that a pasted column stays a query that PostgreSQL plans well.
_MOST_VALUES = 200

BASIC = "basic"
WORKFLOW = "workflow"
TRIGGERS = {BASIC: [Trigger.CRON, Trigger.FIXED_RATE, Trigger.MANUAL], WORKFLOW: [Trigger.WORKFLOW]}

WINDOWS = {"1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
DEFAULT_WINDOW = "7d"


class ManyInput(forms.TextInput):
    """One text box for several values; the address may also repeat its name."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> str:
        values = data.getlist(name) if hasattr(data, "getlist") else [data.get(name, "")]
        return ", ".join(value for value in values if value)


class ManyField(forms.CharField):
    """Several words, separated by commas or spaces; cleans to a list without repeats."""

    widget = ManyInput

    def clean(self, value: Any) -> Any:
        words = list(dict.fromkeys(re.split(r"[\s,，、]+", super().clean(value)))) if value else []
        words = [word for word in words if word]
        if len(words) > _MOST_VALUES:
            raise ValidationError(
                _("%(count)d values are too many; give at most %(most)d.")
                % {"count": len(words), "most": _MOST_VALUES}
            )
        return words


class IdsField(ManyField):
    """Several ids; cleans to a list of numbers."""

    def clean(self, value: Any) -> list[int]:
        words = super().clean(value)
        wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) <= _LARGEST_ID)]
        if wrong:
            raise ValidationError(
                _("Not an ID: %(words)s. IDs are whole numbers.") % {"words": ", ".join(wrong)}
            )
        return [int(word) for word in words]


class ManyFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = ManyField


class IdsFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = IdsField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, lookup_expr="in", **kwargs)

    def filter(self, qs: Any, value: list[int]) -> Any:
        return super().filter(qs, value) if value else qs


class BatchForm(forms.Form):
    """Checks what needs the database: the tasks that were named must be there to be seen."""

    def clean_task(self) -> list[int]:
        """The ids of the named tasks; a number may be an id or, as tasks may be so named, a name."""
        words: list[str] = self.cleaned_data["task"]
        if not words:
            return []
        numbers = [
            int(word) for word in words if word.isascii() and word.isdigit() and int(word) <= _LARGEST_ID
        ]
        tasks = self.tasks
        found = tasks.filter(name__in=words) | tasks.filter(pk__in=numbers)
        names = dict(found.values_list("pk", "name"))
        known = set(names.values()) | {str(pk) for pk in names}
        unknown = [word for word in words if word not in known]
        if unknown:
            raise ValidationError(_("There is no task %(words)s to see.") % {"words": ", ".join(unknown)})
        return list(names)

    tasks: Any = None


def _visible_groups(request: Any) -> list[tuple[str, str]]:
    names = DeploymentGroup.objects.visible_to(request.user).order_by("name").values_list("name", flat=True)
    return [(name, name) for name in dict.fromkeys(names)]


class BatchFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The execution records: one tab of them, by group, task, batch, state and trigger, in a time window."""

    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"), choices=BatchState.choices, widget=forms.CheckboxSelectMultiple
    )
    trigger = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Trigger"), choices=Trigger.choices, widget=forms.CheckboxSelectMultiple
    )
    group = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Deployment group"), field_name="group__name", widget=forms.CheckboxSelectMultiple
    )
    task = ManyFilter(label=gettext_lazy("Task name or ID"), method="by_task")
    batch = IdsFilter(label=gettext_lazy("Batch ID"), field_name="pk")
    window = django_filters.ChoiceFilter(
        label=gettext_lazy("Time"),
        method="unchanged",
        empty_label=None,
        choices=[
            ("1d", gettext_lazy("Last 24 hours")),
            ("7d", gettext_lazy("Last 7 days")),
            ("30d", gettext_lazy("Last 30 days")),
        ],
    )

    class Meta:
        model = Batch
        form = BatchForm
        fields: list[str] = []

    def __init__(self, data: Any, *, tab: str, request: Any) -> None:
        data = data.copy()
        data.setdefault("window", DEFAULT_WINDOW)
        super().__init__(data, queryset=Batch.objects.visible_to(request.user), request=request)
        self.tab = tab
        self.filters["group"].extra["choices"] = _visible_groups(request)
        self.filters["trigger"].extra["choices"] = [
            (value, label) for value, label in Trigger.choices if value in TRIGGERS[tab]
        ]
        self.form.tasks = Task.objects.visible_to(request.user)

    def by_task(self, queryset: Any, name: str, value: list[int]) -> Any:
        return queryset.filter(task__in=value) if value else queryset

    def unchanged(self, queryset: Any, name: str, value: str) -> Any:
        return queryset

    def rows_of(self) -> Any:
        """The batches that match, newest window only; none at all when the filter is invalid.

        Who names batches by ID means those, however old they are.
        """
        if not self.is_valid():
            return Batch.objects.none()
        rows = self.qs.filter(trigger__in=TRIGGERS[self.tab])
        if self.form.cleaned_data["batch"]:
            return rows
        window = WINDOWS[self.form.cleaned_data["window"] or DEFAULT_WINDOW]
        return rows.filter(created_at__gte=timezone.now() - window)

    @property
    def narrows(self) -> bool:
        """Whether anything but the window is asked for."""
        return any(self.data.get(name) for name in self.filters if name != "window")
