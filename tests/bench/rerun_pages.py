"""The figures of the pages of reruns, as a browser asks for them: a draft of 2,000, and a record of 10,000."""

from __future__ import annotations

import importlib
import re
import statistics
from functools import partial
from typing import Any

from django.test import Client
from django.urls import reverse

from reruns import services
from reruns.models import Rerun
from reruns.plans import plan_of
from tests.bench.engine import task_of
from tests.bench.harness import Figure, seconds, timed
from tests.bench.rerun_cycles import fan_of
from workflows.models import CycleDependency, CycleInstance

WORKFLOWS = 20
AFFECTED = 2_000
RUNS = 5
TICK = 0.3
PAGE = 1.0


def drafting() -> list[Figure]:
    """The flow of a draft over 2,000 instances, and one tick in it, with what the page shows anew."""
    # As the web server loads it: what other figures left in this process is no garbage of its pages.
    importlib.import_module("config.wsgi")
    task_of("bench-noop", kind="python", spec={"call": "noop"})
    client = signed_in()
    draft = services.plan(_downstream_of_one(), by="bench")
    flow = reverse("draft-downstream", args=[draft.pk])
    opening = [timed(lambda: _ok(client.get(flow))) for _run in range(RUNS)]
    found = [_page(f"opening the flow of a draft over {AFFECTED:,} instances", opening)]
    cycles = [each.cycle_id for each in plan_of(draft).candidates][1:]
    for named, turned in (("the first ones", "on"), ("others of all", "off")):
        shown = _shown(client.get(flow))
        ticks = [partial(_tick, client, flow, {turned: cycle}, shown) for cycle in cycles[:RUNS]]
        took = [timed(each) for each in ticks]
        found.append(
            Figure(
                f"one tick among {AFFECTED:,}, page's answer included, {named}",
                seconds(took),
                f"want ≤ {TICK} s",
                statistics.median(took) <= TICK,
            )
        )
        services.choose(draft, cycles, by="bench")
    return found


def record_of(rerun: Rerun) -> Figure:
    """The first look at the record of a large rerun."""
    client, address = signed_in(), reverse("rerun-detail", args=[rerun.pk])
    items = rerun.items.count()
    return _page(f"opening the record of {items:,} instances", [timed(lambda: _ok(client.get(address)))])


def signed_in() -> Client:
    """A browser of somebody who may do everything."""
    from django.contrib.auth import get_user_model

    user, _ = get_user_model().objects.get_or_create(username="root", is_superuser=True, is_staff=True)
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    return client


def _page(name: str, took: list[float]) -> Figure:
    return Figure(name, seconds(took), f"want ≤ {PAGE:.0f} s", max(took) <= PAGE)


def _ok(response: Any) -> Any:
    assert response.status_code == 200, response.status_code
    return response


def _shown(response: Any) -> str:
    """By what a page tells the server which of its boxes it has."""
    found = re.search(r'name="shown" value="([^"]*)"', _ok(response).content.decode())
    assert found
    return found[1]


def _tick(client: Client, address: str, turned: dict[str, int], shown: str) -> None:
    """Turn one box, as the page does."""
    _ok(client.post(address, {**turned, "shown": shown}, headers={"hx-request": "true"}))


def _downstream_of_one() -> CycleInstance:
    """The source of 20 workflows of 100 cycles: each workflow waits for another, the first for the source."""
    source = fan_of("bench-draft-source", 1)
    made: list[list[CycleInstance]] = []
    for number in range(WORKFLOWS):
        fan = fan_of(f"bench-draft-{number}", AFFECTED // WORKFLOWS)
        upstreams = made[(number - 1) // 2] if made else source * len(fan)
        CycleDependency.objects.bulk_create(
            CycleDependency(cycle_id=each.cycle_id, upstream_id=upstream.cycle_id)
            for each, upstream in zip(fan, upstreams, strict=True)
        )
        made.append(fan)
    return source[0]
