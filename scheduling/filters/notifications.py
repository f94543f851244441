"""What the list of notifications can be narrowed by. A filter is an address that can be shared."""

from __future__ import annotations

from typing import Any

import django_filters
from django import forms
from django.utils.translation import gettext_lazy

from scheduling.filters.fields import ManyFilter, given
from scheduling.models import Notification
from scheduling.models.notifications import NotificationState


class NotificationFilter(django_filters.FilterSet):  # type: ignore[misc]
    """Notifications by state and channel. Read `rows_of`: an invalid filter shows its mistakes and no rows."""

    state = django_filters.MultipleChoiceFilter(
        label=gettext_lazy("State"),
        choices=NotificationState.choices,
        distinct=False,
        widget=forms.CheckboxSelectMultiple,
    )
    channel = ManyFilter(label=gettext_lazy("Channel"), field_name="channel", lookup_expr="in")

    class Meta:
        model = Notification
        fields: list[str] = []

    def __init__(self, data: Any, *, user: Any) -> None:
        super().__init__(given(data), queryset=Notification.objects.visible_to(user))

    def rows_of(self) -> Any:
        """Those that match and that the user may see; none at all when the filter is invalid."""
        return self.qs if self.is_valid() else Notification.objects.none()

    @property
    def narrows(self) -> bool:
        """Whether anything is asked for."""
        return any(self.data.getlist(name) for name in self.filters)
