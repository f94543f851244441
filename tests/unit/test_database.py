"""DATABASE_URL: what is read from it, and what is refused with which words."""

from __future__ import annotations

import os
import socket

import pytest

from config import database, sessions
from config.database import DatabaseUnavailable, check_server, settings_from_url


def test_every_part_of_a_url_reaches_the_settings():
    settings = settings_from_url("postgresql://ann:s%3Aecret@db.example:6432/trails%20x?sslmode=require")

    assert settings | {"ENGINE": None} == {
        "ENGINE": None,
        "NAME": "trails x",
        "USER": "ann",
        "PASSWORD": "s:ecret",
        "HOST": "db.example",
        "PORT": "6432",
        "OPTIONS": sessions.CLIENT | {"sslmode": "require"},
    }


def test_a_url_may_set_its_own_limits_of_a_connection():
    settings = settings_from_url("postgresql://ann@db.example/trails?connect_timeout=20")

    assert settings["OPTIONS"] == sessions.CLIENT | {"connect_timeout": "20"}


def test_a_socket_and_its_port_are_taken_from_the_query():
    settings = settings_from_url("postgres://postgres@/tailrace?host=/var/run/pg&port=5433")

    assert (settings["HOST"], settings["PORT"], settings["OPTIONS"]) == ("/var/run/pg", "5433", sessions.CLIENT)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a@b/c", "got scheme 'mysql'"),
        ("tailrace", "got scheme 'none'"),
        ("postgresql://a@b:5432", "names no database"),
        ("postgresql://a@b:port/c", "cannot be read"),
        ("postgresql://a@[::1/c", "cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_with_an_example_of_a_right_one(url, said):
    with pytest.raises(DatabaseUnavailable, match=said) as refusal:
        settings_from_url(url)

    assert "postgresql://user:password@host:5432/name" in str(refusal.value)


def test_a_wrong_url_is_not_repeated_with_its_password():
    with pytest.raises(DatabaseUnavailable) as refusal:
        settings_from_url("mysql://ann:hunter2@host/name")

    assert "hunter2" not in str(refusal.value)


def test_a_server_that_does_not_answer_is_named():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match=f"port {port} failed") as refusal:
            check_server(f"postgresql://ann@127.0.0.1:{port}/tailrace")

    assert "\n" not in str(refusal.value)
    assert "DATABASE_URL" in str(refusal.value)


def test_a_database_that_does_not_exist_is_named():
    missing = database.url_with_database(os.environ["DATABASE_URL"], "nowhere")

    with pytest.raises(DatabaseUnavailable, match='"nowhere" does not exist'):
        check_server(missing)


def test_a_server_that_is_too_old_is_refused(monkeypatch):
    check_server(os.environ["DATABASE_URL"])
    monkeypatch.setattr(database, "OLDEST_SERVER", 990000)

    with pytest.raises(DatabaseUnavailable, match=r"is PostgreSQL \d\d, and Tailrace needs 99 or newer"):
        check_server(os.environ["DATABASE_URL"])


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["manage.py", "migrate"], True),
        (["manage.py"], False),
        (["manage.py", "help"], False),
        (["manage.py", "node", "--help"], False),
        (["manage.py", "up"], False),
        (["manage.py", "states"], False),
    ],
)
def test_only_commands_that_need_a_database_get_one(arguments, needed, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "mysql://a@b/c")

    if needed:
        with pytest.raises(DatabaseUnavailable), database.for_command(arguments):
            pass
    else:
        with database.for_command(arguments) as url:
            assert url == "mysql://a@b/c"
