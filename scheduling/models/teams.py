from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from scheduling.models.checks import legal_values


class Role(models.TextChoices):
    """What a member may do, each role including the ones before it."""

    VIEWER = "viewer", _("Viewer")
    OPERATOR = "operator", _("Operator")
    DEVELOPER = "developer", _("Developer")
    OWNER = "owner", _("Owner")


class Team(models.Model):
    """People who share groups, tasks and workflows; nobody else sees them."""

    name = models.SlugField(_("name"), max_length=60, unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="teams")

    class Meta:
        ordering = ["name"]
        verbose_name = _("team")
        verbose_name_plural = _("teams")

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=12, choices=Role)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="membership_once"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_legal"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} of {self.team}"


class Granted(models.TextChoices):
    """What one team may let another do to a task of its own; each that acts includes seeing."""

    VIEW = "view", _("See it")
    RUN = "run_task", _("Run it")
    STOP = "stop_task", _("Stop its runs")
    RERUN = "rerun_task", _("Rerun its runs")


class TaskGrant(models.Model):
    """One permission on one task, given to a team that does not own it.

    A member of that team may use it as far as their role there goes: an operator may rerun what was granted
    to be rerun, a viewer may only see it.
    """

    task = models.ForeignKey(
        "scheduling.Task", models.CASCADE, related_name="grants", db_index=False, verbose_name=_("task")
    )
    team = models.ForeignKey(Team, models.CASCADE, related_name="granted", verbose_name=_("team"))
    permission = models.CharField(_("permission"), max_length=12, choices=Granted)
    granted_by = models.CharField(_("granted by"), max_length=150)
    granted_at = models.DateTimeField(_("granted"), auto_now_add=True)

    class Meta:
        verbose_name = _("grant")
        verbose_name_plural = _("grants")
        ordering = ["task", "team", "permission"]
        constraints = [
            models.UniqueConstraint(fields=["task", "team", "permission"], name="grant_once"),
            legal_values("permission", Granted, name="grant_permission_legal"),
        ]

    def __str__(self) -> str:
        return f"{self.get_permission_display()}: {self.task} to {self.team}"
