"""What the instances of one batch can be narrowed by. A filter is an address that can be shared.

An invalid filter shows its mistakes and no rows: read `rows`, never `.qs` of an invalid FilterSet, which
django-filter answers with everything.
"""

from __future__ import annotations

from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.filters.fields import IdsFilter, ManyFilter, given
from scheduling.models import Batch, Execution, Instance, Node
from scheduling.models.batches import Cause
from scheduling.states import InstanceState

_LARGEST_NUMBER = 2**31 - 1


class ShardsField(ManyFilter.field_class):  # type: ignore[misc, valid-type]
    """Several shard indexes and ranges of them, as in `0-9, 12`; cleans to pairs of first and last."""

    def clean(self, value: Any) -> list[tuple[int, int]]:
        words = super().clean(value)
        ranges, wrong = [], []
        for word in words:
            ends = word.split("-") if "-" in word else [word, word]
            if len(ends) == 2 and all(
                end.isascii() and end.isdigit() and int(end) <= _LARGEST_NUMBER for end in ends
            ):
                ranges.append((int(ends[0]), int(ends[1])))
            else:
                wrong.append(word)
        if wrong:
            raise ValidationError(
                _("Not a shard index: %(words)s. Give whole numbers or ranges such as 0-9.")
                % {"words": ", ".join(wrong)}
            )
        return ranges


class ShardsFilter(django_filters.Filter):  # type: ignore[misc]
    field_class = ShardsField

    def filter(self, qs: Any, value: list[tuple[int, int]]) -> Any:
        wanted = Q()
        for first, last in value or []:
            wanted |= Q(number__range=(first, last))
        return qs.filter(wanted)


class InstanceFilter(django_filters.FilterSet):  # type: ignore[misc]
    """The instances of one batch, by ID, node, state, cause of the run and shard index."""

    instance = IdsFilter(label=gettext_lazy("Instance or execution ID"), method="by_id")
    node = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Node"), field_name="node__name", widget=forms.CheckboxSelectMultiple, distinct=False
    )
    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=InstanceState.choices,
        widget=forms.CheckboxSelectMultiple,
        distinct=False,
    )
    cause = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("Run by"), choices=Cause.choices, widget=forms.CheckboxSelectMultiple, distinct=False
    )
    shard = ShardsFilter(label=gettext_lazy("Shard index"))

    class Meta:
        model = Instance
        fields: list[str] = []

    def __init__(self, data: Any, *, batch: Batch) -> None:
        super().__init__(given(data), queryset=Instance.objects.filter(batch=batch), prefix=None)
        names = Node.objects.filter(group=batch.group_id).order_by("name").values_list("name", flat=True)
        self.filters["node"].extra["choices"] = [(name, name) for name in names]

    def by_id(self, queryset: Any, name: str, value: list[int]) -> Any:
        """Whoever reads an ID in a log may have the instance's or that of one of its executions."""
        if not value:
            return queryset
        executed = Execution.objects.filter(instance=OuterRef("pk"), pk__in=value)
        return queryset.filter(Q(pk__in=value) | Exists(executed))

    @property
    def rows(self) -> Any:
        """The instances that match; none at all when the filter is invalid."""
        return self.qs if self.is_valid() else Instance.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.get(name) for name in self.filters)
