import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from config import clock
from scheduling.models import Instance, JournalEntry, Node, SchedulerProcess
from scheduling.states import NodeState
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, actions_of, element, live_address, marks, shown, state_of, text_of, words_of

REASON = {"reason": "a new disk"}


def test_nodes_stand_in_their_groups_with_their_load_and_what_they_run(desk: Desk, operator: Client) -> None:
    other = make.node("node-0", group=make.group("ingest", team=desk.team))
    first, *_rest = make.start_batch(make.batch(desk.task))
    page = operator.get("/nodes/")
    assert marks(page, "node") == [desk.node.pk, other.pk]
    row = element(page, f"node-{desk.node.pk}")
    assert "3 of 2 slots" in row
    assert f'href="/instances/{first.pk}/"' in row
    assert "just now" in row
    assert "1 of 1 node online · 3 of 2 slots in use" in words_of(page, f"group-{desk.group.pk}")
    assert "0 of 2 slots nothing" in words_of(page, f"node-{other.pk}")


def test_a_busy_node_lists_a_few_and_counts_the_rest(desk: Desk, operator: Client) -> None:
    make.start_batch(make.batch(make.task(group=desk.group, shards=list("abcdefg"))))
    row = element(operator.get("/nodes/"), f"node-{desk.node.pk}")
    assert row.count("/instances/") == 4
    assert "and 3 more" in row


def test_a_silent_node_says_for_how_long_and_an_old_one_is_folded_away(desk: Desk, operator: Client) -> None:
    silent = make.node(
        "silent",
        group=desk.group,
        state=NodeState.OFFLINE,
        heartbeat_at=timezone.now() - timedelta(minutes=20),
    )
    make.node("gone", group=desk.group, state=NodeState.OFFLINE, heartbeat_at=None)
    page = operator.get("/nodes/")
    assert state_of(page, f"node-{silent.pk}") == "offline"
    assert "20 min" in words_of(page, f"node-{silent.pk}")
    assert "1 node not heard of for a week" in words_of(page, f"group-{desk.group.pk}")
    assert "1 of 2 nodes online" in words_of(page, f"group-{desk.group.pk}")


def test_nodes_of_other_teams_are_neither_listed_nor_found(desk: Desk, outsider: Client) -> None:
    assert marks(outsider.get("/nodes/"), "node") == []
    assert "No node has reported yet." in text_of(outsider.get("/nodes/"))
    for verb in ("drain", "undrain"):
        assert outsider.post(f"/nodes/{desk.node.pk}/{verb}/", REASON).status_code == 404


def test_buttons_stand_only_where_they_do_something_and_for_those_who_may(
    desk: Desk, operator: Client, viewer: Client
) -> None:
    draining = make.node(group=desk.group, state=NodeState.DRAINING, drained=True)
    offline = make.node(group=desk.group, state=NodeState.OFFLINE)
    page = operator.get("/nodes/")
    assert actions_of(page, f"node-{desk.node.pk}") == ["drain"]
    assert actions_of(page, f"node-{draining.pk}") == ["undrain"]
    assert actions_of(page, f"node-{offline.pk}") == []
    assert actions_of(viewer.get("/nodes/"), f"node-{desk.node.pk}") == []


def test_draining_says_what_will_happen_first_then_does_it(desk: Desk, operator: Client) -> None:
    broadcast = make.task(group=desk.group, mode="broadcast")
    make.start_batch(make.batch(broadcast))
    waiting = make.batch(broadcast)
    page = text_of(operator.get(f"/nodes/{desk.node.pk}/drain/"))
    assert "1 instance that it runs goes on to its end." in page
    assert "1 instance that waits only for it is ended and never starts." in page
    assert "No other node of group etl is online" in page
    answer = operator.post(f"/nodes/{desk.node.pk}/drain/", REASON, headers=HTMX)
    assert answer.status_code == 200
    assert "acted" in answer["HX-Trigger-After-Settle"]
    assert state_of(operator.get("/nodes/"), f"node-{desk.node.pk}") == "draining"
    assert Instance.objects.get(batch=waiting).state == "terminated"
    entry = JournalEntry.objects.get(object_type="node", action="node_draining")
    assert (entry.user, entry.reason, entry.via) == (operator.user, "a new disk", "web")


def test_a_drained_node_is_taken_back_also_while_it_is_away(desk: Desk, operator: Client) -> None:
    address = f"/nodes/{desk.node.pk}/undrain/"
    Node.objects.update(state=NodeState.DRAINING, drained=True)
    assert "It claims again at once, up to 2 instances at a time." in text_of(operator.get(address))
    assert operator.post(address, REASON)["Location"] == "/nodes/"
    assert Node.objects.get().state == NodeState.ONLINE
    Node.objects.update(state=NodeState.OFFLINE, drained=True)
    assert "drained" in words_of(operator.get("/nodes/"), f"node-{desk.node.pk}")
    assert "it claims again as soon as it is back" in text_of(operator.get(address))


def test_what_is_not_possible_any_more_is_refused_with_the_reason(desk: Desk, operator: Client) -> None:
    Node.objects.update(state=NodeState.OFFLINE)
    answer = operator.get(f"/nodes/{desk.node.pk}/drain/", headers=HTMX)
    assert answer.status_code == 409
    assert "Node node-a is offline by now" in text_of(answer)
    answer = operator.post(f"/nodes/{desk.node.pk}/drain/", REASON, headers=HTMX)
    assert answer.status_code == 409
    assert "only an online node can be drained" in text_of(answer)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_who_sees_a_node_but_may_not_is_told_which_permission_is_missing(
    desk: Desk, viewer: Client, verb: str, method: str
) -> None:
    answer = getattr(viewer, method)(f"/nodes/{desk.node.pk}/{verb}/", REASON)
    assert answer.status_code == 403
    assert "scheduling.drain_node" in text_of(answer)
    assert Node.objects.get().state == NodeState.ONLINE


def test_only_the_group_that_differs_comes_back(desk: Desk, operator: Client) -> None:
    make.node(group=make.group("ingest", team=desk.team))
    page = operator.get("/nodes/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    # A heartbeat alone is no difference, as long as it is not missed.
    Node.objects.update(heartbeat_at=timezone.now())
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    make.start_batch(make.batch(desk.task))
    answer = operator.get(live_address(page), headers=shown(page))
    changed = re.findall(r'<section id="(group-\d+)"[^>]*hx-swap-oob', text_of(answer))
    assert changed == [f"group-{desk.group.pk}"]


def test_a_group_that_comes_or_goes_brings_the_whole_list(desk: Desk, operator: Client) -> None:
    page = operator.get("/nodes/")
    make.node(group=make.group("ingest", team=desk.team))
    answer = operator.get(live_address(page), headers=shown(page))
    assert '<div id="groups" class="head" hx-swap-oob="true">' in text_of(answer)
    assert len(marks(answer, "node")) == 2


def test_the_nodes_take_the_same_number_of_queries_however_many_there_are(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    make.start_batch(make.batch(desk.task))
    # Session, user, the count, the page, what each executes and those instances, the load, and the roles.
    for _ in range(2):
        with django_assert_num_queries(8):
            operator.get("/nodes/")
        for _ in range(4):
            group = make.group(team=desk.team)
            make.node(group=group)
            make.start_batch(make.batch(make.task(group=group)))


def test_the_schedulers_stand_above_the_nodes_and_wrong_clocks_are_told(desk: Desk, operator: Client) -> None:
    assert "No scheduler runs. Start one" in words_of(operator.get("/nodes/"), "schedulers")
    now = timezone.now()
    for host, leads, heard, ahead in [("a", True, 1, 0.4), ("b", False, 1, 3600.0), ("c", True, 60, None)]:
        heartbeat = now - timedelta(seconds=heard)
        SchedulerProcess.objects.create(
            host=host, pid=7, started_at=now, heartbeat_at=heartbeat, leads=leads, clock_difference=ahead
        )
    Node.objects.filter(pk=desk.node.pk).update(clock_difference=-95.0)
    page = operator.get("/nodes/")
    said = words_of(page, "schedulers")
    assert "a process 7 Leads just now" in said
    assert "b process 7 Stands by clock 1 h ahead just now" in said
    assert "c process 7 Silent" in said
    assert "clock 1 min 35 s behind" in words_of(page, f"node-{desk.node.pk}")
    SchedulerProcess.objects.filter(host="b").update(clock_difference=0.0)
    changed = text_of(operator.get(live_address(page), headers=shown(page)))
    assert 'id="schedulers"' in changed
    assert "ahead" not in changed


def test_the_page_says_when_the_web_s_own_clock_is_wrong(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_ask", lambda: timezone.now() + timedelta(minutes=10, seconds=20))
    assert "The web server’s clock is wrong: clock 10 min" in words_of(operator.get("/nodes/"), "schedulers")
