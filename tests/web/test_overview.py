import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from scheduling import services
from scheduling.engine.lead import LEAD_KEY
from scheduling.models import Batch, Node, SchedulerProcess, Task
from scheduling.states import NodeState
from tests import factories as make
from tests.web.conftest import Desk, signed_in
from tests.web.pages import asked_for, element, shown, text_of, words_of


def failed(desk: Desk, why: str = "exit code 3", task: Task | None = None) -> Batch:
    batch = make.batch(task or make.task(group=desk.group))
    instance, *others = make.start_batch(batch)
    make.end(instance, "failed", reason=why, may_retry=False)
    for other in others:
        make.end(other)
    return batch


def age(batch: Batch, by: timedelta) -> None:
    """Let `batch` have been begun, and ended if it has, earlier."""
    for name in ("created_at", "started_at", "ended_at"):
        moment = getattr(Batch.objects.get(pk=batch.pk), name)
        if moment is not None:
            Batch.objects.filter(pk=batch.pk).update(**{name: moment - by})


def leading_scheduler(*, round_ago: int = 0) -> None:
    now = timezone.now()
    last = now - timedelta(seconds=round_ago)
    SchedulerProcess.objects.create(
        host="a", pid=1, started_at=now, heartbeat_at=now, leads=True, last_round_at=last
    )


def test_a_red_banner_says_when_nothing_is_scheduled(desk: Desk, operator: Client) -> None:
    page = operator.get("/")
    assert "No scheduler leads, so nothing is scheduled." in words_of(page, "alarm")
    assert 'class="refusal"' in element(page, "alarm")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LEAD_KEY])
        try:
            leading_scheduler(round_ago=130)
            assert "finished its last round 2 min ago" in words_of(operator.get("/"), "alarm")
            SchedulerProcess.objects.update(last_round_at=timezone.now())
            changes = operator.get("/changes/", headers=shown(page))
            assert 'id="alarm" role="alert" hx-swap-oob="true"></section>' in text_of(changes)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LEAD_KEY])


def test_the_front_door_is_the_overview_also_after_signing_in(desk: Desk, operator: Client) -> None:
    assert "<h1>Overview</h1>" in text_of(operator.get("/"))
    answer = Client().post("/accounts/login/", {"username": operator.user.username, "password": "secret"})
    assert answer["Location"] == "/"


def test_failures_are_grouped_by_task_newest_first_with_their_reason(desk: Desk, operator: Client) -> None:
    flaky, broken = make.task("flaky", group=desk.group), make.task("broken", group=desk.group)
    for _ in range(2):
        failed(desk, "the feed is empty", flaky)
    last = failed(desk, "no such table", broken)
    page = operator.get("/")
    said = words_of(page, "failures")
    assert said.index("broken") < said.index("flaky")
    assert "broken etl 1×" in said
    assert "no such table" in said
    assert "flaky etl 2×" in said
    assert f'href="/batches/{last.pk}/"' in element(page, "failures")
    assert f"state=failed&amp;task={flaky.pk}" in element(page, "failures")


def test_the_last_failure_is_the_one_that_ended_last(desk: Desk, operator: Client) -> None:
    task = make.task("flaky", group=desk.group)
    first, second = make.batch(task), make.batch(task)
    for batch in (second, first):
        [instance] = make.start_batch(batch)
        make.end(instance, "failed", reason=f"batch {batch.pk} broke", may_retry=False)
    assert f"batch {first.pk} broke" in words_of(operator.get("/"), "failures")


def test_a_failure_of_some_instances_says_how_many(desk: Desk, operator: Client) -> None:
    failed(desk, "exit code 3", desk.task)
    assert "1 of 3 instances did not succeed: exit code 3" in words_of(operator.get("/"), "failures")


def test_a_batch_with_a_reason_of_its_own_says_that(desk: Desk, operator: Client) -> None:
    Node.objects.update(state=NodeState.OFFLINE)
    make.batch(make.task(group=desk.group, mode="broadcast"))
    assert "No node of the deployment group is online" in words_of(operator.get("/"), "failures")


def test_what_failed_before_the_last_day_is_not_shown(desk: Desk, operator: Client) -> None:
    age(failed(desk), timedelta(hours=25))
    assert "Nothing failed." in words_of(operator.get("/"), "failures")


def test_recovered_tasks_stand_last_and_are_red_only_while_another_is_not(desk: Desk, operator: Client) -> None:
    flaky, broken = make.task("flaky", group=desk.group), make.task("broken", group=desk.group)
    failed(desk, "no such table", broken)
    failed(desk, "the feed is empty", flaky)
    make.end_batch(make.batch(flaky))
    page = operator.get("/")
    said = words_of(page, "failures")
    assert said.index("broken") < said.index("flaky") < said.index(" recovered ")
    assert 'data-tone="failed"><dt>Failed' in element(page, "figures")
    make.end_batch(make.batch(broken))
    page = operator.get("/")
    assert words_of(page, "failures").count(" recovered ") == 2
    assert 'data-tone="failed"><dt>Failed' not in element(page, "figures")
    assert "of 2 tasks, all recovered" in words_of(page, "figures")
    failed(desk, "no such table", broken)
    assert 'data-tone="failed"><dt>Failed' in element(operator.get("/"), "figures")


def test_a_stopped_batch_and_a_replaced_one_are_no_failures(desk: Desk, operator: Client) -> None:
    services.stop(make.batch(desk.task), by="mei", reason="wrong day")
    replacing = make.task("replacing", group=desk.group, overlap="replace")
    make.batch(replacing)
    make.batch(replacing)
    assert set(Batch.objects.values_list("state", "stopped")) == {("failed", True), ("waiting", False)}
    assert "replacing" not in words_of(operator.get("/"), "failures")
    assert "extract" not in words_of(operator.get("/"), "failures")
    timeline = element(asked_for(operator, "/", "timeline"), "timeline")
    [good, bad, other] = re.findall(r'class="num"[^>]*>(\d+)<.*?>(\d+)<.*?>(\d+)<', timeline)[0]
    assert (good, bad, other) == ("0", "0", "3")


def test_what_runs_is_shown_with_its_counters_and_what_waits_is_counted(desk: Desk, operator: Client) -> None:
    running = make.batch(desk.task)
    make.start_batch(running)
    make.batch(desk.task)
    page = operator.get("/")
    assert f'href="/batches/{running.pk}/"' in element(page, "running")
    assert "3 running" in words_of(page, "running")
    figures = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text_of(page)))
    assert "Running 1 Waiting 1 Slots in use 3 of 2" in figures


def test_figures_lead_to_the_tab_where_most_of_what_they_count_is(desk: Desk, operator: Client) -> None:
    def leads(figure: str) -> str:
        [address] = re.findall(rf'id="figure-{figure}" href="([^"]*)"', text_of(operator.get("/")))
        return address.replace("&amp;", "&")

    failed_cycle = make.end_node(make.cycle(make.workflow(group=desk.group)), "a", "failed")
    make.cycle(failed_cycle.workflow)
    assert leads("failed") == "/batches/?tab=workflow&window=1d&state=failed"
    assert leads("waiting") == "/batches/?tab=workflow&state=waiting"
    make.batch(desk.task)
    failed(desk)
    assert leads("failed") == "/batches/?tab=basic&window=1d&state=failed"
    assert leads("waiting") == "/batches/?tab=basic&state=waiting"


def test_a_task_that_nobody_fires_is_late_and_says_that_no_scheduler_leads(
    desk: Desk, operator: Client
) -> None:
    task = make.task("nightly", group=desk.group, cron="0 2 * * *")
    assert 'id="late"></section>' in text_of(operator.get("/"))
    Task.objects.filter(pk=task.pk).update(next_due_at=timezone.now() - timedelta(minutes=5))
    assert "No scheduler leads" in words_of(operator.get("/"), "late")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LEAD_KEY])
        leading_scheduler()
        try:
            assert "A scheduler leads but has not fired it" in words_of(operator.get("/"), "late")
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LEAD_KEY])
    Task.objects.filter(pk=task.pk).update(enabled=False)
    assert 'id="late"></section>' in text_of(operator.get("/"))


def test_a_batch_that_does_not_start_says_why(desk: Desk, operator: Client) -> None:
    late = make.batch(make.task(group=desk.group))
    age(late, timedelta(minutes=5))

    def why() -> str:
        return words_of(operator.get("/"), "late")

    assert "Group etl has a free slot" in why()
    for _ in range(desk.node.slots):
        make.start_batch(make.batch(make.task(group=desk.group)))
    assert "All 2 slots of group etl are taken." in why()
    Node.objects.update(state=NodeState.DRAINING)
    assert "Every node of group etl that is there is draining" in why()
    Node.objects.update(state=NodeState.OFFLINE)
    assert "No node of group etl is online" in why()


def test_a_batch_that_is_held_names_the_one_before_it(desk: Desk, operator: Client) -> None:
    task = make.task(group=desk.group, overlap="queue")
    first, second = make.batch(task), make.batch(task)
    age(second, timedelta(minutes=5))
    make.start_batch(first)
    assert f"Held until batch {first.pk} of the task has ended" in words_of(operator.get("/"), "late")


def test_nodes_that_need_a_look_stand_first(desk: Desk, operator: Client) -> None:
    make.node("node-z", group=desk.group, state=NodeState.OFFLINE)
    make.node(
        "node-old",
        group=desk.group,
        state=NodeState.OFFLINE,
        heartbeat_at=timezone.now() - timedelta(days=8),
    )
    said = words_of(operator.get("/"), "nodes")
    assert said.index("node-z") < said.index("node-a")
    assert "node-old" not in said


def test_the_timeline_counts_each_hour_and_leads_to_its_list(desk: Desk, operator: Client) -> None:
    earlier = failed(desk)
    age(earlier, timedelta(hours=2))
    make.end_batch(make.batch(desk.task))
    make.batch(desk.task)
    timeline = asked_for(operator, "/", "timeline")
    hours = re.findall(
        r'<a href="([^"]*)">.*?class="num"[^>]*>(\d+)<.*?>(\d+)<.*?>(\d+)<', element(timeline, "timeline")
    )
    counts = [tuple(map(int, each[1:])) for each in hours]
    assert len(counts) == 24
    assert (counts[0], counts[2]) == ((1, 0, 1), (0, 1, 0))
    assert sum(map(sum, counts)) == 3
    assert "since=" in hours[0][0]
    assert text_of(timeline).startswith('<section id="timeline" class="card"')


def test_an_hour_leads_to_the_tab_of_its_failures_or_else_of_most_of_its_batches(
    desk: Desk, operator: Client
) -> None:
    def leads() -> str:
        timeline = text_of(asked_for(operator, "/", "timeline"))
        return re.findall(r'<th scope="row"><a href="/batches/\?tab=(\w+)', timeline)[0]

    flow = make.workflow(group=desk.group)
    make.cycle(flow)
    assert leads() == "workflow"
    make.batch(desk.task)
    assert leads() == "basic"
    make.cycle(flow)
    assert leads() == "workflow"
    failed(desk)
    make.cycle(flow)
    assert leads() == "basic"


def test_only_the_parts_that_differ_come_back(desk: Desk, operator: Client) -> None:
    page = operator.get("/")
    assert operator.get("/changes/", headers=shown(page)).status_code == 204
    make.start_batch(make.batch(desk.task))
    answer = operator.get("/changes/", headers=shown(page))
    assert re.findall(r'id="(\w+)"[^>]*hx-swap-oob', text_of(answer)) == ["figures", "running", "nodes"]
    assert operator.get("/changes/", headers=shown(answer)).status_code == 204


def test_another_team_sees_nothing_of_it(desk: Desk, outsider: Client) -> None:
    failed(desk)
    make.start_batch(make.batch(desk.task))
    page = text_of(outsider.get("/"))
    for name in ("extract", "etl", "node-a"):
        assert name not in page


def test_an_empty_installation_says_what_to_do_next(db: None) -> None:
    client = signed_in(make.user(team=make.team()))
    said = words_of(client.get("/"), "steps")
    assert "manage.py apply tasks.yaml" in said
    assert "manage.py node NAME" in said
    assert "Nothing was begun in the last 24 hours." in words_of(asked_for(client, "/", "timeline"), "timeline")


def test_the_steps_are_gone_when_they_are_taken(desk: Desk, operator: Client) -> None:
    assert 'id="steps"></section>' in text_of(operator.get("/"))


@pytest.mark.parametrize("address", ["/", "/changes/"])
def test_the_overview_takes_the_same_number_of_queries_however_much_happens(
    desk: Desk, operator: Client, address: str, django_assert_num_queries: Any
) -> None:
    def more() -> None:
        failed(desk)
        make.start_batch(make.batch(desk.task))
        age(make.batch(desk.task), timedelta(minutes=5))
        task = make.task(group=desk.group, cron="0 2 * * *")
        Task.objects.filter(pk=task.pk).update(next_due_at=timezone.now() - timedelta(minutes=5))
        make.node(group=desk.group)

    more()
    headers = shown(operator.get("/"))
    # Session, user; failures 3; late 5 (tasks, batches, the leader, nodes and their load); running 3;
    # nodes 3 and the roles of the user; steps 1; cycles 3.
    for _ in range(2):
        with django_assert_num_queries(22):
            operator.get(address, headers=headers)
        for _ in range(2):
            more()
