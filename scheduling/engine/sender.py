"""The sender: takes notifications out of the outbox and tells their channels, beside the leading scheduler.

It has threads of its own, so that no channel, however slow, holds up a trigger; and one for each channel that
has something to be told, so that none holds up another. Two senders share the work: rows are claimed under
locks that the other passes over. What is sent, retried or given up is decided in `notifications.outbox`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from scheduling import reasons
from scheduling.notifications import channels, deadlines, outbox
from scheduling.notifications.outbox import Letter
from scheduling.notifications.rules import sum_up
from scheduling.reasons import said

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# A channel that fails rests, so that ten thousand notifications do not knock in a row at a door that is shut.
FIRST_REST, LONGEST_REST = 5.0, 300.0
# How long the end of the scheduler waits for messages that are being sent; what is cut off is sent again.
END_SECONDS = 2.0
SUBJECTS_SHOWN = 10


class Sender:
    """One sender; `run` returns after `stop`, which any thread may call."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._channels: dict[str, threading.Thread] = {}
        self._rests: dict[str, tuple[float, float]] = {}
        self._sending: dict[str, tuple[float, Sequence[Letter]]] = {}

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    def run(self) -> None:
        """Send what waits and tell of what is late, until `stop`; then wait a little for what is being sent."""
        try:
            while not self._stopping.is_set():
                try:
                    self.turn()
                except DatabaseError as error:
                    logger.warning("The outbox cannot be read: %s", " ".join(str(error).split()))
                    connection.close()
                except Exception:
                    logger.exception("The outbox cannot be worked on")
                    close_old_connections()
                self._stopping.wait(POLL_SECONDS)
        finally:
            connection.close()
        until = time.monotonic() + END_SECONDS
        for thread in self._channels.values():
            thread.join(max(0.0, until - time.monotonic()))

    def turn(self) -> None:
        """Post what is late by now, and set a thread to work for each channel that is due."""
        while deadlines.pass_due() and not self._stopping.is_set():
            pass
        now = time.monotonic()
        for channel in outbox.channels_due():
            if self._is_busy(channel, now) or self._rests.get(channel, (0.0, 0.0))[0] > now:
                continue
            if not channels.is_known(channel):
                _give_up(channel, channels.why_unknown(channel), whatever_its_age=True)
                continue
            thread = threading.Thread(target=self._serve, args=(channel,), name=f"to-{channel}", daemon=True)
            self._channels[channel] = thread
            thread.start()

    def _is_busy(self, channel: str, now: float) -> bool:
        """Whether a thread serves it. One whose message outlasts every time-out is left to itself."""
        thread = self._channels.get(channel)
        if thread is None or not thread.is_alive():
            return False
        since, letters = self._sending.get(channel, (now, ()))
        if now - since < outbox.LEASE_SECONDS:
            return True
        reason = said(reasons.CHANNEL_HANGS, seconds=outbox.LEASE_SECONDS)
        outbox.record_failed(letters, reason)
        _give_up(channel, reason, whatever_its_age=False)
        logger.warning("The channel %s was not told of %d notifications: %s", channel, len(letters), reason)
        del self._sending[channel], self._channels[channel]
        return False

    def _serve(self, channel: str) -> None:
        try:
            while not self._stopping.is_set() and self.send_next(channel):
                pass
        except Exception:
            # What is claimed is sent again when its lease is over.
            logger.exception("The channel %s was left half way", channel)
        finally:
            connection.close()

    def send_next(self, channel: str) -> bool:
        """Send the next message to `channel`; False when there is none now, or the channel did not take it."""
        letters = outbox.claim(channel)
        if not letters:
            return False
        subject, text = message_of(letters, channel)
        self._sending[channel] = (time.monotonic(), letters)
        try:
            channels.send(channel, subject=subject, text=text, event=letters[0].event)
        except channels.NotSent as error:
            outbox.record_failed(letters, str(error))
            # What has waited behind others for hours has waited for this channel as long.
            _give_up(channel, str(error), whatever_its_age=error.for_good)
            rest = min(max(self._rests.get(channel, (0.0, 0.0))[1] * 2, FIRST_REST), LONGEST_REST)
            self._rests[channel] = (time.monotonic() + rest, rest)
            logger.warning("The channel %s was not told of %d notifications: %s", channel, len(letters), error)
            return False
        finally:
            self._sending.pop(channel, None)
        self._rests.pop(channel, None)
        outbox.record_sent(letters)
        return True


def _give_up(channel: str, error: str, *, whatever_its_age: bool) -> None:
    while outbox.give_up(channel, error, whatever_its_age=whatever_its_age):
        pass


def message_of(letters: Sequence[Letter], channel: str) -> tuple[str, str]:
    """Subject and text of one message: one notification as it is, several summed up."""
    with translation.override(settings.LANGUAGE_CODE):
        if len(letters) == 1:
            [letter] = letters
            return letter.subject, "\n\n".join(filter(None, [letter.text, outbox.link_to(letter.path)]))
        more = len(letters) - 1
        subject = ngettext("%(first)s, and %(count)d more", "%(first)s, and %(count)d more", more) % {
            "first": letters[0].subject,
            "count": more,
        }
        lines = [
            _("There were too many notifications to send each by itself. These are %(count)d: %(events)s.")
            % {"count": len(letters), "events": sum_up(letter.event for letter in letters)}
        ]
        shown = letters[:SUBJECTS_SHOWN]
        lines += [f"– {letter.subject}  {outbox.link_to(letter.path)}".rstrip() for letter in shown]
        left = len(letters) - SUBJECTS_SHOWN
        if left > 0:
            lines.append(ngettext("– and %(count)d more", "– and %(count)d more", left) % {"count": left})
        return subject, "\n".join([*lines, "", outbox.link_to(f"/notifications/?channel={channel}")])


@contextmanager
def sending() -> Iterator[Sender]:
    """A sender works in a thread for the length of the block."""
    sender = Sender()
    thread = threading.Thread(target=sender.run, name="sender", daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.stop()
        thread.join(END_SECONDS + POLL_SECONDS)
