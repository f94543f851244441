"""Definitions in the administration: edited with the rules of `apply`; what would change is shown, then saved.

    form → what would change, and why? → saved by a service
               ↘ nothing changed        ↘ somebody else saved meanwhile: both are shown, nothing is saved

Nothing is kept between the steps but what the pages carry.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from scheduling.admin.base import ReasonForm, TeamPage
from scheduling.errors import SchedulingError

# What the confirm step adds to a form, and must not repeat.
STEPS = frozenset({"csrfmiddlewaretoken", "seen", "reason", "_confirmed", "_edit", "_save", "_continue"})


class DefinitionMoved(SchedulingError):
    """Between the confirm step and the save somebody else changed the thing."""


class DefinitionPage(TeamPage):
    """A page whose form, when it is valid, has `wanted` (with a name), `stored`, `step`, `moved` and `now`.

    `stored` is the thing as it is in the database or None, `step` what saving would change, `moved` whether
    somebody changed it since the form was filled, and `now` the stamp of how it is.
    """

    change_title: ClassVar[Any]
    create_title: ClassVar[Any]
    change_form_template = "admin/definition_form.html"
    add_form_template = "admin/definition_form.html"

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """A form with mistakes is shown with them; a good one goes through the steps before it is saved."""
        if request.method == "POST" and (step := self.step_before_saving(request, object_id)):
            return step
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DefinitionMoved:
            # With what is stored now; of a thing that exists meanwhile, the name is a mistake in the form.
            again = self.step_before_saving(request, object_id)
            return again or super().changeform_view(request, object_id, form_url, extra_context)

    def step_before_saving(self, request: HttpRequest, object_id: str | None) -> HttpResponse | None:
        """The page that comes before saving what was sent, or None: it has mistakes, or was confirmed."""
        thing = self.found(request, object_id) if object_id is not None else None
        may = self.has_change_permission(request, thing) if thing else self.has_add_permission(request)
        form = self._sent(request, object_id, thing)
        if not may or not form.is_valid():
            return None
        if form.moved:
            return self._confirm(request, form, moved=True)
        if form.step.action == "unchanged":
            self.message_user(request, _("Nothing changed, so nothing was saved."), messages.INFO)
            return self.response_post_save_change(request, thing)
        reason = ReasonForm(request.POST if "_confirmed" in request.POST else None)
        return None if reason.is_valid() else self._confirm(request, form, reason=reason)

    def _sent(self, request: HttpRequest, object_id: str | None, thing: Any = None) -> Any:
        if object_id is not None and thing is None:
            thing = self.found(request, object_id)
        form_class = self.get_form(request, thing, change=thing is not None)
        return form_class(request.POST, instance=thing)

    def _confirm(
        self, request: HttpRequest, form: Any, *, reason: ReasonForm | None = None, moved: bool = False
    ) -> HttpResponse:
        sent = [(name, value) for name, values in request.POST.lists() if name not in STEPS for value in values]
        context = {
            **self.admin_site.each_context(request),
            "title": (self.change_title if form.stored else self.create_title) % {"name": form.wanted.name},
            "opts": self.opts,
            "step": form.step,
            "stored": form.stored,
            "seen": form.now,
            "sent": sent,
            "moved": moved,
            "form": reason or ReasonForm(),
        }
        status = 409 if moved else 422 if reason is not None and reason.is_bound else 200
        return TemplateResponse(request, "admin/definition_confirm.html", context, status=status)
