"""`export` writes what `apply` takes again, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduling import definitions, services
from scheduling.models import Task
from scheduling.validation import clean_content
from tests import factories
from tests.engine.definitions import GOOD, apply, export, forget_everything

pytestmark = pytest.mark.django_db


def test_an_export_reads_like_written_by_a_person(write: Any) -> None:
    apply(write(GOOD))
    assert (
        export()
        == """\
team: warehouse

groups:
  - name: etl

tasks:
  - name: extract
    group: etl
    kind: shell
    command: 'true'
    mode: sharded
    shards:
      0: AA
      1: UA
      2: 'NO'
    timeout: 10m
    retries:
      count: 2
      interval: 30s

  - name: tidy
    group: etl
    kind: shell
    command: rm -rf "$WORKDIR"
    mode: broadcast
    trigger:
      cron: 5 0 * * *
      timezone: America/New_York
"""
    )


def test_an_export_goes_into_an_empty_installation_and_comes_out_the_same(write: Any) -> None:
    apply(write(GOOD + "---\nteam: b\n---\nteam: c\ngroups: [{name: etl}]\n"))
    services.set_enabled(Task.objects.get(name="tidy"), False)
    exported = export()
    assert apply(write(exported, "again.yaml")) == "0 new, 0 changed, 7 unchanged.\n"
    forget_everything()
    apply("again.yaml")
    assert export() == exported
    assert Task.objects.get(name="tidy").enabled is False


def test_an_export_can_be_of_one_team(write: Any) -> None:
    apply(write(GOOD + "---\nteam: b\n"))
    assert export(team=["b"]) == "team: b\n"
    with pytest.raises(CommandError, match="“c” is not one of b, warehouse"):
        export(team=["c"])


texts = st.text(
    st.sampled_from("ab 0:#-'\"\\\n\t|>&*!%@`{}[],?=~é\x85\u2028\ufeff\x1b\x7f\r🚀")
    | st.characters(codec="utf-8"),
    min_size=1,
    max_size=20,
).filter(lambda text: text.strip() and "\0" not in text)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: "$" not in repr(value))
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"cycle_time", "data_date", "batch_id"} and not name.startswith("shard")
)
contents = st.fixed_dictionaries(
    {
        "kind": st.just("shell"),
        "spec": st.fixed_dictionaries(
            {"command": texts}, optional={"env": st.dictionaries(names, texts, max_size=2)}
        ),
    },
    optional={
        "parameters": st.dictionaries(names, plain, max_size=3),
        "timeout": st.integers(1, 10**8),
        "retry_count": st.integers(0, 1000),
        "retry_interval": st.integers(0, 10**6),
        "success_ratio": st.integers(1, 100),
        "overlap": st.sampled_from(["allow", "skip", "queue", "replace"]),
        "misfire": st.sampled_from(["skip", "run_once", "run_all"]),
        "priority": st.integers(-100, 100),
        "timezone": st.sampled_from(["UTC", "America/New_York", "Asia/Shanghai"]),
    },
)
schedules = st.sampled_from(
    [{}, {"trigger": "workflow"}, {"interval": 90}, {"cron": "*/5 * * * *"}, {"cron": "0 0 L * *"}]
)
shardings = (
    st.just({})
    | st.just({"mode": "broadcast"})
    | st.fixed_dictionaries(
        {
            "mode": st.just("sharded"),
            "shards": st.lists(texts | st.just(""), min_size=1, max_size=12),
            "shard_concurrency": st.integers(0, 5),
        }
    )
)


@pytest.mark.long
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
@given(contents, schedules, shardings, st.booleans())
def test_whatever_is_valid_survives_export_and_apply(
    tmp_path: Path, content: dict[str, Any], schedule: dict[str, Any], sharding: dict[str, Any], enabled: bool
) -> None:
    cleaned = clean_content(content | schedule | sharding)
    forget_everything()
    factories.task("any", group=factories.group("etl", team=factories.team("a")), enabled=enabled, **cleaned)
    exported = export()
    file = tmp_path / "exported.yaml"
    file.write_text(exported, newline="")
    wanted = definitions.read_files([str(file)])
    assert definitions.plan(wanted).changes_nothing
    assert wanted.tasks["a", "any"].content == cleaned
    forget_everything()
    definitions.apply(wanted)
    assert export() == exported
