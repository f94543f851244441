"""What nodes that went away still held is handed on, whenever and wherever somebody failed before."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from scheduling import services, transitions
from scheduling.engine import recovery
from scheduling.models import Execution, Instance, Node
from scheduling.signals import batch_ended
from scheduling.states import NodeState
from tests import factories
from tests.engine.support import claim, start

pytestmark = pytest.mark.django_db


def offline(node: Node) -> None:
    """The first step of `node_gone` and nothing more: whoever took it was killed."""
    Node.objects.filter(pk=node.pk).update(state=NodeState.OFFLINE)


def test_what_an_offline_node_was_running_is_handed_on_though_whoever_noticed_was_killed():
    node = factories.node()
    batch = services.trigger(factories.task(group=node.group, retry_count=1), by="test")
    [claimed] = claim(node)
    assert start(claimed)
    offline(node)
    assert recovery.finish_absent_nodes() == 1
    instance = batch.instances.get()
    assert (instance.state, instance.cause, instance.claimed) == ("waiting", "lost", False)
    assert Execution.objects.get().outcome == "lost"
    assert recovery.finish_absent_nodes() == 0


def test_what_an_offline_node_had_claimed_is_given_back():
    node = factories.node()
    batch = services.trigger(factories.task(group=node.group), by="test")
    claim(node)
    offline(node)
    recovery.finish_absent_nodes()
    assert batch.instances.get().claimed is False


@pytest.mark.parametrize("state", [NodeState.OFFLINE, NodeState.DRAINING])
def test_a_broadcast_that_was_begun_while_its_node_went_away_does_not_wait_for_it(state: str):
    node = factories.node()
    batch = services.trigger(factories.task(group=node.group, mode="broadcast"), by="test")
    Node.objects.filter(pk=node.pk).update(state=state)
    assert recovery.finish_absent_nodes() == 1
    batch.refresh_from_db()
    assert (batch.state, batch.terminated) == ("failed", 1)
    assert node.name in batch.instances.get().reason


def busy_nodes(count: int, **fields: Any) -> list[Node]:
    """Nodes that each execute one instance, the first of them made first."""
    group = factories.group()
    nodes = [factories.node(group=group, boot_id=uuid.uuid4(), **fields) for _ in range(count)]
    for node in nodes:
        services.trigger(factories.task(group=group), by="test")
        [claimed] = claim(node)
        assert start(claimed)
    return nodes


@pytest.fixture
def back_meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Nodes that are heard again while the first node that went away is dealt with."""
    back: list[Node] = []
    lose = recovery.lose

    def losing(*given: Any, **options: Any) -> int:
        while back:
            node = back.pop()
            assert transitions.heartbeat(node.pk, node.boot_id)
        return lose(*given, **options)

    monkeypatch.setattr(recovery, "lose", losing)
    return back


class Clock:
    """Time for a watch that looks every second."""

    def __init__(self, watch: recovery.SilenceWatch) -> None:
        self.watch = watch
        self.now = watch._called_at

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let the watch look once a second for so long."""
        for _second in range(round(seconds)):
            self.now += 1
            self.watch()


def listening(watch: recovery.SilenceWatch, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(watch)
    monkeypatch.setattr(recovery, "time", clock)
    watch()
    return clock


def states(*nodes: Node) -> list[str]:
    for node in nodes:
        node.refresh_from_db()
    return [node.state for node in nodes]


def test_silence_counts_by_heartbeats_and_not_by_clocks(monkeypatch: pytest.MonkeyPatch):
    """A heartbeat with the time of a clock that was set differs from the one before; that is enough."""
    patience = settings.TAILRACE["NODE_TIMEOUT"]
    [node] = busy_nodes(1, heartbeat_at=timezone.now() - timedelta(days=1))
    clock = listening(recovery.SilenceWatch(), monkeypatch)
    clock.pass_by(patience - 2)
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(hours=20))
    clock.pass_by(patience - 2)
    assert states(node) == [NodeState.ONLINE]
    clock.pass_by(4)
    assert states(node) == [NodeState.OFFLINE]


@pytest.mark.parametrize("what", ["refuses writes", "is another server", "was not asked"])
def test_every_node_gets_the_whole_time_again_when_the_database(what: str, monkeypatch: pytest.MonkeyPatch):
    patience = settings.TAILRACE["NODE_TIMEOUT"]
    [node] = busy_nodes(1)
    watch = recovery.SilenceWatch()
    clock = listening(watch, monkeypatch)
    clock.pass_by(patience - 2)
    with monkeypatch.context() as broken:
        if what == "refuses writes":

            def refuse() -> None:
                raise OperationalError("cannot execute UPDATE in a read-only transaction")

            broken.setattr(transitions, "prove_writable", refuse)
            clock.now += 1
            with pytest.raises(OperationalError):
                watch()
        elif what == "is another server":
            watch._server = timezone.now()
        else:
            clock.now += patience
    clock.pass_by(patience)
    assert states(node) == [NodeState.ONLINE]
    clock.pass_by(4)
    assert states(node) == [NodeState.OFFLINE]


def test_a_database_that_refuses_writes_is_noticed_before_the_time_out(monkeypatch: pytest.MonkeyPatch):
    busy_nodes(1)
    watch = recovery.SilenceWatch()
    clock = listening(watch, monkeypatch)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only"):
        clock.pass_by(settings.TAILRACE["NODE_TIMEOUT"] / 2)


def test_a_node_that_was_silent_and_is_heard_before_its_turn_comes_keeps_what_it_runs(
    monkeypatch: pytest.MonkeyPatch, back_meanwhile: list[Node]
):
    gone, back = busy_nodes(2, heartbeat_at=timezone.now() - timedelta(minutes=1))
    back_meanwhile.append(back)
    watch = recovery.SilenceWatch()
    clock = listening(watch, monkeypatch)
    clock.pass_by(settings.TAILRACE["NODE_TIMEOUT"] + 1)
    gone.refresh_from_db()
    back.refresh_from_db()
    assert (gone.state, back.state) == (NodeState.OFFLINE, NodeState.ONLINE)
    assert Execution.objects.live().get().node_id == back.pk


def test_a_node_that_was_offline_and_is_back_before_its_turn_comes_keeps_what_it_runs(
    back_meanwhile: list[Node],
):
    nodes = busy_nodes(2)
    for node in nodes:
        offline(node)
    back_meanwhile.append(nodes[1])
    recovery.finish_absent_nodes()
    assert Execution.objects.live().get().node_id == nodes[1].pk


@pytest.mark.parametrize(("late", "cause", "waits"), [(True, "retry", True), (False, "lost", False)])
def test_what_its_worker_did_not_time_out_itself_is_retried_after_the_interval(
    late: bool, cause: str, waits: bool
):
    """What was lost with its worker is not the job's fault, and tried again at once."""
    node = factories.node()
    task = factories.task(group=node.group, timeout=60, retry_count=1, retry_interval=600)
    batch = services.trigger(task, by="test")
    [claimed] = claim(node)
    assert start(claimed)
    ago = timezone.now() - timedelta(seconds=5)
    Execution.objects.update(deadline_at=ago if late else None)
    recovery.lose(recovery.live_executions(node.pk), reason="gone")
    instance = batch.instances.get()
    assert (instance.state, instance.cause) == ("waiting", cause)
    assert (instance.run_after > timezone.now() + timedelta(seconds=500)) == waits


def test_nodes_that_are_there_keep_what_they_hold():
    node = factories.node()
    services.trigger(factories.task(group=node.group, mode="broadcast"), by="test")
    [claimed] = claim(node)
    assert start(claimed)
    assert recovery.finish_absent_nodes() == 0
    assert Execution.objects.live().count() == 1


@pytest.mark.parametrize(("confirmed", "ended"), [(True, "terminated"), (False, "failed")])
def test_a_stop_counts_as_obeyed_only_when_the_process_is_known_to_be_dead(confirmed: bool, ended: str):
    node = factories.node()
    batch = services.trigger(factories.task(group=node.group), by="test")
    [claimed] = claim(node)
    assert start(claimed)
    services.stop(batch, by="ann", reason="wrong file")
    recovery.lose(recovery.live_executions(node.pk), reason="gone", confirmed=confirmed)
    instance = Instance.objects.get(batch=batch)
    assert instance.state == ended
    assert instance.reason == ("Stopped by ann: wrong file" if confirmed else "gone")


def test_a_drained_node_stays_drained_over_silence_and_restart():
    node = factories.node()
    services.drain(node, by="ann", reason="maintenance")
    offline(node)
    node.refresh_from_db()
    boot = "00000000-0000-0000-0000-000000000001"
    transitions.boot_node(node, boot_id=boot, host="here", pid=1)
    node.refresh_from_db()
    assert node.state == NodeState.DRAINING
    offline(node)
    assert transitions.heartbeat(node.pk, boot)
    node.refresh_from_db()
    assert node.state == NodeState.DRAINING
    services.undrain(node, by="ann")
    node.refresh_from_db()
    assert (node.state, node.drained) == (NodeState.ONLINE, False)


def test_a_broadcast_at_whose_end_somebody_stumbles_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    node = factories.node()
    stumbling, other = (
        services.trigger(factories.task(group=node.group, mode="broadcast"), by="test") for _ in range(2)
    )

    def stumble(batch_id: int, **_: Any) -> None:
        if batch_id == stumbling.pk:
            raise RuntimeError("no such luck")

    offline(node)
    batch_ended.connect(stumble)
    try:
        recovery.finish_absent_nodes()
    finally:
        batch_ended.disconnect(stumble)
    assert "no such luck" in caplog.text
    states = [batch.instances.get().state for batch in (stumbling, other)]
    assert states == ["waiting", "terminated"]
    # It is found again, and ends as soon as it can.
    recovery.finish_absent_nodes()
    assert stumbling.instances.get().state == "terminated"
