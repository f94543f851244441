"""Notifications: who was told of what, what waits and why, and what was given up, to be tried again."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from config.http import HtmxRequest
from scheduling import services
from scheduling.errors import TransitionRefused
from scheduling.filters import NotificationFilter
from scheduling.models import Notification
from scheduling.models.notifications import NotificationState
from scheduling.notifications import event_in_words
from scheduling.permissions import RERUN, User, authorised, denied, teams_where
from scheduling.views.asking import back_of
from scheduling.views.paging import cursors_of
from scheduling.views.rows import difference, digest_of, shown_by

NOTHING_NEW = 204
PAGE_SIZE = 50


@dataclass(frozen=True)
class NotificationRow:
    """A notification as the list shows it, and whether this user may try it again."""

    notification: Notification
    may_try_again: bool

    @classmethod
    def of(cls, notifications: Iterable[Notification], user: User) -> list[NotificationRow]:
        """One row each, in no more queries than the user's roles take."""
        teams = teams_where(user, RERUN)
        return [
            cls(each, each.state == NotificationState.GIVEN_UP and each.team_id in teams)
            for each in notifications
        ]

    @property
    def mark(self) -> str:
        return f"notification-{self.notification.pk}"

    @property
    def digest(self) -> str:
        it = self.notification
        return digest_of(it.state, it.attempts, it.last_error, it.next_attempt_at, self.may_try_again)

    @property
    def event(self) -> str:
        return event_in_words(self.notification.event)


@require_safe
def notification_list(request: HtmxRequest) -> HttpResponse:
    """What the user's teams were told or are to be told, newest first, in keyset pages."""
    context = _list(request)
    status = 200 if context["filters"].is_valid() else 422
    return render(request, "scheduling/notification_list.html", context, status=status)


@require_safe
def notification_list_changes(request: HtmxRequest) -> HttpResponse:
    """What the page shows now that it did not when it last asked."""
    context = _list(request)
    changes = difference(request, context["rows"])
    if not changes:
        return HttpResponse(status=NOTHING_NEW)
    return render(request, "scheduling/notification_list.html#changes", context | {"changes": changes})


@require_POST
def notification_again(request: HtmxRequest, pk: int) -> HttpResponse:
    """Try one that was given up again."""
    authorised(Notification.objects.all(), request.user, RERUN, pk=pk)
    services.notify_again(Notification.objects.filter(pk=pk), by=request.user)
    return HttpResponseRedirect(back_of(request, reverse("notification-list")))


@require_POST
def notifications_again(request: HtmxRequest) -> HttpResponse:
    """Try all again that match the filter of the address, were given up, and are of teams where one may."""
    teams = teams_where(request.user, RERUN)
    if not teams:
        raise denied(RERUN)
    filters = NotificationFilter(request.GET, user=request.user)
    # There may be none any more, as when two press the button at once; then all is done.
    with suppress(TransitionRefused):
        services.notify_again(filters.rows_of().filter(team__in=teams), by=request.user)
    return HttpResponseRedirect(back_of(request, reverse("notification-list")))


def _list(request: HtmxRequest) -> dict[str, Any]:
    filters = NotificationFilter(request.GET, user=request.user)
    page = filters.rows_of().newest(size=PAGE_SIZE, **cursors_of(request))
    rows = NotificationRow.of(page.rows, request.user)
    query = request.GET.copy()
    for name in ("older", "newer"):
        query.pop(name, None)
    return {
        "filters": filters,
        "page": page,
        "rows": rows,
        "shown": shown_by(rows),
        "query": query.urlencode(),
        "address": request.GET.urlencode(),
        "may_try_again": any(row.may_try_again for row in rows),
        "time_zone": timezone.get_current_timezone_name(),
    }
