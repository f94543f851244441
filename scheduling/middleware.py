"""Middleware of scheduling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from config import http
from scheduling import journal
from scheduling.models.journal import Via
from scheduling.standing import standing_of


class ActingViaWeb:
    """Whatever a request does is journalled as done from the web."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with journal.acting_via(Via.WEB):
            return self.get_response(request)


class NeedsTeam:
    """Who is in no team sees nothing anywhere, so every page tells them what to do instead."""

    # What concerns the account alone.
    OPEN = frozenset({"logout", "password-change", "password-changed", "preferences", "set_language"})

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        user, match = request.user, request.resolver_match
        is_open = not getattr(view, "login_required", True) or (match and match.url_name in self.OPEN)
        if is_open or not user.is_authenticated or user.is_superuser or standing_of(user).roles:
            return None
        return http.answer(
            request,
            title=_("No team yet"),
            message=_(
                "You are signed in as %(name)s, and in no team, so there is nothing you may see. "
                "Ask an owner of your team to add %(name)s, then load this page again."
            )
            % {"name": user.get_username()},
            status=403,
        )
