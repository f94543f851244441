-- The verbs that every instance of the product passes: transitions.start, transitions.end, and the counting
-- that the rarer verbs share. `manage.py migrate` installs them: changed arguments or columns need a new name
-- (see functions.py). Only transitions/ calls them.
--
-- They are functions because a function runs its small statements with plans it keeps, each with a fresh
-- look at the records: a third of what one long statement costs, and a lock that was waited for is followed
-- by what its last holder left. Lock order: batch, instance, execution.

-- Returns whether the batch's task has rules by which somebody is told of it: its row is read here in any case.
CREATE OR REPLACE FUNCTION tailrace_journal_batch(
    p_action text, p_batch bigint, p_task bigint, p_team bigint, p_reason text, p_details jsonb
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    task record;
BEGIN
    SELECT t.name, t.notify <> '[]' AS tells INTO task FROM scheduling_task t WHERE t.id = p_task;
    INSERT INTO scheduling_journalentry
        (at, action, object_type, object_id, object_name, team_id, task_id, actor, via, reason, details)
    VALUES (
        clock_timestamp(), p_action, 'batch', p_batch, task.name, p_team, p_task, 'engine', 'engine', p_reason, p_details
    );
    RETURN task.tells;
END $$;

-- Turn a claimed instance into a running one with a new execution. No execution_id: the claim is not valid any
-- more, and nothing was changed. Asked again by the worker whose start went through, it returns that start.
CREATE OR REPLACE FUNCTION tailrace_start_execution(
    p_batch bigint, p_instance bigint, p_token uuid, p_worker int, p_timeout int,
    OUT execution_id bigint, OUT attempt int, OUT number int, OUT shard_parameter text,
    OUT total int, OUT revision_id bigint, OUT parameters jsonb, OUT scheduled_for timestamptz,
    OUT data_date date, OUT timezone text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    batch record;
    instance record;
BEGIN
    SELECT state, task_id, team_id, b.total, b.revision_id, b.parameters, b.scheduled_for, b.data_date, b.timezone
        INTO batch FROM scheduling_batch b WHERE id = p_batch;
    IF batch.state = 'waiting' THEN
        -- Its first start makes it run; later ones leave its row alone.
        SELECT state, task_id, team_id, b.total, b.revision_id, b.parameters, b.scheduled_for, b.data_date, b.timezone
            INTO batch FROM scheduling_batch b WHERE id = p_batch FOR NO KEY UPDATE;
    END IF;
    total := batch.total;
    revision_id := batch.revision_id;
    parameters := batch.parameters;
    scheduled_for := batch.scheduled_for;
    data_date := batch.data_date;
    timezone := batch.timezone;
    UPDATE scheduling_instance i
    SET state = 'running', claimed_until = NULL, started_at = clock_timestamp(), reason = '',
        executions_count = executions_count + 1
    WHERE i.id = p_instance AND i.token = p_token AND i.claimed AND i.state = 'waiting'
    RETURNING i.executions_count, i.number, i.shard_parameter, i.cause, i.node_id, i.started_at INTO instance;
    IF NOT FOUND THEN
        SELECT e.id, e.number, i.number, i.shard_parameter
            INTO execution_id, attempt, number, shard_parameter
            FROM scheduling_instance i JOIN scheduling_execution e ON e.instance_id = i.id
            WHERE i.id = p_instance AND i.token = p_token
                AND e.token = p_token AND e.worker = p_worker AND e.ended_at IS NULL;
        RETURN;
    END IF;
    IF batch.total > 1 AND batch.state = 'running' THEN
        -- The end of another instance may just have made the batch wait (tailrace_requeued). Its row comes
        -- before the instance's in the lock order: the caller tries the whole start again.
        PERFORM FROM scheduling_batch b WHERE b.id = p_batch AND b.state = 'waiting';
        IF FOUND THEN
            RAISE EXCEPTION 'batch % went back to the queue while one of its instances started', p_batch
                USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    attempt := instance.executions_count;
    number := instance.number;
    shard_parameter := instance.shard_parameter;
    IF batch.state = 'waiting' THEN
        UPDATE scheduling_batch b
        SET state = 'running', started_at = coalesce(b.started_at, instance.started_at)
        WHERE b.id = p_batch;
        PERFORM tailrace_journal_batch('started', p_batch, batch.task_id, batch.team_id, '', '{}');
    END IF;
    INSERT INTO scheduling_execution
        (instance_id, number, cause, node_id, worker, token, started_at, deadline_at, error)
    VALUES (
        p_instance, attempt, instance.cause, instance.node_id, p_worker, p_token,
        instance.started_at, instance.started_at + make_interval(secs => p_timeout), ''
    ) RETURNING id INTO execution_id;
END $$;

-- Count ended instances of a batch that the caller has locked, and judge it when none is left.
CREATE OR REPLACE FUNCTION tailrace_count(
    p_batch bigint, p_succeeded int, p_failed int, p_timed_out int, p_terminated int,
    OUT ended boolean, OUT state text, OUT trigger text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    UPDATE scheduling_batch b
    SET succeeded = b.succeeded + p_succeeded, failed = b.failed + p_failed,
        timed_out = b.timed_out + p_timed_out, terminated = b.terminated + p_terminated,
        ended_at = CASE WHEN unended = 0 THEN clock_timestamp() END,
        state = CASE
            WHEN unended > 0 THEN b.state
            WHEN (b.succeeded + p_succeeded) * 100 >= b.success_ratio * b.total THEN 'success'
            ELSE 'failed' END
    FROM (
        SELECT c.total - (c.succeeded + c.failed + c.timed_out + c.terminated)
            - (p_succeeded + p_failed + p_timed_out + p_terminated) AS unended
        FROM scheduling_batch c WHERE c.id = p_batch
    ) left_over
    WHERE b.id = p_batch
    RETURNING unended = 0, b.state, b.trigger INTO ended, state, trigger;
END $$;

-- Make a batch wait again whose every instance waits: one of them has just gone back to the queue, and the
-- caller has locked the batch. The rows of the instances are locked against a start at the same moment.
CREATE OR REPLACE FUNCTION tailrace_requeued(p_batch bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM scheduling_instance i WHERE i.batch_id = p_batch AND i.state <> 'waiting' LIMIT 1;
    IF FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM scheduling_instance i WHERE i.batch_id = p_batch ORDER BY i.number FOR SHARE;
    UPDATE scheduling_batch b SET state = 'waiting', ended_at = NULL
    WHERE b.id = p_batch AND NOT EXISTS (
        SELECT FROM scheduling_instance i WHERE i.batch_id = p_batch AND i.state <> 'waiting');
    RETURN FOUND;
END $$;

-- Make a running batch terminating once all that is unfinished of it is being stopped. The caller has locked the
-- batch and has just ended one of its instances.
CREATE OR REPLACE FUNCTION tailrace_left_stopping(p_batch bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    -- The highest number ends last, as a rule: one row is read, or as many as run at once.
    SELECT i.state INTO last FROM scheduling_instance i
        WHERE i.batch_id = p_batch AND i.state IN ('waiting', 'running') ORDER BY i.number DESC LIMIT 1;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE scheduling_batch b SET state = 'terminating', stopped = true, reason = (
        SELECT i.reason FROM scheduling_instance i
        WHERE i.batch_id = p_batch AND i.state = 'terminating' ORDER BY i.number LIMIT 1)
    WHERE b.id = p_batch;
    RETURN (SELECT b.reason FROM scheduling_batch b WHERE b.id = p_batch);
END $$;

-- Record how the execution that holds the token ended: it goes back to the queue when it may be retried, and
-- is counted when not. Not known: the token is stale, and nothing was changed. Called alone, outside a
-- transaction, it leaves the last instance of a batch as it is and returns no state: who ends a batch has
-- more to do in the same transaction.
CREATE OR REPLACE FUNCTION tailrace_end_execution(
    p_batch bigint, p_instance bigint, p_execution bigint, p_token uuid,
    p_outcome text, p_state text, p_state_if_terminating text, p_exit_code int, p_error text, p_reason text,
    p_result jsonb, p_may_retry boolean, p_retry_cause text, p_retry_after float, p_alone boolean,
    OUT known boolean, OUT state text, OUT retry boolean,
    OUT batch_ended boolean, OUT batch_state text, OUT trigger text, OUT tells boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    batch record;
    instance record;
    counted record;
    stopping text;
BEGIN
    SELECT b.state, total, succeeded + failed + timed_out + terminated AS ended, task_id, team_id, b.reason
        INTO batch FROM scheduling_batch b WHERE id = p_batch FOR NO KEY UPDATE;
    known := true;
    IF p_alone AND batch.ended + 1 >= batch.total THEN
        RETURN;
    END IF;
    UPDATE scheduling_instance i
    SET state = CASE WHEN i.state = 'terminating' THEN p_state_if_terminating ELSE p_state END,
        ended_at = clock_timestamp(),
        -- Who asked for a stop, and why, says more than that it was obeyed.
        reason = CASE WHEN i.state = 'terminating' AND p_state_if_terminating = 'terminated' AND i.reason <> ''
            THEN i.reason ELSE p_reason END
    WHERE i.id = p_instance AND i.token = p_token AND i.state IN ('running', 'terminating')
    RETURNING i.state, i.ended_at, i.retries_left, i.pinned, i.node_id, i.group_id INTO instance;
    IF NOT FOUND THEN
        known := false;
        RETURN;
    END IF;
    UPDATE scheduling_execution e
    SET ended_at = instance.ended_at, exit_code = p_exit_code, error = p_error, result = p_result,
        outcome = CASE WHEN instance.state = 'terminated' THEN 'terminated' ELSE p_outcome END
    WHERE e.id = p_execution AND e.instance_id = p_instance AND e.token = p_token;
    state := instance.state;
    retry := p_may_retry AND instance.retries_left > 0 AND batch.state <> 'terminating'
        AND instance.state IN ('failed', 'timed_out')
        AND NOT (instance.pinned AND EXISTS (
            SELECT FROM scheduling_node n WHERE n.id = instance.node_id AND n.state = 'draining'));
    batch_ended := false;
    IF retry THEN
        UPDATE scheduling_instance i
        SET state = 'waiting', cause = p_retry_cause, claimed = false, ended_at = NULL, started_at = NULL,
            run_after = clock_timestamp() + make_interval(secs => p_retry_after),
            retries_left = i.retries_left - 1
        WHERE i.id = p_instance;
        PERFORM pg_notify('tailrace_work', instance.group_id::text);
        IF batch.state = 'running' AND batch.ended = 0 AND tailrace_requeued(p_batch) THEN
            PERFORM tailrace_journal_batch('requeued', p_batch, batch.task_id, batch.team_id, '', '{}');
        END IF;
    ELSE
        counted := tailrace_count(
            p_batch, (state = 'success')::int, (state = 'failed')::int, (state = 'timed_out')::int,
            (state = 'terminated')::int);
        batch_ended := counted.ended;
        batch_state := counted.state;
        trigger := counted.trigger;
        IF batch_ended THEN
            tells := tailrace_journal_batch(
                'ended', p_batch, batch.task_id, batch.team_id, batch.reason,
                jsonb_build_object('state', batch_state));
        ELSIF batch_state = 'running' THEN
            stopping := tailrace_left_stopping(p_batch);
            IF stopping IS NOT NULL THEN
                batch_state := 'terminating';
                PERFORM tailrace_journal_batch(
                    'stopped', p_batch, batch.task_id, batch.team_id, stopping, '{}');
            END IF;
        END IF;
    END IF;
END $$;

-- End one execution and start the worker's next instance: one commit instead of two. Of the same columns as
-- both; nothing is started when the end has to be made in a transaction.
CREATE OR REPLACE FUNCTION tailrace_next_execution(
    p_batch bigint, p_instance bigint, p_execution bigint, p_token uuid,
    p_outcome text, p_state text, p_state_if_terminating text, p_exit_code int, p_error text, p_reason text,
    p_result jsonb, p_may_retry boolean, p_retry_cause text, p_retry_after float, p_alone boolean,
    p_next_batch bigint, p_next_instance bigint, p_next_token uuid, p_worker int, p_next_timeout int,
    OUT known boolean, OUT state text, OUT retry boolean,
    OUT batch_ended boolean, OUT batch_state text, OUT trigger text, OUT tells boolean,
    OUT execution_id bigint, OUT attempt int, OUT number int, OUT shard_parameter text,
    OUT total int, OUT revision_id bigint, OUT parameters jsonb, OUT scheduled_for timestamptz,
    OUT data_date date, OUT timezone text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    SELECT * INTO known, state, retry, batch_ended, batch_state, trigger, tells
        FROM tailrace_end_execution(
            p_batch, p_instance, p_execution, p_token, p_outcome, p_state, p_state_if_terminating, p_exit_code,
            p_error, p_reason, p_result, p_may_retry, p_retry_cause, p_retry_after, p_alone);
    IF state IS NOT NULL OR NOT known THEN
        SELECT *
            INTO execution_id, attempt, number, shard_parameter, total, revision_id, parameters, scheduled_for,
                data_date, timezone
            FROM tailrace_start_execution(p_next_batch, p_next_instance, p_next_token, p_worker, p_next_timeout);
    END IF;
END $$;
