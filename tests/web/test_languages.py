"""English and 简体中文 throughout: all of ours is translated, and a reader gets the language they chose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import polib
import pytest
from django.template.base import Lexer, TokenType
from django.test import Client
from django.utils import timezone, translation

from reruns.states import ItemState
from scheduling import reasons, services
from scheduling.models import Batch, JournalEntry
from scheduling.models.tasks import Mode, Trigger
from scheduling.states import BatchState, InstanceState
from scheduling.templatetags.tailrace import duration
from tests import factories as make
from tests import messages
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, text_of
from workflows.states import CycleState

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "config" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
TEMPLATES = sorted(path for place in ("templates", "scheduling") for path in (ROOT / place).rglob("*.html"))

CHINESE = {"HTTP_ACCEPT_LANGUAGE": "zh-CN,zh;q=0.9"}
# Names, units and abbreviations that are the same in both languages.
SAME = {
    *("Tailrace", "English", "ID", "IDs", "UTC", "ms", "HTTP", "SQL", "JSON", "YAML", "URL", "CSV", "Ctrl"),
    *("Python", "python", "shell", "Shell", "sql", "http", "export", "Cron", "cron", "NUL", "PostgreSQL"),
}
_WORD = re.compile(r"[A-Za-z]{2,}")
_READ = {"aria-label", "title", "placeholder", "alt", "data-label"}
_HOLE = "\ue000"


# --- the catalogue ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue() -> polib.POFile:
    return polib.pofile(str(CATALOGUE))


@pytest.fixture(scope="module")
def said() -> set[messages.Message]:
    return messages.messages()


@pytest.mark.long
def test_everything_that_code_and_templates_say_is_in_the_catalogue(
    catalogue: polib.POFile, said: set[messages.Message]
) -> None:
    known = {(entry.msgid, entry.msgctxt) for entry in catalogue}
    used = {(message.text, message.context) for message in said}

    assert used - known == set(), "run `make messages` and translate what is new"
    assert known - used == set(), "run `make messages`"


def test_everything_in_the_catalogue_is_translated(catalogue: polib.POFile) -> None:
    assert list(messages.untranslated(catalogue)) == []


@pytest.mark.long
def test_a_text_that_counts_is_not_said_without_its_count(said: set[messages.Message]) -> None:
    alone = {(each.text, each.context) for each in said if each.plural is None}
    # A language of one form has its count in it, and gettext finds that form for the text alone too.
    counting = {(each.text, each.context) for each in said if each.plural and "%" in each.plural}

    assert counting & alone == set(), "tell the two apart by a context: pgettext"


def test_the_compiled_catalogue_is_the_one_that_people_read(catalogue: polib.POFile) -> None:
    assert CATALOGUE.with_suffix(".mo").read_bytes() == catalogue.to_binary(), "run `make messages`"


def test_states_and_modes_have_the_terms_of_the_field() -> None:
    with translation.override("zh-hans"):
        assert [str(label) for label in BatchState.labels] == [
            *("等待", "执行中", "成功", "执行失败", "终止中", "未满足工作流触发条件")
        ]
        assert [str(label) for label in InstanceState.labels] == [
            *("等待", "执行中", "成功", "执行失败", "终止中", "已终止", "超时")
        ]
        assert [str(label) for label in CycleState.labels] == [
            *("未就绪", "就绪", "运行中", "成功", "失败", "终止", "撤销")
        ]
        assert [str(label) for label in ItemState.labels] == [
            *("已计划", "待重跑", "运行中", "成功", "失败", "终止", "撤销", "待解冻", "已解冻")
        ]
        assert [str(label) for label in Mode.labels] == ["随机节点", "广播", "分片"]
        assert [str(label) for label in Trigger.labels] == ["定时", "周期", "工作流触发", "手动"]


def test_every_stored_reason_is_translated() -> None:
    with translation.override("zh-hans"):
        for template in reasons.REGISTRY:
            assert translation.gettext(template) != template, template


# --- templates -------------------------------------------------------------------------------------


class _Said(HTMLParser):
    """The words that a page says: its text, and the attributes that are read out or shown."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _READ or (tag == "input" and name == "value" and ("type", "submit") in attrs):
                self.words += _WORD.findall(value or "")
        if tag in {"script", "style", "code", "pre", "time"}:
            self._silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            # An attribute that a block puts into some other template's tag is no text.
            self.words += _WORD.findall(re.sub(r'[\w-]+="[^"]*"', "", data))


def said_by(html: str) -> list[str]:
    parser = _Said()
    parser.feed(html)
    parser.close()
    return parser.words


def _without_tags(source: str) -> Iterator[str]:
    """A template's own text, with a hole for whatever Django puts there, translations included."""
    within = ""
    for token in Lexer(source).tokenize():
        if token.token_type == TokenType.BLOCK:
            name = token.contents.split()[0]
            if name in {"blocktranslate", "blocktrans", "comment"}:
                within = name
            elif within and name == f"end{within}":
                within = ""
            yield _HOLE
        elif token.token_type == TokenType.TEXT and not within:
            yield token.contents
        elif token.token_type == TokenType.VAR:
            yield _HOLE


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_template_says_nothing_that_is_not_translated(path: Path) -> None:
    words = said_by("".join(_without_tags(path.read_text())))

    assert [word for word in words if word not in SAME] == []


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "static").glob("*.js")), ids=lambda path: path.name)
def test_a_script_says_nothing(path: Path) -> None:
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    texts = re.findall(r'"([^"\n]*)"|`([^`]*)`', code)

    sentences = [text for pair in texts for text in pair if re.match(r"[A-Z][a-z]+ [a-z]+", text)]
    assert sentences == [], "a script takes its words from data attributes, which templates translate"


# --- pages -----------------------------------------------------------------------------------------


@pytest.fixture
def records(desk: Desk) -> tuple[Batch, Batch]:
    """A batch that was stopped, of which an instance failed, and one that waits."""
    stopped = make.batch(desk.task)
    make.start(stopped.instances.all()[0])
    make.end(stopped.instances.all()[0], "failed", error="exit code 3", reason="exit code 3", may_retry=False)
    services.stop(stopped, by="ann", reason="文件不对")
    waiting = make.batch(desk.task, parameters={"limit": 10})
    services.drain(desk.node, by="ann", reason="换盘")
    return stopped, waiting


def addresses(stopped: Batch, waiting: Batch) -> list[str]:
    instance = stopped.instances.all()[0]
    edited = JournalEntry.objects.filter(action="triggered").latest("pk")
    return [
        "/",
        "/tasks/",
        f"/tasks/{stopped.task_id}/",
        f"/tasks/{stopped.task_id}/run/",
        "/nodes/",
        "/batches/",
        "/batches/?state=running&task=extract",
        "/batches/?tab=workflow",
        f"/batches/{stopped.pk}/",
        f"/batches/{waiting.pk}/",
        f"/batches/{waiting.pk}/stop/",
        f"/batches/{stopped.pk}/rerun/",
        f"/instances/{instance.pk}/",
        f"/instances/{instance.pk}/rerun/",
        "/journal/",
        "/journal/?object=x",
        f"/journal/{edited.pk}/",
        "/preferences/",
        "/find/?q=x",
        "/nowhere/",
    ]


def test_a_page_in_chinese_has_no_english_left(
    desk: Desk, operator: Client, records: tuple[Batch, Batch]
) -> None:
    data = {desk.team.name, desk.group.name, desk.node.name, desk.task.name, operator.user.username, "ann"}
    data |= {"tests", "scheduling", "manage.py scheduler"}
    allowed = SAME | {word for text in data for word in _WORD.findall(text)}
    left: dict[str, list[str]] = {}
    for address in addresses(*records):
        page = text_of(operator.get(address, **CHINESE))
        # The zones' names are those of the world's table of zones.
        page = re.sub(r'<select name="zone".*?</select>|[A-Z][a-z]+/[A-Z]\w+', "", page, flags=re.DOTALL)
        if words := [word for word in said_by(page) if word not in allowed]:
            left[address] = words

    assert left == {}


def test_a_reason_that_was_stored_in_english_is_read_in_chinese(
    operator: Client, records: tuple[Batch, Batch]
) -> None:
    stopped, _waiting = records

    page = text_of(operator.get("/journal/", **CHINESE))
    assert "Stopped by" not in page
    assert "由 ann 停止执行：文件不对" in page
    stopped.refresh_from_db()
    assert stopped.reason == "Stopped by ann: 文件不对"


# --- what a reader chooses -------------------------------------------------------------------------


def test_the_switch_is_on_every_page_and_remembers(operator: Client) -> None:
    page = text_of(operator.get("/batches/?state=failed"))
    assert '<form class="languages" method="post" action="/language/"' in page
    assert 'value="zh-hans" lang="zh-hans"' in page

    answer = operator.post("/language/", {"language": "zh-hans", "next": "/batches/?state=failed"})

    assert (answer.status_code, answer["Location"]) == (302, "/batches/?state=failed")
    assert answer.cookies["django_language"]["max-age"] == 365 * 24 * 3600
    page = text_of(operator.get("/batches/"))
    assert '<html lang="zh-hans"' in page
    assert "执行记录" in page


def test_the_switch_leads_to_no_other_site(operator: Client) -> None:
    answer = operator.post("/language/", {"language": "zh-hans", "next": "https://example.org/"})

    assert answer["Location"] == "/"


def test_a_stranger_may_choose_a_language_too(db: None) -> None:
    answer = Client().post("/language/", {"language": "zh-hans", "next": "/accounts/login/"})

    assert answer["Location"] == "/accounts/login/"


def test_the_browsers_language_is_the_first_choice(operator: Client) -> None:
    assert '<html lang="zh-hans"' in text_of(operator.get("/batches/", **CHINESE))
    assert '<html lang="en"' in text_of(operator.get("/batches/", HTTP_ACCEPT_LANGUAGE="fr"))


def test_times_are_written_in_the_browsers_zone(desk: Desk, operator: Client) -> None:
    made = JournalEntry.objects.create(
        at=datetime(2026, 3, 4, 20, 5, 6, tzinfo=UTC),
        action="stopped",
        object_type="task",
        object_id=desk.task.pk,
        object_name="extract",
        team=desk.team,
        actor="ann",
        via="web",
    )

    def shown() -> str:
        page = operator.get("/journal/?window=all")
        assert f"Times in {page.context['time_zone']}" in text_of(page)
        return element(page, f"entry-{made.pk}")

    assert "20:05:06" in shown()
    operator.cookies["tz"] = "Asia/Shanghai"
    assert "04:05:06" in shown()
    assert 'title="2026-03-05 04:05:06.000 CST"' in shown()
    operator.cookies["zone"] = "America/New_York"
    assert "15:05:06" in shown()
    assert timezone.get_current_timezone_name() == "UTC"


@pytest.mark.parametrize(
    "zone",
    [
        "",
        "Mars/Phobos",
        "../../etc/passwd",
        "/etc/localtime",
        "America",
        "x" * 999,
        "local time",
    ],
)
def test_a_zone_that_is_none_is_passed_over(operator: Client, zone: str) -> None:
    operator.cookies["tz"] = zone

    assert operator.get("/preferences/").context["time_zone"] == "UTC"


def test_preferences_are_kept_and_shown_again(operator: Client) -> None:
    chosen = {"language": "zh-hans", "zone": "Asia/Shanghai", "theme": "dark"}

    answer = operator.post("/preferences/", chosen)

    assert (answer.status_code, answer["Location"]) == (302, "/preferences/?saved")
    page = operator.get("/preferences/?saved")
    assert {name: page.context["form"][name].value() for name in chosen} == chosen
    assert '<html lang="zh-hans" data-theme="dark">' in text_of(page)
    assert page.context["time_zone"] == "Asia/Shanghai"

    operator.post("/preferences/", {"language": "en", "zone": "", "theme": ""})
    page = operator.get("/preferences/")
    assert '<html lang="en">' in text_of(page)
    assert page.context["time_zone"] == "UTC"


def test_what_cannot_be_chosen_is_refused(operator: Client) -> None:
    answer = operator.post("/preferences/", {"language": "xx", "zone": "Mars/Phobos", "theme": "pink"})

    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == {"language", "zone", "theme"}
    assert "zone" not in answer.cookies


def test_a_forged_theme_does_nothing(operator: Client) -> None:
    operator.cookies["theme"] = '"><script>'

    assert '<html lang="en">' in text_of(operator.get("/preferences/", headers=HTMX))


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0.0451, "45 ms", "45 毫秒"),
        (2.34, "2.3 s", "2.3 秒"),
        (42, "42 s", "42 秒"),
        (185, "3 min 05 s", "3 分 05 秒"),
        (7 * 3600 + 60, "7 h 01 min", "7 小时 01 分"),
    ],
)
def test_a_duration_is_said_in_the_readers_units(seconds: float, english: str, chinese: str) -> None:
    assert duration(timedelta(seconds=seconds)) == english
    with translation.override("zh-hans"):
        assert duration(timedelta(seconds=seconds)) == chinese
