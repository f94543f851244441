"""What the pages of the administration share: each shows and changes only what the user's teams own."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from config.http import NotFoundMessage
from scheduling import services
from scheduling.errors import SchedulingError
from scheduling.models import JournalEntry
from scheduling.permissions import denied, teams_where

HISTORY_SHOWN = 100


class ReasonForm(forms.Form):
    """Why somebody changes what runs; it stands in the journal."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True, "class": "vTextField"}),
        error_messages={"required": gettext_lazy("Say why; it is kept in the journal.")},
    )


class Page(admin.ModelAdmin):  # type: ignore[type-arg]
    """A page of the administration without bulk actions, whose history is the journal."""

    actions = None
    list_per_page = 50
    show_full_result_count = False

    def refusal(self) -> PermissionDenied:
        """What to say when Django's administration only says no."""
        return PermissionDenied(_("This part of the administration is for administrators of the installation."))

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        # What is another team's must look exactly like what does not exist.
        raise Http404(NotFoundMessage(_("There is no such thing, or it is not yours to see.")))

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """The object with the id, if it is the user's to see; Http404."""
        thing = self.get_object(request, unquote(object_id))
        return thing or self._get_obj_does_not_exist_redirect(request, self.opts, object_id)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Without the buttons that open another form in a window of its own."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if isinstance(field, forms.ModelChoiceField):
            for name in ("add", "change", "view", "delete"):
                setattr(field.widget, f"can_{name}_related", False)
        return field

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Nothing: the service that did it wrote into the journal."""

    log_change = log_addition

    def log_deletions(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Nothing, as with `log_addition`."""

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """What the journal says of one object, newest first."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        thing = self.found(request, object_id)
        entries = JournalEntry.objects.visible_to(request.user).filter(
            object_type=self.opts.model_name, object_id=thing.pk
        )
        context = {
            **self.admin_site.each_context(request),
            "title": _("History of %(name)s") % {"name": thing},
            "entries": entries[:HISTORY_SHOWN],
            "object": thing,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/object_history.html", context)


class TeamPage(Page):
    """Things that belong to a team, for those whose role there carries `permission`."""

    permission: ClassVar[str]
    # From the model to the team; "pk" where it is the team.
    team_path = "team"

    def refusal(self) -> PermissionDenied:
        return denied(self.permission)

    def teams(self, request: HttpRequest) -> frozenset[int]:
        """The ids of the teams whose things the user may edit here."""
        return teams_where(request.user, self.permission)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset = super().get_queryset(request)
        if request.user.is_superuser:
            return queryset
        return queryset.filter(**{f"{self.team_path}__in": self.teams(request)})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(self.teams(request))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        if obj is None:
            return bool(self.teams(request))
        return request.user.has_perm(self.permission, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(self.teams(request))

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self.has_view_permission(request, obj)

    # --- deleting: with a reason, by a service, and only what is unused ---

    def why_not_deleted(self, thing: Any) -> str:
        """What keeps `thing` from being deleted; empty when nothing does."""
        return services.use_of(thing)

    def remove(self, thing: Any, request: HttpRequest, reason: str) -> None:
        """Delete `thing`; raises a SchedulingError when that is refused."""
        services.delete(thing, by=request.user, reason=reason)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Say what is deleted and ask why; or say why it cannot be."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        thing = self.found(request, object_id)
        name = str(thing)
        form = ReasonForm(request.POST if request.method == "POST" else None)
        refusal = self.why_not_deleted(thing)
        if not refusal and form.is_valid():
            try:
                self.remove(thing, request, form.cleaned_data["reason"])
            except SchedulingError as error:
                refusal = str(error)
            else:
                done = _("%(thing)s was deleted.") % {"thing": capfirst(f"{self.opts.verbose_name} {name}")}
                self.message_user(request, done, messages.SUCCESS)
                return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": _("Delete %(thing)s") % {"thing": f"{self.opts.verbose_name} {name}"},
            "form": form,
            "refusal": refusal,
            "object": thing,
            "opts": self.opts,
        }
        status = 409 if refusal and form.is_bound else 200
        return TemplateResponse(request, "admin/delete.html", context, status=status)


class AdministratorPage(Page):
    """For administrators of the installation alone."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
