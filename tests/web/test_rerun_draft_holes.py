"""A chosen instance that reads a result which is not rerun: step 2 and the plan say it, and it is accepted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from reruns import services
from reruns.models import Rerun
from reruns.plans import plan_of
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.web.conftest import Desk
from tests.web.draft_support import address, chosen, seen, text_without_marks
from tests.web.pages import HTMX, element, text_of
from workflows.models import CycleInstance

NAMES = ("weather", "flights", "delays")


@pytest.fixture
def chain(desk: Desk) -> dict[str, CycleInstance]:
    """weather > flights > delays have succeeded."""
    found: dict[str, CycleInstance] = {}
    for name, upstream in zip(NAMES, (None, *NAMES), strict=False):
        after = [found[upstream]] if upstream else []
        found[name] = cycle(make.workflow(name, group=desk.group, nodes="a"), after=after)
    return found


@pytest.fixture
def draft(chain: dict[str, CycleInstance], operator: Client) -> Rerun:
    """Without flights, which delays reads."""
    who: Any = operator.user  # type: ignore[attr-defined]
    return services.plan(chain["weather"], downstream=[chain["delays"]], by=who)


def submit(client: Client, draft: Rerun, page: Any, **asked: Any) -> Any:
    holes = re.search(r'name="holes" value="(\w+)"', text_of(page))
    sent = {"reason": "wrong"} | seen(page) | ({"holes": holes.group(1)} if holes else {})
    return client.post(address(draft, "plan"), sent | asked)


def test_the_plan_names_it_by_instance_with_the_action_that_closes_it(
    draft: Rerun, chain: dict[str, CycleInstance], operator: Client
) -> None:
    page = operator.get(address(draft, "plan"))
    row = element(page, f"hole-{chain['flights'].cycle_id}")
    assert chain["flights"].name in row
    assert chain["delays"].name in row
    assert f"Tick {chain['flights'].name} as well" in row
    assert f"reads {chain['flights'].name}, not rerun" in element(page, f"cycle-{chain['delays'].pk}")
    answer = operator.post(address(draft, "plan"), {"tick": chain["flights"].cycle_id})
    assert answer.headers["Location"] == address(draft, "plan")
    assert plan_of(draft).holes == []
    after = operator.get(address(draft, "plan"))
    assert 'id="holes"' not in text_of(after)
    assert 'name="accepted"' not in text_of(after)


def test_it_is_submitted_only_when_exactly_it_is_accepted(
    draft: Rerun, chain: dict[str, CycleInstance], operator: Client
) -> None:
    page = operator.get(address(draft, "plan"))
    for asked in ({}, {"accepted": "on", "holes": "0"}):
        answer = submit(operator, draft, page, **asked)
        assert answer.status_code == 409
        assert "chosen instances read results that are not rerun. Tick these instances as well" in text_of(
            answer
        )
        draft.refresh_from_db()
        assert draft.is_draft
    begun = submit(operator, draft, page, accepted="on")
    assert begun.status_code == 302
    draft.refresh_from_db()
    assert draft.state == "running"
    record = operator.get(f"/reruns/{draft.pk}/?view=list")
    item = draft.items.get(cycle=chain["delays"].cycle_id)
    assert "reads flights" in element(record, f"item-{item.pk}")
    assert "1 instance reads results that are not rerun; see the list." in element(record, "progress")


def test_another_hole_than_the_one_that_was_accepted_is_shown_first(
    draft: Rerun, desk: Desk, chain: dict[str, CycleInstance], operator: Client
) -> None:
    page = operator.get(address(draft, "plan"))
    more = cycle(make.workflow("scores", group=desk.group, nodes="a"), after=[chain["flights"]])
    services.choose(draft, [more.cycle_id], by=operator.user)  # type: ignore[attr-defined]
    again = seen(operator.get(address(draft, "plan")))
    answer = submit(operator, draft, page, accepted="on", **again)
    assert answer.status_code == 409
    draft.refresh_from_db()
    assert draft.is_draft


def test_step_two_counts_it_and_ticks_what_lies_between(
    draft: Rerun, chain: dict[str, CycleInstance], operator: Client
) -> None:
    page = operator.get(address(draft, "downstream"))
    assert "1 result is read by a ticked instance but not rerun; the plan names it." in text_without_marks(page)
    operator.post(address(draft, "downstream"), {"tick": "between"} | seen(page), headers=HTMX)
    assert set(chosen(draft)) == set(NAMES)


def test_what_may_not_be_ticked_says_why(desk: Desk, operator: Client) -> None:
    who: Any = operator.user  # type: ignore[attr-defined]
    theirs = make.group(team=make.team("finance"))
    weather = cycle(make.workflow("weather", group=desk.group, nodes="a"))
    costs = cycle(make.workflow("costs", group=theirs, nodes="a"), after=[weather])
    report = cycle(make.workflow("report", group=desk.group, nodes="a"), after=[costs])
    draft = services.plan(weather, downstream=[report], by=who)
    row = element(operator.get(address(draft, "plan")), f"hole-{costs.cycle_id}")
    assert "no permission" in row
    assert "Tick" not in row


def test_taking_out_says_what_reads_it(chain: dict[str, CycleInstance], operator: Client) -> None:
    who: Any = operator.user  # type: ignore[attr-defined]
    rerun = services.plan(chain["weather"], downstream="all", by=who)
    services.submit(rerun, by=who, reason="wrong")
    item = rerun.items.get(cycle=chain["flights"].cycle_id)
    said = text_of(operator.get(f"/reruns/{rerun.pk}/take-out/?item={item.pk}"))
    assert f"1 instance that stays in reads results that are then not rerun: {chain['delays'].name}." in said
