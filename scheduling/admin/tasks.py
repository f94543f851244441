"""Tasks: edited with the rules of `apply`; what would change is shown, and saved with a reason.

    form → what would change, and why? → saved by services.save_task
               ↘ nothing changed        ↘ somebody else saved meanwhile: both are shown, nothing is saved

Nothing is kept between the steps but what the pages carry.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import services
from scheduling.admin.base import ReasonForm, TeamPage
from scheduling.admin.site import site
from scheduling.admin.task_form import TaskForm, stamp
from scheduling.errors import SchedulingError
from scheduling.models import DeploymentGroup, Task
from scheduling.permissions import EDIT_TASK

# What the confirm step adds to a form, and must not repeat.
STEPS = frozenset({"csrfmiddlewaretoken", "seen", "reason", "_confirmed", "_edit", "_save", "_continue"})


class TaskMoved(SchedulingError):
    """Between the confirm step and the save somebody else changed the task."""


@admin.register(Task, site=site)
class TaskPage(TeamPage):
    permission: ClassVar[str] = EDIT_TASK
    form = TaskForm
    list_display = ("name", "team", "group", "enabled", "next_due_at")
    list_filter = (
        "enabled",
        ("team", admin.RelatedOnlyFieldListFilter),
        ("group", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("team", "group")
    search_fields = ("name",)
    change_form_template = "admin/task_form.html"
    add_form_template = "admin/task_form.html"
    fieldsets = (
        (None, {"fields": (("name", "group"), "enabled", "seen")}),
        (gettext_lazy("Job"), {"fields": ("kind", "spec", "parameters")}),
        (gettext_lazy("Where it runs"), {"fields": (("mode", "shard_concurrency", "priority"), "shards")}),
        (
            gettext_lazy("When it runs"),
            {"fields": (("trigger", "cron", "interval", "timezone"), ("overlap", "misfire"))},
        ),
        (
            gettext_lazy("How it ends"),
            {"fields": (("timeout", "retry_count", "retry_interval", "success_ratio"), "retention")},
        ),
        (gettext_lazy("Who is told"), {"fields": ("notify",)}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("team", "group", "revision")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Definitions refer to a task by its name, and its records to its team.
        return ("name",) if obj is not None else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        teams = self.teams(request)
        groups = DeploymentGroup.objects.filter(team__in=teams).order_by("team__name", "name")
        if request.resolver_match and (object_id := request.resolver_match.kwargs.get("object_id")):
            # A task stays in its team.
            groups = groups.filter(team__tasks__pk=unquote(object_id))
        kwargs["queryset"] = groups.select_related("team")
        field: Any = super().formfield_for_foreignkey(db_field, request, **kwargs)
        field.label_from_instance = lambda group: f"{group.team.name} / {group.name}"
        return field

    # --- the steps ---

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
        except TaskMoved:
            # With what is stored now; of a task that exists meanwhile, the name is a mistake in the form.
            again = self.step_before_saving(request, object_id)
            return again or super().changeform_view(request, object_id, form_url, extra_context)

    def step_before_saving(self, request: HttpRequest, object_id: str | None) -> HttpResponse | None:
        """The page that comes before saving what was sent, or None: it has mistakes, or was confirmed."""
        task = self.found(request, object_id) if object_id is not None else None
        may = self.has_change_permission(request, task) if task else self.has_add_permission(request)
        form = self._sent(request, object_id, task)
        if not may or not form.is_valid():
            return None
        if form.moved:
            return self._confirm(request, form, moved=True)
        if form.step.action == "unchanged":
            self.message_user(request, _("Nothing changed, so nothing was saved."), messages.INFO)
            return self.response_post_save_change(request, task)
        reason = ReasonForm(request.POST if "_confirmed" in request.POST else None)
        return None if reason.is_valid() else self._confirm(request, form, reason=reason)

    def _sent(self, request: HttpRequest, object_id: str | None, task: Task | None = None) -> Any:
        if object_id is not None and task is None:
            task = self.found(request, object_id)
        form_class = self.get_form(request, task, change=task is not None)
        return form_class(request.POST, instance=task)

    def _confirm(
        self, request: HttpRequest, form: Any, *, reason: ReasonForm | None = None, moved: bool = False
    ) -> HttpResponse:
        sent = [(name, value) for name, values in request.POST.lists() if name not in STEPS for value in values]
        context = {
            **self.admin_site.each_context(request),
            "title": (_("Change the task %(name)s?") if form.stored else _("Create the task %(name)s?"))
            % {"name": form.wanted.name},
            "opts": self.opts,
            "step": form.step,
            "stored": form.stored,
            "seen": stamp(form.stored),
            "sent": sent,
            "moved": moved,
            "form": reason or ReasonForm(),
        }
        status = 409 if moved else 422 if reason is not None and reason.is_bound else 200
        return TemplateResponse(request, "admin/task_confirm.html", context, status=status)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        wanted = form.wanted
        group = DeploymentGroup.objects.select_related("team").get(team__name=wanted.team, name=wanted.group)
        if change:
            tasks = Task.objects.select_related("group", "revision").select_for_update(of=("self",))
            if stamp(tasks.get(pk=obj.pk)) != form.cleaned_data["seen"]:
                raise TaskMoved
        saved = services.save_task(
            team=group.team,
            group=group,
            name=wanted.name,
            content=wanted.content,
            enabled=wanted.enabled,
            retention_days=wanted.retention_days,
            notify=wanted.notify,
            by=request.user,
            reason=request.POST["reason"].strip(),
        )
        if not change and saved.revision and saved.revision.number != 1:
            raise TaskMoved(_("Somebody created a task of this name a moment ago; nothing was saved."))
        obj.pk = saved.pk
