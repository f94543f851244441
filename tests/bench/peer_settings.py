"""The peer's settings: django-q2 with its ORM broker, tuned so that the comparison is fair.

Persistent connections (`CONN_MAX_AGE` is None in ours already), no recycling, no records of successes, ten
tasks a query, no log line a task. Same database, same number of workers.
"""

import os

from config.settings import *  # noqa: F403

Q_CLUSTER = {
    "name": "peer",
    "orm": "default",
    "workers": int(os.environ.get("BENCH_WORKERS", "2")),
    "recycle": 100_000,
    "save_limit": -1,
    "bulk": 10,
    "queue_limit": 100,
    "timeout": 600,
    "retry": 700,
    "scheduler": False,
    "log_level": "WARNING",
}
