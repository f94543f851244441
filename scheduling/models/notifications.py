from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduling.models.checks import legal_values
from scheduling.queries import NotificationQuerySet


class NotificationState(models.TextChoices):
    """Where a notification is on its way; what was given up waits again when somebody asks for that."""

    WAITING = "waiting", pgettext_lazy("notification", "Waiting")
    SENT = "sent", pgettext_lazy("notification", "Sent")
    GIVEN_UP = "given_up", pgettext_lazy("notification", "Given up")


class Notification(models.Model):
    """What one channel is told of one event: a row of the outbox, written in the transaction of the event.

    `key` names event and channel, so that however often an event is told of, a channel hears of it once. An
    attempt takes the row by moving `next_attempt_at` past the time that a send may take.
    """

    key = models.CharField(_("key"), max_length=200, unique=True)
    team = models.ForeignKey("scheduling.Team", models.CASCADE, related_name="+", db_index=False)
    channel = models.CharField(_("channel"), max_length=40)
    event = models.CharField(_("event"), max_length=20)
    subject = models.CharField(_("subject"), max_length=200)
    text = models.TextField(_("text"))
    path = models.CharField(_("page"), max_length=200, blank=True)
    state = models.CharField(
        _("state"), max_length=10, choices=NotificationState, default=NotificationState.WAITING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    last_error = models.TextField(_("error"), blank=True)
    created_at = models.DateTimeField(_("created"))
    next_attempt_at = models.DateTimeField(_("next attempt"))
    give_up_at = models.DateTimeField(_("given up after"))
    sent_at = models.DateTimeField(_("sent"), null=True)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        constraints = [
            legal_values("state", NotificationState, name="notification_state_legal"),
            models.CheckConstraint(
                condition=models.Q(state=NotificationState.SENT, sent_at__isnull=False)
                | (~models.Q(state=NotificationState.SENT) & models.Q(sent_at__isnull=True)),
                name="notification_sent_at_when_sent",
            ),
        ]
        indexes = [
            models.Index(
                fields=["channel", "next_attempt_at", "id"],
                name="notification_waiting",
                condition=models.Q(state=NotificationState.WAITING),
            ),
            # How many messages a channel had in the last minute.
            models.Index(
                fields=["channel", "-sent_at"],
                name="notification_sent",
                condition=models.Q(state=NotificationState.SENT),
            ),
            models.Index(fields=["team", "-created_at", "-id"], name="notification_of_team"),
            models.Index(
                fields=["team", "-created_at", "-id"],
                name="notification_unsent",
                condition=~models.Q(state=NotificationState.SENT),
            ),
            models.Index(fields=["-created_at", "-id"], name="notification_newest"),
        ]

    def __str__(self) -> str:
        # Short enough for the journal to name it.
        return f"{self.subject[:150]} → {self.channel}"


class Deadline(models.Model):
    """Something is to be told of if it has not ended by `at`: the thing `object_id` of a registered `kind`.

    `after` is the rule's limit in seconds, by which the rules that ask for this moment are found again.
    """

    kind = models.CharField(_("kind"), max_length=20)
    object_id = models.BigIntegerField(_("object"))
    after = models.PositiveIntegerField(_("limit (s)"))
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("deadline")
        verbose_name_plural = _("deadlines")
        constraints = [
            models.UniqueConstraint(fields=["kind", "object_id", "after"], name="deadline_once_a_limit")
        ]
        indexes = [models.Index(fields=["at"], name="deadline_due")]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id} by {self.at:%Y-%m-%d %H:%M:%S}"
