"""What analysts put on raw tables outlives every change, every reload and every resync."""

from __future__ import annotations

import re
from typing import Any

from ..conftest import Harness, Replica

PUT_ON = (
    "CREATE INDEX by_n ON raw.t (n) WHERE n > 0",
    "CREATE INDEX by_text ON raw.t (lower(v)) WITH (fillfactor = 70)",
    "COMMENT ON INDEX raw.by_n IS 'of the analysts'",
    "ALTER TABLE raw.t CLUSTER ON by_text",
    "GRANT SELECT ON raw.t TO PUBLIC",
    "GRANT UPDATE (n), SELECT (v) ON raw.t TO PUBLIC",
    "COMMENT ON TABLE raw.t IS 'it''s raw'",
    "COMMENT ON COLUMN raw.t.n IS 'a number'",
    "CREATE STATISTICS raw.together (dependencies) ON n, v FROM raw.t",
    "ALTER TABLE raw.t ALTER COLUMN n SET STATISTICS 700",
    "ALTER TABLE raw.t ALTER COLUMN v SET (n_distinct = -0.5)",
    "ALTER TABLE raw.t SET (autovacuum_vacuum_scale_factor = 0.01)",
    "ALTER TABLE raw.t REPLICA IDENTITY FULL",
    "CREATE PUBLICATION outlet FOR TABLE raw.t",
    "CREATE VIEW public.v WITH (security_barrier) AS SELECT id, n, v FROM raw.t",
    "CREATE VIEW public.over AS SELECT sum(n) AS total FROM public.v",
    "CREATE MATERIALIZED VIEW public.m AS SELECT id, n FROM public.v",
    "CREATE UNIQUE INDEX m_id ON public.m (id)",
    "GRANT SELECT (n) ON public.v TO PUBLIC",
    "COMMENT ON VIEW public.over IS 'a sum'",
    "CREATE FUNCTION public.most() RETURNS bigint BEGIN ATOMIC SELECT max(n) FROM raw.t; END",
    "CREATE FUNCTION public.quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER watch BEFORE UPDATE OF n ON raw.t FOR EACH ROW EXECUTE FUNCTION public.quiet()",
    "CREATE POLICY small ON raw.t USING (n < 1000000)",
)

FACTS = """
SELECT c.oid, obj_description(c.oid, 'pg_class'), c.relacl::text, c.reloptions, c.relreplident,
  ARRAY(SELECT (attname, attacl,
        ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%'), attstattarget,
        col_description(attrelid, attnum))::text FROM pg_attribute WHERE attrelid = c.oid
        AND attname IN ('n', 'v') ORDER BY attname),
  ARRAY(SELECT (indexrelid::regclass, indisclustered, obj_description(indexrelid),
        pg_get_expr(indpred, indrelid), pg_get_expr(indexprs, indrelid))::text FROM pg_index
        WHERE indrelid = c.oid AND NOT indisprimary ORDER BY indexrelid::regclass::text),
  ARRAY(SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = c.oid),
  ARRAY(SELECT pubname FROM pg_publication_tables WHERE tablename = 't'),
  ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = c.oid),
  ARRAY(SELECT (polname, pg_get_expr(polqual, polrelid))::text FROM pg_policy),
  ARRAY(SELECT (relname, relkind, relacl, reloptions, obj_description(oid))::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace ORDER BY relname),
  ARRAY(SELECT attacl::text FROM pg_attribute WHERE attrelid = to_regclass('public.v')),
  pg_get_functiondef(to_regproc('public.most'))
FROM pg_class c WHERE c.oid = to_regclass('raw.t')
"""


def _facts(harness: Harness) -> list[str]:
    """Without casts and brackets: an expression follows its column's type."""
    found: list[Any] = [fact for row in harness.raw.query(FACTS) for fact in row]
    return [re.sub(r"::\w+|[()]", "", str(fact)) for fact in found]


CHANGES = (
    "ALTER TABLE t ADD extra int NOT NULL DEFAULT 4",
    "ALTER TABLE t MODIFY n bigint",
    "ALTER TABLE t MODIFY n decimal(20,0)",
    "ALTER TABLE t MODIFY n int",
    "ALTER TABLE t CHANGE extra more int NOT NULL FIRST",
    "ALTER TABLE t DROP COLUMN more",
    "ALTER TABLE t ADD made datetime DEFAULT CURRENT_TIMESTAMP",
    "ALTER TABLE t MODIFY v varchar(90) CHARACTER SET latin1",
    "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
    "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, n)",
    "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id)",
    "ALTER TABLE t MODIFY n int NULL, ADD INDEX (n), COMMENT 'x'",
    "TRUNCATE TABLE t",
)


def test_everything_stays_on_its_table(replica: Replica, harness: Harness) -> None:
    replica.create("t", "id int PRIMARY KEY, n int, v varchar(20)")
    replica.commit("INSERT INTO t VALUES (1, 5, 'a'), (2, 6, 'b')")
    harness.catch_up()
    with harness.raw.server.connect(database=harness.raw.name) as root:
        root.execute(f"GRANT CREATE ON DATABASE {harness.raw.name} TO {harness.raw.user}")
    for statement in PUT_ON:
        harness.raw.execute(statement)
    before = _facts(harness)
    assert len(before) == 14
    for number, statement in enumerate(CHANGES):
        replica.ddl(statement)
        replica.commit(f"INSERT INTO t (id, n, v) VALUES ({number + 100}, {number}, 'new')")
        harness.catch_up()
        harness.assert_same("t")
        assert _facts(harness) == before, statement
    resynced = replica.commit(
        "INSERT INTO etl_resync_request (table_name, requested_at, state, updated_at)"
        " VALUES ('t', UTC_TIMESTAMP(6), 'loading', UTC_TIMESTAMP(6))"
    )
    assert resynced
    done = "SELECT state FROM etl_resync_request"
    harness.step_until(lambda: replica.database.query(done) == (("done",),)
                       or replica.database.query(done) == [("done",)])  # fmt: skip
    harness.assert_same("t")
    assert _facts(harness) == before
    for statement in (
        "CREATE TABLE u LIKE t",
        "RENAME TABLE t TO tmp, u TO t, tmp TO u",
        "RENAME TABLE t TO tmp, u TO t, tmp TO u",
    ):
        replica.ddl(statement)
        replica.streams("t", "u")
        harness.catch_up()
        assert _facts(harness) == before, statement
    replica.ddl("RENAME TABLE t TO old")
    replica.ddl("CREATE TABLE t LIKE old")
    replica.streams("old", "t")
    replica.commit("INSERT INTO t SELECT * FROM old")
    replica.ddl("DROP TABLE old")
    harness.catch_up()
    harness.assert_same("t", "u")
    assert _facts(harness) == before
