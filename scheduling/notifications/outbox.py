"""The outbox: every notification is a row, written with the event and taken out by whoever sends it.

`post` is called in the transaction of the event: an event that is undone posts nothing, and one that is told
twice is posted once, by its key. The rest of this module is the only writer of a notification's state:

    waiting → sent       the channel took it
    waiting → waiting    it did not; the next attempt comes after a longer while
    waiting → given_up   for hours it did not, or it cannot (no such channel)
    given_up → waiting   somebody asked to try again

An attempt is a lease: `claim` moves the row's next attempt past the time a send may take and commits, and the
result is recorded only by who holds the newest claim. A sender that is killed between the two leaves a row that
is sent again when the lease is over: a notification may come twice then, and is never lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from config import clock
from scheduling.models import Notification
from scheduling.models.notifications import NotificationState

LEASE_SECONDS = 120
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 15, 1800
# Messages that a channel gets in a minute at most; the last of them sums up what waits.
MESSAGES_A_MINUTE = 10
SUMMED_UP_AT_ONCE = 1000
MINUTE = 60.0
CHANGED_AT_ONCE = 1000

_LONGEST_SUBJECT = 200
_LONGEST_TEXT = 10_000


def post(
    key: str, *, event: str, channels: Iterable[str], team_id: int, subject: str, text: str, path: str = ""
) -> None:
    """Tell `channels` of an event, each once in the life of `key`; call it in the event's transaction.

    `key` names the event among all events, as `batch:4711:failure`; `path` is the page to link to, from the
    root of the site. Costs one statement.
    """
    now = clock.now()
    Notification.objects.bulk_create(
        [
            Notification(
                key=f"{key}:{channel}",
                team_id=team_id,
                channel=channel,
                event=event,
                subject=_line(subject)[:_LONGEST_SUBJECT],
                text=text[:_LONGEST_TEXT].replace("\0", ""),
                path=path,
                created_at=now,
                next_attempt_at=now,
                give_up_at=_give_up_at(now),
            )
            for channel in dict.fromkeys(channels)
        ],
        ignore_conflicts=True,
    )


def _line(text: str) -> str:
    return " ".join(text.replace("\0", "").split())


def _give_up_at(now: datetime) -> datetime:
    return now + timedelta(hours=float(settings.TAILRACE["NOTIFY_HOURS"]))


def link_to(path: str) -> str:
    """`path` as a whole address where the installation knows its own."""
    return f"{settings.TAILRACE['URL']}{path}" if path else ""


# --- sending ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Letter:
    """A notification that was claimed; `attempt` is the number of this attempt, and fences it."""

    id: int
    attempt: int
    event: str
    subject: str
    text: str
    path: str


_DUE = """
    SELECT channel, min(next_attempt_at) <= statement_timestamp() FROM scheduling_notification
    WHERE state = 'waiting' GROUP BY channel
"""
_SENT_LATELY = """
    SELECT count(DISTINCT sent_at) FROM scheduling_notification
    WHERE channel = %(channel)s AND state = 'sent'
        AND sent_at > statement_timestamp() - make_interval(secs => %(minute)s)
"""
_CLAIM = """
    WITH due AS MATERIALIZED (
        SELECT id FROM scheduling_notification
        WHERE channel = %(channel)s AND state = 'waiting' AND next_attempt_at <= statement_timestamp()
        ORDER BY next_attempt_at, id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE scheduling_notification n
        SET attempts = attempts + 1, next_attempt_at = statement_timestamp() + make_interval(secs => %(lease)s)
        FROM due WHERE n.id = due.id
        RETURNING n.id, n.attempts, n.event, n.subject, n.text, n.path
    )
    SELECT * FROM claimed ORDER BY id
"""
_MINE = """
    FROM unnest(%(ids)s::bigint[], %(attempts)s::int[]) AS mine (id, attempt)
    WHERE n.id = mine.id AND n.attempts = mine.attempt AND n.state = 'waiting'
"""
_SENT = f"""
    UPDATE scheduling_notification n
    SET state = 'sent', sent_at = statement_timestamp(), last_error = '' {_MINE}
"""
_FAILED = f"""
    UPDATE scheduling_notification n SET last_error = %(error)s,
        next_attempt_at = statement_timestamp()
            + make_interval(secs => least(%(first)s * 2.0 ^ least(n.attempts - 1, 20), %(longest)s)) {_MINE}
"""
_GIVEN_UP = """
    UPDATE scheduling_notification
    SET state = 'given_up', attempts = greatest(attempts, 1), last_error = %(error)s
    WHERE id IN (
        SELECT id FROM scheduling_notification
        WHERE channel = %(channel)s AND state = 'waiting' AND (%(all)s OR give_up_at <= statement_timestamp())
        LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
    )
"""


def channels_due() -> list[str]:
    """The channels for which something waits whose time has come."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE)
        return [channel for channel, due in cursor.fetchall() if due]


def claim(channel: str) -> list[Letter]:
    """Take what `channel` is to be told now: one notification, or many that are summed up in one message.

    Empty when nothing is due, or when the channel has had its messages for this minute.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_SENT_LATELY, {"channel": channel, "minute": MINUTE})
        left = MESSAGES_A_MINUTE - cursor.fetchone()[0]
        if left <= 0:
            return []
        limit = 1 if left > 1 else SUMMED_UP_AT_ONCE
        cursor.execute(_CLAIM, {"channel": channel, "limit": limit, "lease": LEASE_SECONDS})
        return [Letter(*row) for row in cursor.fetchall()]


def record_sent(letters: Sequence[Letter]) -> None:
    """The channel has taken the message of `letters`."""
    with connection.cursor() as cursor:
        cursor.execute(_SENT, _mine(letters))


def record_failed(letters: Sequence[Letter], error: str) -> None:
    """The channel has not taken it: these are tried again after a longer while."""
    waits = {"first": FIRST_RETRY_SECONDS, "longest": LONGEST_RETRY_SECONDS, "error": error}
    with connection.cursor() as cursor:
        cursor.execute(_FAILED, _mine(letters) | waits)


def give_up(channel: str, error: str, *, whatever_its_age: bool) -> int:
    """Give up what waits for a channel that fails: what is too old by now, or all for one that cannot work.

    Returns how many, a thousand at most: call it until there are none.
    """
    place: dict[str, Any] = {
        "channel": channel,
        "error": error,
        "all": whatever_its_age,
        "limit": CHANGED_AT_ONCE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_GIVEN_UP, place | {"all": whatever_its_age})
        return cursor.rowcount


def _mine(letters: Sequence[Letter]) -> dict[str, Any]:
    return {"ids": [each.id for each in letters], "attempts": [each.attempt for each in letters]}


# --- afterwards ------------------------------------------------------------------------------------


def try_again(notifications: Any) -> int:
    """Let those of a QuerySet that were given up wait again, for as long as a new one; returns how many."""
    now = clock.now()
    return int(
        notifications.filter(state=NotificationState.GIVEN_UP).update(
            state=NotificationState.WAITING, attempts=0, next_attempt_at=now, give_up_at=_give_up_at(now)
        )
    )


def remove_old() -> int:
    """Remove up to a thousand of those that are done and older than records are kept; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM scheduling_notification WHERE id IN ("
            " SELECT id FROM scheduling_notification"
            " WHERE created_at < statement_timestamp() - make_interval(days => %s) AND state <> 'waiting'"
            " ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)",
            [settings.TAILRACE["RETENTION_DAYS"], CHANGED_AT_ONCE],
        )
        return cursor.rowcount
