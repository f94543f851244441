"""Two weeks of the demo's workflows, made by running them in the background after the first start.

The last three days are what the schedule missed, as though no scheduler had run: it makes them good by itself,
oldest first, and they are online cycles like those that follow. What is older is backfilled, newest first.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from config.demo.weather import NEW_YORK

DAYS = 14
MISSED_DAYS = 3
BROKEN_DAYS_AGO, BROKEN_AT = 2, 17
# Days by which a workflow begins later, so that what its first cycles wait for is there.
_LATER = {"weather_hourly": -1, "weekly_report": 7}


def _midnight(now: datetime, days_ago: int) -> datetime:
    day = now.astimezone(NEW_YORK).date() - timedelta(days=days_ago)
    return datetime.combine(day, time.min, NEW_YORK)


def begins(workflow: str, now: datetime) -> datetime:
    """From when on the cycles of one of the demo's workflows exist."""
    return _midnight(now, DAYS - _LATER.get(workflow, 0))


def broken_hour(now: datetime) -> datetime:
    """The hour for which a sensor told nonsense."""
    return _midnight(now, BROKEN_DAYS_AGO).replace(hour=BROKEN_AT)


def begin(now: datetime) -> None:
    """Let the demo's workflows make their history; called once, in the transaction that installs them."""
    # Not at the top: every worker imports this package for its jobs, and needs none of this.
    from workflows import services
    from workflows.errors import CycleRefused
    from workflows.models import Order, Workflow

    missed = _midnight(now, MISSED_DAYS)
    Workflow.objects.update(generated_until=missed)
    for workflow in Workflow.objects.order_by("pk"):
        services.generate(workflow.pk, now)
        try:
            services.backfill(
                workflow,
                since=workflow.starts_at,
                until=missed,
                order=Order.NEWEST_FIRST,
                parallelism=2,
                by="demo",
                reason="two weeks to look at",
            )
        except CycleRefused:
            # The weekly report may have no cycle between the two times.
            continue
