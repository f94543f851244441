import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _

from scheduling.models.checks import legal_values
from scheduling.queries import GroupQuerySet, NodeQuerySet
from scheduling.states import NodeState


class DeploymentGroup(models.Model):
    """A set of execution nodes that run the same kinds of work; every task belongs to one."""

    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="groups")
    name = models.SlugField(_("name"), max_length=60)

    objects = GroupQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("deployment group")
        verbose_name_plural = _("deployment groups")
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="group_name_once_a_team")]

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """One machine (or container) that runs instances: a django-q2 cluster with `slots` workers.

    `boot_id` changes with every start of the node and of its sentinel, so whatever an earlier life
    still holds can be told from the present one.
    """

    name = models.SlugField(_("name"), max_length=60, unique=True)
    group = models.ForeignKey(DeploymentGroup, models.PROTECT, related_name="nodes")
    boot_id = models.UUIDField(_("boot"), null=True, editable=False)
    slots = models.PositiveSmallIntegerField(_("slots"), default=1)
    state = models.CharField(_("state"), max_length=10, choices=NodeState, default=NodeState.OFFLINE)
    drained = models.BooleanField(
        _("drained"), default=False, help_text=_("Somebody asked it to claim nothing, until they ask otherwise")
    )
    host = models.CharField(_("host"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process"), null=True)
    started_at = models.DateTimeField(_("started"), null=True)
    heartbeat_at = models.DateTimeField(_("last heartbeat"), null=True)
    clock_difference = models.FloatField(
        _("clock difference"), null=True, help_text=_("Seconds by which its clock is ahead of the database's")
    )

    objects = NodeQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("node")
        verbose_name_plural = _("nodes")
        constraints = [
            legal_values("state", NodeState, name="node_state_legal"),
            models.CheckConstraint(condition=models.Q(slots__gte=1), name="node_has_a_slot"),
        ]

    def __str__(self) -> str:
        return self.name


class SchedulerProcess(models.Model):
    """One `manage.py scheduler`, as its heartbeat describes it every few seconds.

    All times are the database's. The row is removed when the process ends in order.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    started_at = models.DateTimeField(_("started"))
    heartbeat_at = models.DateTimeField(_("last heartbeat"))
    leads = models.BooleanField(_("leads"), default=False)
    last_round_at = models.DateTimeField(
        _("last round"),
        null=True,
        help_text=_("When it last finished a round of all that is due, or began to lead"),
    )
    clock_difference = models.FloatField(
        _("clock difference"), null=True, help_text=_("Seconds by which its clock is ahead of the database's")
    )

    class Meta:
        ordering = ["-leads", "host", "pid"]
        verbose_name = _("scheduler")
        verbose_name_plural = _("schedulers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
