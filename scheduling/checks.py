"""What `manage.py check --deploy` says of PostgreSQL: whether its connections suffice."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import Count, Sum

from scheduling.models import Node
from scheduling.states import NodeState

# A node's own process, its sentinel and its pusher; and what one job takes at most, which Python jobs do.
OF_NODE, OF_JOB = 3, 2
# The leading scheduler's, with one notification under way; a second one that stands by.
OF_SCHEDULERS = 5
# Two processes of eight threads, as config/gunicorn.py and the unit have it.
OF_WEB = 16

_AVAILABLE = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true), '0')::int
"""


def enough_connections(**_kwargs: Any) -> list[checks.CheckMessage]:
    """The connections that the nodes now online, two schedulers and the web may open, against the server's."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_AVAILABLE)
            available = int(cursor.fetchone()[0])
        found = Node.objects.exclude(state=NodeState.OFFLINE).aggregate(nodes=Count("pk"), workers=Sum("slots"))
    except DatabaseError as error:
        text = f"Cannot count PostgreSQL's connections: {' '.join(str(error).split())}"
        return [checks.Warning(text, hint="Start the database and run migrate first.", id="scheduling.W001")]
    nodes, workers = found["nodes"], found["workers"] or 0
    needed = OF_NODE * nodes + OF_JOB * workers + OF_SCHEDULERS + OF_WEB
    text = (
        f"Tailrace opens up to {needed} connections: {OF_NODE} × {nodes} nodes + {OF_JOB} × {workers} workers "
        f"+ {OF_SCHEDULERS} for two schedulers + {OF_WEB} for the web. PostgreSQL allows {available}."
    )
    if needed > available:
        hint = f"Set max_connections to {needed + 20} or more, or start fewer workers."
        return [checks.Warning(text, hint=hint, id="scheduling.W002")]
    return [checks.Info(text, id="scheduling.I001")]
