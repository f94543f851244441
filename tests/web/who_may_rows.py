"""The table of who may do what: the people, and a row for every address of the product.

A row says what the path names, what permission it asks, and what a person who has that is answered:

    "batch-detail": page("batch"),                            # looking at a batch needs `view`
    "batch-stop": action("running_batch", "stop_task"),       # GET confirms, POST does it and leads on
    "batch-list": page(),                                     # a list shows what one may see, to every member

What the path may name are the keys of `things_of` in who_may_world.py; add what is missing there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from django.utils import timezone

# --- the people ------------------------------------------------------------------------------------

ADMINISTER = "administer"
ROLES: dict[str, set[str]] = {"viewer": {"view"}}
ROLES["operator"] = ROLES["viewer"] | {"run_task", "stop_task", "rerun_task", "drain_node"}
ROLES["operator"] |= {"run_workflow", "stop_workflow", "rerun_workflow", "operate_rerun"}
ROLES["developer"] = ROLES["operator"] | {"edit_task", "edit_workflow"}
ROLES["owner"] = ROLES["developer"] | {"edit_team"}
EVERYTHING = ROLES["owner"] | {ADMINISTER}
# What a grant reaches of a team: one task, its runs, and what was written of them.
REACHED = {"task", "batch", "running_batch", "ended_batch", "journalentry"}
REACHED |= {"instance", "running_instance", "ended_instance"}


@dataclass(frozen=True)
class Person:
    """What somebody may do in their own team, and to what belongs to the team of the table."""

    at_home: set[str] = field(default_factory=set)
    here: set[str] = field(default_factory=set)
    by_grant: set[str] = field(default_factory=set)
    everywhere: bool = False

    def may(self, permission: str, thing: str, team: str) -> bool:
        if self.everywhere:
            return True
        granted = self.by_grant if thing in REACHED else set()
        return team == "ours" and permission in self.here | granted


# The team of the table granted the guests' team to rerun its task.
PEOPLE = {
    **{role: Person(at_home=may, here=may) for role, may in ROLES.items()},
    "outsider": Person(at_home=ROLES["owner"]),
    "guest who views": Person(at_home=ROLES["viewer"], by_grant={"view"}),
    "guest who operates": Person(at_home=ROLES["operator"], by_grant={"view", "rerun_task"}),
    "administrator": Person(at_home=EVERYTHING, everywhere=True),
}

# --- the rows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """`get` and `post` are what somebody is answered who may; None: the method is not allowed.

    `door` is a permission that is needed in some team before anything is looked up; with `hidden`, what one
    lacks the permission for is not shown at all (404 where else it is 403).
    """

    thing: str | None = None
    needs: str = "view"
    get: int | None = 200
    post: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    door: str | None = None
    hidden: bool = False
    public: bool = False
    stranger: int | None = None
    nothing: int | None = None
    methods: tuple[str, ...] = ("GET", "POST")
    query: str = ""
    address: Callable[[dict[str, Any]], str] | None = None


def page(thing: str | None = None, needs: str = "view", *, ok: int = 200, query: str = "") -> Row:
    """Something to look at."""
    return Row(thing, needs, get=ok, query=query)


def action(thing: str | None, needs: str, *, done: int = 302, ok: int | None = 200, **data: Any) -> Row:
    """Something to do: GET asks for the reason, POST with it does the deed. `ok=None`: there is only POST."""
    return Row(thing, needs, get=ok, post=done, data={"reason": "to see who may"} | data)


def public(*, get: int | None = 200, post: int | None = None, stranger: int | None = None, **data: Any) -> Row:
    """For everybody; `stranger` is what they are answered where that is something else."""
    return Row(get=get, post=post, public=True, stranger=stranger, data=data)


def draft(*, done: int = 409, **data: Any) -> Row:
    """A step of a draft; a POST that does not say what its page showed is told to look again."""
    return Row("draft", ADMINISTER, post=done, hidden=True, data={"reason": "to see who may"} | data)


YESTERDAY = (timezone.now() - timedelta(days=1)).date().isoformat()

# What a live list answers depends on what it has to show, of which some see nothing: 200 or 204.
SOME = Row(nothing=204)

ROWS: dict[str, Row] = {
    "home": page(),
    "overview-changes": page(),
    "overview-timeline": page(),
    "set_language": public(get=302, post=302),
    "preferences": Row(post=422),
    "find": page(query="?q=nothing-of-this-name"),
    "login": public(get=302, post=302, stranger=200, username="x", password="y"),
    "logout": Row(get=None, post=302),
    "password-change": Row(post=200),
    "password-changed": page(),
    "journal": page(),
    "journal-changes": SOME,
    "journal-entry": page("journalentry"),
    "notification-list": page(),
    "notification-list-changes": SOME,
    "notification-again": action("notification", "rerun_task", ok=None),
    "notifications-again": Row(needs="rerun_task", get=None, post=302),
    # Tasks and nodes.
    "task-list": page(),
    "task-list-changes": SOME,
    "task-detail": page("task"),
    "task-changes": page("task"),
    "task-run": action("task", "run_task"),
    "task-enable": action("disabled_task", "edit_task"),
    "task-disable": action("task", "edit_task"),
    "suggest-tasks": page(),
    "suggest-people": page(),
    "node-list": page(),
    "node-list-changes": SOME,
    "node-drain": action("node", "drain_node"),
    "node-undrain": action("drained_node", "drain_node"),
    # Execution records.
    "batch-list-count": page(),
    # Who may do it anywhere may ask; to which of the ticked ones is told row by row. Here none is ticked.
    "batches-stop": action(None, "stop_task", ok=422, done=422),
    "batches-rerun": action(None, "rerun_task", ok=422, done=422),
    "saved-filter-add": Row(get=None, post=409),
    **{
        # Whose filter it is says who may, whatever their role: here it is nobody's.
        f"saved-filter-{deed}": Row(
            get=None, post=404, address=lambda _things, deed=deed: f"/saved-filters/999999/{deed}/"
        )
        for deed in ("rename", "default", "delete")
    },
    "batch-list": page(),
    "batch-list-changes": page(ok=286, query="?batch=999999999"),
    "batch-detail": page("batch"),
    "batch-changes": page("batch"),
    "batch-stop": action("running_batch", "stop_task"),
    "batch-rerun": action("ended_batch", "rerun_task"),
    "instance-detail": page("instance"),
    "instance-changes": page("instance"),
    # None of the batch's instances is named here, which is refused to those who might.
    "instances-stop": action("running_batch", "stop_task", ok=409, done=409),
    "instances-rerun": action("ended_batch", "rerun_task", ok=409, done=409),
    "instance-log": page("instance", ok=302),  # without htmx it leads to the whole page
    "instance-log-download": page("instance"),
    "instance-stop": action("running_instance", "stop_task"),
    "instance-rerun": action("ended_instance", "rerun_task"),
    # Cycle instances.
    "backfill-list": page(),
    "backfill-list-changes": SOME,
    "backfill-detail": page("backfill"),
    "backfill-changes": page("backfill"),
    "backfill-pause": action("backfill", "stop_workflow"),
    "backfill-resume": action("paused_backfill", "stop_workflow"),
    "backfill-terminate": action("backfill", "stop_workflow"),
    # Reruns.
    "rerun-list": page(),
    "rerun-list-changes": SOME,
    "rerun-detail": page("rerun"),
    "rerun-changes": page("rerun"),
    "rerun-pause": action("rerun", "operate_rerun"),
    "rerun-resume": action("paused_rerun", "operate_rerun"),
    "rerun-terminate": action("rerun", "operate_rerun"),
    # Nothing was edited here, which is refused to those who might.
    "rerun-take-content": action("rerun", "operate_rerun", ok=409, done=409),
    # Nothing is ticked here, which is refused to those who might.
    "rerun-take-out": action("rerun", "operate_rerun", ok=409, done=409),
    # Whose draft it is says who may, whatever their role: here it is nobody's.
    "rerun-discard": Row(get=404, post=404, address=lambda _things: "/reruns/999999/discard/"),
    "cycle-list": page(),
    "cycle-list-changes": page(ok=286, query="?cycle=999999999"),
    "cycle-list-count": page(),
    # As of batches: here none is ticked.
    **{
        f"cycles-{verb}": action(None, needs, ok=422, done=422)
        for needs, verbs in {
            "stop_workflow": ["stop"],
            "rerun_workflow": ["freeze", "unfreeze", "mark-success", "rerun"],
        }.items()
        for verb in verbs
    },
    "suggest-workflows": page(),
    "workflow-list": page(),
    "workflow-list-changes": SOME,
    "workflow-detail": page("workflow"),
    "workflow-changes": page("workflow"),
    "workflow-days": page("workflow"),
    "workflow-run": action("workflow", "run_workflow", cycle_time="2026-01-01T01:00"),
    # Without `start` it only says what would run.
    "workflow-backfill": action(
        "workflow",
        "run_workflow",
        done=200,
        since=YESTERDAY,
        until=YESTERDAY,
        order="oldest_first",
        parallelism="1",
    ),
    "workflow-enable": action("disabled_workflow", "edit_workflow"),
    "workflow-disable": action("workflow", "edit_workflow"),
    "cycle-detail": page("cycle"),
    "cycle-changes": page("cycle"),
    "cycle-node": page("cycle", ok=302),  # without htmx it leads to the whole page
    "cycle-stop": action("cycle", "stop_workflow"),
    "cycle-rerun": action(
        "failed_cycle", "rerun_workflow", node="a", content="ran", node_parallelism="0", on_failure="go_on"
    ),
    "cycle-mark-success": action("failed_cycle", "rerun_workflow"),
    "cycle-freeze": action("waiting_cycle", "rerun_workflow"),
    "cycle-unfreeze": action("frozen_cycle", "rerun_workflow"),
    # Drafts are their author's alone; those here are the shell's, so that nobody but administrators sees them.
    "rerun-new": replace(
        action("source_cycle", "rerun_task", node="a"),
        address=lambda things: f"/reruns/new/?cycle={things['source_cycle'].pk}",
    ),
    "draft-source": draft(node="a"),
    "draft-nodes": replace(
        draft(node="a"),
        address=lambda things: f"/reruns/{things['draft'].pk}/nodes/{things['source_cycle'].cycle_id}/",
    ),
    "draft-downstream": draft(done=302, on=""),
    "draft-settings": draft(content="ran", parallelism="0", node_parallelism="0", on_failure="go_on"),
    "draft-plan": draft(),
}


# --- the administration ----------------------------------------------------------------------------


# Where Django's administration takes a POST for a GET, asking twice would tell nothing more.
LOOKED_AT = ("GET",)


def inside(needs: str = "edit_task", *, get: int = 200, post: int | None = None, **more: Any) -> Row:
    """A page of the administration that is about no single thing; without `post` only looked at."""
    methods = LOOKED_AT if post is None else ("GET", "POST")
    return Row(needs=needs, get=get, post=post, door=needs, methods=methods, **more)


def about(thing: str, needs: str, *, get: int = 200, post: int | None = None, **more: Any) -> Row:
    """A page of the administration about one thing; it shows only what one may edit."""
    methods = LOOKED_AT if post is None else ("GET", "POST")
    return Row(thing, needs, get=get, post=post, door=needs, hidden=True, methods=methods, **more)


def model_rows(
    thing: str, needs: str, *, add: bool = True, change: bool = True, delete: int | None = 302, model: str = ""
) -> dict[str, Row]:
    """The addresses of one model: `delete` is what deleting `thing` is answered, None: nobody may."""
    name = model or thing
    app = {"user": "auth", "workflow": "workflows", "workflowrevision": "workflows"}.get(name, "scheduling")
    base = f"admin:{app}_{name}_"
    gone = about(thing, needs, post=delete or 403, data={"reason": "to see who may"})
    return {
        f"{base}changelist": inside(needs),
        f"{base}add": inside(needs, post=200) if add else inside(needs, get=403, post=403),
        f"{base}change": about(thing, needs, post=200 if change else 403),
        f"{base}history": about(thing, needs),
        f"{base}delete": gone if delete else about(thing, needs, get=403, post=403),
        # Django keeps an older address for each object, which leads to the page of the object.
        f"admin/{app}/{name}/<path:object_id>/": replace(
            inside(get=302), address=lambda _things: f"/admin/{app}/{name}/1/"
        ),
    }


ROWS |= {
    "admin:index": inside(),
    "admin:login": public(get=302, post=302),
    "admin:logout": inside(get=405, post=302),
    "admin:password_change": inside(get=302),
    "admin:password_change_done": inside(get=302),
    "admin:jsi18n": inside(),
    "admin:autocomplete": inside(get=403),
    "admin:view_on_site": inside(get=404, address=lambda things: things["shortcut"]),
    "admin:app_list": inside(address=lambda _things: "/admin/scheduling/"),
    **model_rows("task", "edit_task", delete=409),
    **model_rows("workflow", "edit_workflow"),
    **model_rows("group", "edit_task", change=False, delete=409, model="deploymentgroup"),
    **model_rows("membership", "edit_team"),
    **model_rows("grant", "edit_team", change=False, model="taskgrant"),
    **model_rows("team", "edit_team", add=False, change=False, delete=None),
    # Administrators make teams, and delete empty ones.
    "admin:scheduling_team_add": Row(needs=ADMINISTER, post=200, door=ADMINISTER),
    "admin:scheduling_team_delete": Row("team", ADMINISTER, post=409, door=ADMINISTER, data={"reason": "x"}),
    **model_rows("user", ADMINISTER, delete=None),
    "admin:auth_user_password_change": about("user", ADMINISTER, post=200),
}
for record in ("node", "taskrevision", "workflowrevision", "batch", "instance", "execution", "journalentry"):
    ROWS |= model_rows(record, ADMINISTER, add=False, change=False, delete=None)
