"""How the web is started, and when it looks for garbage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gunicorn.app.wsgiapp import WSGIApplication

from scheduling.management.commands import up

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import weakref
import config.wsgi
from django.core.signals import request_finished

class Row:
    def __init__(self):
        self.page = self

def left():
    return weakref.ref(Row())

def requests_end(count):
    for _ in range(count):
        request_finished.send(sender=None)

row = left()
print(row() is not None)
requests_end(1)
print(row() is not None)

# What a slower request holds while others end is looked at more rarely once it is left.
slow = Row()
row = weakref.ref(slow)
requests_end(19)
del slow
requests_end(1)
print(row() is not None)
requests_end(79)
print(row() is not None)
"""


def test_what_a_request_leaves_is_freed_when_it_has_ended():
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    left, after, slow, in_the_end = said.stdout.split()
    assert (left, after) == ("True", "False")
    assert (slow, in_the_end) == ("True", "False")


def commands_of_gunicorn() -> dict[str, list[str]]:
    """Every way in which we tell people to start the web, and our own."""
    found = {}
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.service")):
        for line in path.read_text().splitlines():
            if "bin/gunicorn " in line:
                words = line.partition("bin/gunicorn ")[2].partition("#")[0].split()
                found[path.name] = ["gunicorn", *words]
    with socket.socket() as listener:
        found["up"] = next(program for program in up._programs(listener) if program.name == "web").command[2:]
    return found


@pytest.mark.parametrize("told", ["README.md", "tailrace-web.service", "up"])
def test_no_way_to_start_the_web_opens_a_control_socket(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", commands_of_gunicorn()[told])
    configured = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]").cfg
    assert (configured.control_socket_disable, configured.worker_class_str) == (True, "gthread")
