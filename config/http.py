"""How the web answers: refusals as 409 or 422, errors as pages or notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from django.views.csrf import csrf_failure
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget
from django_htmx.middleware import HtmxDetails

type Handler = Callable[[HttpRequest], HttpResponse]

# Named, not imported: this module is the ground that the apps stand on. A base class covers its children.
_STATUS = {
    "scheduling.errors.InvalidDefinition": 422,
    "scheduling.errors.SchedulingError": 409,
}


class HtmxRequest(HttpRequest):
    """A request as django-htmx's middleware leaves it."""

    htmx: HtmxDetails


def status_of(error: BaseException) -> int | None:
    """The status that answers a refusal of ours, or None when `error` is no refusal."""
    for ancestor in type(error).__mro__:
        status = _STATUS.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if status is not None:
            return status
    return None


def answer(
    request: HttpRequest, *, title: str, message: str, status: int, leads_to: tuple[str, str] | None = None
) -> HttpResponse:
    """Say `message` as a page, or for htmx as a notice at the top of the page that asked.

    `leads_to` is where to go on instead of the overview: an address and what is there.
    """
    context = {"title": title, "message": message, "status": status, "leads_to": leads_to}
    if not is_htmx(request):
        return render(request, "problem.html", context, status=status)
    notice = render(request, "problem.html#notice", context, status=status)
    return reswap(retarget(notice, "#notices"), "innerHTML")


def is_htmx(request: HttpRequest) -> bool:
    # A request that failed in an early middleware has no `htmx` yet.
    return bool(getattr(request, "htmx", False))


class NeverStored:
    """Lets no browser keep a page: going back would show how things stood then, also after signing out.

    The answer to a form is kept, or going back to it would ask to send the form again.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.method in {"GET", "HEAD"} and not response.has_header("Cache-Control"):
            add_never_cache_headers(response)
        return response


class RefusalMiddleware:
    """Answers what the apps refuse, and tells htmx of a lost session in a way that it can follow."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 405 and not response.content:
            return _not_allowed(request, response)
        if is_htmx(request) and _leads_to_login(response):
            # htmx would follow the redirect unseen and put the sign-in page into a table.
            current = cast("HtmxRequest", request).htmx.current_url_abs_path
            return HttpResponseClientRedirect(redirect_to_login(current or "/", settings.LOGIN_URL)["Location"])
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        status = status_of(error)
        if status is None:
            return None
        return answer(request, title=_("Refused"), message=str(error), status=status)


def _not_allowed(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """405 with words, and with the methods that `response` allows."""
    message = _(
        "This address does not answer to %(method)s, only to %(allowed)s. What it does is done by a button of "
        "a page, so nothing was done; open the page and use the button there."
    )
    words = {"method": request.method, "allowed": response["Allow"]}
    said = answer(request, title=_("Not possible this way"), message=message % words, status=405)
    said["Allow"] = response["Allow"]
    return said


def _leads_to_login(response: HttpResponse) -> bool:
    location = str(response.headers.get("Location", ""))
    return response.status_code == 302 and location.split("?")[0] == resolve_url(settings.LOGIN_URL)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404, also for what exists but is not the user's to see."""
    said = exception.args[0] if isinstance(exception, Http404) and exception.args else None
    # The resolver's own exception carries its patterns, and get_object_or_404 the name of a class.
    message = (
        said if isinstance(said, NotFoundMessage) else _("There is no such page, or it is not yours to see.")
    )
    return answer(request, title=_("Not found"), message=str(message), status=404)


class NotFoundMessage(str):
    """Text of an Http404 that is meant for the reader of the page."""

    __slots__ = ()


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """403: the user sees the thing but lacks the permission, which is named."""
    said = str(exception) if isinstance(exception, PermissionDenied) else ""
    return answer(
        request,
        title=_("Not permitted"),
        message=said or _("You lack the permission for this."),
        status=403,
    )


def not_sent(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403: the token of the form is missing or old, as after signing in anew in another tab."""
    if not is_htmx(request):
        return csrf_failure(request, reason)
    message = _("This page is older than your sign-in, so nothing was done. Reload the page and try again.")
    return answer(request, title=_("Not sent"), message=message, status=403)
