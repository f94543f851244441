"""Records as they stand in the tables, for administrators of the installation; nobody edits what happened."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from scheduling.admin.base import AdministratorPage
from scheduling.admin.site import site
from scheduling.models import Batch, Execution, Instance, JournalEntry, Node, TaskRevision


class RecordPage(AdministratorPage):
    """Shows records and changes none. Lists do not count a whole table to say how long they are."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Node, site=site)
class NodePage(RecordPage):
    list_display = ("name", "group", "state", "slots", "host", "heartbeat_at")
    list_filter = ("state", "group")
    list_select_related = ("group",)
    search_fields = ("name", "host")


@admin.register(TaskRevision, site=site)
class TaskRevisionPage(RecordPage):
    list_display = ("task", "number", "kind", "mode", "trigger", "created_at", "created_by")
    list_select_related = ("task", "created_by")
    search_fields = ("task__name",)


@admin.register(Batch, site=site)
class BatchPage(RecordPage):
    list_display = ("id", "task", "trigger", "state", "scheduled_for", "started_at", "ended_at", "actor")
    list_filter = ("state", "trigger")
    list_select_related = ("task",)
    search_fields = ("id__exact", "task__name__exact")
    ordering = ("-created_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("task", "revision__task", "group", "team")


@admin.register(Instance, site=site)
class InstancePage(RecordPage):
    list_display = ("id", "batch", "number", "state", "node", "executions_count", "started_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("node",)
    search_fields = ("id__exact", "batch__id__exact")
    ordering = ("-id",)


@admin.register(Execution, site=site)
class ExecutionPage(RecordPage):
    list_display = ("id", "instance", "number", "cause", "node", "outcome", "started_at", "ended_at")
    list_filter = ("outcome", "cause")
    list_select_related = ("node",)
    search_fields = ("id__exact", "instance__id__exact")
    ordering = ("-id",)


@admin.register(JournalEntry, site=site)
class JournalEntryPage(RecordPage):
    list_display = ("at", "actor", "action", "object_type", "object_id", "object_name", "via", "reason")
    list_filter = ("via", "object_type")
    search_fields = ("actor__exact", "object_id__exact")
    ordering = ("-at", "-id")
