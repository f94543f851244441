-- One slice of made-up records, for `manage.py seed_records`; see seeding.py, which runs these statements one by
-- one in a transaction of their own. `seed_plan` has a row a task: how often it runs and how its runs end.
-- Everything passes the same constraints and triggers as the engine's own records.

-- What begins in this slice, in the order of time, so that ids rise with it as they really do.
CREATE TEMP TABLE seed_batch ON COMMIT DROP AS
SELECT nextval(pg_get_serial_sequence('scheduling_batch', 'id')) AS id, due.*,
    -- What is due is created some milliseconds late, and a person's batch at once.
    due.scheduled_for + make_interval(secs => CASE WHEN due.trigger = 'manual' THEN 0 ELSE -0.02 * ln(1 - draw[1]) END)
        AS created_at,
    CASE
        WHEN newest <= %(unfinished)s THEN (ARRAY['waiting', 'running', 'waiting', 'running', 'terminating'])[1 + newest %% 5]
        WHEN due.trigger = 'workflow' AND draw[2] < 0.02 THEN 'condition_not_met'
        WHEN draw[2] < 0.02 + flakiness THEN 'failed'
        WHEN draw[2] < 0.02 + flakiness * 1.2 THEN 'timed_out'
        WHEN draw[2] < 0.025 + flakiness * 1.2 THEN 'stopped'
        ELSE 'success'
    END AS fate,
    floor(draw[3] * total)::int AS unlucky,
    %(people)s::text[] AS people
FROM (
    SELECT plan.*, run.n,
        ARRAY[random(), random(), random()] AS draw,
        CASE WHEN run.n = run.last AND %(is_last)s THEN row_number() OVER (ORDER BY run.n < run.last, run.at DESC) END AS newest,
        CASE
            WHEN plan.trigger = 'manual' AND by_day <= %(now)s THEN by_day
            WHEN plan.trigger IN ('cron', 'fixed_rate') AND plan.step >= 60 THEN date_trunc('minute', run.at)
            WHEN plan.trigger IN ('cron', 'fixed_rate') AND plan.step >= 1 THEN date_trunc('second', run.at)
            ELSE run.at
        END AS scheduled_for
    FROM seed_plan plan
    CROSS JOIN LATERAL (
        SELECT n, plan.count - 1 AS last, %(since)s + make_interval(secs => (n + plan.phase) * plan.step) AS at
        FROM generate_series(
            ceil(%(low)s * plan.count - plan.phase)::bigint, ceil(%(high)s * plan.count - plan.phase)::bigint - 1
        ) n
    ) run
    -- People work by day.
    CROSS JOIN LATERAL (
        SELECT date_trunc('day', run.at) + interval '7 hours' + (run.at - date_trunc('day', run.at)) / 2 AS by_day
    ) shifted
    ORDER BY run.at
) due;

-- Its instances: `first_at` is when the first attempt began, `took` the seconds of an attempt that succeeds.
CREATE TEMP TABLE seed_instance ON COMMIT DROP AS
SELECT nextval(pg_get_serial_sequence('scheduling_instance', 'id')) AS id, slot.*,
    CASE
        WHEN attempts = 0 THEN NULL
        ELSE least(first_at + make_interval(secs => (attempts - 1) * (0.6 * took + retry_interval)), %(now)s)
    END AS started_at,
    CASE
        WHEN state IN ('waiting', 'running', 'terminating') THEN NULL
        WHEN attempts = 0 THEN least(created_at + interval '2 seconds', %(now)s)
        ELSE least(first_at + make_interval(secs => (attempts - 1) * (0.6 * took + retry_interval)
            + CASE state WHEN 'timed_out' THEN timeout WHEN 'success' THEN took ELSE 0.7 * took END), %(now)s)
    END AS ended_at
FROM (
    SELECT drawn.*,
        CASE
            WHEN state IN ('failed', 'timed_out') THEN retry_count + 1
            WHEN state = 'success' THEN 1 + (retry_count > 0 AND luck > 0.97)::int
            WHEN state IN ('running', 'terminating') THEN 1
            WHEN fate = 'stopped' AND luck < 0.6 THEN 1
            ELSE 0
        END AS attempts,
        nodes[1 + (number + CASE WHEN pinned THEN 0 ELSE batch_id END) %% cardinality(nodes)] AS node_id
    FROM (
        SELECT b.id AS batch_id, b.group_id, b.number, b.shard_parameter, b.created_at, b.fate, b.pinned, b.nodes,
            b.retry_count, b.retry_interval, b.timeout, b.luck, b.who,
            b.created_at + make_interval(secs => 0.01 + b.luck * 0.4 + b.number / b.slots * b.seconds) AS first_at,
            -- Nights are slow: everybody's loads run then.
            b.seconds * exp(0.35 * sqrt(-2 * ln(1 - b.luck2)) * cos(6.2832 * b.luck))
                * (1 + 0.5 * cos((extract(epoch FROM b.created_at)::bigint %% 86400 - 10800) * 6.2832 / 86400)) AS took,
            CASE b.fate
                WHEN 'success' THEN 'success'
                WHEN 'waiting' THEN 'waiting'
                WHEN 'condition_not_met' THEN 'terminated'
                WHEN 'stopped' THEN CASE WHEN b.number <> b.unlucky AND b.luck2 < 0.4 THEN 'success' ELSE 'terminated' END
                WHEN 'running' THEN CASE
                    WHEN b.number = b.unlucky OR b.luck2 < 0.15 THEN 'running' WHEN b.luck2 < 0.6 THEN 'success' ELSE 'waiting' END
                WHEN 'terminating' THEN CASE
                    WHEN b.number = b.unlucky THEN 'terminating' WHEN b.luck2 < 0.6 THEN 'success' ELSE 'terminated' END
                ELSE CASE WHEN b.number = b.unlucky OR b.luck2 < 0.2 THEN b.fate ELSE 'success' END
            END AS state
        FROM (
            SELECT batch.*, number, batch.people[1 + batch.id %% cardinality(batch.people)] AS who,
                CASE WHEN mode = 'sharded' THEN 'part-' || number ELSE '' END AS shard_parameter,
                mode = 'broadcast' AS pinned, cardinality(nodes) * 4 AS slots,
                random() AS luck, random() AS luck2
            FROM seed_batch batch CROSS JOIN LATERAL generate_series(0, batch.total - 1) number
        ) b
    ) drawn
) slot;

INSERT INTO scheduling_batch (
    id, team_id, task_id, revision_id, group_id, trigger, scheduled_for, state, reason, parameters, timezone,
    success_ratio, held, rerun_of_id, actor, created_at, started_at, ended_at, total, succeeded, failed, timed_out, terminated
)
SELECT id, team_id, task_id, revision_id, group_id, trigger, scheduled_for, state, reason,
    CASE WHEN trigger = 'manual' THEN jsonb_build_object('day', scheduled_for::date) ELSE '{}' END, '',
    success_ratio, false,
    -- A person who runs a task after its failure reruns it.
    CASE
        WHEN trigger = 'manual' AND lag(state) OVER of_task = 'failed' THEN lag(id) OVER of_task
    END,
    CASE WHEN trigger = 'manual' THEN who ELSE 'schedule' END,
    created_at, started_at, ended_at, total, succeeded, failed, timed_out, terminated
FROM (
    SELECT batch.*, counted.*, batch.people[1 + batch.id %% cardinality(batch.people)] AS who,
        CASE
            WHEN fate IN ('waiting', 'running', 'terminating', 'condition_not_met') THEN fate
            WHEN succeeded * 100 >= success_ratio * total THEN 'success'
            ELSE 'failed'
        END AS state,
        CASE fate
            WHEN 'condition_not_met' THEN 'The branch was not taken'
            WHEN 'stopped' THEN 'Stopped by ' || batch.people[1 + batch.id %% cardinality(batch.people)] || ': the input is late'
            WHEN 'terminating' THEN 'Stopped by ' || batch.people[1 + batch.id %% cardinality(batch.people)] || ': the input is late'
            ELSE ''
        END AS reason
    FROM seed_batch batch
    JOIN (
        SELECT batch_id, min(first_at) FILTER (WHERE attempts > 0) AS started_at,
            CASE WHEN bool_and(ended_at IS NOT NULL) THEN max(ended_at) END AS ended_at,
            count(*) FILTER (WHERE state = 'success') AS succeeded, count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'timed_out') AS timed_out,
            count(*) FILTER (WHERE state = 'terminated') AS terminated
        FROM seed_instance GROUP BY batch_id
    ) counted ON counted.batch_id = batch.id
) made
WINDOW of_task AS (PARTITION BY task_id ORDER BY scheduled_for, id)
ORDER BY id;

INSERT INTO scheduling_instance (
    id, batch_id, group_id, number, shard_parameter, state, reason, cause, node_id, pinned, priority, shard_concurrency,
    run_after, token, claimed, executions_count, retries_left, started_at, ended_at
)
SELECT id, batch_id, group_id, number, shard_parameter, state,
    CASE
        WHEN state = 'failed' THEN (%(errors)s::text[])[1 + batch_id %% cardinality(%(errors)s::text[])]
        WHEN state = 'timed_out' THEN format('ended after its time-out of %%s s', timeout)
        WHEN fate = 'condition_not_met' THEN 'The branch was not taken'
        WHEN state IN ('terminated', 'terminating') THEN format('Stopped by %%s: the input is late', who)
        ELSE ''
    END,
    CASE WHEN attempts > 1 THEN 'retry' ELSE 'trigger' END,
    CASE WHEN attempts > 0 OR pinned THEN node_id END, pinned, 0, 0,
    created_at, CASE WHEN attempts > 0 THEN md5('seed' || id)::uuid END, attempts > 0, attempts, greatest(retry_count - greatest(attempts - 1, 0), 0), started_at, ended_at
FROM seed_instance ORDER BY id;

-- Every attempt, and the output of a few.
WITH attempt AS (
    INSERT INTO scheduling_execution (
        instance_id, number, cause, node_id, worker, token, started_at, deadline_at, ended_at, outcome, exit_code, error
    )
    SELECT i.id, nth, CASE WHEN nth > 1 THEN 'retry' ELSE 'trigger' END, node_id, 1000 + i.id %% 31000, md5('seed' || i.id)::uuid, at,
        at + make_interval(secs => timeout),
        CASE WHEN nth = attempts THEN ended_at ELSE least(at + make_interval(secs => 0.6 * took), %(now)s) END,
        CASE
            WHEN nth < attempts THEN CASE WHEN luck > 0.997 THEN 'lost' ELSE 'failed' END
            WHEN ended_at IS NOT NULL THEN state
        END,
        CASE WHEN nth < attempts OR state = 'failed' THEN 1 WHEN state = 'success' THEN 0 END,
        CASE
            WHEN nth < attempts OR state = 'failed' THEN (%(errors)s::text[])[1 + batch_id %% cardinality(%(errors)s::text[])]
            WHEN state = 'timed_out' THEN format('ended after its time-out of %%s s', timeout)
            ELSE ''
        END
    FROM seed_instance i
    CROSS JOIN LATERAL generate_series(1, attempts) nth
    CROSS JOIN LATERAL (
        SELECT least(first_at + make_interval(secs => (nth - 1) * (0.6 * took + retry_interval)), %(now)s) AS at
    ) begun
    RETURNING id, started_at, outcome, error
)
INSERT INTO scheduling_logchunk (execution_id, sequence, text, dropped_bytes, written_at)
SELECT id, sequence,
    (SELECT string_agg(format(E'%%s INFO part %%s: read %%s rows\n', to_char(started_at, 'HH24:MI:SS'), line, id * line %% 99991), '')
        FROM generate_series(1, 12) line) || CASE WHEN error <> '' AND sequence = 0 THEN error || E'\n' ELSE '' END,
    0, started_at
FROM attempt CROSS JOIN LATERAL generate_series(0, (id %% 3)::int) sequence
WHERE id %% 100 = 0 OR (outcome = 'failed' AND id %% 4 = 0);

INSERT INTO scheduling_journalentry (at, action, object_type, object_id, object_name, team_id, actor, via, reason, details)
SELECT at, action, 'batch', b.id, b.task, b.team_id, entry.actor, via, entry.reason, details
FROM (
    SELECT seed_batch.task, made.* FROM seed_batch JOIN scheduling_batch made USING (id)
) b
CROSS JOIN LATERAL (VALUES
    (b.created_at, 'triggered', b.actor, CASE WHEN b.trigger = 'manual' THEN 'web' ELSE 'engine' END, '',
        jsonb_build_object('trigger', b.trigger, 'instances', b.total)),
    (b.started_at, 'started', 'engine', 'engine', '', '{}'),
    (CASE WHEN b.reason LIKE 'Stopped%%' THEN b.ended_at END, 'stopped',
        split_part(split_part(b.reason, ':', 1), ' ', 3), 'web', 'the input is late', '{}'),
    (b.ended_at, CASE WHEN b.state = 'condition_not_met' THEN b.state ELSE 'ended' END, 'engine', 'engine', b.reason,
        jsonb_build_object('state', b.state))
) entry (at, action, actor, via, reason, details)
WHERE at IS NOT NULL
ORDER BY at
