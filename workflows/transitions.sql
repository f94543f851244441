-- The end of a node, which every node of every cycle instance goes through; see transitions/nodes.py.
-- `manage.py migrate` installs it: changed arguments or columns need a new name (see scheduling/functions.py).

-- End the node run whose batch has ended, count it, and take it off what its followers wait for. No instance_id:
-- no node run waits for this batch (any more), and nothing was changed. `followers` are the nodes that wait for
-- this one and have not begun, `pending` how many others each waits for still.
CREATE OR REPLACE FUNCTION tailrace_end_node(
    p_batch bigint,
    OUT instance_id bigint, OUT revision_id bigint, OUT node_id bigint, OUT state text, OUT result jsonb,
    OUT followers bigint[], OUT pending int[],
    OUT total int, OUT succeeded int, OUT failed int, OUT passed_over int, OUT heeded boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    batch record;
    run record;
    instance record;
BEGIN
    SELECT r.instance_id INTO instance_id FROM workflows_noderun r WHERE r.batch_id = p_batch AND r.ended_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT i.revision_id, i.stopping, i.stop_on_failure, i.node_parallelism INTO instance
        FROM workflows_cycleinstance i WHERE i.id = instance_id FOR NO KEY UPDATE;
    -- With the lock held, and a fresh look: somebody else may have ended it meanwhile.
    SELECT r.id, r.node_id, r.timed_out INTO run
        FROM workflows_noderun r WHERE r.batch_id = p_batch AND r.ended_at IS NULL;
    IF NOT FOUND THEN
        instance_id := NULL;
        RETURN;
    END IF;
    SELECT b.state, b.reason, b.ended_at, b.total, b.failed, b.timed_out, b.terminated INTO batch
        FROM scheduling_batch b WHERE b.id = p_batch;
    node_id := run.node_id;
    revision_id := instance.revision_id;
    state := CASE
        WHEN batch.state = 'success' THEN 'success'
        WHEN run.timed_out THEN 'timed_out'
        WHEN batch.terminated > 0 THEN 'terminated'
        WHEN batch.timed_out > 0 AND batch.failed = 0 THEN 'timed_out'
        ELSE 'failed'
    END;
    IF state = 'success' AND EXISTS (
        SELECT FROM workflows_workflowedge e WHERE e.source_id = run.node_id AND e.condition = 'result'
    ) THEN
        -- Of several instances the list of what each returned, by number.
        SELECT CASE WHEN batch.total > 1 THEN jsonb_agg(e.result ORDER BY i.number) ELSE jsonb_agg(e.result) -> 0 END
            INTO result
            FROM scheduling_instance i
            JOIN scheduling_execution e ON e.instance_id = i.id AND e.number = i.executions_count
            WHERE i.batch_id = p_batch AND e.outcome = 'success';
    END IF;
    UPDATE workflows_noderun r
    SET state = tailrace_end_node.state, ended_at = batch.ended_at, result = tailrace_end_node.result,
        reason = CASE WHEN r.reason = '' THEN batch.reason ELSE r.reason END
    WHERE r.id = run.id;
    UPDATE workflows_cycleinstance i
    SET succeeded = i.succeeded + (tailrace_end_node.state = 'success')::int,
        failed = i.failed + (tailrace_end_node.state <> 'success')::int
    WHERE i.id = instance_id
    RETURNING i.total, i.succeeded, i.failed, i.passed_over INTO total, succeeded, failed, passed_over;
    WITH counted AS (
        UPDATE workflows_noderun r SET pending = r.pending - 1
        FROM workflows_workflowedge e
        WHERE e.source_id = run.node_id AND r.instance_id = tailrace_end_node.instance_id
            AND r.node_id = e.target_id AND r.state = 'waiting'
        RETURNING r.node_id, r.pending
    )
    SELECT array_agg(c.node_id), array_agg(c.pending) INTO followers, pending FROM counted c;
    -- Whether it is more to the instance than to its followers.
    heeded := instance.stopping <> '' OR instance.node_parallelism > 0
        OR (instance.stop_on_failure AND state <> 'success') OR succeeded + failed + passed_over = total;
END $$;
