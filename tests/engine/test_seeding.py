"""Made-up records are as many as asked for, and agree with themselves like the engine's own."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Count, F

from scheduling import seeding
from scheduling.management.commands import seed_records, shell
from scheduling.models import Batch, DeploymentGroup, Execution, Instance, JournalEntry, LogChunk, Node, Task
from tests import factories as make
from tests.engine.support import check

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("instances", "batches"),
    [(1, 1), (10, 10), (11, 10), (1000, 100), (99_999, 12_345), (10**7, 10**6), (10**6, 10_000), (5000, 4999)],
)
def test_batches_of_several_sizes_hold_exactly_so_many_instances(instances: int, batches: int) -> None:
    sizes = seeding.shape(instances, batches)
    assert sum(sizes.values()) == batches
    assert sum(size * count for size, count in sizes.items()) == instances


@pytest.mark.parametrize(("instances", "batches"), [(0, 0), (5, 6), (10_001, 1), (9_000, 1)])
def test_numbers_that_do_not_fit_are_refused(instances: int, batches: int) -> None:
    with pytest.raises(seeding.Impossible):
        seeding.shape(instances, batches)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slices, and few tasks."""
    monkeypatch.setattr(seeding, "_SLICE", 1000)
    monkeypatch.setattr(
        seeding, "_BANDS", {size: (min(count, 3), *rest) for size, (count, *rest) in seeding._BANDS.items()}
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_records_agree_like_the_engines_own() -> None:
    *_, made = seeding.seed(3000, batches=400, days=3, team="made-up", unfinished=10)
    assert (made.instances, made.batches) == (Instance.objects.count(), Batch.objects.count()) == (3000, 400)
    for batch in Batch.objects.all():
        check(batch)
    states = set(Batch.objects.values_list("state", flat=True))
    assert {"success", "failed", "waiting", "running", "terminating"} <= states
    assert {"broadcast", "sharded", "random"} == set(Task.objects.values_list("revision__mode", flat=True))
    ended = Instance.objects.filter(ended_at__isnull=False, started_at__isnull=False)
    assert not ended.filter(ended_at__lt=F("started_at")).exists()
    assert Execution.objects.filter(cause="retry").exists()
    assert LogChunk.objects.exists()
    assert JournalEntry.objects.filter(object_type="batch", action="triggered").count() == 400
    # Ids rise with time, but for neighbours and for what people begin by day.
    scheduled = Batch.objects.exclude(trigger="manual").order_by("pk")
    assert not scheduled.filter(pk__lt=scheduled[100].pk, created_at__gt=scheduled.last().created_at).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_nothing_of_it_ever_runs_and_a_second_time_adds_to_it() -> None:
    for _ in range(2):
        list(seeding.seed(50, batches=20, days=1, team="made-up"))
    assert Batch.objects.count() == 40
    assert not Task.objects.filter(enabled=True).exists()
    assert not Node.objects.online().exists()
    assert not Batch.objects.unfinished().exists()
    assert (
        Batch.objects.values("task", "trigger", "scheduled_for").annotate(n=Count("pk")).filter(n=1).count()
        == 40
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_no_name_is_a_real_ones_and_the_last_line_says_how_to_see_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    user = make.user("mei")
    call_command("seed_records", "20", batches=10, yes=True)
    for model in (Task, DeploymentGroup):
        assert not model.objects.exclude(name__startswith="seeded-").exists()
    code = capsys.readouterr().out.splitlines()[-1].partition("manage.py shell: ")[2]
    code = code.replace("YOUR-NAME", user.get_username())
    exec(code, shell.Command().get_namespace(verbosity=0, command=code))  # noqa: S102
    assert Batch.objects.visible_to(user).count() == 10


@pytest.mark.django_db(transaction=True)
def test_somebodys_own_team_is_refused() -> None:
    team = make.team()
    with pytest.raises(CommandError, match="is not one of made-up records"):
        call_command("seed_records", "10", team=team.name, yes=True)
    assert not Task.objects.exists()


@pytest.mark.django_db
def test_a_database_that_is_not_the_embedded_one_is_refused_without_yes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/production")
    with pytest.raises(CommandError, match="Pass --yes if you mean it"):
        call_command("seed_records", "10")
    assert not Batch.objects.exists()


@pytest.mark.django_db
def test_only_the_server_under_our_own_directory_counts_as_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    own = seed_records.database.EmbeddedServer(seed_records.database.embedded_data()).url
    monkeypatch.setenv("DATABASE_URL", own)
    assert seed_records.is_embedded()
    monkeypatch.setenv("DATABASE_URL", own.replace("tailrace", "other"))
    assert not seed_records.is_embedded()
