"""PostgreSQL is restarted, gently and by a crash, with instances in flight; nothing is lost or doubled."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from django.db import OperationalError, connection

from config import database
from tests.faults.cluster import cluster, nothing_lost_or_doubled
from tests.processes import eventually


def postmaster(server: database.EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
def test_a_restart_of_the_database_loses_nothing(
    own_server: database.EmbeddedServer, tmp_path: Path, how: signal.Signals
) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1")
        running.start_node("n2")
        running.start_scheduler("s1")
        batch = running.trigger(200, seconds=0.2)
        running.started(batch, 20)
        server = postmaster(own_server)
        server.send_signal(how)
        server.wait(30)
        connection.close()
        own_server.start()
        eventually(reachable, within=30)
        running.ended(batch)
        nothing_lost_or_doubled(running, batch)
        connection.close()


def reachable() -> bool:
    try:
        connection.ensure_connection()
    except OperationalError:
        connection.close()
        return False
    return True
