"""Who may do what to reruns. What a rerun may run is asked of each task: see scheduling.permissions.RERUN."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from reruns.models import Rerun
from reruns.situation import asker
from scheduling import journal, permissions

OPERATE = "reruns.operate_rerun"


def register() -> None:
    """Make them known; called once, when the app is ready."""
    from scheduling.models.teams import Role

    permissions.extend(
        words={OPERATE: gettext_lazy("Pause, resume and terminate reruns downstream")},
        added={Role.OPERATOR: {OPERATE}},
        team_paths={"rerun": ("team_id",), "rerunitem": ("team_id",)},
    )


def may_edit(user: Any, rerun: Rerun) -> bool:
    """Whether `user` may change a draft: it is its author's, and an administrator's."""
    return bool(user.is_superuser or (user.pk is not None and rerun.requested_by_id == user.pk))


def may_operate(user: Any, rerun: Rerun) -> bool:
    """Whether `user` may pause, resume and terminate: its author, and operators of the source's team."""
    return bool(may_edit(user, rerun) or user.has_perm(OPERATE, rerun))


def refuse_editing(rerun: Rerun, by: journal.By) -> None:
    """Raise PermissionDenied when `by` is a user who may not change this draft; the shell may."""
    user = asker(by)
    if user is not None and not may_edit(user, rerun):
        raise PermissionDenied(
            _("This draft is %(author)s's; only its author can change it.") % {"author": rerun.actor}
        )


def refuse_operating(rerun: Rerun, by: journal.By) -> None:
    """Raise PermissionDenied when `by` is a user who may not pause, resume or terminate it; the shell may."""
    user = asker(by)
    if user is not None and not may_operate(user, rerun):
        raise permissions.denied(OPERATE)
