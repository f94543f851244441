"""One clock a page: titles, reasons, lists, plan, record and journal in the reader's time zone."""

from __future__ import annotations

from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

from django.test import Client
from django.utils import timezone

from scheduling import clocks, journal
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.web.conftest import Desk
from tests.web.pages import element, text_of
from tests.web.rerun_support import rerun
from workflows.models import Cycle, CycleInstance

BERLIN = ZoneInfo("Europe/Berlin")


def test_title_reason_list_record_and_journal_name_a_cycle_by_the_clock_of_the_reader(
    desk: Desk, operator: Client
) -> None:
    group = make.group(team=desk.team)
    new_york: Any = {"group": group, "nodes": "a", "cron": "0 * * * *", "timezone": "America/New_York"}
    named = cycle(make.workflow("hourly", **new_york))
    wrong = make.cycle(make.workflow("daily", **new_york))
    in_utc = f"hourly {clocks.stored(named.cycle_time)}"
    wrong = make.end_node(wrong, "a", "failed", error=f"the sensor is broken; rerun {in_utc} & more")
    CycleInstance.objects.filter(pk=wrong.pk).update(run_type="online")
    Cycle.objects.filter(pk=wrong.cycle_id).update(effective=wrong)
    of = rerun(named, {"a:waiting": wrong})
    operator.cookies["zone"] = "Europe/Berlin"
    minute = f"{named.cycle_time.astimezone(BERLIN):%Y-%m-%d %H:%M}"
    shown = f"hourly {minute} {named.cycle_time.astimezone(BERLIN):%Z}"

    def text(address: str) -> str:
        return unescape(text_of(operator.get(address)))

    assert f"{shown}</title>" in text(f"/cycles/{named.pk}/").replace(" · Tailrace", "")
    link = f'<a href="/cycles/{named.pk}/">{shown}</a> & more'
    assert link in unescape(element(operator.get(f"/cycles/{wrong.pk}/"), "why"))
    assert link in unescape(element(operator.get("/"), "attention"))
    clock = f"{named.cycle_time.astimezone(BERLIN):%H:%M}:00"
    assert f">{clock}" in element(operator.get("/cycles/?window=30d"), f"cycle-{named.pk}")
    assert shown in text(f"/reruns/{of.pk}/")
    assert minute in element(operator.get("/reruns/"), f"rerun-{of.pk}")
    assert minute in text(f"/reruns/{of.pk}/?view=list")
    # As it is read, so is it found.
    assert f'id="item-{of.items.get(is_source=True).pk}"' in text(f"/reruns/{of.pk}/?view=list&name={shown}")
    with timezone.override("Asia/Tokyo"):
        journal.record("stopped", named, "mei")
    entry = JournalEntry.objects.filter(object_type="cycleinstance", object_id=named.pk).latest("pk")
    assert entry.object_name == in_utc
    assert shown in text(f"/journal/?object={named.pk}&type=cycleinstance")
    assert f'id="entry-{entry.pk}"' in operator.get("/journal/", {"name": shown}).text
    assert "Times in Europe/Berlin" in text(f"/workflows/{named.workflow_id}/")


def test_a_cycle_that_its_reader_may_not_see_stays_as_the_job_wrote_it(desk: Desk, operator: Client) -> None:
    hidden = cycle(make.workflow("hidden", nodes="a"))
    group = make.group(team=desk.team)
    said = f"rerun hidden {clocks.stored(hidden.cycle_time)} and <b>nobody 2026-99-99 10:00 UTC</b>"
    wrong = make.end_node(make.cycle(make.workflow(group=group, nodes="a")), "a", "failed", error=said)
    why = element(operator.get(f"/cycles/{wrong.pk}/"), "why")
    assert said in unescape(why)
    assert ("<b>nobody" in why, f"/cycles/{hidden.pk}/" in why) == (False, False)
