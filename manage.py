#!/usr/bin/env python
"""Tailrace's command line: `python manage.py help`."""

import os
import sys

OLDEST_PYTHON = (3, 12)


def main() -> None:
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Tailrace needs Python 3.12 or newer, and this is {found}. Install 3.13 and run `make run`.")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from config import database

    try:
        with database.for_command(sys.argv):
            execute_from_command_line(sys.argv)
    except (database.DatabaseUnavailable, ImproperlyConfigured) as refusal:
        sys.exit(f"manage.py: {refusal}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
