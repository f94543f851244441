"""manage.py notify: which channels there are, and whether one of them can be told."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from scheduling import notifications
from scheduling.notifications.channels import NotSent, variable_of


class Command(BaseCommand):
    help = (
        "Lists the channels that this process knows from its environment; with --test, sends one of them a "
        "message and says what went wrong. The leading scheduler sends, so what counts is its environment."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--test", metavar="CHANNEL", help="send this channel a message now")

    def handle(self, *, test: str | None, **options: Any) -> None:
        if test is None:
            known = notifications.known_channels()
            self.stdout.write(
                "\n".join(known) if known else "There is no channel; set TAILRACE_CHANNEL_<NAME>."
            )
            return
        try:
            notifications.send(
                test,
                subject=_("A test of the channel %(name)s") % {"name": test},
                text=_("If you read this, Tailrace reaches you here. %(link)s")
                % {"link": settings.TAILRACE["URL"]},
            )
        except NotSent as error:
            raise CommandError(f"{test}: {error}") from None
        self.stdout.write(f"The channel {test} ({variable_of(test)}) took the message.")
