"""The administration: people, teams and groups are edited here; what happened is only looked at.

Tasks and their content are changed by definitions (`manage.py apply`) and services, so that every change
makes a revision and an entry in the journal; the administration shows them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from scheduling.models import (
    Batch,
    DeploymentGroup,
    Execution,
    Instance,
    JournalEntry,
    Membership,
    Node,
    Task,
    TaskRevision,
    Team,
)

admin.site.site_header = "Tailrace"
admin.site.site_title = "Tailrace"
admin.site.index_title = _("Administration")


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    autocomplete_fields = ("user",)
    extra = 0


@admin.register(Team)
class TeamAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name",)
    search_fields = ("name",)
    inlines: ClassVar = [MembershipInline]


@admin.register(Membership)
class MembershipAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("team", "user", "role")
    list_filter = ("role", "team")
    list_select_related = ("team", "user")
    autocomplete_fields = ("team", "user")


@admin.register(DeploymentGroup)
class DeploymentGroupAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "team")
    list_filter = ("team",)
    list_select_related = ("team",)
    search_fields = ("name",)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows records and changes none. Lists do not count a whole table to say how long they are."""

    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ("name", "group", "state", "slots", "host", "heartbeat_at")
    list_filter = ("state", "group")
    list_select_related = ("group",)
    search_fields = ("name", "host")


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = ("name", "team", "group", "enabled", "next_due_at")
    list_filter = ("enabled", "team")
    list_select_related = ("team", "group")
    search_fields = ("name",)


@admin.register(TaskRevision)
class TaskRevisionAdmin(ReadOnlyAdmin):
    list_display = ("task", "number", "kind", "mode", "trigger", "created_at", "created_by")
    list_select_related = ("task", "created_by")
    search_fields = ("task__name",)


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    list_display = ("id", "task", "trigger", "state", "scheduled_for", "started_at", "ended_at", "actor")
    list_filter = ("state", "trigger")
    list_select_related = ("task",)
    search_fields = ("id__exact", "task__name__exact")
    ordering = ("-created_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("task", "revision__task", "group", "team")


@admin.register(Instance)
class InstanceAdmin(ReadOnlyAdmin):
    list_display = ("id", "batch", "number", "state", "node", "executions_count", "started_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("node",)
    search_fields = ("id__exact", "batch__id__exact")
    ordering = ("-id",)


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    list_display = ("id", "instance", "number", "cause", "node", "outcome", "started_at", "ended_at")
    list_filter = ("outcome", "cause")
    list_select_related = ("node",)
    search_fields = ("id__exact", "instance__id__exact")
    ordering = ("-id",)


@admin.register(JournalEntry)
class JournalEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "action", "object_type", "object_id", "object_name", "via", "reason")
    list_filter = ("via", "object_type")
    search_fields = ("actor__exact", "object_id__exact")
    ordering = ("-at", "-id")
