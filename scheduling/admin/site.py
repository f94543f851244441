"""The site of the administration: who may enter, and one sign-in, one password page, one journal for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling.permissions import EDIT_TASK, in_words, may_somewhere


class TeamSite(admin.AdminSite):
    """For developers and owners of a team, and for administrators of the installation.

    Only what is registered here exists: what other packages bring for Django's own site is not shown.
    """

    site_header = gettext_lazy("Administration")
    site_title = "Tailrace"
    index_title = gettext_lazy("Administration")
    # Addresses that do not exist are as unknown here as anywhere else.
    final_catch_all_view = False
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        """Whether the user may enter: the roles say so, not Django's mark of staff, which only follows them."""
        return request.user.is_active and may_somewhere(request.user, EDIT_TASK)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        """Django's own, with refusals that name what lacks instead of another sign-in."""

        def refusing(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except PermissionDenied as error:
                refusal = getattr(getattr(view, "__self__", None), "refusal", None)
                if error.args or refusal is None:
                    raise
                raise refusal() from error

        if hasattr(view, "csrf_exempt"):
            refusing.csrf_exempt = view.csrf_exempt  # type: ignore[attr-defined]
        inside: Any = super().admin_view(refusing, cacheable)

        @wraps(inside)
        def entering(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.has_permission(request):
                raise PermissionDenied(
                    _("The administration is for those with the permission %(permission)s in a team.")
                    % {"permission": in_words(EDIT_TASK)}
                )
            return inside(request, *args, **kwargs)

        return entering

    def get_log_entries(self, request: HttpRequest) -> QuerySet[LogEntry]:
        """None: the journal is the one record of what was done."""
        return LogEntry.objects.none()

    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one sign-in, which is throttled."""
        return redirect_to_login(request.GET.get("next") or resolve_url("admin:index"), settings.LOGIN_URL)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("password-change")

    def password_change_done(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("password-changed")


site = TeamSite(name="admin")
