"""Middleware of scheduling."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from scheduling import journal
from scheduling.models.journal import Via


class ActingViaWeb:
    """Whatever a request does is journalled as done from the web."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with journal.acting_via(Via.WEB):
            return self.get_response(request)
