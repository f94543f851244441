"""manage.py scheduler: fire what is due. Any number may run; one leads and the others stand by."""

from __future__ import annotations

import gc
import logging
import signal
from threading import Timer
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection

from config import sessions
from scheduling.engine.scheduler import Scheduler
from scheduling.engine.sender import sending

logger = logging.getLogger("scheduling.engine.scheduler")


class Command(BaseCommand):
    help = (
        "Fires every task when it is due, and sends notifications. Run as many as you like, on as many "
        "machines: one leads, the others stand by and take over within a second when it ends, however it "
        "ends. SIGTERM and Ctrl-C end it."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        scheduler = Scheduler(beside=sending)

        def stop(*_: Any) -> None:
            scheduler.stop()
            if connection.connection is not None:
                # A statement that waits for a lock must not hold up the end. Its transaction is undone whole.
                timer = Timer(0.5, connection.connection.cancel)
                timer.daemon = True
                timer.start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        sessions.limit(sessions.ENGINE)
        # All that was imported stays: the collector need not walk over it in the middle of a round.
        gc.collect()
        gc.freeze()
        scheduler.run()
        logger.info("The scheduler has ended")
