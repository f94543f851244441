"""Deadlines: what has not ended by its time is told of, without anybody looking through what runs.

Whoever begins something that has a limit writes a row with its moment (`watch`), and whoever ends it in time
takes the row away (`ended`). What is left when its moment comes is late, and the function that is registered
for its kind says so; the app that owns the kind registers it when it starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models.functions import Now

from scheduling.errors import is_transient
from scheduling.models import Deadline

logger = logging.getLogger(__name__)

type Handler = Callable[[Sequence[Deadline]], None]

AT_ONCE = 200
# What a handler cannot deal with is tried again after this, so that it does not stand in the way of the rest.
AGAIN_AFTER = timedelta(minutes=5)

_handlers: dict[str, Handler] = {}


def when_late(kind: str) -> Callable[[Handler], Handler]:
    """Register what tells of things of `kind`: it gets deadlines that have passed and posts what is to be told.

    It must look whether the thing still exists, and whether it ended after all: a rule may have changed since.
    """

    def register(handler: Handler) -> Handler:
        _handlers[kind] = handler
        return handler

    return register


def watch(kind: str, limits: Iterable[tuple[int, datetime, int]]) -> None:
    """Watch things of `kind`: each `(id, since, after)` is to have ended `after` seconds after `since`."""
    Deadline.objects.bulk_create(
        [
            Deadline(kind=kind, object_id=object_id, after=after, at=since + timedelta(seconds=after))
            for object_id, since, after in limits
        ],
        ignore_conflicts=True,
    )


def ended(kind: str, object_id: int) -> None:
    """The thing has ended: what it kept is watched no more. What it missed is still told of."""
    Deadline.objects.filter(kind=kind, object_id=object_id, at__gt=Now()).delete()


def pass_due() -> int:
    """Hand deadlines that have passed to those who tell of them; returns how many, 0 when none is left."""
    with transaction.atomic():
        due = list(
            Deadline.objects.filter(at__lte=Now())
            .order_by("at", "id")
            .select_for_update(skip_locked=True)[:AT_ONCE]
        )
        for kind in sorted({each.kind for each in due}):
            _pass(kind, [each for each in due if each.kind == kind])
    return len(due)


def _pass(kind: str, due: Sequence[Deadline]) -> None:
    passed = Deadline.objects.filter(pk__in=[each.pk for each in due])
    handler = _handlers.get(kind)
    try:
        if handler is not None:
            with transaction.atomic():
                handler(due)
        passed.delete()
    except Exception as error:
        if connection.needs_rollback or is_transient(error):
            raise
        logger.exception("What is late of the kind %s cannot be told of yet", kind)
        passed.update(at=Now() + AGAIN_AFTER)
