"""What the settings make of the environment and of var/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import settings

ROOT = Path(__file__).resolve().parents[2]


def test_a_secret_key_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path):
    kept = tmp_path / "var" / "secret_key"
    key = settings._kept_secret_key(kept)
    assert len(key) >= 48
    assert settings._kept_secret_key(kept) == key
    assert kept.stat().st_mode & 0o077 == 0
    assert list(kept.parent.iterdir()) == [kept]


def test_an_empty_secret_key_is_refused_with_what_to_do(tmp_path: Path):
    kept = tmp_path / "secret_key"
    kept.touch()
    with pytest.raises(ImproperlyConfigured, match=r"is empty\. Remove the file"):
        settings._kept_secret_key(kept)


def test_ones_own_job_modules_come_beside_the_demos():
    said = subprocess.run(
        [sys.executable, "-c", "from config import settings; print(settings.TAILRACE['JOB_MODULES'])"],
        cwd=ROOT,
        env=os.environ | {"TAILRACE_JOB_MODULES": "mypackage.jobs"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "['config.demo.jobs', 'config.demo.weather', 'mypackage.jobs']"


def test_the_table_of_variables_has_every_one_that_is_read():
    read = set(re.findall(r"[\"'](TAILRACE_[A-Z_]+[A-Z])[\"']", Path(settings.__file__).read_text()))
    assert "TAILRACE_LOG_LEVEL" in read
    told = set(re.findall(r"^\| (TAILRACE_\w+) \|", settings.__doc__ or "", re.MULTILINE))
    assert read - told == set()


@pytest.mark.parametrize("app", ["scheduling", "workflows", "reruns"])
def test_what_each_app_says_is_logged_with_its_time_and_module(app: str):
    assert settings.LOGGING["loggers"][app]["handlers"] == ["stderr"]
