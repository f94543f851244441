"""What happens when a task is due while an earlier batch of it is unfinished."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduling import services, transitions
from scheduling.engine import triggers
from scheduling.errors import TransitionRefused
from scheduling.models import Batch, JournalEntry, Task
from scheduling.models.tasks import Overlap
from tests import factories
from tests.engine.test_triggers import MINUTE, NOW, due, fire_all

pytestmark = pytest.mark.django_db


def states(task: Task) -> list[tuple[str, bool]]:
    """(state, may run) of the task's batches, oldest first."""
    found = []
    for batch in task.batches.order_by("id"):
        claimable = batch.instances.filter(state="waiting", run_after__isnull=False).exists()
        assert claimable == (batch.state == "waiting" and not batch.held)
        found.append((batch.state, not batch.held))
    return found


def fired(overlap: str, *, times: int, **content) -> Task:
    """A task fired `times` times, a minute apart, of which the first batch runs."""
    task = factories.task(interval=60, overlap=overlap, **content)
    for number in range(times):
        due(task, NOW + number * MINUTE)
        fire_all(NOW + number * MINUTE)
        if number == 0:
            factories.start_batch(task.batches.get())
    return task


def oldest(task: Task) -> Batch:
    return Batch.objects.unfinished().filter(task=task).order_by("id").first()


def end_oldest(task: Task) -> None:
    """End the oldest unfinished batch as the engine does: record it, then settle."""
    factories.end_batch(oldest(task))
    services.settle_overlap(task.pk)


def test_allow_runs_them_side_by_side():
    assert states(fired("allow", times=3)) == [("running", True), ("waiting", True), ("waiting", True)]


def test_skip_makes_no_batch_and_records_why():
    task = fired("skip", times=2)
    assert states(task) == [("running", True)]
    entry = JournalEntry.objects.get(action="trigger_skipped", object_type="task", object_id=task.pk)
    batch = task.batches.get()
    assert entry.details == {"due": (NOW + MINUTE).isoformat(), "unfinished_batch": batch.pk}
    assert f"Batch {batch.pk} of the task is unfinished" in entry.reason
    task.refresh_from_db()
    assert task.next_due_at == NOW + 2 * MINUTE


def test_skip_fires_again_once_the_earlier_batch_ended():
    task = fired("skip", times=2)
    end_oldest(task)
    due(task, NOW + 2 * MINUTE)
    fire_all(NOW + 2 * MINUTE)
    assert states(task) == [("success", True), ("waiting", True)]


def test_skip_while_all_missed_runs_are_made_good_runs_the_first_and_records_the_others():
    task = due(factories.task(interval=60, overlap="skip", misfire="run_all"), NOW - 5 * MINUTE)
    fire_all()
    assert list(task.batches.values_list("scheduled_for", flat=True)) == [NOW - 5 * MINUTE]
    assert JournalEntry.objects.filter(action="trigger_skipped").count() == 5


def test_queue_runs_them_one_after_the_other_in_order():
    task = fired("queue", times=3)
    assert states(task) == [("running", True), ("waiting", False), ("waiting", False)]
    end_oldest(task)
    assert states(task) == [("success", True), ("waiting", True), ("waiting", False)]
    end_oldest(task)
    end_oldest(task)
    assert states(task) == [("success", True)] * 3


def test_queue_goes_on_when_the_running_batch_was_stopped_before_it_began():
    task = factories.task(interval=60, overlap="queue")
    for number in range(2):
        due(task, NOW + number * MINUTE)
        fire_all(NOW + number * MINUTE)
    services.stop(oldest(task), by="tests")
    assert states(task) == [("failed", True), ("waiting", True)]


def test_queue_holds_while_the_stopped_batch_is_still_terminating():
    task = fired("queue", times=2)
    services.stop(oldest(task), by="tests")
    services.settle_overlap(task.pk)
    assert states(task) == [("terminating", True), ("waiting", False)]
    end_oldest(task)
    assert states(task)[1] == ("waiting", True)


def test_a_held_batch_can_be_stopped_and_the_queue_goes_on_without_it():
    task = fired("queue", times=3)
    services.stop(task.batches.order_by("id")[1], by="tests")
    end_oldest(task)
    assert [state for state, _ in states(task)] == ["success", "failed", "waiting"]
    assert states(task)[2] == ("waiting", True)


def test_replace_stops_the_running_batch_and_runs_the_new_one_when_it_is_dead():
    task = fired("replace", times=2)
    assert states(task) == [("terminating", True), ("waiting", False)]
    first, second = task.batches.order_by("id")
    assert first.reason == f"Stopped by schedule: replaced by batch {second.pk}"
    end_oldest(task)
    assert states(task)[1] == ("waiting", True)


def test_replace_keeps_only_the_newest_of_those_that_wait():
    task = fired("replace", times=4)
    assert [state for state, _ in states(task)] == ["terminating", "failed", "failed", "waiting"]
    end_oldest(task)
    assert states(task)[3] == ("waiting", True)


def test_replace_is_immediate_when_the_earlier_batch_has_not_begun():
    task = factories.task(interval=60, overlap="replace")
    for number in range(2):
        due(task, NOW + number * MINUTE)
        fire_all(NOW + number * MINUTE)
    assert states(task) == [("failed", True), ("waiting", True)]


def test_a_batch_made_by_hand_obeys_the_policy_too():
    with pytest.raises(TransitionRefused, match="skips a run while batch"):
        services.trigger(fired("skip", times=1), by="tests")
    task = fired("queue", times=1)
    services.trigger(task, by="tests")
    assert states(task) == [("running", True), ("waiting", False)]


def test_settling_twice_changes_nothing():
    task = fired("queue", times=3)
    end_oldest(task)
    before = states(task)
    services.settle_overlap(task.pk)
    services.settle_overlap(task.pk)
    assert states(task) == before


def test_held_batches_are_let_go_when_the_policy_no_longer_holds_them():
    task = fired("queue", times=3)
    content = task.revision.content | {"overlap": Overlap.ALLOW}
    services.save_task(team=task.team, group=task.group, name=task.name, content=content, by="tests")
    assert triggers.settle_held() == 1
    assert states(task) == [("running", True), ("waiting", True), ("waiting", True)]


# --- the net ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["queue", "replace"])
def test_a_held_batch_that_nobody_settled_after_an_end_is_brought_forward(overlap):
    task = fired(overlap, times=2)
    factories.end_batch(oldest(task))
    assert states(task)[1] == ("waiting", False)
    assert triggers.settle_held() == 1
    assert states(task)[1] == ("waiting", True)
    assert triggers.settle_held() == 0


def test_a_replacement_that_nobody_settled_after_it_fired_is_brought_forward(monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(triggers, "_settle", lambda task_id: None)
        task = fired("replace", times=2)
    assert states(task) == [("running", True), ("waiting", False)]
    assert triggers.settle_held() == 1
    assert states(task) == [("terminating", True), ("waiting", False)]
    assert triggers.settle_held() == 0


def test_the_net_leaves_alone_what_waits_rightly():
    fired("queue", times=3)
    fired("replace", times=2)
    stopped = fired("queue", times=2)
    transitions.stop_batch(stopped.batches.order_by("id")[1].pk, by="tests", reason="")
    assert triggers.settle_held() == 0


def test_the_net_is_one_statement_when_there_is_nothing_to_do(django_assert_num_queries):
    fired("queue", times=3)
    with django_assert_num_queries(1):
        assert triggers.settle_held() == 0


def test_a_late_round_in_a_held_task_queues_its_missed_runs_in_order():
    task = due(factories.task(interval=60, overlap="queue", misfire="run_all"), NOW - 3 * MINUTE)
    fire_all()
    order = list(task.batches.order_by("id").values_list("scheduled_for", "held"))
    assert order == [(NOW - timedelta(minutes=back), back != 3) for back in (3, 2, 1, 0)]
