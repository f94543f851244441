"""The administration at /admin/: teams, people, groups and tasks, each edited by those whose team they are."""

from scheduling.admin import accounts, records, tasks, teams
from scheduling.admin.site import site

__all__ = ["accounts", "records", "site", "tasks", "teams"]
