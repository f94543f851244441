"""A worker that ends a batch takes what follows from it, when that is what the queue would give it next."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from django.db import OperationalError

from scheduling import transitions
from scheduling.engine import execution
from scheduling.engine.channels import Counter, Flag, MessageQueue
from scheduling.models import Execution, Instance, Node
from scheduling.states import Outcome
from tests import factories as make
from tests.engine.support import claim, identity, row, start
from tests.processes import database_url
from workflows.models import CycleInstance

WORKER = 4711


def offer(node: Node, *, boot_id: uuid.UUID | None = None) -> transitions.Offer:
    own = identity(node, boot_id=boot_id)
    return transitions.Offer(own.node_id, own.boot_id, own.group_id, worker=WORKER)


def begun(node: Node, nodes: str = "a > b") -> tuple[CycleInstance, transitions.Ending]:
    """A cycle whose first node runs on `node`, and how to report that it succeeded."""
    cycle = make.cycle(make.workflow(group=node.group, nodes=nodes))
    [claimed] = claim(node)
    started = start(claimed, worker=WORKER)
    assert started is not None
    return cycle, ending_of(claimed, started)


def ending_of(claimed: transitions.Claim, started: transitions.Started) -> transitions.Ending:
    return {
        "batch": claimed.batch,
        "instance": claimed.instance,
        "execution": started.execution_id,
        "token": claimed.token,
        "outcome": Outcome.SUCCESS,
    }


def next_of(cycle: CycleInstance, key: str = "b") -> Instance:
    run = cycle.node_runs.select_related("batch").get(node__key=key)
    assert run.batch is not None
    return run.batch.instances.get()


@pytest.mark.django_db
def test_the_next_node_of_a_chain_is_taken_and_started_with_the_end_of_the_one_before():
    node = make.node()
    cycle, ending = begun(node)
    mine = offer(node)
    ended, following = transitions.end_and_take(ending, mine)
    instance = next_of(cycle)
    assert ended is not None
    assert ended.batch_ended
    assert mine.claim == transitions.Claim(instance.pk, instance.batch_id, token=instance.token, timeout=None)
    assert following is not None
    live = Execution.objects.live().get(instance=instance)
    assert (live.pk, live.node_id, live.worker) == (following.execution_id, node.pk, WORKER)
    assert make.states(cycle) == {"a": "success", "b": "running"}
    assert claim(node) == []
    # And so on, to the end of the chain.
    ended, nothing = transitions.end_and_take(ending_of(mine.claim, following), mine)
    assert (nothing, mine.claim) == (None, None)
    assert make.fresh(cycle).state == "success"


@pytest.mark.django_db
def test_of_several_that_follow_the_most_urgent_is_taken_and_the_others_wait_in_the_queue():
    node = make.node()
    for key, priority in (("b", 0), ("c", 3), ("d", 3)):
        make.task(key, group=node.group, priority=priority)
    cycle, ending = begun(node, "a > b, a > c, a > d")
    mine = offer(node)
    transitions.end_and_take(ending, mine)
    assert mine.claim is not None
    assert mine.claim.instance == next_of(cycle, "c").pk
    assert [one.instance for one in claim(node)] == [next_of(cycle, key).pk for key in ("d", "b")]


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["any node", "this node"])
def test_nothing_is_taken_past_what_waits_longer(why: str):
    node = make.node()
    cycle, ending = begun(node)
    earlier = make.batch(make.task(group=node.group, mode="broadcast" if why == "this node" else "random"))
    mine = offer(node)
    assert transitions.end_and_take(ending, mine)[1] is None
    assert mine.claim is None
    assert [one.instance for one in claim(node)] == [earlier.instances.get().pk, next_of(cycle).pk]


def not_online(node: Node) -> transitions.Offer:
    found = offer(node)
    Node.objects.filter(pk=node.pk).update(state="draining")
    return found


def of_another_life(node: Node) -> transitions.Offer:
    return offer(node, boot_id=uuid.uuid4())


def of_another_group(node: Node) -> transitions.Offer:
    return offer(make.node(group=make.group(team=node.group.team)))


@pytest.mark.django_db
@pytest.mark.parametrize("offered", [not_online, of_another_life, of_another_group])
def test_a_node_that_may_not_claim_takes_nothing(offered: Any):
    node = make.node()
    cycle, ending = begun(node)
    mine = offered(node)
    assert transitions.end_and_take(ending, mine)[1] is None
    assert mine.claim is None
    assert (next_of(cycle).claimed, next_of(cycle).node_id, next_of(cycle).token) == (False, None, None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content",
    [{"mode": "broadcast"}, {"shards": ["x"], "shard_concurrency": 1}],
    ids=["broadcast", "limited shards"],
)
def test_what_has_rules_of_its_own_about_nodes_goes_through_the_queue(content: dict[str, Any]):
    node = make.node()
    make.task("b", group=node.group, **content)
    cycle, ending = begun(node)
    mine = offer(node)
    transitions.end_and_take(ending, mine)
    assert mine.claim is None
    assert [one.instance for one in claim(node)] == [next_of(cycle).pk]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content",
    [{"mode": "broadcast"}, {"shards": ["x"], "shard_concurrency": 1}],
    ids=["broadcast", "limited shards"],
)
def test_nothing_is_taken_past_what_is_more_urgent_and_has_rules_of_its_own(content: dict[str, Any]):
    node = make.node()
    make.task("b", group=node.group, priority=3, **content)
    cycle, ending = begun(node, "a > c, a > b")
    mine = offer(node)
    transitions.end_and_take(ending, mine)
    assert mine.claim is None
    assert [one.instance for one in claim(node)] == [next_of(cycle, key).pk for key in ("b", "c")]


@pytest.mark.django_db
def test_what_has_a_time_out_is_taken_and_not_started():
    node = make.node()
    make.task("b", group=node.group, timeout=30)
    cycle, ending = begun(node)
    mine = offer(node)
    assert transitions.end_and_take(ending, mine)[1] is None
    assert mine.claim is not None
    assert mine.claim.timeout == 30
    instance = next_of(cycle)
    assert (instance.state, instance.claimed, instance.node_id) == ("waiting", True, node.pk)
    assert instance.claimed_until is not None
    assert start(mine.claim) is not None


# --- with real commits -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("waits", [False, True], ids=["taken", "not taken"])
def test_nodes_are_woken_for_what_was_not_taken_and_for_nothing_else(waits: bool):
    node = make.node()
    _cycle, ending = begun(node)
    if waits:
        make.batch(make.task(group=node.group))
    with psycopg.connect(database_url(), autocommit=True) as listener:
        listener.execute(f"LISTEN {transitions.WORK_CHANNEL}")
        transitions.end_and_take(ending, offer(node))
        listener.execute("NOTIFY tailrace_work, 'the last'")
        heard = [each.payload for each in listener.notifies(timeout=10, stop_after=2 if waits else 1)]
    assert heard == ([str(node.group_id)] if waits else []) + ["the last"]


def reported(monkeypatch: pytest.MonkeyPatch, cycle: CycleInstance, ending: Any, node: Node) -> Any:
    """What the worker goes on with when the answer to its report is lost, after the commit."""
    told = transitions.end_and_take
    answers = iter([OperationalError("the connection is gone")])

    def lost(*given: Any) -> Any:
        found = told(*given)
        for error in answers:
            raise error
        return found

    monkeypatch.setattr(transitions, "end_and_take", lost)
    claimed = transitions.Claim(ending["instance"], ending["batch"], ending["token"], None)
    started = Execution.objects.get(pk=ending["execution"])
    revision = execution._revision(cycle.node_runs.get(node__key="a").batch.revision_id)
    mine = offer(node)
    mine.worker = execution.os.getpid()
    begun = execution._report(
        claimed,
        transitions.Started(started.pk, 1, 0, "", 1, 0, {}, cycle.created_at, None, ""),
        revision,
        execution.Ending(Outcome.SUCCESS),
        None,
        mine,
    )
    return begun, mine


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("timeout", [None, 30])
def test_what_was_taken_is_known_also_when_the_answer_to_the_commit_is_lost(
    monkeypatch: pytest.MonkeyPatch, timeout: int | None
):
    node = make.node()
    make.task("b", group=node.group, timeout=timeout)
    cycle, ending = begun(node)
    started, mine = reported(monkeypatch, cycle, ending, node)
    instance = next_of(cycle)
    assert mine.claim == transitions.Claim(
        instance.pk, instance.batch_id, token=instance.token, timeout=timeout
    )
    live = Execution.objects.live().filter(instance=instance).first()
    assert (started and started.execution_id) == (live and live.pk)
    assert (live is None) == (timeout is not None)


@pytest.mark.django_db(transaction=True)
def test_what_was_taken_in_a_transaction_that_is_undone_is_not_there():
    node = make.node()
    cycle, ending = begun(node)
    before = row(cycle)

    def refuses(**_given: Any) -> None:
        raise RuntimeError("no")

    from scheduling.signals import batch_ended

    batch_ended.connect(refuses)
    try:
        with pytest.raises(RuntimeError):
            transitions.end_and_take(ending, offer(node))
    finally:
        batch_ended.disconnect(refuses)
    assert row(cycle) == before
    assert make.states(cycle) == {"a": "running", "b": "waiting"}
    assert Instance.objects.count() == 1


# --- the worker ------------------------------------------------------------------------------------


def test_a_worker_offers_itself_only_while_nothing_waits_for_it():
    own = identity_without_a_database()
    tasks, stopping = MessageQueue(), Flag()
    worker = object.__new__(execution.Worker)
    worker.identity, worker.tasks, worker.finished, worker.stopping = own, tasks, Counter(), stopping
    assert worker.offer() is not None
    tasks.put("STOP")
    assert worker.offer() is None
    # Looked at and put back is not gone.
    assert worker.next_claim() is None
    assert worker.offer() is None
    assert tasks.get() == "STOP"
    assert worker.offer() is not None
    stopping.set()
    assert worker.offer() is None
    for each in (tasks._reader, tasks._writer):
        each.close()


def identity_without_a_database() -> Any:
    from scheduling.engine.broker import Identity

    return Identity(1, "n", 1, uuid.uuid4(), 2)
