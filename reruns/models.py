from __future__ import annotations

import pgtrigger
from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from reruns.queries import RerunItemQuerySet, RerunQuerySet
from reruns.states import ITEM, RERUN, ItemState, RerunState
from scheduling.clocks import by_clock
from scheduling.models.checks import ended_exactly_when_final, legal_values, only_allowed_moves


class OnFailure(models.TextChoices):
    """What a rerun does when one of its instances failed."""

    GO_ON = "go_on", _("Go on with the other branches")
    STOP = "stop", _("Generate nothing more")


class Action(models.TextChoices):
    """What a rerun does to an instance that was chosen."""

    RERUN = "rerun", pgettext_lazy("action", "Rerun")
    TERMINATE = "terminate", pgettext_lazy("action", "Terminate, then rerun")
    FREEZE = "freeze", pgettext_lazy("action", "Freeze")


# What a record says for good; accounts that are deleted are still forgotten.
_LASTING = (
    *("name", "source_id", "team_id", "reason", "freeze_mode", "as_it_ran", "parameters", "parallelism"),
    *("node_parallelism", "on_failure", "notify", "actor", "created_at", "submitted_at", "ended_at", "pinned"),
)


def _ended_and_changed() -> str:
    old, new = (", ".join(f"{row}.{column}" for column in _LASTING) for row in ("OLD", "NEW"))
    return f"OLD.ended_at IS NOT NULL AND ROW({old}) IS DISTINCT FROM ROW({new})"


class Step(models.TextChoices):
    """The steps in which a draft is made."""

    SOURCE = "source", _("Source nodes")
    DOWNSTREAM = "downstream", _("Downstream")
    SETTINGS = "settings", _("Settings")
    PLAN = "plan", _("Plan and submit")


class Rerun(models.Model):
    """One rerun downstream of a cycle instance: first a draft, then what runs, at last a record.

    `source` is the instance that it begins at, `name` how people know that one, both kept when retention
    removes it. `freeze_mode` admits instances that have not ended. `as_it_ran` takes the content of then, else
    that of the submit: `pinned` holds the revision ids of the workflows and tasks (see reruns.content).
    `parallelism` is of instances, `node_parallelism` of the nodes of each; 0 is no limit.
    `responsible` is whose rights count while it runs: who submitted or last resumed it; `unasked` says that it
    was the shell, which is asked nothing. `due` tells the scheduler that there may be something to do.
    `step` is where its author left a draft.
    """

    team = models.ForeignKey("scheduling.Team", models.PROTECT, related_name="+", db_index=False)
    source = models.ForeignKey(
        "workflows.CycleInstance",
        models.DO_NOTHING,
        related_name="+",
        db_index=False,
        # Without a constraint: the record outlives what it speaks of.
        db_constraint=False,
    )
    name = models.CharField(_("downstream of"), max_length=200)
    state = models.CharField(_("state"), max_length=11, choices=RerunState, default=RerunState.DRAFT)
    reason = models.TextField(_("reason"), blank=True)

    freeze_mode = models.BooleanField(_("freeze mode"), default=False)
    as_it_ran = models.BooleanField(_("content as it ran"), default=True)
    pinned = models.JSONField(default=dict)
    parameters = models.JSONField(_("parameters"), default=dict)
    parallelism = models.PositiveSmallIntegerField(_("instances at once"), default=0)
    node_parallelism = models.PositiveSmallIntegerField(_("nodes at once"), default=0)
    on_failure = models.CharField(
        _("when an instance fails"), max_length=5, choices=OnFailure, default=OnFailure.GO_ON
    )
    notify = models.JSONField(
        _("who is told"), default=list, help_text=_("Rules as notifications.clean_rules makes them")
    )

    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    actor = models.CharField(_("by"), max_length=150)
    responsible = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_index=False
    )
    unasked = models.BooleanField(default=False)
    due = models.BooleanField(default=False)
    step = models.CharField(max_length=10, choices=Step, default=Step.DOWNSTREAM)
    created_at = models.DateTimeField(_("created"))
    changed_at = models.DateTimeField(_("changed"))
    submitted_at = models.DateTimeField(_("submitted"), null=True)
    estimated_end = models.DateTimeField(_("would end"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    objects = RerunQuerySet.as_manager()

    class Meta:
        verbose_name = _("rerun downstream")
        verbose_name_plural = _("reruns downstream")
        constraints = [
            legal_values("on_failure", OnFailure, name="rerun_on_failure_legal"),
            ended_exactly_when_final(RERUN, name="rerun_ended_when_final"),
            models.CheckConstraint(
                condition=models.Q(state=RerunState.DRAFT, submitted_at__isnull=True)
                | (~models.Q(state=RerunState.DRAFT) & models.Q(submitted_at__isnull=False)),
                name="rerun_submitted_unless_draft",
            ),
        ]
        indexes = [
            models.Index(fields=["team", "-submitted_at", "-id"], name="rerun_of_team"),
            models.Index(fields=["-submitted_at", "-id"], name="rerun_newest"),
            models.Index(fields=["id"], name="rerun_due", condition=models.Q(due=True)),
            models.Index(
                fields=["id"],
                name="rerun_active",
                condition=models.Q(ended_at__isnull=True) & ~models.Q(state=RerunState.DRAFT),
            ),
        ]
        triggers = [
            only_allowed_moves(RERUN, name="rerun_moves"),
            pgtrigger.Trigger(
                name="rerun_record_lasts",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.Condition(_ended_and_changed()),
                func="RAISE EXCEPTION 'Rerun % has ended; its record does not change', OLD.id;",
            ),
        ]

    def __str__(self) -> str:
        return f"R-{self.pk}"

    def __repr__(self) -> str:
        return f"<R-{self.pk}: {self.state}, rerun downstream of {self.name}>"

    @property
    def title(self) -> str:
        """`name`, which is in UTC, in the reader's time zone; see `scheduling.clocks`."""
        return by_clock(self.name)

    @property
    def holder(self) -> str:
        """What the instances and cycles that it holds name as their holder."""
        return f"rerun:{self.pk}"

    @property
    def is_draft(self) -> bool:
        return self.state == RerunState.DRAFT

    @property
    def is_finished(self) -> bool:
        return self.state in RERUN.final

    @property
    def can_pause(self) -> bool:
        return self.state == RerunState.RUNNING

    @property
    def can_resume(self) -> bool:
        return self.state in {RerunState.PAUSED, RerunState.FAILED}

    @property
    def can_terminate(self) -> bool:
        return RERUN.allows(self.state, RerunState.TERMINATING)


class RerunItem(models.Model):
    """One chosen cycle of a rerun and what becomes of it.

    `original` is the instance that was chosen, `instance` the one that the rerun generated (or that took its
    place); ids without a constraint, as the record outlives both. `nodes` are the keys of the nodes that run,
    the others are carried; empty means all of them. `seen_state` is the state of `original` as the plan showed
    it: what differs at submit has drifted. `shown_state` is written when the rerun ends, and is what its record
    shows from then on; `kept` then says that an earlier success of the cycle counts, as the rerun made none.
    `holes` are the cycles ({"cycle": id, "name": name}) that it reads directly, that are downstream of the
    source and have run, and that are not rerun.
    `owned` is set from submit until the rerun ends or the item is taken out: a cycle has
    one owner. `wave`, `starts_at` and `ends_at` are the plan's (starts and ends in seconds from the submit).
    """

    rerun = models.ForeignKey(Rerun, models.CASCADE, related_name="items", db_index=False)
    cycle = models.ForeignKey(
        "workflows.Cycle", models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    workflow = models.ForeignKey(
        "workflows.Workflow", models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    team = models.ForeignKey(
        "scheduling.Team", models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    name = models.CharField(_("cycle"), max_length=200)
    cycle_time = models.DateTimeField(_("cycle time"))
    original = models.ForeignKey(
        "workflows.CycleInstance", models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    instance = models.ForeignKey(
        "workflows.CycleInstance",
        models.DO_NOTHING,
        null=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    is_source = models.BooleanField(default=False)
    action = models.CharField(_("action"), max_length=9, choices=Action)
    state = models.CharField(_("state"), max_length=10, choices=ItemState, default=ItemState.PLANNED)
    reason = models.TextField(_("reason"), blank=True)
    nodes = models.JSONField(_("nodes"), default=list)
    node_total = models.PositiveIntegerField(default=0)
    seen_state = models.CharField(max_length=10)
    shown_state = models.CharField(max_length=10, blank=True)
    holes = models.JSONField(default=list)
    kept = models.BooleanField(default=False)
    owned = models.BooleanField(default=False)
    wave = models.PositiveIntegerField(_("wave"), default=0)
    starts_at = models.FloatField(null=True)
    ends_at = models.FloatField(null=True)
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    objects = RerunItemQuerySet.as_manager()

    class Meta:
        verbose_name = _("item of a rerun")
        verbose_name_plural = _("items of reruns")
        constraints = [
            legal_values("action", Action, name="rerun_item_action_legal"),
            models.UniqueConstraint(fields=["rerun", "cycle"], name="rerun_item_once"),
            models.UniqueConstraint(
                fields=["cycle"], condition=models.Q(owned=True), name="rerun_owns_cycle_alone"
            ),
            ended_exactly_when_final(ITEM, name="rerun_item_ended_when_final"),
            models.CheckConstraint(
                condition=~models.Q(state=ItemState.PLANNED) | models.Q(owned=False),
                name="rerun_item_owned_once_submitted",
            ),
        ]
        indexes = [
            models.Index(fields=["rerun", "state", "wave", "id"], name="rerun_item_by_state"),
            models.Index(fields=["original"], name="rerun_item_of_original"),
            models.Index(
                fields=["instance"], name="rerun_item_of_instance", condition=models.Q(instance__isnull=False)
            ),
            models.Index(fields=["team", "rerun"], name="rerun_item_of_team"),
            models.Index(fields=["workflow", "rerun"], name="rerun_item_of_workflow"),
        ]
        triggers = [
            only_allowed_moves(ITEM, name="rerun_item_moves"),
            # What a rerun that has ended was is not to be changed: the record is of what happened then.
            pgtrigger.Trigger(
                name="rerun_item_immutable",
                when=pgtrigger.Before,
                operation=pgtrigger.Update | pgtrigger.Insert,
                func=(
                    "IF EXISTS (SELECT FROM reruns_rerun"
                    " WHERE id IN (OLD.rerun_id, NEW.rerun_id) AND ended_at IS NOT NULL) THEN"
                    " RAISE EXCEPTION 'Rerun % has ended; its record does not change', NEW.rerun_id;"
                    " END IF; RETURN NEW;"
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def title(self) -> str:
        """`name`, which is in UTC, in the reader's time zone; see `scheduling.clocks`."""
        return by_clock(self.name)

    @property
    def is_finished(self) -> bool:
        return self.state in ITEM.final


class RerunEdge(models.Model):
    """`item` is generated only when `upstream` has succeeded (or was taken out)."""

    item = models.ForeignKey(RerunItem, models.CASCADE, related_name="upstreams", db_index=False)
    upstream = models.ForeignKey(RerunItem, models.CASCADE, related_name="dependants")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["item", "upstream"], name="rerun_edge_once")]

    def __str__(self) -> str:
        return f"{self.item_id} on {self.upstream_id}"
