"""Tasks: edited field by field with the rules of `apply`; saved by services.save_task."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from scheduling import services
from scheduling.admin.definitions import DefinitionMoved, DefinitionPage
from scheduling.admin.site import site
from scheduling.admin.task_form import TaskForm, stamp
from scheduling.models import DeploymentGroup, Task
from scheduling.permissions import EDIT_TASK


@admin.register(Task, site=site)
class TaskPage(DefinitionPage):
    permission: ClassVar[str] = EDIT_TASK
    change_title = gettext_lazy("Change the task %(name)s?")
    create_title = gettext_lazy("Create the task %(name)s?")
    form = TaskForm
    list_display = ("name", "team", "group", "enabled", "due")
    list_filter = (
        "enabled",
        ("team", admin.RelatedOnlyFieldListFilter),
        ("group", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("team", "group")
    search_fields = ("name",)
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

    @admin.display(description=gettext_lazy("next due"), ordering="next_due_at")
    def due(self, task: Task) -> datetime | None:
        """When its schedule fires next; empty while it is disabled."""
        return task.due_at

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

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        wanted = form.wanted
        group = DeploymentGroup.objects.select_related("team").get(team__name=wanted.team, name=wanted.group)
        if change:
            tasks = Task.objects.select_related("group", "revision").select_for_update(of=("self",))
            if stamp(tasks.get(pk=obj.pk)) != form.cleaned_data["seen"]:
                raise DefinitionMoved
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
            raise DefinitionMoved(_("Somebody created a task of this name a moment ago; nothing was saved."))
        obj.pk = saved.pk
