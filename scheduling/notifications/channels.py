"""Channels: the names that rules use, and the addresses behind them, which only the environment knows.

TAILRACE_CHANNEL_OPS=mailto://… is the channel `ops`; what may stand there is what Apprise understands: mail,
webhooks, some hundred kinds of chat. An address holds passwords and tokens. It is read at the moment of
sending, by the process that sends, and stands in no page, table, log or error: what Apprise says of a failure
is kept with every piece of the address blotted out.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any
from urllib.parse import quote, unquote

from scheduling import reasons
from scheduling.reasons import said

PREFIX = "TAILRACE_CHANNEL_"
CHANNEL_NAME = r"[a-z][a-z0-9_-]{0,39}"
# How long Apprise waits for a connection and between two pieces of an answer, in seconds, where the address
# does not say (`?cto=` and `?rto=`).
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 10.0
LONGEST_ERROR = 500

_BLOT = "…"
_BETWEEN_PIECES = re.compile(r"[/:@?&=;,#+\s]+")


class NotSent(Exception):
    """A channel was not told; the text is the reason as it is stored. `for_good`: trying again is no use."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


def variable_of(channel: str) -> str:
    """The environment variable that holds the address of `channel`."""
    return PREFIX + channel.upper().replace("-", "_")


def known_channels() -> list[str]:
    """The names of the channels that are configured in this process."""
    set_here = (name for name, value in os.environ.items() if name.startswith(PREFIX) and value)
    return sorted(name.removeprefix(PREFIX).lower() for name in set_here)


def is_known(channel: str) -> bool:
    """Whether the channel is configured in this process."""
    return bool(os.environ.get(variable_of(channel)))


def why_unknown(channel: str) -> str:
    """What to say of a channel that is not configured, as it is stored."""
    known = known_channels()
    variable = variable_of(channel)
    if not known:
        return said(reasons.NO_CHANNELS, name=channel, variable=variable)
    return said(reasons.NO_CHANNEL, name=channel, known=", ".join(known), variable=variable)


def send(channel: str, *, subject: str, text: str, event: str = "") -> None:
    """Tell `channel` now; raises NotSent. Takes no longer than the time-outs of each of its connections."""
    address = os.environ.get(variable_of(channel))
    if not address:
        raise NotSent(why_unknown(channel), for_good=True)
    # Loading its hundred kinds takes a moment, which only a process that sends should spend.
    from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

    # Without a time-out of its own Apprise sends in this thread, not in one of the few that channels share.
    asset = AppriseAsset(app_id="Tailrace", app_desc="Tailrace", async_mode=False, service_timeout=0)
    types = {"success": NotifyType.SUCCESS, "failure": NotifyType.FAILURE, "late": NotifyType.WARNING}
    heard = _Heard()
    try:
        plugin: Any = Apprise.instantiate(address, asset=asset)
        if plugin is None:
            raise NotSent(said(reasons.CHANNEL_NOT_ADDRESS, variable=variable_of(channel)), for_good=True)
        _limit(plugin, address)
        plugin.logger = heard.logger
        target = Apprise(asset=asset)
        target.add(plugin)
        done = target.notify(
            body=text,
            title=subject,
            notify_type=types.get(event, NotifyType.INFO),
            body_format=NotifyFormat.TEXT,
        )
    except NotSent:
        raise
    except Exception as error:  # noqa: BLE001 – a plugin may raise anything, and its text may hold the address
        raise NotSent(_reason([f"{type(error).__name__}: {error}"], address)) from None
    if not done:
        raise NotSent(_reason(heard.lines, address))


def _limit(plugin: Any, address: str) -> None:
    if not re.search(r"[?&]cto=", address):
        plugin.socket_connect_timeout = CONNECT_SECONDS
    if not re.search(r"[?&]rto=", address):
        plugin.socket_read_timeout = ANSWER_SECONDS


def _reason(errors: list[str], address: str) -> str:
    heard = redacted("; ".join(dict.fromkeys(errors)), address)[:LONGEST_ERROR]
    return said(reasons.CHANNEL_REFUSED, error=heard) if heard else said(reasons.CHANNEL_SILENT)


def redacted(text: str, address: str) -> str:
    """`text` on one line, with every piece of `address` blotted out: hosts, users, passwords, tokens."""
    text = " ".join(text.replace(address, _BLOT).split())
    for piece in sorted(_pieces(address), key=len, reverse=True):
        # A short piece is only blotted where it stands alone, or nothing readable would be left.
        pattern = re.escape(piece) if len(piece) >= 6 else rf"(?<!\w){re.escape(piece)}(?!\w)"
        text = re.sub(pattern, _BLOT, text, flags=re.IGNORECASE)
    return text


def _pieces(address: str) -> set[str]:
    """What an address is made of, as it is written there and as it is meant; its scheme is no secret."""
    rest = address.partition("://")[2]
    pieces: set[str] = set()
    for written in (rest, unquote(rest)):
        pieces.update(_BETWEEN_PIECES.split(written))
        # A password may hold what separates the others.
        pieces.update(written.rpartition("@")[0].partition(":"))
    pieces |= {unquote(piece) for piece in pieces} | {quote(piece, safe="") for piece in pieces}
    return pieces - {"", ":", "%3A"}


class _Heard(logging.Handler):
    """What a plugin says of a failure, on a logger that nobody else hears; it returns only that it failed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.logger = logging.Logger("channel", logging.DEBUG)  # noqa: LOG001 – no handler of others is to hear it
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        # The rest of what it says at the level of debugging are whole messages and addresses.
        if record.levelno >= logging.WARNING or "Exception" in line:
            self.lines.append(line)
