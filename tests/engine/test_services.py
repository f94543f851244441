"""What people ask for, in the shell or on a page: what it does, what it refuses, what the journal says."""

from __future__ import annotations

import getpass
from typing import Any

import pytest

from scheduling import journal, services
from scheduling.errors import InvalidDefinition, NotAvailable, TransitionRefused
from scheduling.models import Batch, Instance, JournalEntry, Node
from tests import factories
from tests.engine.states import batch_in
from tests.engine.support import check, claim, row

pytestmark = pytest.mark.django_db


def entry(thing: Any, action: str) -> JournalEntry:
    """The one entry of `action` about `thing`."""
    return JournalEntry.objects.get(object_type=thing._meta.model_name, object_id=thing.pk, action=action)


def broadcast() -> tuple[Batch, list[Node]]:
    """A batch that has ended on each of two nodes, in the order of their names."""
    group = factories.group()
    places = [factories.node(factories.unique(name), group=group) for name in "ab"]
    batch = factories.batch(factories.task(group=group, mode="broadcast"))
    return factories.end_batch(batch), places


def go(node: Node, state: str) -> None:
    Node.objects.filter(pk=node.pk).update(state=state)


# --- trigger -----------------------------------------------------------------------------------------


def test_a_batch_runs_with_the_parameters_that_were_given_over_the_tasks_own():
    task = factories.task(parameters={"day": "monday", "rows": 5})
    batch = services.trigger(task, parameters={"day": "friday"}, by="ann", reason="a try")
    assert batch.parameters == {"day": "friday"}
    assert (batch.trigger, batch.state, batch.total, batch.actor) == ("manual", "waiting", 1, "ann")
    made = entry(batch, "triggered")
    assert (made.actor, made.reason, made.object_name) == ("ann", "a try", task.name)
    assert made.details == {"trigger": "manual", "instances": 1}


def test_parameters_that_cannot_be_are_refused_and_nothing_begins():
    task = factories.task()
    with pytest.raises(InvalidDefinition):
        services.trigger(task, parameters={"not a name!": 1}, by="ann")
    assert not Batch.objects.exists()


def test_a_broadcast_goes_to_the_online_nodes_only():
    group = factories.group()
    online = [factories.node(factories.unique(name), group=group) for name in "ab"]
    factories.node(group=group, state="draining")
    factories.node(group=group, state="offline")
    factories.node()
    batch = factories.batch(factories.task(group=group, mode="broadcast"))
    placed = list(batch.instances.values_list("node_id", "pinned"))
    assert placed == [(node.pk, True) for node in online]


# --- rerun of a batch ----------------------------------------------------------------------------------


def test_a_rerun_has_the_content_parameters_and_due_time_of_its_source():
    task = factories.task(shards=["a", "b"], success_ratio=60, spec={"command": "echo old"})
    source = services.trigger(task, parameters={"day": "monday"}, by="ann")
    factories.end_batch(source, "failed")
    before = row(source)
    services.save_task(
        team=task.team,
        group=task.group,
        name=task.name,
        content={"kind": "shell", "spec": {"command": "echo new"}, "mode": "random"},
        by="ann",
    )
    again = services.rerun(source, by="bob", reason="the disk was full")
    assert again.revision_id == source.revision_id
    assert again.revision.spec == {"command": "echo old"}
    assert (again.scheduled_for, again.parameters) == (source.scheduled_for, {"day": "monday"})
    assert (again.success_ratio, again.total, again.state) == (60, 2, "waiting")
    assert (again.rerun_of, again.trigger, again.actor) == (source, "manual", "bob")
    assert list(again.instances.values_list("shard_parameter", "cause")) == [("a", "rerun"), ("b", "rerun")]
    assert row(source) == before
    made = entry(again, "rerun")
    assert (made.actor, made.reason) == ("bob", "the disk was full")
    assert made.details == {"trigger": "manual", "instances": 2, "rerun_of": source.pk}


def test_the_rerun_of_a_scheduled_batch_does_not_stand_in_the_way_of_its_trigger():
    task = factories.task(cron="0 * * * *")
    source = factories.end_batch(factories.batch(task, kind="cron"))
    assert services.rerun(source, by="ann").scheduled_for == source.scheduled_for
    assert services.rerun(source, by="ann").scheduled_for == source.scheduled_for


def test_a_rerun_prefers_the_node_that_ran_it_and_may_go_elsewhere():
    group = factories.group()
    here, there = factories.node(group=group), factories.node(group=group)
    source = factories.batch(factories.task(group=group))
    factories.start(source.instances.get(), here)
    factories.end(source.instances.get(), "failed")
    again = services.rerun(source, by="ann")
    assert claim(there) == []
    Instance.objects.filter(batch=again).update(prefers_node_until="2020-01-01T00:00Z")
    assert [one.batch for one in claim(there)] == [again.pk]


def test_a_broadcast_reruns_on_exactly_the_nodes_of_its_source():
    source, nodes = broadcast()
    factories.node(group=source.group)
    again = services.rerun(source, by="ann")
    assert list(again.instances.values_list("node_id", "pinned")) == [(node.pk, True) for node in nodes]
    assert again.state == "waiting"


@pytest.mark.parametrize("state", ["offline", "draining"])
def test_a_broadcast_rerun_ends_the_instances_of_absent_nodes_with_the_reason(state: str):
    source, [here, gone] = broadcast()
    go(gone, state)
    again = services.rerun(source, by="ann")
    check(again)
    left = again.instances.get(node=gone)
    assert (left.state, left.reason) == ("terminated", f"Node {gone.name} is {state}")
    assert (again.state, again.terminated) == ("waiting", 1)
    assert [one.instance for one in claim(here)] == [again.instances.get(node=here).pk]


def test_a_broadcast_rerun_without_any_of_its_nodes_begins_nothing_and_names_them():
    source, nodes = broadcast()
    factories.node(group=source.group)
    for node in nodes:
        go(node, "offline")
    with pytest.raises(NotAvailable, match=f"none of them is online: {nodes[0].name}, {nodes[1].name}"):
        services.rerun(source, by="ann")
    assert list(Batch.objects.all()) == [source]


def test_a_broadcast_that_found_no_node_reruns_on_those_that_are_online_now():
    group = factories.group()
    source = factories.batch(factories.task(group=group, mode="broadcast"))
    assert source.state == "failed"
    node = factories.node(group=group)
    again = services.rerun(source, by="ann")
    assert list(again.instances.values_list("node_id", flat=True)) == [node.pk]


@pytest.mark.parametrize("state", ["waiting", "running", "terminating", "condition not met"])
def test_only_a_batch_that_ran_and_ended_is_rerun(state: str):
    batch = batch_in(state.replace(" ", "_"))
    with pytest.raises(
        TransitionRefused, match=f"Batch {batch.pk} has state {state.capitalize()}; only a finished batch"
    ):
        services.rerun(batch, by="ann")
    assert list(Batch.objects.all()) == [batch]


# --- rerun of an instance ------------------------------------------------------------------------------


def test_a_rerun_instance_keeps_the_history_of_its_executions():
    batch = factories.end_batch(factories.batch(), "failed")
    instance = batch.instances.get()
    first = instance.executions.values().get()
    services.rerun_instance(instance, by="ann", reason="once more")
    factories.end_batch(batch)
    assert instance.executions.order_by("number").values().first() == first
    found = list(instance.executions.order_by("number").values_list("number", "cause", "outcome"))
    assert found == [(1, "trigger", "failed"), (2, "rerun", "success")]
    made = entry(instance, "rerun")
    assert (made.actor, made.reason) == ("ann", "once more")
    assert made.object_name == f"{batch.task.name} [0]"


def test_a_rerun_instance_has_all_its_retries_again():
    batch = factories.batch(factories.task(retry_count=1))
    [instance] = factories.start_batch(batch)
    factories.end(instance, "failed")
    factories.start(instance)
    factories.end(instance, "failed")
    assert (instance.state, instance.retries_left) == ("failed", 0)
    assert services.rerun_instance(instance, by="ann").retries_left == 1


@pytest.mark.parametrize("state", ["offline", "draining"])
def test_a_broadcast_instance_reruns_only_on_its_own_node(state: str):
    source, [node, _other] = broadcast()
    instance = source.instances.get(node=node)
    go(node, state)
    before = row(instance), row(source)
    with pytest.raises(NotAvailable, match=f"Node {node.name} is {state}, and a broadcast instance"):
        services.rerun_instance(instance, by="ann")
    assert (row(instance), row(source)) == before
    go(node, "online")
    services.rerun_instance(instance, by="ann")
    assert [one.instance for one in claim(node)] == [instance.pk]


def test_an_instance_whose_node_is_gone_falls_back_to_another_at_once():
    group = factories.group()
    here, there = factories.node(group=group), factories.node(group=group)
    batch = factories.batch(factories.task(group=group))
    factories.start(batch.instances.get(), here)
    factories.end(batch.instances.get(), "failed")
    go(here, "offline")
    again = services.rerun_instance(batch.instances.get(), by="ann")
    assert again.prefers_node_until is None
    assert [one.instance for one in claim(there)] == [again.pk]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_a_rerun_instance_does_not_open_its_batch_beside_another_against_the_overlap_policy(overlap: str):
    task = factories.task(overlap=overlap)
    ended = factories.batch(task)
    factories.end_batch(ended)
    other = factories.batch(task)
    with pytest.raises(TransitionRefused, match=f"Batch {other.pk} of task {task.name} is unfinished"):
        services.rerun_instance(ended.instances.get(), by="ann")
    assert ended.instances.get().state == "success"
    services.stop(other, by="ann")
    assert services.rerun_instance(ended.instances.get(), by="ann").state == "waiting"


def test_a_rerun_instance_joins_its_batch_while_that_runs_whatever_the_overlap_policy():
    batch = factories.batch(factories.task(shards=["a", "b"], overlap="skip"))
    first = factories.start_batch(batch)[0]
    factories.end(first)
    assert services.rerun_instance(first, by="ann").state == "waiting"


def test_work_may_be_claimed_at_once_by_the_clock_of_the_database(time_machine: Any):
    time_machine.move_to("2100-01-01T00:00Z", tick=False)
    node = factories.node()
    batch = factories.batch(factories.task(group=node.group))
    [claimed] = claim(node)
    assert claimed.instance == batch.instances.get().pk


# --- stop ----------------------------------------------------------------------------------------------


def test_stopping_writes_who_why_and_what_it_hit():
    batch = factories.batch(factories.task(shards=["a", "b"]))
    factories.start(batch.instances.get(number=0))
    services.stop(batch, by="ann", reason="wrong file")
    made = entry(batch, "stopped")
    assert (made.actor, made.reason, made.team_id) == ("ann", "wrong file", batch.team_id)
    reasons = dict(batch.instances.values_list("number", "reason"))
    assert reasons == dict.fromkeys((0, 1), "Stopped by ann: wrong file")


def test_stopping_the_last_instance_brings_the_held_batch_forward_at_once():
    task = factories.task(overlap="queue")
    first, held = factories.batch(task), factories.batch(task)
    services.stop_instance(first.instances.get(), by="ann")
    held.refresh_from_db()
    assert not held.held


def test_stopping_all_that_is_left_of_a_batch_is_recorded_for_the_batch_too():
    batch = factories.batch(factories.task(shards=["a", "b"]))
    first, last = batch.instances.order_by("number")
    services.stop_instance(first, by="ann", reason="one")
    assert not JournalEntry.objects.filter(action="stopped", object_type="batch").exists()
    services.stop_instance(last, by="ann", reason="other")
    made = entry(batch, "stopped")
    assert (made.actor, made.reason) == ("ann", "other")


# --- nodes ---------------------------------------------------------------------------------------------


def test_draining_ends_what_only_the_node_could_run_and_leaves_the_rest():
    group = factories.group()
    node = factories.node(group=group)
    task = factories.task(group=group, mode="broadcast", overlap="queue")
    first, held = factories.batch(task), factories.batch(task)
    anywhere = factories.batch(factories.task(group=group))
    running = factories.batch(factories.task(group=group))
    factories.start(running.instances.get(), node)
    services.drain(node, by="ann", reason="new kernel")
    for batch in (first, held):
        check(batch)
        assert (batch.state, batch.reason) == ("failed", f"Node {node.name} is draining")
    for batch, state in ((anywhere, "waiting"), (running, "running")):
        check(batch)
        assert batch.state == state
    made = entry(node, "node_draining")
    assert (made.actor, made.reason, made.team_id) == ("ann", "new kernel", group.team_id)


def test_a_broadcast_instance_that_fails_on_a_draining_node_is_not_retried():
    group = factories.group()
    node = factories.node(group=group)
    batch = factories.batch(factories.task(group=group, mode="broadcast", retry_count=3))
    [instance] = factories.start_batch(batch)
    services.drain(node, by="ann")
    factories.end(instance, "failed")
    check(batch)
    assert batch.state == "failed"


def test_a_stopping_node_can_be_drained_for_its_next_start():
    node = factories.node(state="draining")
    services.drain(node, by="ann")
    assert row(node)["drained"]


def test_a_drained_node_takes_up_work_again():
    node = factories.node()
    services.drain(node, by="ann")
    assert services.undrain(node, by="bob", reason="done").state == "online"
    assert (entry(node, "node_online").actor, entry(node, "node_online").reason) == ("bob", "done")


@pytest.mark.parametrize(
    ("verb", "state"), [("drain", "offline"), ("undrain", "offline"), ("undrain", "online")]
)
def test_a_node_in_another_state_is_neither_drained_nor_undrained(verb: str, state: str):
    node = factories.node(state=state)
    with pytest.raises(TransitionRefused, match=f"Node {node.name} is {state}; only an? "):
        getattr(services, verb)(node, by="ann")
    assert row(node)["state"] == state
    assert not JournalEntry.objects.filter(object_type="node").exists()


def test_draining_twice_is_refused_and_recorded_once():
    node = factories.node()
    services.drain(node, by="ann")
    with pytest.raises(TransitionRefused, match=f"Node {node.name} is draining already; undrain it"):
        services.drain(node, by="bob")
    assert entry(node, "node_draining").actor == "ann"


# --- switching a schedule ------------------------------------------------------------------------------


def test_a_schedule_is_switched_off_and_on_with_its_reason():
    task = factories.task(cron="0 * * * *")
    services.set_enabled(task, False, by="ann", reason="holidays")
    task.refresh_from_db()
    assert (task.enabled, task.due_at) == (False, None)
    assert (entry(task, "disabled").actor, entry(task, "disabled").reason) == ("ann", "holidays")
    services.set_enabled(task, False, by="bob")
    assert entry(task, "disabled").actor == "ann"
    services.set_enabled(task, True, by="bob")
    task.refresh_from_db()
    assert task.enabled
    assert task.due_at is not None
    assert entry(task, "enabled").actor == "bob"


# --- who and from where ----------------------------------------------------------------------------------


def test_without_a_name_the_operating_systems_user_did_it_from_the_shell():
    batch = factories.batch()
    services.stop(batch)
    made = entry(batch, "stopped")
    assert (made.actor, made.via, made.user) == (f"os:{getpass.getuser()}", "shell", None)


def test_a_signed_in_user_did_it_from_the_web():
    user = factories.user()
    batch = factories.batch()
    with journal.acting_via("web"):
        services.stop(batch, by=user)
    made = entry(batch, "stopped")
    assert (made.actor, made.via, made.user) == (user.get_username(), "web", user)


def test_what_the_engine_does_by_itself_says_so():
    batch = factories.end_batch(factories.batch())
    for action in ("started", "ended"):
        made = entry(batch, action)
        assert (made.actor, made.via) == ("engine", "engine")
    assert entry(batch, "ended").details == {"state": "success"}
