"""Signing in: throttled, with sessions that end, and with an answer for accounts that are switched off.

django-axes counts failures by user name and address and refuses further attempts, right or wrong, until the
cool-off has passed; `locked_out` is the page that says so. Names that do not exist are treated alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth import logout, views
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

# How old what a session knows of its last use may be: writing it at every request would be a write a request.
_SEEN_EVERY = 60
# An address that is polled by pages ends so; what nobody asked for keeps no session alive.
POLLED = "/changes/"


class AccountBackend(ModelBackend):
    """Django's own, but the right password of an account that is switched off is told from a wrong one.

    The form refuses it then and can say why; no session of it is ever loaded.
    """

    def user_can_authenticate(self, user: Any) -> bool:
        return user is not None

    def get_user(self, user_id: Any) -> Any:
        user = super().get_user(user_id)
        return user if user is not None and user.is_active else None


class SignInForm(AuthenticationForm):
    error_messages = AuthenticationForm.error_messages | {
        "inactive": gettext_lazy("This account is switched off. Ask an administrator of this installation."),
    }


class SignInView(views.LoginView):
    """The sign-in page; after a session that ended by itself it says why."""

    authentication_form = SignInForm
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        ended = self.request.session.pop("ended", None)
        return super().get_context_data(**kwargs) | {"ended": _ended_in_words(ended)}


# --- throttling ------------------------------------------------------------------------------------


def client_address(request: HttpRequest) -> str | None:
    """Where a request comes from: what the outermost of our own proxies says, or the connection itself.

    With `TAILRACE_PROXIES` = n, the n-th address from the right of X-Forwarded-For is the one that our proxies
    saw; whatever stands to its left was sent by the client and is worth nothing.
    """
    proxies = settings.TRUSTED_PROXIES
    forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    if proxies and len(forwarded) >= proxies and forwarded[-proxies]:
        return str(forwarded[-proxies])
    return request.META.get("REMOTE_ADDR") or None


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """429: too many failures, with the time that is left to wait."""
    username = (credentials or {}).get("username", "")
    last = (
        AccessAttempt.objects.filter(username=username, ip_address=client_address(request))
        .order_by("-attempt_time")
        .values_list("attempt_time", flat=True)
        .first()
    )
    cool_off: timedelta = settings.AXES_COOLOFF_TIME
    left = max(timedelta(seconds=1), (last or timezone.now()) + cool_off - timezone.now())
    seconds = math.ceil(left.total_seconds())
    minutes = math.ceil(seconds / 60)
    wait = ngettext("%d minute", "%d minutes", minutes) % minutes
    answer = render(request, "registration/locked_out.html", {"wait": wait}, status=429)
    answer["Retry-After"] = str(seconds)
    return answer


# --- how long a session lasts ----------------------------------------------------------------------


@receiver(user_logged_in)
def _began(request: HttpRequest, **_kwargs: Any) -> None:
    request.session["began"] = request.session["seen"] = int(time.time())


class SessionLimits:
    """Ends a session that was not used for SESSION_IDLE_SECONDS, or is older than SESSION_COOKIE_AGE."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            now, session = int(time.time()), request.session
            began, seen = session.get("began", 0), session.get("seen", 0)
            if now - began >= settings.SESSION_COOKIE_AGE:
                _end(request, "age")
            elif now - seen >= settings.SESSION_IDLE_SECONDS:
                _end(request, "idle")
            elif now - seen >= min(_SEEN_EVERY, settings.SESSION_IDLE_SECONDS / 2) and not _polled(request):
                session["seen"] = now
        return self.get_response(request)


def _polled(request: HttpRequest) -> bool:
    return request.path.endswith(POLLED)


def _end(request: HttpRequest, why: str) -> None:
    logout(request)
    request.session["ended"] = why


def _ended_in_words(why: str | None) -> str:
    match why:
        case "idle":
            return _("You were signed out because nothing was done for a while.")
        case "age":
            return _("You were signed out because this session had lasted its full time.")
    return ""
