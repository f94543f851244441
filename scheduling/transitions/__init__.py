"""The only writer of a state column: one function a verb.

Every verb is a compare-and-set against the table in states.py and runs in one transaction. Rows are
locked in one order everywhere – task, batch, instances by id, execution – so that no two verbs can
deadlock; whoever can put an instance back into the queue holds its batch's lock, so that a stop which
holds it sees every instance.

`start` and `end` run for every instance of the product, so they are functions of the database, in
transitions.sql.
"""

from scheduling.transitions.batches import (
    clear_claimed,
    give_up_start,
    give_up_waiting,
    judge_anew,
    mark,
    release_held,
    rerun_instance,
    stop_batch,
    stop_instance,
    tell_ended,
)
from scheduling.transitions.executions import (
    Ended,
    Ending,
    Started,
    Starting,
    end,
    end_and_take,
    hand_over,
    start,
)
from scheduling.transitions.making import Claim, Making, Offer, make, offering
from scheduling.transitions.nodes import (
    Heartbeats,
    boot_node,
    heartbeat,
    heartbeats,
    prove_writable,
    set_drained,
    set_node_state,
)
from scheduling.transitions.statements import (
    STOP_CHANNEL,
    WORK_CHANNEL,
    database_now,
    execute,
    execute_all,
    notify,
)

__all__ = [
    "STOP_CHANNEL",
    "WORK_CHANNEL",
    "Claim",
    "Ended",
    "Ending",
    "Heartbeats",
    "Making",
    "Offer",
    "Started",
    "Starting",
    "boot_node",
    "clear_claimed",
    "database_now",
    "end",
    "end_and_take",
    "execute",
    "execute_all",
    "give_up_start",
    "give_up_waiting",
    "hand_over",
    "heartbeat",
    "heartbeats",
    "judge_anew",
    "make",
    "mark",
    "notify",
    "offering",
    "prove_writable",
    "release_held",
    "rerun_instance",
    "set_drained",
    "set_node_state",
    "start",
    "stop_batch",
    "stop_instance",
    "tell_ended",
]
