import time

import pytest
from django.test import Client
from django.utils import timezone

from scheduling import services
from scheduling.models import Execution, Instance, LogChunk
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import actions_of, element, live_address, shown, state_of, text_of


def running(desk: Desk) -> tuple[Instance, Execution]:
    instance = make.batch(desk.task).instances.select_related("group", "node").first()
    return instance, make.start(instance)


def write(execution: Execution, sequence: int, text: str = "", dropped: int = 0) -> None:
    LogChunk.objects.create(
        execution=execution, sequence=sequence, text=text, dropped_bytes=dropped, written_at=timezone.now()
    )


def test_it_shows_every_execution_and_the_log_of_the_latest(desk: Desk, operator: Client) -> None:
    instance, first = running(desk)
    write(first, 0, "the first try\n")
    make.end(instance, "failed", error="exit code 3", exit_code=3, may_retry=False)
    services.rerun_instance(instance, by=operator.user)
    second = make.start(instance)
    write(second, 0, "the second try\n")
    page = operator.get(f"/instances/{instance.pk}/")
    assert "exit code 3" in element(page, f"execution-{first.pk}")
    assert "the second try" in text_of(page)
    assert "the first try" not in text_of(page)
    assert "the first try" in text_of(operator.get(f"/instances/{instance.pk}/?execution=1"))


@pytest.mark.parametrize("execution", ["3", "0", "x", "-1", "99999999999999999999"])
def test_an_execution_that_it_does_not_have_is_not_found(desk: Desk, operator: Client, execution: str) -> None:
    instance, _ = running(desk)
    assert operator.get(f"/instances/{instance.pk}/?execution={execution}").status_code == 404


def test_one_that_never_ran_says_so(desk: Desk, operator: Client) -> None:
    instance = make.batch(desk.task).instances.first()
    page = operator.get(f"/instances/{instance.pk}/")
    assert "It has not run yet." in text_of(page)
    assert state_of(page, f"instance-{instance.pk}") == "waiting"
    assert actions_of(page, f"instance-{instance.pk}") == ["stop"]


@pytest.mark.parametrize("address", ["", "changes/", "stop/", "rerun/"])
def test_another_teams_instance_is_not_found(desk: Desk, outsider: Client, address: str) -> None:
    instance, _ = running(desk)
    assert outsider.get(f"/instances/{instance.pk}/{address}").status_code == 404


def test_output_is_text_never_markup_and_without_a_terminals_escapes(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "<script>alert(1)</script> \x1b[31mred\x1b[0m\n")
    page = text_of(operator.get(f"/instances/{instance.pk}/"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; red\n" in page


def test_what_was_not_kept_is_a_visible_gap(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "head\n")
    write(execution, 1, dropped=1021 * 1024 * 1024)
    write(execution, 2, "tail\n")
    page = text_of(operator.get(f"/instances/{instance.pk}/")).replace("\xa0", " ")
    head, gap, tail = (
        page.index("head\n"),
        page.index("1021.0 MB of output were not kept"),
        page.index("tail\n"),
    )
    assert head < gap < tail


def test_while_it_runs_only_new_output_is_appended(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    write(execution, 0, "one\n")
    page = operator.get(f"/instances/{instance.pk}/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    write(execution, 1, "two\n")
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 200
    assert '<div hx-swap-oob="beforeend:#log"><span>two\n</span></div>' in text_of(answer)
    assert "one" not in text_of(answer)
    assert f'id="instance-{instance.pk}"' not in text_of(answer)
    assert operator.get(live_address(answer), headers=shown(answer)).status_code == 204


def test_the_end_brings_the_last_output_the_new_state_and_stops_asking(desk: Desk, operator: Client) -> None:
    instance, execution = running(desk)
    page = operator.get(f"/instances/{instance.pk}/")
    assert "every 1s" in text_of(page)
    write(execution, 0, "done\n")
    make.end(instance)
    answer = operator.get(live_address(page), headers=shown(page))
    assert answer.status_code == 286
    assert "done\n" in text_of(answer)
    assert state_of(answer, f"instance-{instance.pk}") == "success"
    assert 'data-state="success"' in element(answer, f"execution-{execution.pk}")
    assert "every 1s" not in text_of(answer)


def test_a_page_that_follows_turns_to_the_log_of_a_new_attempt(desk: Desk, operator: Client) -> None:
    instance, first = running(desk)
    write(first, 0, "the first try\n")
    following = operator.get(f"/instances/{instance.pk}/")
    looking_back = operator.get(f"/instances/{instance.pk}/?execution=1")
    make.end(instance, "failed", may_retry=False)
    services.rerun_instance(instance, by=operator.user)
    write(make.start(instance), 0, "the second try\n")
    answer = operator.get(live_address(following), headers=shown(following))
    assert '<section class="card" id="log-card" hx-swap-oob="true">' in text_of(answer)
    assert "the second try" in text_of(answer)
    answer = operator.get(live_address(looking_back), headers=shown(looking_back))
    assert "the second try" not in text_of(answer)


def test_a_log_in_very_many_pieces_comes_whole_over_several_answers(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduling.views.instances.CHUNKS_AT_ONCE", 2)
    instance, execution = running(desk)
    for sequence in range(5):
        write(execution, sequence, f"line {sequence}\n")
    make.end(instance)
    page = operator.get(f"/instances/{instance.pk}/")
    assert 'hx-trigger="load, every 1s' in text_of(page)
    second = operator.get(live_address(page), headers=shown(page))
    third = operator.get(live_address(second), headers=shown(second))
    assert (second.status_code, third.status_code) == (200, 286)
    assert "line 2\nline 3\n" in text_of(second)
    assert "line 4\n" in text_of(third)


def test_a_log_as_large_as_is_kept_is_shown_whole_and_quickly(
    desk: Desk, operator: Client, django_assert_num_queries
) -> None:
    instance, execution = running(desk)
    line = "2013-11-21 14:30:02 reading <flights> of carrier DL & UA\n"
    for sequence in range(20):
        write(execution, sequence, line * (65536 // len(line)))
    operator.get(f"/instances/{instance.pk}/")
    began = time.perf_counter()
    # Session, user, the instance, its executions, the log, the user's roles.
    with django_assert_num_queries(6):
        page = operator.get(f"/instances/{instance.pk}/")
    assert len(page.content) > 1_300_000
    assert time.perf_counter() - began < 1
