from __future__ import annotations

import pgtrigger
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from scheduling.queries import ROUTINE, JournalQuerySet


class Via(models.TextChoices):
    """From where something was done."""

    WEB = "web", _("Web")
    SHELL = "shell", _("Shell")
    ENGINE = "engine", _("Engine")


class JournalEntry(models.Model):
    """Who did what to which object, when, why and from where. Kept when the object is gone."""

    at = models.DateTimeField(_("when"))
    action = models.CharField(_("action"), max_length=40)
    object_type = models.CharField(_("object type"), max_length=20)
    object_id = models.BigIntegerField(_("object"))
    object_name = models.CharField(_("object name"), max_length=200, blank=True)
    # Without a constraint: entries outlive what they speak of, and checking each costs the hot path.
    team = models.ForeignKey(
        "scheduling.Team",
        models.DO_NOTHING,
        null=True,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    # The task it is about, be it through a batch or an instance: those it is granted to read of it too.
    task = models.ForeignKey(
        "scheduling.Task",
        models.DO_NOTHING,
        null=True,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    actor = models.CharField(_("by"), max_length=150)
    via = models.CharField(_("from"), max_length=6, choices=Via)
    reason = models.TextField(_("reason"), blank=True)
    details = models.JSONField(_("details"), default=dict)

    objects = JournalQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name = _("journal entry")
        verbose_name_plural = _("journal entries")
        constraints = [models.CheckConstraint(condition=models.Q(via__in=Via.values), name="journal_via_legal")]
        indexes = [
            models.Index(fields=["object_type", "object_id", "-at"], name="journal_of_object"),
            models.Index(fields=["-at", "-id"], name="journal_newest"),
            models.Index(fields=["team", "-at", "-id"], name="journal_of_team"),
            models.Index(fields=["task", "-at", "-id"], name="journal_of_task"),
            models.Index(fields=["object_name", "-at", "-id"], name="journal_of_name"),
            # What the engine does all day is left out, so these cost next to nothing to keep.
            models.Index(
                fields=["team", "-at", "-id"], name="journal_of_people", condition=~models.Q(via=Via.ENGINE)
            ),
            models.Index(
                fields=["actor", "-at", "-id"], name="journal_of_person", condition=~models.Q(via=Via.ENGINE)
            ),
            models.Index(
                fields=["action", "-at", "-id"],
                name="journal_of_rare_action",
                condition=~models.Q(action__in=ROUTINE),
            ),
            models.Index(
                fields=["team", "action", "-at", "-id"],
                name="journal_of_rare_team_action",
                condition=~models.Q(action__in=ROUTINE),
            ),
        ]
        triggers = [
            pgtrigger.ReadOnly(name="journal_immutable", exclude=["team", "task", "user"]),
            pgtrigger.Protect(name="journal_kept", operation=pgtrigger.Delete),
        ]

    def __str__(self) -> str:
        said = f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor} ({self.via}) {self.action}"
        return f"{said} {self.object_type} {self.object_id}" + (f": {self.reason}" if self.reason else "")
