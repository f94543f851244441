"""A node: one django-q2 cluster whose broker claims our instances, and what keeps it honest.

    node (this process: registers, heartbeats, restarts the sentinel)
      └ sentinel (restarts the others, finds lost executions, ends orphans)
          ├ pusher   claims instances and hands them to the workers
          └ workers  one job each at a time; they record their results themselves

Any of them may be killed at any time. Each dies with its parent (the kernel's parent-death signal), and the
node and the sentinel adopt orphans (subreapers), so that no process of a job outlives its worker.

Only the node obeys SIGTERM, SIGINT and SIGHUP. Its children ignore them: a service manager or a terminal may
signal every process at once, and running jobs still get their grace.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing.connection
import os
import select
import signal
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import psutil
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections
from django_q.cluster import Cluster, Sentinel, get_mp_context
from django_q.pusher import pusher
from django_q.signals import post_spawn
from django_q.worker import worker

from config import clock, sessions
from scheduling import journal, kinds, reasons, transitions
from scheduling.engine import execution, recovery
from scheduling.engine.broker import Identity, InstanceBroker
from scheduling.engine.channels import Counter, Flag, MessageQueue, ResultQueue, Timer
from scheduling.errors import NotAvailable
from scheduling.kinds.process import become_subreaper, end_descendants
from scheduling.models import DeploymentGroup, Node
from scheduling.models.journal import Via
from scheduling.reasons import said
from scheduling.states import InstanceState

logger = logging.getLogger(__name__)

_HEARTBEAT = 2.0
# How often the sentinel compares the records with its workers when nothing died, in seconds.
_RECONCILE = 1.0
# What a dead worker's processes get between SIGTERM and SIGKILL, in seconds.
_ORPHAN_GRACE = 0.5
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
# How the kernel tells the sentinel that the node died.
_ORPHANED = signal.SIGUSR2


def become_child(parent: int, role: str, *, told: signal.Signals = signal.SIGKILL) -> None:
    """Be `told` when `parent` dies, even by SIGKILL, and be called `tr:ROLE` by ps and top."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, int(told), 0, 0, 0)
    prctl(_PR_SET_NAME, f"tr:{role}".encode(), 0, 0, 0)
    if os.getppid() != parent:
        # It died before the kernel was asked to tell.
        os.kill(os.getpid(), told)


def _child(parent: int, role: str, target: Callable[..., None], *arguments: Any) -> None:
    _leave_stopping_to_the_node()
    become_child(parent, role)
    target(*arguments)


def _leave_stopping_to_the_node() -> None:
    """Ignore the signals that stop a node, for as long as it lives."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The deaths of a worker's children are nobody's news but its own.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A handler, because a program started by a job would inherit SIG_IGN and could not be ended by SIGTERM.
    signal.signal(signal.SIGTERM, _ignored)


def _deaths() -> Counter:
    """Counts the deaths of this process's children from now on: something to wait on instead of polling."""
    deaths = Counter()
    signal.signal(signal.SIGCHLD, lambda *_: deaths.add())
    return deaths


def _wait(*events: Flag | Counter, seconds: float) -> None:
    """Return when something can be read from one of `events`, or after `seconds`."""
    select.select(events, [], [], max(0.0, seconds))


def _ignored(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGTERM by going on."""


def _obey_again() -> None:
    """Let what a job forks end on SIGTERM."""
    if signal.getsignal(signal.SIGTERM) is _ignored:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_obey_again)


class NodeSentinel(Sentinel):  # type: ignore[misc]  # django-q2 ships no types
    """django-q2's sentinel with channels that no kill can lock, and an eye on the records."""

    def __init__(self, cluster: NodeCluster) -> None:
        become_subreaper()
        self.identity = cluster.identity
        self.grace = cluster.grace
        self.finished = Counter()
        self._look_at = 0.0
        # Since when an execution is being stopped, or is past its deadline, as far as this process could see.
        self._stop_seen: dict[int, float] = {}
        self._late_seen: dict[int, float] = {}
        stopping = Flag()
        broker = InstanceBroker(identity=self.identity, finished=self.finished, stopping=stopping)
        super().__init__(
            cluster.stop_event, cluster.start_event, cluster.cluster_id, broker, timeout=-1, start=False
        )
        self.pool_size = self.identity.slots
        self.task_queue = MessageQueue()
        self.result_queue = ResultQueue()
        self.event_out = stopping
        post_spawn.connect(self._worker_born, weak=False)
        _leave_stopping_to_the_node()
        self._deaths = _deaths()
        signal.signal(_ORPHANED, self._orphaned)
        become_child(cluster.pid, "sentinel", told=_ORPHANED)
        self.start()

    def _orphaned(self, _signal: int, _frame: object) -> None:
        """The node was killed: nobody else could end what its workers' jobs have started."""
        for pid in self._own:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end_descendants(_ORPHAN_GRACE)
        os._exit(1)

    def _worker_born(self, **_kwargs: object) -> None:
        _leave_stopping_to_the_node()
        signal.signal(_ORPHANED, signal.SIG_DFL)
        become_child(self.pid, "worker")
        become_subreaper()
        execution.prepare(self.identity, self.task_queue, self.finished, self.event_out)

    def spawn_worker(self) -> None:
        self.spawn_process(worker, self.task_queue, self.result_queue, Timer(), self.timeout)

    def spawn_pusher(self) -> Any:
        return self.spawn_process(
            _child, self.pid, "pusher", pusher, self.task_queue, self.event_out, self.broker
        )

    def spawn_monitor(self) -> None:
        """Start none: workers record their results themselves."""

    @property
    def _own(self) -> set[int]:
        return {process.pid for process in (*self.pool, self.pusher) if process is not None}

    def guard(self) -> None:
        """Replace what died and compare the records with what lives, until the node stops."""
        self.start_event.set()
        try:
            while not self.stop_event.is_set():
                self._check()
                _wait(self.stop_event, self._deaths, seconds=self._look_at - time.monotonic())
            self.stop()
        except Exception:
            # The node starts another sentinel. Leaving by an exception would wait for the workers for ever.
            logger.exception("the sentinel of node %s cannot go on and ends", self.identity.name)
            os._exit(1)

    def _check(self) -> None:
        # Before the look: one that dies during it is counted for the next.
        died = self._deaths.take() > 0
        for process in [process for process in self.pool if not process.is_alive()]:
            self.reincarnate(process)
        if not self.pusher.is_alive():
            self.reincarnate(self.pusher)
        if died:
            # A worker's orphans came to us with its death, and never without one.
            end_descendants(_ORPHAN_GRACE, spare=self._own)
        if died or time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _RECONCILE
            self._compare_records()

    def _compare_records(self) -> None:
        try:
            if recovery.holds_anything(self.identity.node_id):
                self._reconcile()
            else:
                self._stop_seen, self._late_seen = {}, {}
        except DatabaseError as error:
            logger.warning("node %s cannot compare its records: %s", self.identity.name, error)
            # A worker cannot report either: each has the whole time again once the database takes it.
            self._stop_seen, self._late_seen = {}, {}
            connections.close_all()

    def _reconcile(self) -> None:
        """Find executions whose worker is gone, and workers that do not end what they should."""
        # What a killed pusher had claimed and not handed over; the leading scheduler sees to the other nodes'.
        recovery.expire_claims(self.identity.node_id)
        live = list(recovery.live_executions(self.identity.node_id))
        workers = {process.pid for process in self.pool if process.is_alive()}
        recovery.lose(
            (one for one in live if one.worker not in workers),
            reason=said(reasons.WORKER_DIED, node=self.identity.name),
        )
        now, grace = time.monotonic(), settings.TAILRACE["STOP_GRACE"]
        stopping = {one.pk for one in live if one.instance.state == InstanceState.TERMINATING}
        late = {one.pk for one in live if recovery.overdue(one)}
        if stopping or late:
            transitions.prove_writable()
        self._stop_seen = {pk: self._stop_seen.get(pk, now) for pk in stopping}
        self._late_seen = {pk: self._late_seen.get(pk, now) for pk in late}
        for one in live:
            # The worker and its watcher see to both; one that is stuck with the GIL held cannot.
            stuck = now - self._stop_seen.get(one.pk, now) > 2 * grace + 5
            overdue = now - self._late_seen.get(one.pk, now) > 2 * grace + 3
            if one.worker in workers and (stuck or overdue):
                logger.warning("execution %s does not end; killing worker %s", one.pk, one.worker)
                with suppress(ProcessLookupError):
                    os.kill(one.worker, signal.SIGKILL)

    def stop(self) -> None:
        """Claim nothing more, give the jobs their grace, end what is left, and record it."""
        self.event_out.set()
        _join([self.pusher], 3)
        self.task_queue.discard()
        for _ in self.pool:
            self.task_queue.put("STOP")
        self._let_jobs_end()
        for process in self.pool:
            process.kill()
        _join(self.pool, 2)
        end_descendants(_ORPHAN_GRACE, spare=())

    def _let_jobs_end(self) -> None:
        """Wait until every worker has ended, or the grace has; the grace may be hours."""
        deadline = time.monotonic() + self.grace
        while (left := deadline - time.monotonic()) > 0 and any(one.is_alive() for one in self.pool):
            multiprocessing.connection.wait(
                [one.sentinel for one in self.pool if one.is_alive()], min(left, _RECONCILE)
            )
            # What it ends now is not heard of only when the grace is over.
            self._compare_records()


def _join(processes: list[Any], seconds: float) -> None:
    """Wait for processes; what has not ended after `seconds` is killed."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


class NodeCluster(Cluster):  # type: ignore[misc]  # django-q2 ships no types
    """The node's own process: its row, its heartbeat, its sentinel."""

    def __init__(self, node: Node, *, grace: float) -> None:
        super().__init__()
        self.node = node
        self.grace = grace
        self.stopping = Flag()
        self._beat_at = time.monotonic()
        self._watch_clock = clock.Watch()
        self.identity = self._identity()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # A lost terminal stops it, unless it was started to outlive that (nohup).
            signal.signal(signal.SIGHUP, self.sig_handler)

    def _identity(self) -> Identity:
        return Identity(
            node_id=self.node.pk,
            name=self.node.name,
            group_id=self.node.group_id,
            boot_id=uuid.uuid4(),
            slots=self.node.slots,
        )

    def sig_handler(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping.is_set():
            # Asked twice: whatever still runs gets no more grace.
            self._kill_sentinel()
        self.stopping.set()

    def start(self) -> int:
        """Begin a life of the node: a new boot ID, and a sentinel with its processes."""
        self.identity = self._identity()
        transitions.boot_node(
            self.node, boot_id=self.identity.boot_id, host=socket.gethostname(), pid=os.getpid()
        )
        # The processes to come must not share a connection with this one.
        connections.close_all()
        self.stop_event = Flag()
        self.start_event = Flag()
        self.sentinel = get_mp_context().Process(target=NodeSentinel, args=(self,))
        self.sentinel.start()
        return int(self.pid)

    def run(self) -> None:
        """Live until SIGTERM, SIGINT, or until another process takes the node's name."""
        become_subreaper()
        deaths = _deaths()
        self.start()
        logger.info("node %s is online with %d workers", self.node.name, self.node.slots)
        while not self.stopping.is_set():
            _wait(self.stopping, deaths, seconds=self._beat_at + _HEARTBEAT - time.monotonic())
            deaths.take()
            if not self.sentinel.is_alive():
                self._sentinel_died()
            self._beat()
        self._stop()

    def _beat(self, *, stopping: bool = False) -> None:
        """Send a heartbeat when it is time for one."""
        if time.monotonic() - self._beat_at < _HEARTBEAT:
            return
        self._beat_at = time.monotonic()
        try:
            beat = transitions.heartbeat(self.identity.node_id, self.identity.boot_id, stopping=stopping)
            if beat is None:
                logger.error("node %s was started elsewhere; this one ends", self.node.name)
                self.stopping.set()
            elif why := self._watch_clock(beat.clock_difference):
                logger.warning("node %s: %s", self.node.name, why)
        except DatabaseError as error:
            logger.warning("node %s cannot be heard: %s; trying again", self.node.name, error)
            connections.close_all()

    def _sentinel_died(self) -> None:
        logger.error("the sentinel of node %s died; starting another", self.node.name)
        end_descendants(_ORPHAN_GRACE)
        while not self.stopping.is_set():
            try:
                recovery.take_over(self.node, reason=said(reasons.WORKERS_DIED, node=self.node.name))
                self.start()
            except DatabaseError as error:
                logger.warning("node %s waits for the database: %s", self.node.name, error)
                connections.close_all()
                self.stopping.wait(1)
            else:
                return

    def _kill_sentinel(self) -> None:
        if self.sentinel is not None and self.sentinel.is_alive():
            self.sentinel.kill()

    def _stop(self) -> None:
        logger.info("node %s is stopping; running jobs get %g s", self.node.name, self.grace)
        self.stop_event.set()
        # At once: no broadcast begins that would wait for this node.
        self._beat_at = 0.0
        deadline = time.monotonic() + self.grace + 8
        while self.sentinel.is_alive() and time.monotonic() < deadline:
            self._beat(stopping=True)
            self.sentinel.join(0.2)
        self._kill_sentinel()
        self.sentinel.join()
        end_descendants(_ORPHAN_GRACE)
        try:
            recovery.node_stopped(self.node, self.identity.boot_id)
        except DatabaseError as error:
            logger.warning("node %s could not sign off: %s", self.node.name, error)
        logger.info("node %s has stopped", self.node.name)


def register(*, name: str, group: DeploymentGroup, workers: int) -> Node:
    """The row of the node called `name`, made when new, with everything set right that an earlier life left.

    Raises NotAvailable when a process of that name lives, here or – as far as heartbeats tell – elsewhere.
    """
    node, _created = Node.objects.get_or_create(name=name, defaults={"group": group, "slots": workers})
    patience = settings.TAILRACE["NODE_TIMEOUT"]
    here = node.host == socket.gethostname()
    if here and node.pid and node.pid != os.getpid() and _is_node(node.pid):
        raise NotAvailable(
            f"Node {name} runs already as process {node.pid}. Stop that one, or choose another name."
        )
    deadline = time.monotonic() + patience
    while not here and _heard_within(node, patience):
        if time.monotonic() > deadline:
            raise NotAvailable(f"Node {name} is alive on {node.host}. Stop it there, or choose another name.")
        time.sleep(0.5)
        node.refresh_from_db()
    _end_leftovers(name)
    node.group, node.slots = group, workers
    node.save(update_fields=["group", "slots"])
    recovery.take_over(node, reason=said(reasons.NODE_STARTED_ANEW, node=name), confirmed=here)
    return node


def _heard_within(node: Node, seconds: float) -> bool:
    return bool(
        Node.objects.filter(pk=node.pk)
        .exclude(pk__in=Node.objects.silent_for(seconds))
        .exclude(state="offline")
    )


def _is_node(pid: int) -> bool:
    with suppress(psutil.Error):
        return "node" in psutil.Process(pid).cmdline()
    return False


_MARK = "TAILRACE_NODE_MARK"


def _end_leftovers(name: str) -> None:
    """End processes of this node's earlier life that outlived even its death (all killed at once)."""
    while found := _marked(_mark(name)):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def _marked(mark: str) -> list[psutil.Process]:
    mine = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                process.pid not in mine
                and process.environ().get(_MARK) == mark
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def _mark(name: str) -> str:
    """What tells this node's processes from those of others on the machine."""
    return f"{name}@{settings.DATABASES['default']['HOST']}/{settings.DATABASES['default']['NAME']}"


def main(*, name: str, group: DeploymentGroup, workers: int, grace: float) -> None:
    """Run a node until it is told to end; see `manage.py node --help`."""
    with journal.acting_via(Via.ENGINE):
        node = register(name=name, group=group, workers=workers)
        os.environ["TAILRACE_NODE"] = name
        os.environ[_MARK] = _mark(name)
        sessions.limit(sessions.ENGINE | {"application_name": f"tailrace node {name}"})
        # Imported once: workers, also those that replace others, are forks and begin with them.
        kinds.kinds()
        # It stays: the collectors of the forks need not walk over it, and do not make it their own by that.
        gc.collect()
        gc.freeze()
        connections.close_all()
        NodeCluster(node, grace=grace).run()
