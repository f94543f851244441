"""Whose page it is: the reader's time zone, theme and language, kept in cookies of their browser.

Cookies and no table: a person reads the same records at home in the dark and at work in the light, and a
shared screen in the office belongs to nobody. The language is Django's own cookie and LocaleMiddleware's.

| cookie | holds | written by |
| --- | --- | --- |
| `tz` | the browser's time zone | config/static/tailrace.js |
| `zone` | the zone that the reader chose instead | the preferences |
| `theme` | `light` or `dark`; without it the system's | the preferences |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

BROWSER_ZONE, CHOSEN_ZONE, THEME = "tz", "zone", "theme"
THEMES = ("light", "dark")
_AGE = 365 * 24 * 3600
_NAME = re.compile(r"[A-Za-z][\w+-]{0,30}(/[\w+-]{1,30}){0,2}", re.ASCII)
_REGIONS = ("Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")


def zone_named(name: str | None) -> ZoneInfo | None:
    """The time zone called `name`, or None when there is none. `name` may come from anywhere."""
    if not name or not _NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


@cache
def zone_names() -> tuple[str, ...]:
    """The zones to choose from: UTC, then those named for a place."""
    places = sorted(name for name in available_timezones() if name.partition("/")[0] in _REGIONS)
    return ("UTC", *places)


def zone_of(request: HttpRequest) -> ZoneInfo | None:
    """The zone that the reader chose, else their browser's; None when neither is known."""
    return zone_named(request.COOKIES.get(CHOSEN_ZONE)) or zone_named(request.COOKIES.get(BROWSER_ZONE))


def theme_of(request: HttpRequest) -> str:
    """`light` or `dark` when the reader chose one, else ""."""
    theme = request.COOKIES.get(THEME, "")
    return theme if theme in THEMES else ""


def keep(response: HttpResponse, cookie: str, value: str) -> None:
    """Remember `value` for a year in the reader's browser; "" forgets."""
    if value:
        response.set_cookie(
            cookie,
            value,
            max_age=_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    else:
        response.delete_cookie(cookie, samesite="Lax")


class TimeZoneMiddleware:
    """Shows every time in the reader's zone; in the installation's when the reader's is not known."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with timezone.override(zone_of(request)):
            return self.get_response(request)


def theme(request: HttpRequest) -> dict[str, Any]:
    """Context of every page: `theme`, for the frame's `data-theme`, and the zone that the frame names."""
    return {"theme": theme_of(request), "clock_zone": timezone.get_current_timezone_name()}
