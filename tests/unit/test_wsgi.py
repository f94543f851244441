"""When the web server looks for garbage; in a process of its own, since it freezes all that is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
