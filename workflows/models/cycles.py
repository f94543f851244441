from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling import clocks
from scheduling.models.checks import ended_exactly_when_final, legal_values, only_allowed_moves
from workflows.queries import CycleInstanceQuerySet, NodeRunQuerySet
from workflows.states import CYCLE, NODE_RUN, CycleState, NodeRunState


class Cycle(models.Model):
    """The slot (workflow, cycle time). Dependencies are between slots, so that a rerun leaves none dangling.

    `effective` is the run whose result counts: the unfinished one, else the newest success, else the newest of
    all (tests and cancelled runs never count). A run that `discards_earlier` counts like a success. `succeeded`
    says whether the effective run is a success; retention keeps it, as `past_success`, when it removes that
    run. `holder` names the rerun that will rerun the cycle, such as `rerun:12`: until then the cycle does not
    count as succeeded, and nobody else may rerun or backfill it.
    """

    workflow = models.ForeignKey("workflows.Workflow", models.CASCADE, related_name="cycles", db_index=False)
    cycle_time = models.DateTimeField(_("cycle time"))
    effective = models.ForeignKey("workflows.CycleInstance", models.SET_NULL, null=True, related_name="+")
    succeeded = models.BooleanField(_("succeeded"), default=False)
    past_success = models.BooleanField(default=False)
    holder = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        ordering = ["workflow", "cycle_time"]
        verbose_name = _("cycle")
        verbose_name_plural = _("cycles")
        constraints = [
            models.UniqueConstraint(fields=["workflow", "cycle_time"], name="cycle_time_once_a_workflow"),
            models.CheckConstraint(
                condition=models.Q(holder="") | models.Q(succeeded=False), name="cycle_held_has_not_succeeded"
            ),
        ]
        indexes = [
            models.Index(fields=["holder"], name="cycle_of_holder", condition=~models.Q(holder="")),
        ]

    def __str__(self) -> str:
        return f"{self.workflow} {clocks.stored(self.cycle_time)}"


class CycleDependency(models.Model):
    """Instances of `cycle` become ready only when the effective instance of `upstream` succeeded."""

    cycle = models.ForeignKey(Cycle, models.CASCADE, related_name="upstreams", db_index=False)
    upstream = models.ForeignKey(Cycle, models.CASCADE, related_name="dependants", db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["cycle", "upstream"], name="cycle_dependency_once")]
        # Whatever lies downstream is found in it alone, without the table.
        indexes = [models.Index(fields=["upstream", "cycle"], name="cycle_dependants")]

    def __str__(self) -> str:
        return f"{self.cycle_id} on {self.upstream_id}"


class RunType(models.TextChoices):
    """Why a cycle instance exists."""

    ONLINE = "online", pgettext_lazy("run type", "Scheduled")
    TEST = "test", pgettext_lazy("run type", "Test")
    BACKFILL = "backfill", pgettext_lazy("run type", "Backfill")
    RERUN = "rerun", pgettext_lazy("run type", "Rerun")


class Stopping(models.TextChoices):
    """Why nothing more of a running cycle instance begins."""

    NO = "", _("no")
    STOP = "stop", _("a stop was asked")
    TIMEOUT = "timeout", _("its time-out passed")
    FAILURE = "failure", _("a node failed, and it stops on failure")


class CycleInstance(models.Model):
    """One run of a cycle.

    `online` is the mode: it was made by the schedule, or it reruns or backfills such a cycle. `due_at`
    is when it may become ready at the earliest, and `due` whether that has passed; a backfill sets both
    when it is its turn.
    `frozen_*` is a mark: who froze it, when and why; `holder` names what owns the freeze, such as
    `rerun:12`, and only that may lift it. `parameters` were given for this run alone. `discards_earlier`: no
    earlier success of the cycle counts any more, also when this run does not succeed. Counters are of nodes.
    """

    cycle = models.ForeignKey(Cycle, models.CASCADE, related_name="instances", db_index=False)
    workflow = models.ForeignKey("workflows.Workflow", models.CASCADE, related_name="+", db_index=False)
    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="+", db_index=False)
    revision = models.ForeignKey(
        "workflows.WorkflowRevision", models.RESTRICT, related_name="+", db_index=False
    )
    cycle_time = models.DateTimeField(_("cycle time"))
    data_date = models.DateField(_("data date"))
    number = models.PositiveIntegerField(_("run"))
    run_type = models.CharField(_("run type"), max_length=8, choices=RunType)
    online = models.BooleanField(_("online"), default=False)
    state = models.CharField(_("state"), max_length=10, choices=CycleState, default=CycleState.NOT_READY)
    reason = models.TextField(_("reason"), blank=True)
    stopping = models.CharField(_("stopping"), max_length=7, choices=Stopping, blank=True)
    stopped_by = models.CharField(_("stopped by"), max_length=150, blank=True)

    waits_for_upstream = models.BooleanField(_("waits for its upstream cycles"), default=True)
    stop_on_failure = models.BooleanField(_("stops when a node failed"), default=False)
    node_parallelism = models.PositiveSmallIntegerField(_("nodes at once"), default=0)
    parameters = models.JSONField(_("parameters"), default=dict)
    discards_earlier = models.BooleanField(_("earlier results do not count"), default=False)
    rerun_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="reruns", db_index=False)
    backfill = models.ForeignKey(
        "workflows.Backfill", models.SET_NULL, null=True, related_name="instances", db_index=False
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    actor = models.CharField(_("by"), max_length=150)

    due_at = models.DateTimeField(_("due"), null=True)
    due = models.BooleanField(_("its time has come"), default=False)
    frozen_at = models.DateTimeField(_("frozen"), null=True)
    frozen_by = models.CharField(_("frozen by"), max_length=150, blank=True)
    frozen_reason = models.TextField(_("why it is frozen"), blank=True)
    holder = models.CharField(max_length=40, blank=True)

    created_at = models.DateTimeField(_("created"))
    ready_at = models.DateTimeField(_("ready"), null=True)
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    deadline_at = models.DateTimeField(_("deadline"), null=True)
    total = models.IntegerField(_("nodes"), default=0)
    succeeded = models.IntegerField(_("succeeded"), default=0)
    failed = models.IntegerField(_("failed"), default=0)
    passed_over = models.IntegerField(_("not run"), default=0)

    objects = CycleInstanceQuerySet.as_manager()

    # What `for_rows` adds; `zone` is its revision's.
    workflow_name: str
    team_name: str
    zone: str

    class Meta:
        verbose_name = _("cycle instance")
        verbose_name_plural = _("cycle instances")
        constraints = [
            models.UniqueConstraint(fields=["cycle", "number"], name="cycle_instance_number_once"),
            models.UniqueConstraint(
                fields=["cycle"],
                condition=models.Q(ended_at__isnull=True) & ~models.Q(run_type=RunType.TEST),
                name="cycle_one_unfinished",
            ),
            legal_values("run_type", RunType, name="cycle_run_type_legal"),
            legal_values("stopping", Stopping, name="cycle_stopping_legal"),
            ended_exactly_when_final(CYCLE, name="cycle_ended_when_final"),
            models.CheckConstraint(
                condition=models.Q(frozen_at__isnull=True, frozen_by="", holder="", frozen_reason="")
                | (models.Q(frozen_at__isnull=False) & ~models.Q(frozen_by="")),
                name="cycle_frozen_by_someone",
            ),
            models.CheckConstraint(
                condition=models.Q(frozen_at__isnull=True)
                | models.Q(state__in=[CycleState.NOT_READY, CycleState.READY]),
                name="cycle_frozen_before_it_runs",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    total__gte=models.F("succeeded") + models.F("failed") + models.F("passed_over")
                ),
                name="cycle_counts_within_total",
            ),
        ]
        indexes = [
            models.Index(fields=["team", "state", "-cycle_time", "-id"], name="cycle_of_team"),
            models.Index(fields=["workflow", "state", "-cycle_time", "-id"], name="cycle_of_workflow"),
            # Nearly all are the schedule's; whoever asks for others is not to look through those.
            *(
                models.Index(
                    fields=[place, "run_type", "-cycle_time", "-id"],
                    name=f"cycle_by_hand_of_{place}",
                    condition=~models.Q(run_type=RunType.ONLINE),
                )
                for place in ("team", "workflow")
            ),
            models.Index(
                fields=["due_at"],
                name="cycle_due",
                condition=models.Q(state=CycleState.NOT_READY, due=False, due_at__isnull=False),
            ),
            # What waits for its upstream, and what waits for room.
            models.Index(
                fields=["workflow"],
                name="cycle_waiting",
                condition=models.Q(state=CycleState.NOT_READY, due=True),
            ),
            models.Index(
                fields=["workflow", "cycle_time"],
                name="cycle_ready",
                condition=models.Q(state=CycleState.READY, frozen_at__isnull=True),
            ),
            models.Index(
                fields=["workflow"], name="cycle_running", condition=models.Q(state=CycleState.RUNNING)
            ),
            models.Index(
                fields=["deadline_at"],
                name="cycle_deadline",
                condition=models.Q(state=CycleState.RUNNING, deadline_at__isnull=False, stopping=""),
            ),
            models.Index(
                fields=["id"],
                name="cycle_stopping",
                condition=models.Q(state=CycleState.RUNNING) & ~models.Q(stopping=""),
            ),
            # What the overview calls late is among these, and all that is still to come is not.
            models.Index(
                fields=["team", "due_at"],
                name="cycle_late",
                condition=models.Q(online=True)
                & (models.Q(state=CycleState.NOT_READY, due=True) | models.Q(state=CycleState.READY)),
            ),
            models.Index(fields=["holder"], name="cycle_held", condition=models.Q(frozen_at__isnull=False)),
            models.Index(
                fields=["backfill", "cycle_time"],
                name="cycle_of_backfill",
                condition=models.Q(backfill__isnull=False),
            ),
            models.Index(fields=["rerun_of"], name="cycle_reruns", condition=models.Q(rerun_of__isnull=False)),
            models.Index(
                fields=["-ended_at"], name="cycle_failed", condition=models.Q(state=CycleState.FAILED)
            ),
        ]
        triggers = [only_allowed_moves(CYCLE, name="cycle_moves")]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def name(self) -> str:
        """The workflow and the cycle time, in the reader's time zone."""
        return f"{self.workflow.name} {clocks.titled(self.cycle_time)}"

    @property
    def stored_name(self) -> str:
        """The workflow and the cycle time, in UTC; see `scheduling.clocks`."""
        return f"{self.workflow.name} {clocks.stored(self.cycle_time)}"

    @property
    def is_finished(self) -> bool:
        return self.state in CYCLE.final

    @property
    def is_frozen(self) -> bool:
        return self.frozen_at is not None

    @property
    def is_held(self) -> bool:
        """Whether something holds its cycle, and will replace its result; it is the effective one."""
        return bool(self.cycle.holder) and self.cycle.effective_id == self.pk

    @property
    def is_replaced(self) -> bool:
        """Whether another run is the one that counts for its cycle."""
        effective = self.cycle.effective_id
        return self.run_type != RunType.TEST and effective is not None and effective != self.pk

    @property
    def is_recovered(self) -> bool:
        """Whether it did not succeed, and a later run of its cycle did."""
        unsuccessful = self.state in {CycleState.FAILED, CycleState.TERMINATED}
        return unsuccessful and self.is_replaced and self.cycle.succeeded

    @property
    def can_stop(self) -> bool:
        return not self.is_finished and not self.stopping

    @property
    def can_rerun(self) -> bool:
        return self.state in {CycleState.SUCCESS, CycleState.FAILED, CycleState.TERMINATED}

    @property
    def can_mark_success(self) -> bool:
        return self.state in CYCLE.sources(CycleState.SUCCESS) & CYCLE.final

    @property
    def can_freeze(self) -> bool:
        return self.state in {CycleState.NOT_READY, CycleState.READY} and not self.is_frozen

    @property
    def ended_count(self) -> int:
        return self.succeeded + self.failed + self.passed_over


class NodeRun(models.Model):
    """One node in a cycle instance, with its batch. `carried`: kept from the instance that this one reruns.

    `pending` is how many of the nodes that it waits for have not ended. `revision` is the content to run when
    that is not the task's current one. `result` is kept only when an edge asks for it.
    """

    instance = models.ForeignKey(CycleInstance, models.CASCADE, related_name="node_runs", db_index=False)
    node = models.ForeignKey("workflows.WorkflowNode", models.RESTRICT, related_name="+", db_index=False)
    state = models.CharField(_("state"), max_length=17, choices=NodeRunState, default=NodeRunState.WAITING)
    reason = models.TextField(_("reason"), blank=True)
    carried = models.BooleanField(_("carried"), default=False)
    pending = models.IntegerField(default=0)
    revision = models.ForeignKey(
        "scheduling.TaskRevision", models.SET_NULL, null=True, related_name="+", db_index=False
    )
    batch = models.ForeignKey(
        "scheduling.Batch", models.SET_NULL, null=True, related_name="node_runs", db_index=False
    )
    result = models.JSONField(_("result"), null=True)
    timed_out = models.BooleanField(default=False)
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    deadline_at = models.DateTimeField(_("deadline"), null=True)

    objects = NodeRunQuerySet.as_manager()

    # What `with_error` adds.
    error: str | None

    class Meta:
        verbose_name = _("node run")
        verbose_name_plural = _("node runs")
        constraints = [
            models.UniqueConstraint(fields=["instance", "node"], name="node_run_once"),
            ended_exactly_when_final(NODE_RUN, name="node_run_ended_when_final"),
        ]
        indexes = [
            models.Index(fields=["batch"], name="node_run_of_batch", condition=models.Q(batch__isnull=False)),
            models.Index(
                fields=["deadline_at"],
                name="node_run_deadline",
                condition=models.Q(state=NodeRunState.RUNNING, deadline_at__isnull=False),
            ),
        ]
        triggers = [only_allowed_moves(NODE_RUN, name="node_run_moves")]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def is_finished(self) -> bool:
        return self.state in NODE_RUN.final

    @property
    def ran_at(self) -> datetime | None:
        """When its job began, after `started_at`, when its batch was queued; of a removed batch the latter."""
        return self.started_at if self.batch is None else self.batch.started_at

    @property
    def waited(self) -> timedelta | None:
        """How long its batch was in the queue before it ran; None while it is there."""
        return self.ran_at - self.started_at if self.ran_at and self.started_at else None

    @property
    def took(self) -> timedelta | None:
        """How long it ran, without the wait in the queue; None until it ends, and of one that never ran."""
        return self.ended_at - self.ran_at if self.ended_at and self.ran_at else None
