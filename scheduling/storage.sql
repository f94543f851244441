-- How the big tables are kept in order; `manage.py migrate` sets it (see apps.py).
--
-- PostgreSQL's own rule waits until a fifth of a table has changed. At ten million rows that is two million: room
-- that retention made would be used again only days later, and the newest rows, which are those that every list
-- counts and turns over, would not be marked as visible to all, without which an index alone cannot answer. A
-- twentieth keeps each round short and both true. The planner likewise hears of what is new before it matters.

ALTER TABLE IF EXISTS scheduling_batch SET (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE IF EXISTS scheduling_instance SET (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE IF EXISTS scheduling_execution SET (
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02
);
ALTER TABLE IF EXISTS scheduling_logchunk SET (
    autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05
);
ALTER TABLE IF EXISTS scheduling_journalentry SET (
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02
);

-- Room beside each row for its next version: what no index mentions is then changed in place (HOT).
ALTER TABLE IF EXISTS scheduling_batch SET (fillfactor = 80);
ALTER TABLE IF EXISTS scheduling_instance SET (fillfactor = 80);
ALTER TABLE IF EXISTS scheduling_execution SET (fillfactor = 90);
