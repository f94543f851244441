-- How batches come to be: transitions.make, one statement however many there are. `manage.py migrate` installs
-- it: changed arguments or columns need a new name (see functions.py). Only transitions/ calls it.

-- Make `p_batches` (rows with a `position` from 0) with the instances `p_slots` (rows that name the position of
-- their batch, none of which has ended) and an entry in the journal each, and wake the nodes of `p_wake`. One slot
-- may be marked `take`: it is for a worker of the node p_node in its life p_boot, which is about to be free. Made
-- as that node's claim it spares the way through the queue – unless the node takes no more, or anything waits in
-- the queue of p_group or of the node that would be passed over. Returns the batches in their order, each with the
-- instance that was taken of it.
CREATE OR REPLACE FUNCTION tailrace_make(
    p_batches jsonb, p_slots jsonb, p_wake bigint[], p_prefer_seconds float,
    p_node bigint, p_boot uuid, p_group bigint, p_lease_seconds float, p_wake_unless_taken boolean
) RETURNS TABLE (batch_id bigint, taken bigint)
-- The indexes of the queue are tiny and right; a plan made while the table is empty would not use them.
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    ids regclass := pg_get_serial_sequence('scheduling_batch', 'id')::regclass;
    may_take boolean := p_node IS NOT NULL
        AND EXISTS (SELECT FROM scheduling_node n WHERE n.id = p_node AND n.boot_id = p_boot AND n.state = 'online')
        AND NOT EXISTS (
            SELECT FROM scheduling_instance i
            WHERE i.group_id = p_group AND i.ended_at IS NULL AND NOT i.claimed AND NOT i.pinned)
        AND NOT EXISTS (
            SELECT FROM scheduling_instance i
            WHERE i.node_id = p_node AND i.ended_at IS NULL AND NOT i.claimed AND i.pinned);
BEGIN
    RETURN QUERY
    WITH wanted AS MATERIALIZED (
        SELECT nextval(ids) AS id, given.*
        FROM (
            SELECT * FROM jsonb_to_recordset(p_batches) AS (
                position int, team bigint, task bigint, task_name text, revision bigint, "group" bigint,
                trigger text, scheduled_for timestamptz, state text, why text, parameters jsonb, data_date date,
                timezone text, success_ratio int, held boolean, rerun_of bigint, "user" bigint, actor text, via text,
                at timestamptz, ended boolean, total int, cause text, priority int, shard_concurrency int,
                retries int, action text, reason text, details jsonb
            ) ORDER BY position
        ) given
    ), batches AS (
        INSERT INTO scheduling_batch (
            id, team_id, task_id, revision_id, group_id, trigger, scheduled_for, state, reason, parameters, data_date,
            timezone, success_ratio, held, rerun_of_id, requested_by_id, actor, created_at, ended_at,
            total, succeeded, failed, timed_out, terminated
        )
        SELECT id, team, task, revision, "group", trigger, scheduled_for, state, why, parameters, data_date,
            timezone, success_ratio, held, rerun_of, "user", actor, at, CASE WHEN ended THEN at END,
            total, 0, 0, 0, 0
        FROM wanted
    ), instances AS (
        INSERT INTO scheduling_instance (
            batch_id, group_id, number, shard_parameter, state, reason, cause, node_id, pinned, prefers_node_until,
            priority, shard_concurrency, run_after, token, claimed, claimed_until, executions_count, retries_left
        )
        SELECT id, "group", number, shard_parameter, 'waiting', '', cause, CASE WHEN takes THEN p_node ELSE node END,
            pinned, CASE WHEN prefer THEN statement_timestamp() + make_interval(secs => p_prefer_seconds) END,
            -- Claims compare it with the database's clock, which need not be that of whoever asks.
            priority, shard_concurrency, CASE WHEN NOT held THEN statement_timestamp() END, CASE WHEN takes THEN take END, takes,
            CASE WHEN takes THEN statement_timestamp() + make_interval(secs => p_lease_seconds) END, 0, retries
        FROM (
            SELECT wanted.*, slot.*, slot.take IS NOT NULL AND may_take AS takes
            FROM jsonb_to_recordset(p_slots) AS slot (
                of int, number int, shard_parameter text, node bigint, pinned boolean, prefer boolean, take uuid
            ) JOIN wanted ON wanted.position = slot.of
            ORDER BY slot.of, slot.number
        ) slots
        RETURNING id, batch_id, claimed
    ), entries AS (
        INSERT INTO scheduling_journalentry (
            at, action, object_type, object_id, object_name, team_id, task_id, user_id, actor, via, reason, details
        )
        SELECT at, action, 'batch', id, task_name, team, task, "user", actor, via, reason, details FROM wanted
    )
    SELECT wanted.id, instances.id
    FROM wanted LEFT JOIN instances ON instances.batch_id = wanted.id AND instances.claimed
    ORDER BY wanted.position;

    PERFORM pg_notify('tailrace_work', waiting::text)
        FROM unnest(CASE WHEN p_wake_unless_taken AND NOT may_take THEN p_wake || p_group ELSE p_wake END) waiting;
END $$;
