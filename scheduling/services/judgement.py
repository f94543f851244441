"""What an operator decides of a batch that has ended: by another success ratio, or by their own word."""

from __future__ import annotations

from django.utils.translation import gettext as _

from scheduling import journal, transitions
from scheduling.errors import InvalidDefinition, TransitionRefused
from scheduling.models import Batch
from scheduling.states import BatchState


def rejudge(
    batch: Batch, *, success_ratio: int | None = None, by: journal.By = None, reason: str = ""
) -> Batch:
    """Judge an ended batch anew, by `success_ratio` in per cent or else by its task's of today.

    The batch keeps the new ratio, and the journal what it was before. Raises TransitionRefused when the
    batch has not ended (as a success or failed) or has no instances.
    """
    if success_ratio is None:
        revision = Batch.objects.select_related("task__revision").get(pk=batch.pk).task.revision
        success_ratio = batch.success_ratio if revision is None else revision.success_ratio
    if not 1 <= success_ratio <= 100:
        raise InvalidDefinition({"success_ratio": _("It is a whole number of per cent from 1 to 100.")})
    return transitions.judge_anew(batch.pk, success_ratio=success_ratio, by=by, reason=reason)


def mark(batch: Batch, state: str, *, reason: str, by: journal.By = None) -> Batch:
    """Call an ended batch a `success` or `failed` whatever its instances say, which stay as they are.

    Somebody's word needs its reason. Raises TransitionRefused when there is none, when the batch has not
    ended, or is in that state already.
    """
    if state not in {BatchState.SUCCESS, BatchState.FAILED}:
        raise TransitionRefused(
            _("A batch can be marked as success or failed, and not as “%(state)s”.") % {"state": state}
        )
    if not reason.strip():
        raise TransitionRefused(_("Say why it is to be marked: nothing else will tell."))
    return transitions.mark(batch.pk, BatchState(state), by=by, reason=reason)
