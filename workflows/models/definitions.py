from __future__ import annotations

from functools import cached_property

import pgtrigger
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling.models.checks import legal_values
from scheduling.models.tasks import Misfire
from workflows import graph
from workflows.queries import WorkflowQuerySet


class Mode(models.TextChoices):
    """Whether the schedule makes cycle instances."""

    ONLINE = "online", pgettext_lazy("mode", "Online")
    OFFLINE = "offline", pgettext_lazy("mode", "Offline")


class Condition(models.TextChoices):
    """When an edge lets its target run."""

    SUCCESS = graph.Condition.SUCCESS.value, _("on success")
    FAILURE = graph.Condition.FAILURE.value, _("on failure")
    ALWAYS = graph.Condition.ALWAYS.value, _("always")
    RESULT = graph.Condition.RESULT.value, _("on result")


class Join(models.TextChoices):
    """How many of its edges a node needs."""

    ALL = graph.Join.ALL.value, pgettext_lazy("join", "all")
    ANY = graph.Join.ANY.value, pgettext_lazy("join", "any")


class Offset(models.TextChoices):
    """Which cycles of another workflow a cycle depends on; reckoned by `periods.upstream_slots`."""

    SAME = "same", _("the same cycle")
    PREVIOUS = "previous", _("the cycle before")
    LAST = "last", _("the last cycles")
    WITHIN_PERIOD = "within_period", _("all cycles within its period")


class Workflow(models.Model):
    """Tasks in a DAG on a calendar. What it consists of is its current revision; editing it makes another.

    `generated_until`: the cycle time up to which cycle instances were generated. `paused_at`: since when it is
    switched off (None while `enabled`), which is what its misfire policy makes good when it is switched on.
    """

    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="workflows")
    name = models.SlugField(_("name"), max_length=100)
    mode = models.CharField(_("mode"), max_length=7, choices=Mode, default=Mode.ONLINE)
    enabled = models.BooleanField(_("enabled"), default=True)
    revision = models.ForeignKey(
        "workflows.WorkflowRevision",
        models.PROTECT,
        null=True,
        related_name="current_of",
        editable=False,
    )
    starts_at = models.DateTimeField(
        _("begins"), help_text=_("There are no cycles before; nothing waits for them")
    )
    generated_until = models.DateTimeField(_("generated until"), null=True, editable=False)
    paused_at = models.DateTimeField(_("switched off"), null=True, editable=False)
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

    objects = WorkflowQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="workflow_name_once_a_team"),
            legal_values("mode", Mode, name="workflow_mode_legal"),
            models.CheckConstraint(
                condition=models.Q(enabled=True, paused_at__isnull=True)
                | models.Q(enabled=False, paused_at__isnull=False),
                name="workflow_paused_when_off",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def current(self) -> WorkflowRevision:
        """Its current revision, which every workflow that was saved has."""
        if self.revision is None:
            raise WorkflowRevision.DoesNotExist(f"workflow {self.name} has no content")
        return self.revision

    @property
    def is_scheduled(self) -> bool:
        """Whether cycle instances are generated for it."""
        return bool(self.enabled and self.mode == Mode.ONLINE and self.revision and self.revision.cron)


class WorkflowRevision(models.Model):
    """The immutable content of a workflow: schedule, limits, nodes, edges, dependencies."""

    workflow = models.ForeignKey(Workflow, models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField(_("revision"))
    digest = models.CharField(_("content hash"), max_length=64)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")

    cron = models.CharField(_("cron expression"), max_length=120, blank=True)
    timezone = models.CharField(_("time zone"), max_length=60, default="UTC")
    misfire = models.CharField(_("misfire policy"), max_length=10, choices=Misfire, default=Misfire.RUN_ALL)
    parallelism = models.PositiveSmallIntegerField(
        _("cycles at once"), default=1, help_text=_("0: as many as are ready")
    )
    timeout = models.PositiveIntegerField(_("time-out (s)"), null=True)

    # Everything of the content that is a column; nodes, edges and dependencies are rows of their own.
    CONTENT = ("cron", "timezone", "misfire", "parallelism", "timeout")

    class Meta:
        ordering = ["workflow", "-number"]
        verbose_name = _("workflow revision")
        verbose_name_plural = _("workflow revisions")
        constraints = [
            models.UniqueConstraint(fields=["workflow", "number"], name="workflow_revision_number_once"),
            legal_values("misfire", Misfire, name="workflow_misfire_legal"),
        ]
        triggers = [pgtrigger.ReadOnly(name="workflow_revision_immutable", exclude=["created_by"])]

    def __str__(self) -> str:
        return f"{self.workflow} r{self.number}"

    @cached_property
    def graph(self) -> graph.Graph:
        """The DAG, its nodes known by their ids as text; two queries, kept with the object."""
        nodes = list(self.nodes.all())
        edges = WorkflowEdge.objects.filter(target__revision=self).order_by("pk")
        return graph.Graph(
            joins={str(node.pk): graph.Join(node.join) for node in nodes},
            edges=tuple(
                graph.Edge(
                    str(edge.source_id), str(edge.target_id), graph.Condition(edge.condition), edge.expected
                )
                for edge in edges
            ),
            core=frozenset(str(node.pk) for node in nodes if node.core),
        )


class WorkflowNode(models.Model):
    """One task in a revision's DAG."""

    revision = models.ForeignKey(WorkflowRevision, models.CASCADE, related_name="nodes", db_index=False)
    number = models.PositiveIntegerField()
    key = models.SlugField(_("key"), max_length=100)
    task = models.ForeignKey("scheduling.Task", models.PROTECT, related_name="workflow_nodes")
    join = models.CharField(_("join"), max_length=3, choices=Join, default=Join.ALL)
    parameters = models.JSONField(_("parameters"), default=dict)
    timeout = models.PositiveIntegerField(_("time-out (s)"), null=True)
    core = models.BooleanField(_("decides the result"), default=True)

    class Meta:
        ordering = ["revision", "number"]
        verbose_name = _("node")
        verbose_name_plural = _("nodes")
        constraints = [
            models.UniqueConstraint(fields=["revision", "key"], name="node_key_once_a_revision"),
            legal_values("join", Join, name="node_join_legal"),
        ]
        triggers = [pgtrigger.ReadOnly(name="workflow_node_immutable")]

    def __str__(self) -> str:
        return self.key


class WorkflowEdge(models.Model):
    """`target` waits for `source`. `expected` is what the condition *on result* compares with."""

    source = models.ForeignKey(WorkflowNode, models.CASCADE, related_name="outgoing")
    target = models.ForeignKey(WorkflowNode, models.CASCADE, related_name="incoming", db_index=False)
    condition = models.CharField(_("condition"), max_length=7, choices=Condition, default=Condition.SUCCESS)
    expected = models.JSONField(_("expected result"), null=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["target", "source"], name="edge_once"),
            legal_values("condition", Condition, name="edge_condition_legal"),
            models.CheckConstraint(
                condition=models.Q(condition=Condition.RESULT) | models.Q(expected__isnull=True),
                name="edge_expects_on_result_only",
            ),
        ]
        triggers = [pgtrigger.ReadOnly(name="workflow_edge_immutable")]

    def __str__(self) -> str:
        return f"{self.source} → {self.target}"


class WorkflowDependency(models.Model):
    """Cycles of the revision's workflow wait for those of `upstream`: `offset` says which, `count` how many."""

    revision = models.ForeignKey(WorkflowRevision, models.CASCADE, related_name="dependencies", db_index=False)
    upstream = models.ForeignKey(Workflow, models.PROTECT, related_name="dependants")
    offset = models.CharField(_("cycles"), max_length=13, choices=Offset, default=Offset.SAME)
    count = models.PositiveSmallIntegerField(_("how many"), default=1)

    class Meta:
        ordering = ["pk"]
        verbose_name = _("dependency")
        verbose_name_plural = _("dependencies")
        constraints = [
            models.UniqueConstraint(fields=["revision", "upstream", "offset"], name="dependency_once"),
            legal_values("offset", Offset, name="dependency_offset_legal"),
        ]
        triggers = [pgtrigger.ReadOnly(name="workflow_dependency_immutable")]

    def __str__(self) -> str:
        return f"{self.revision} on {self.upstream}"
