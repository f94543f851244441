"""The nodes by deployment group, what each runs now, and how they are drained and taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from django.core.paginator import Page, Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe
from django.views.decorators.vary import vary_on_headers

from config import clock
from config.http import HtmxRequest
from scheduling import services
from scheduling.models import DeploymentGroup, Instance, Node
from scheduling.permissions import DRAIN, authorised
from scheduling.queries import executing_on
from scheduling.states import NodeState
from scheduling.views.actions import Action
from scheduling.views.asking import ask
from scheduling.views.links import records
from scheduling.views.node_rows import Executed, NodeRow, load_of
from scheduling.views.scheduler_rows import schedulers_section
from scheduling.views.sections import Section, changes, context_of

TEMPLATE = "scheduling/node_list.html"
PAGE_SIZE = 100
INSTANCES_SHOWN = 4


@dataclass(frozen=True)
class GroupOfNodes:
    """A deployment group with its nodes that are there or missed, and those that have long been gone."""

    group: DeploymentGroup
    rows: list[NodeRow]
    gone: list[NodeRow]
    address: str

    @property
    def mark(self) -> str:
        return f"group-{self.group.pk}"

    @property
    def taken(self) -> int:
        return sum(row.taken for row in self.rows)

    @property
    def slots(self) -> int:
        return sum(row.node.slots for row in self.rows if row.node.state == NodeState.ONLINE)

    @property
    def load(self) -> str:
        return load_of(self.taken, self.slots)

    @property
    def online(self) -> int:
        return sum(row.node.state == NodeState.ONLINE for row in self.rows)


@require_safe
def node_list(request: HtmxRequest) -> HttpResponse:
    """Every node that the user sees, a hundred a page."""
    now = clock.now()
    sections, page = _sections(request, now)
    schedulers = schedulers_section(now)
    context: dict[str, Any] = context_of([schedulers, *sections]) | _said_of(sections) | {"page": page}
    return render(request, TEMPLATE, context | {"time_zone": timezone.get_current_timezone_name()})


@require_safe
def node_list_changes(request: HtmxRequest) -> HttpResponse:
    """The groups that differ from what the page shows."""
    now = clock.now()
    sections, page = _sections(request, now)
    every = [schedulers_section(now), *sections]
    return changes(request, f"{TEMPLATE}#changes", every, **_said_of(sections), page=page)


def _sections(request: HtmxRequest, now: datetime) -> tuple[list[Section], Page[Node]]:
    visible = Node.objects.visible_to(request.user)
    page = Paginator(visible.for_rows(), PAGE_SIZE).get_page(request.GET.get("page"))
    nodes = list(page.object_list)
    rows = NodeRow.of(nodes, request.user, now, _executing(visible, nodes))
    sections = []
    # In the order of the list, so that the nodes of a group stand together.
    for _group, of_group in groupby(rows, key=lambda row: row.node.group_id):
        together = list(of_group)
        group = GroupOfNodes(
            group=together[0].node.group,
            rows=[row for row in together if not row.long_gone],
            gone=[row for row in together if row.long_gone],
            address=records(group=together[0].node.group.name, state=["running", "terminating"]),
        )
        sections.append(Section(group.mark, [(row.mark, row.digest) for row in together], {group.mark: group}))
    return sections, page


def _said_of(sections: list[Section]) -> dict[str, Any]:
    return {"groups": [section.context[section.mark] for section in sections]}


def _executing(visible: Any, nodes: list[Node]) -> dict[int, list[Executed]]:
    """Up to INSTANCES_SHOWN instances that each of `nodes` executes, in one query."""
    listed = executing_on(
        visible.filter(pk__in=[node.pk for node in nodes]), Instance.objects.all(), size=INSTANCES_SHOWN
    )
    return {node: [Executed.of(each) for each in found] for node, found in listed.items()}


# --- drain and take back ---------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def node_drain(request: HtmxRequest, pk: int) -> HttpResponse:
    """Let a node finish what it runs and claim nothing more."""
    return _ask(
        request,
        pk,
        verb="drain",
        title=_("Drain node %(name)s"),
        button=_("Drain the node"),
        effects=_of_draining,
        perform=services.drain,
        possible=lambda node: node.state == NodeState.ONLINE,
    )


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def node_undrain(request: HtmxRequest, pk: int) -> HttpResponse:
    """Let a drained node claim again."""
    return _ask(
        request,
        pk,
        verb="undrain",
        title=_("Take node %(name)s back"),
        button=_("Take the node back"),
        effects=_of_undraining,
        perform=services.undrain,
        possible=lambda node: node.drained,
    )


def _ask(
    request: HtmxRequest,
    pk: int,
    *,
    title: str,
    effects: Callable[[Node], list[str]],
    possible: Callable[[Node], bool],
    **wording: Any,
) -> HttpResponse:
    nodes = Node.objects.select_related("group")
    node: Node = authorised(nodes, request.user, DRAIN, pk=pk)
    can = possible(node)
    action = Action(
        title=title % {"name": node.name}, effects=effects(node) if can else [], possible=can, **wording
    )
    not_now = _("Node %(name)s is %(state)s by now, so this is not possible any more.") % {
        "name": node.name,
        "state": str(node.get_state_display()).lower(),
    }
    return ask(request, node, action, back_to="node-list", not_now=not_now)


def _of_draining(node: Node) -> list[str]:
    executing = Instance.objects.executing().filter(node=node).count()
    waiting = Instance.objects.only_for(node).count()
    others = Node.objects.online().filter(group=node.group_id).exclude(pk=node.pk).count()
    effects = [_("It claims nothing more, also after a restart, until somebody takes it back.")]
    if executing:
        effects.append(
            ngettext(
                "%d instance that it runs goes on to its end.",
                "%d instances that it runs go on to their end.",
                executing,
            )
            % executing
        )
    if waiting:
        effects.append(
            ngettext(
                "%d instance that waits only for it is ended and never starts.",
                "%d instances that wait only for it are ended and never start.",
                waiting,
            )
            % waiting
        )
    effects.append(
        ngettext(
            "%(count)d other node of group %(group)s stays online.",
            "%(count)d other nodes of group %(group)s stay online.",
            others,
        )
        % {"count": others, "group": node.group.name}
        if others
        else _("No other node of group %s is online: the group's work waits.") % node.group.name
    )
    return effects


def _of_undraining(node: Node) -> list[str]:
    if node.state == NodeState.OFFLINE:
        return [_("It is offline; it claims again as soon as it is back.")]
    return [
        _("It claims again at once, up to %(count)d instances at a time.") % {"count": node.slots},
        _("What was ended by draining it stays ended; rerun it where it is needed."),
    ]
