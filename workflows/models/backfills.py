from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling.models.checks import ended_exactly_when_final, legal_values, only_allowed_moves
from workflows.queries import BackfillQuerySet
from workflows.states import BACKFILL, BackfillState


class Order(models.TextChoices):
    """In which order the cycles of a backfill have their turn."""

    OLDEST_FIRST = "oldest_first", pgettext_lazy("order", "Oldest first")
    NEWEST_FIRST = "newest_first", pgettext_lazy("order", "Newest first")


class Backfill(models.Model):
    """The cycles of a workflow between two times, run (again) under control: their instances point here."""

    workflow = models.ForeignKey("workflows.Workflow", models.CASCADE, related_name="backfills")
    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="+", db_index=False)
    since = models.DateTimeField(_("from"), help_text=_("The first cycle time"))
    until = models.DateTimeField(_("until"), help_text=_("The last cycle time"))
    order = models.CharField(_("order"), max_length=12, choices=Order, default=Order.OLDEST_FIRST)
    parallelism = models.PositiveSmallIntegerField(_("cycles at once"), default=1)
    pause_on_failure = models.BooleanField(_("pauses when a cycle failed"), default=False)
    state = models.CharField(_("state"), max_length=11, choices=BackfillState, default=BackfillState.RUNNING)
    reason = models.TextField(_("reason"), blank=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    actor = models.CharField(_("by"), max_length=150)
    created_at = models.DateTimeField(_("created"))
    ended_at = models.DateTimeField(_("ended"), null=True)

    objects = BackfillQuerySet.as_manager()

    class Meta:
        verbose_name = _("backfill")
        verbose_name_plural = _("backfills")
        constraints = [
            legal_values("order", Order, name="backfill_order_legal"),
            ended_exactly_when_final(BACKFILL, name="backfill_ended_when_final"),
            models.CheckConstraint(condition=models.Q(parallelism__gte=1), name="backfill_runs_something"),
            models.CheckConstraint(condition=models.Q(until__gte=models.F("since")), name="backfill_range"),
        ]
        indexes = [
            models.Index(fields=["team", "-created_at", "-id"], name="backfill_of_team"),
            models.Index(fields=["id"], name="backfill_unfinished", condition=models.Q(ended_at__isnull=True)),
        ]
        triggers = [only_allowed_moves(BACKFILL, name="backfill_moves")]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def name(self) -> str:
        return f"{self.workflow.name} {self.since:%Y-%m-%d} – {self.until:%Y-%m-%d}"

    @property
    def is_finished(self) -> bool:
        return self.state in BACKFILL.final
