from __future__ import annotations

from datetime import datetime

import pgtrigger
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, pgettext_lazy

from scheduling.models.checks import legal_values
from scheduling.queries import TaskQuerySet


class Mode(models.TextChoices):
    """On which nodes a batch's instances run."""

    RANDOM = "random", _("Random node")
    BROADCAST = "broadcast", _("Broadcast")
    SHARDED = "sharded", _("Sharded")


class Trigger(models.TextChoices):
    """What begins a batch."""

    CRON = "cron", _("Cron")
    FIXED_RATE = "fixed_rate", _("Fixed rate")
    WORKFLOW = "workflow", pgettext_lazy("trigger", "Workflow")
    MANUAL = "manual", _("Manual")


SCHEDULED = (Trigger.CRON, Trigger.FIXED_RATE)


class Overlap(models.TextChoices):
    """What happens when a batch is due while an earlier one of the task is unfinished."""

    ALLOW = "allow", _("Allow")
    SKIP = "skip", _("Skip")
    QUEUE = "queue", _("Queue")
    REPLACE = "replace", _("Replace")


class Misfire(models.TextChoices):
    """What happens to due times that passed while no scheduler ran."""

    SKIP = "skip", _("Skip")
    RUN_ONCE = "run_once", _("Run once")
    RUN_ALL = "run_all", _("Run all")


class Task(models.Model):
    """A unit of scheduled work. What it does is its current revision; editing it makes another.

    `next_due_at` stays while the task is disabled: the due times that pass meanwhile are missed, and so is the
    grid of a fixed rate kept. `enabled_at` is when it was last enabled again; due times before are misfires.
    """

    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="tasks")
    group = models.ForeignKey("scheduling.DeploymentGroup", models.PROTECT, related_name="tasks")
    name = models.SlugField(_("name"), max_length=100)
    enabled = models.BooleanField(_("enabled"), default=True)
    revision = models.ForeignKey(
        "scheduling.TaskRevision",
        models.PROTECT,
        null=True,
        related_name="current_of",
        editable=False,
    )
    next_due_at = models.DateTimeField(_("next due"), null=True, editable=False)
    enabled_at = models.DateTimeField(_("enabled since"), null=True, editable=False)
    retention_days = models.PositiveSmallIntegerField(
        _("records kept (days)"),
        null=True,
        blank=True,
        help_text=_("Empty: as long as the installation keeps them"),
    )
    notify = models.JSONField(
        _("who is told"), default=list, help_text=_("Rules as notifications.clean_rules makes them")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="task_name_once_a_team"),
            models.CheckConstraint(
                condition=models.Q(retention_days__isnull=True) | models.Q(retention_days__gte=1),
                name="task_keeps_records_a_day",
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_due_at"],
                name="task_due",
                condition=models.Q(enabled=True, next_due_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def due_at(self) -> datetime | None:
        """When its schedule fires next; None while it is disabled."""
        return self.next_due_at if self.enabled else None

    @property
    def records_kept_days(self) -> int:
        """For how many days the records of a finished batch are kept: the task's own rule, or the default."""
        return self.retention_days or int(settings.TAILRACE["RETENTION_DAYS"])

    @property
    def records_kept(self) -> str:
        """The same in words, and whose rule it is."""
        days = self.records_kept_days
        words = ngettext("%(days)d day", "%(days)d days", days) % {"days": days}
        return words if self.retention_days else _("%(days)s (the installation's default)") % {"days": words}


class TaskRevision(models.Model):
    """The immutable content of a task. A batch points to its revision, so that a rerun is exact."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField(_("revision"))
    digest = models.CharField(_("content hash"), max_length=64)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")

    kind = models.CharField(_("kind"), max_length=40)
    spec = models.JSONField(_("job"), help_text=_("What the job kind needs: callable, command, SQL or request"))
    parameters = models.JSONField(_("parameters"), default=dict)
    mode = models.CharField(_("execution mode"), max_length=10, choices=Mode, default=Mode.RANDOM)
    shards = models.JSONField(_("shards"), default=list, help_text=_("The parameter of each shard, by index"))
    shard_concurrency = models.PositiveSmallIntegerField(
        _("shards at once on a node"), default=0, help_text=_("0: as many as the node has slots")
    )
    trigger = models.CharField(_("trigger"), max_length=10, choices=Trigger, default=Trigger.MANUAL)
    cron = models.CharField(_("cron expression"), max_length=120, blank=True)
    interval = models.PositiveIntegerField(_("interval (s)"), null=True)
    timezone = models.CharField(_("time zone"), max_length=60, default="UTC")
    timeout = models.PositiveIntegerField(_("time-out (s)"), null=True)
    retry_count = models.PositiveSmallIntegerField(_("retries"), default=0)
    retry_interval = models.PositiveIntegerField(_("retry interval (s)"), default=0)
    success_ratio = models.PositiveSmallIntegerField(_("success ratio (%)"), default=100)
    overlap = models.CharField(_("overlap policy"), max_length=10, choices=Overlap, default=Overlap.ALLOW)
    misfire = models.CharField(_("misfire policy"), max_length=10, choices=Misfire, default=Misfire.RUN_ONCE)
    priority = models.SmallIntegerField(_("priority"), default=0, help_text=_("Higher is claimed first"))

    # What a definition consists of; the content hash is over exactly these.
    CONTENT = (
        "kind",
        "spec",
        "parameters",
        "mode",
        "shards",
        "shard_concurrency",
        "trigger",
        "cron",
        "interval",
        "timezone",
        "timeout",
        "retry_count",
        "retry_interval",
        "success_ratio",
        "overlap",
        "misfire",
        "priority",
    )

    class Meta:
        ordering = ["-number"]
        verbose_name = _("task revision")
        verbose_name_plural = _("task revisions")
        constraints = [
            models.UniqueConstraint(fields=["task", "number"], name="revision_number_once_a_task"),
            legal_values("mode", Mode, name="revision_mode_legal"),
            legal_values("trigger", Trigger, name="revision_trigger_legal"),
            legal_values("overlap", Overlap, name="revision_overlap_legal"),
            legal_values("misfire", Misfire, name="revision_misfire_legal"),
            models.CheckConstraint(
                condition=models.Q(success_ratio__gte=1, success_ratio__lte=100),
                name="revision_ratio_1_to_100",
            ),
            models.CheckConstraint(
                condition=models.Q(timeout__isnull=True) | models.Q(timeout__gte=1),
                name="revision_timeout_positive",
            ),
            models.CheckConstraint(
                condition=(
                    models.Q(trigger=Trigger.CRON) & ~models.Q(cron="") & models.Q(interval__isnull=True)
                )
                | (
                    # Said twice because a CHECK lets pass what is neither true nor false.
                    models.Q(trigger=Trigger.FIXED_RATE, interval__isnull=False)
                    & models.Q(interval__gte=1, cron="")
                )
                | (
                    models.Q(
                        trigger__in=[Trigger.WORKFLOW, Trigger.MANUAL],
                        cron="",
                        interval__isnull=True,
                    )
                ),
                name="revision_trigger_has_its_schedule",
            ),
        ]
        triggers = [pgtrigger.ReadOnly(name="revision_immutable", exclude=["created_by"])]

    def __str__(self) -> str:
        return f"{self.task} r{self.number}"

    @property
    def content(self) -> dict[str, object]:
        """The definition as plain data, as `services.save_task` takes it."""
        return {name: getattr(self, name) for name in self.CONTENT}
