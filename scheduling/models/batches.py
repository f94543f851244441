from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Least
from django.db.models.lookups import GreaterThanOrEqual
from django.utils.translation import gettext_lazy as _

from scheduling.models.checks import (
    ended_exactly_when_final,
    final_once_ended,
    legal_values,
    one_of,
    only_allowed_moves,
)
from scheduling.models.fields import StoredField
from scheduling.models.tasks import SCHEDULED, Trigger
from scheduling.queries import MACHINES, BatchQuerySet, ExecutionQuerySet, InstanceQuerySet, LogQuerySet
from scheduling.states import BATCH, INSTANCE, BatchState, InstanceState, ListedState, Outcome


class Batch(models.Model):
    """One run of a task: `total` instances, judged together by the success ratio.

    The counters count *ended* instances by how they ended; how many run is counted where it is shown
    (never more than there are worker slots), so that starting an instance leaves this row alone.
    """

    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="+", db_index=False)
    task = models.ForeignKey("scheduling.Task", models.CASCADE, related_name="batches", db_index=False)
    revision = models.ForeignKey("scheduling.TaskRevision", models.RESTRICT, related_name="+", db_index=False)
    group = models.ForeignKey("scheduling.DeploymentGroup", models.PROTECT, related_name="+", db_index=False)
    trigger = models.CharField(_("trigger"), max_length=10, choices=Trigger)
    scheduled_for = models.DateTimeField(
        _("due"), help_text=_("The due time it runs for; a rerun keeps the first one's")
    )
    state = models.CharField(_("state"), max_length=20, choices=BatchState, default=BatchState.WAITING)
    reason = models.TextField(_("reason"), blank=True)
    parameters = models.JSONField(_("parameters"), default=dict, help_text=_("Overrides of the task's own"))
    data_date = models.DateField(
        _("data date"), null=True, help_text=_("Empty: by the task's own schedule, see `calendars.data_date`")
    )
    timezone = models.CharField(
        _("time zone"), max_length=60, blank=True, help_text=_("Of the cycle time; empty: the task's own")
    )
    success_ratio = models.SmallIntegerField(_("success ratio (%)"))
    held = models.BooleanField(_("held"), default=False, help_text=_("Waits for an earlier batch of its task"))
    stopped = models.BooleanField(
        _("stopped"), default=False, db_default=False, help_text=_("By a person or the overlap policy")
    )
    listed_state = StoredField(
        verbose_name=_("state in lists"),
        help_text=_("As the state, but a stopped batch is told from a failed one"),
        expression=models.Case(
            models.When(state=BatchState.FAILED, stopped=True, then=models.Value(ListedState.STOPPED.value)),
            default=models.F("state"),
        ),
        output_field=models.CharField(max_length=20, choices=ListedState),
    )
    rerun_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="reruns", db_index=False)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    actor = models.CharField(_("by"), max_length=150)
    created_at = models.DateTimeField(_("created"))
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    total = models.IntegerField(_("instances"))
    succeeded = models.IntegerField(_("succeeded"), default=0)
    failed = models.IntegerField(_("failed"), default=0)
    timed_out = models.IntegerField(_("timed out"), default=0)
    terminated = models.IntegerField(_("terminated"), default=0)

    objects = BatchQuerySet.as_manager()

    # What `for_rows` adds.
    task_name: str
    group_name: str

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        constraints = [
            models.UniqueConstraint(
                fields=["task", "trigger", "scheduled_for"],
                condition=models.Q(trigger__in=SCHEDULED),
                name="trigger_fires_once",
            ),
            legal_values("trigger", Trigger, name="batch_trigger_legal"),
            ended_exactly_when_final(BATCH, name="batch_ended_when_final"),
            models.CheckConstraint(
                condition=models.Q(
                    GreaterThanOrEqual(
                        models.F("total"),
                        models.F("succeeded")
                        + models.F("failed")
                        + models.F("timed_out")
                        + models.F("terminated"),
                    ),
                    GreaterThanOrEqual(Least("succeeded", "failed", "timed_out", "terminated"), 0),
                ),
                name="batch_counts_within_total",
            ),
        ]
        indexes = [
            # Every list of records is made of ranges of one of these, see `queries.Ranges`: whatever a filter
            # asks for, no page walks over rows that it does not show.
            *(
                models.Index(
                    fields=[place, "trigger", "listed_state", "-created_at", "-id"], name=f"batch_of_{place}"
                )
                for place in ("team", "group", "task")
            ),
            models.Index(fields=["task", "-created_at", "-id"], name="batch_newest_of_task"),
            models.Index(
                fields=["actor", "-created_at", "-id"],
                name="batch_of_person",
                condition=~models.Q(actor__in=MACHINES),
            ),
            # Most batches are nobody's rerun and no person's: nothing is to be written for those.
            models.Index(fields=["rerun_of"], name="batch_reruns", condition=models.Q(rerun_of__isnull=False)),
            models.Index(
                fields=["requested_by"],
                name="batch_requested_by",
                condition=models.Q(requested_by__isnull=False),
            ),
            models.Index(
                fields=["task", "id"],
                name="batch_unfinished",
                condition=models.Q(ended_at__isnull=True),
            ),
            # What failed lately, whatever became of the rest; with what it is counted by, so that none is read.
            models.Index(
                fields=["-ended_at"],
                include=["id", "team", "task"],
                name="batch_failed",
                condition=models.Q(state=BatchState.FAILED, stopped=False),
            ),
            models.Index(
                fields=["task"],
                name="batch_held",
                condition=models.Q(held=True, ended_at__isnull=True),
            ),
        ]
        triggers = [only_allowed_moves(BATCH, name="batch_moves")]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def ended_count(self) -> int:
        return self.succeeded + self.failed + self.timed_out + self.terminated

    @property
    def unsuccessful(self) -> int:
        """How many instances ended without success: failed, timed out or terminated."""
        return self.failed + self.timed_out + self.terminated

    @property
    def is_finished(self) -> bool:
        return self.state in BATCH.final

    @property
    def is_failure(self) -> bool:
        """Whether it failed by itself: a stopped batch is no failure."""
        return self.state == BatchState.FAILED and not self.stopped

    @property
    def can_stop(self) -> bool:
        return self.state in BATCH.sources(BatchState.TERMINATING)

    @property
    def can_rerun(self) -> bool:
        return self.state in {BatchState.SUCCESS, BatchState.FAILED}


class Cause(models.TextChoices):
    """Why an execution happens."""

    TRIGGER = "trigger", _("Trigger")
    RETRY = "retry", _("Retry")
    RERUN = "rerun", _("Rerun")
    LOST = "lost", _("Worker or node lost")


class Instance(models.Model):
    """One slot of a batch: a node's (broadcast), a shard's (sharded) or the only one (random).

    `token` fences: every claim draws a new one, and a start or report with another is refused. Being random, it
    fences also after a failover to an older state of the database, which gives ids out again.
    `claimed_until` is the lease on a claim that has not started yet; when it passes, anyone may claim.
    """

    batch = models.ForeignKey(Batch, models.CASCADE, related_name="instances", db_index=False)
    group = models.ForeignKey("scheduling.DeploymentGroup", models.PROTECT, related_name="+", db_index=False)
    number = models.IntegerField(_("shard index"))
    shard_parameter = models.TextField(_("shard parameter"), blank=True)
    state = models.CharField(_("state"), max_length=12, choices=InstanceState, default=InstanceState.WAITING)
    reason = models.TextField(_("reason"), blank=True)
    cause = models.CharField(_("run by"), max_length=10, choices=Cause, default=Cause.TRIGGER)
    node = models.ForeignKey("scheduling.Node", models.PROTECT, null=True, related_name="+", db_index=False)
    pinned = models.BooleanField(_("only on its node"), default=False)
    prefers_node_until = models.DateTimeField(_("prefers its node until"), null=True)
    priority = models.SmallIntegerField(_("priority"), default=0)
    shard_concurrency = models.SmallIntegerField(default=0)
    run_after = models.DateTimeField(_("not before"), null=True, help_text=_("Empty: held with its batch"))
    token = models.UUIDField(_("fencing token"), null=True)
    claimed = models.BooleanField(_("claimed"), default=False)
    claimed_until = models.DateTimeField(null=True)
    executions_count = models.IntegerField(_("executions"), default=0)
    retries_left = models.SmallIntegerField(_("retries left"), default=0)
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    objects = InstanceQuerySet.as_manager()

    class Meta:
        ordering = ["batch", "number"]
        verbose_name = _("instance")
        verbose_name_plural = _("instances")
        constraints = [
            models.UniqueConstraint(fields=["batch", "number"], name="instance_number_once_a_batch"),
            ended_exactly_when_final(INSTANCE, name="instance_ended_when_final"),
            models.CheckConstraint(
                condition=models.Q(pinned=False) | models.Q(node__isnull=False),
                name="instance_pinned_has_node",
            ),
        ]
        # None of them mentions the state, so that a start, which changes nothing else that they hold, is an
        # update in place (HOT): what has not ended and is not claimed waits, what is claimed is in flight.
        indexes = [
            # The queue: what a node of the group may claim, in the order it should, and what only one node may.
            models.Index(
                fields=["group", "-priority", "id"],
                name="instance_claimable",
                condition=models.Q(ended_at__isnull=True, claimed=False, pinned=False),
            ),
            models.Index(
                fields=["node", "-priority", "id"],
                name="instance_claimable_pinned",
                condition=models.Q(ended_at__isnull=True, claimed=False, pinned=True),
            ),
            # What a node holds: claimed, running or terminating.
            models.Index(
                fields=["node", "batch"],
                name="instance_in_flight",
                condition=models.Q(ended_at__isnull=True, claimed=True),
            ),
        ]
        triggers = [only_allowed_moves(INSTANCE, name="instance_moves")]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def is_finished(self) -> bool:
        return self.state in INSTANCE.final

    @property
    def can_stop(self) -> bool:
        return self.state in {InstanceState.WAITING, InstanceState.RUNNING}

    @property
    def can_rerun(self) -> bool:
        return self.is_finished


class Execution(models.Model):
    """One attempt of an instance. Attempts are added, never overwritten; `token` is the claim's."""

    instance = models.ForeignKey(Instance, models.CASCADE, related_name="executions", db_index=False)
    number = models.IntegerField(_("attempt"))
    cause = models.CharField(_("run by"), max_length=10, choices=Cause)
    # The instance's node at the time, which has the constraint; checked once is enough on the hot path.
    node = models.ForeignKey(
        "scheduling.Node", models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    worker = models.IntegerField(_("worker process"))
    token = models.UUIDField(_("fencing token"))
    started_at = models.DateTimeField(_("started"))
    deadline_at = models.DateTimeField(_("deadline"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome, null=True)
    exit_code = models.SmallIntegerField(_("exit code"), null=True)
    error = models.TextField(_("error"), blank=True)
    result = models.JSONField(_("result"), null=True)

    objects = ExecutionQuerySet.as_manager()

    class Meta:
        ordering = ["instance", "-number"]
        verbose_name = _("execution")
        verbose_name_plural = _("executions")
        constraints = [
            models.UniqueConstraint(fields=["instance", "number"], name="execution_number_once_an_instance"),
            models.UniqueConstraint(
                fields=["instance"],
                condition=models.Q(ended_at__isnull=True),
                name="execution_one_live",
            ),
            models.CheckConstraint(
                condition=models.Q(ended_at__isnull=True, outcome__isnull=True)
                | (models.Q(ended_at__isnull=False, outcome__isnull=False) & one_of("outcome", Outcome.values)),
                name="execution_ended_with_outcome",
            ),
        ]
        triggers = [final_once_ended(name="execution_final")]

    def __str__(self) -> str:
        return f"#{self.pk}"


class LogChunk(models.Model):
    """A piece of an execution's output, at most 64 KiB; a gap says how many bytes were not kept."""

    execution = models.ForeignKey(Execution, models.CASCADE, related_name="chunks", db_index=False)
    sequence = models.IntegerField()
    text = models.TextField()
    dropped_bytes = models.PositiveBigIntegerField(default=0)
    written_at = models.DateTimeField()

    objects = LogQuerySet.as_manager()

    class Meta:
        ordering = ["execution", "sequence"]
        constraints = [
            models.UniqueConstraint(fields=["execution", "sequence"], name="chunk_sequence_once_an_execution")
        ]

    def __str__(self) -> str:
        return f"{self.execution_id}/{self.sequence}"
