"""Accounts, for administrators of the installation. What an account may do follows from its teams."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import journal, services
from scheduling.admin.base import AdministratorPage
from scheduling.admin.site import site


class AccountForm(UserChangeForm):  # type: ignore[type-arg]
    """Refuses to let administrators shut themselves out."""

    requested_by: Any = None

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.instance == self.requested_by:
            for name in ("is_active", "is_superuser"):
                if not self.cleaned_data.get(name, True):
                    self.add_error(name, _("This is your own account; ask another administrator."))
        return cleaned


@admin.register(get_user_model(), site=site)
class AccountPage(AdministratorPage, UserAdmin):  # type: ignore[type-arg]
    """Accounts are switched off, never deleted: the records name them."""

    form = AccountForm
    list_display = ("username", "first_name", "last_name", "email", "is_active", "is_superuser")
    list_filter = ("is_active", "is_superuser")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (gettext_lazy("Person"), {"fields": ("first_name", "last_name", "email")}),
        (
            gettext_lazy("Access"),
            {
                "fields": ("is_active", "is_superuser", "last_login"),
                "description": gettext_lazy(
                    "What somebody may do comes from their memberships in teams. Switch an account off "
                    "instead of deleting it. A superuser administers the installation and passes every check."
                ),
            },
        ),
    )
    readonly_fields = ("last_login",)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.requested_by = request.user
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        services.settle_staff(obj)
        changed = {} if not change else {"fields": form.changed_data}
        journal.record("edited" if change else "created", obj, request.user, details=changed)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and response.status_code == 302:
            journal.record("password_set", self.found(request, id), request.user)
        return response

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
