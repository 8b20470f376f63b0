"""Views are taken out of an ALTER's way and put back as they were."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from loader.ddl.dependants import ViewsInTheWay, around, read_views
from replicator.sandbox.databases import PostgresDatabase

_numbers = itertools.count(1)


@pytest.fixture
def raw(analytics_db: PostgresDatabase) -> PostgresDatabase:
    for statement in (
        "CREATE SCHEMA raw",
        "CREATE SCHEMA public_marts",
        "CREATE TABLE raw.t (id int PRIMARY KEY, v smallint, w text)",
        "INSERT INTO raw.t VALUES (1, 10, 'a'), (2, 20, 'b')",
    ):
        analytics_db.execute(statement)
    return analytics_db


@pytest.fixture
def connection(raw: PostgresDatabase) -> Iterator[Any]:
    """As the loader: the account that owns the database, the raw schema as search path."""
    with closing(raw.connect(options="-c search_path=raw")) as made:
        yield made


@pytest.fixture
def roles(raw: PostgresDatabase) -> Iterator[tuple[str, str]]:
    """An owner that the loader's account is a member of, and a reader."""
    number = next(_numbers)
    owner, reader = f"modeller_{number}", f"reader_{number}"
    with raw.server.connect() as root:
        root.execute(f"CREATE ROLE {owner}")
        root.execute(f"CREATE ROLE {reader}")
        root.execute(f"GRANT {owner} TO {raw.user}")
    with raw.server.connect(database=raw.name) as root:
        root.execute(f"GRANT USAGE, CREATE ON SCHEMA public_marts TO {owner}")
        root.execute(f"GRANT USAGE ON SCHEMA raw TO {owner}")
        root.execute(f"GRANT SELECT ON raw.t TO {owner}")
    yield owner, reader
    with raw.server.connect(database=raw.name) as root:
        root.execute(f"DROP OWNED BY {owner}, {reader} CASCADE")
        root.execute(f"DROP ROLE {owner}, {reader}")


def _widen(connection: Any) -> tuple[str, ...]:
    names = around(
        connection, "t", ["v"], lambda: connection.execute("ALTER TABLE t ALTER v TYPE bigint")
    )
    connection.commit()
    return names


_FACTS = """
SELECT n.nspname, c.relname, c.relkind, pg_get_viewdef(c.oid), c.reloptions, c.relispopulated,
  pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class'),
  (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a),
  ARRAY(SELECT (attname, attacl::text, col_description(c.oid, attnum))::text FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum),
  ARRAY(SELECT pg_get_indexdef(indexrelid) || indisclustered
        || coalesce(obj_description(indexrelid), '') FROM pg_index
        WHERE indrelid = c.oid ORDER BY 1),
  ARRAY(SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = c.oid),
  ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = c.oid),
  ARRAY(SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = c.oid ORDER BY rulename),
  ARRAY(SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND n.nspname IN ('raw', 'public', 'public_marts') ORDER BY 1, 2
"""


def _facts(raw: PostgresDatabase) -> list[tuple[Any, ...]]:
    return raw.query(_FACTS)


def test_without_views_the_change_is_simply_made(connection: Any) -> None:
    assert _widen(connection) == ()


def test_nested_views_across_schemas_come_back_the_same(
    raw: PostgresDatabase, connection: Any, roles: tuple[str, str]
) -> None:
    owner, reader = roles
    for statement in (
        "CREATE VIEW public.staging (ident, value) WITH (security_barrier) AS"
        " SELECT id, v FROM raw.t WHERE v >= 0",
        "CREATE VIEW public_marts.sums AS SELECT sum(value) AS total FROM public.staging",
        "CREATE VIEW public_marts.both AS SELECT s.ident, x.total, t.w FROM public.staging s"
        " CROSS JOIN public_marts.sums x JOIN raw.t ON t.id = s.ident",
        "CREATE VIEW public.checked AS SELECT id, v, w FROM raw.t WHERE v > 0"
        " WITH LOCAL CHECK OPTION",
        "CREATE VIEW public.other AS SELECT id, w FROM raw.t",
        "COMMENT ON VIEW public.staging IS 'it''s {staged}, 100%'",
        "COMMENT ON COLUMN public.staging.value IS 'of the {row}'",
        "ALTER VIEW public.checked ALTER COLUMN w SET DEFAULT 'none'",
        f"GRANT SELECT ON public.staging TO {reader} WITH GRANT OPTION",
        f"GRANT SELECT (total), UPDATE (total) ON public_marts.sums TO {reader}",
        "GRANT SELECT ON public_marts.both TO PUBLIC",
        f"GRANT SELECT ON public.staging, public_marts.sums TO {owner}",
        f"ALTER VIEW public_marts.both OWNER TO {owner}",
        "CREATE FUNCTION public.ignore() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER quiet INSTEAD OF INSERT ON public.staging"
        " FOR EACH ROW EXECUTE FUNCTION public.ignore()",
        "CREATE RULE nothing AS ON DELETE TO public_marts.sums DO INSTEAD NOTHING",
    ):
        raw.execute(statement)
    before = _facts(raw)
    assert _widen(connection) == (
        "public.checked",
        "public.staging",
        "public_marts.both",
        "public_marts.sums",
    )
    assert _facts(raw) == before
    assert raw.query("SELECT total FROM public_marts.sums") == [(30,)]
    types = raw.query(
        "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attname = 'value'"
        " AND attrelid = 'public.staging'::regclass"
    )
    assert types == [("bigint",)]


def test_materialized_views_keep_their_indexes_and_statistics(
    raw: PostgresDatabase, connection: Any, roles: tuple[str, str]
) -> None:
    owner, reader = roles
    for statement in (
        "CREATE MATERIALIZED VIEW public_marts.m WITH (fillfactor=70) AS SELECT id, v, w"
        " FROM raw.t",
        "CREATE UNIQUE INDEX m_id ON public_marts.m (id)",
        "CREATE INDEX m_v ON public_marts.m USING btree (v DESC) WHERE v > 5",
        "COMMENT ON INDEX public_marts.m_v IS 'partial'",
        "ALTER MATERIALIZED VIEW public_marts.m CLUSTER ON m_id",
        "ALTER MATERIALIZED VIEW public_marts.m ALTER COLUMN w SET STATISTICS 500",
        "CREATE STATISTICS public_marts.m_stat (dependencies) ON v, w FROM public_marts.m",
        "COMMENT ON MATERIALIZED VIEW public_marts.m IS 'marts'",
        f"GRANT SELECT ON public_marts.m TO {reader}",
        f"ALTER MATERIALIZED VIEW public_marts.m OWNER TO {owner}",
        "CREATE MATERIALIZED VIEW public.empty AS SELECT v FROM public_marts.m WITH NO DATA",
    ):
        raw.execute(statement)
    before = _facts(raw)
    target = "SELECT attstattarget FROM pg_attribute WHERE attrelid = 'public_marts.m'::regclass"
    targets = raw.query(target)
    _widen(connection)
    assert _facts(raw) == before
    assert raw.query(target) == targets
    assert raw.query("SELECT count(*) FROM public_marts.m") == [(2,)]


def test_default_privileges_give_a_returning_view_nothing_more(
    raw: PostgresDatabase, connection: Any, roles: tuple[str, str]
) -> None:
    _owner, reader = roles
    raw.execute("CREATE VIEW public.staging AS SELECT v FROM raw.t")
    raw.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {reader}")
    _widen(connection)
    allowed = f"SELECT has_table_privilege('{reader}', 'public.staging', 'SELECT')"
    assert raw.query(allowed) == [(False,)]
    raw.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM {reader}")


def test_a_view_that_no_longer_fits_leaves_everything_as_it_was(
    raw: PostgresDatabase, connection: Any
) -> None:
    raw.execute("CREATE VIEW public.sums AS SELECT sum(v) FROM raw.t")
    before = _facts(raw)
    with pytest.raises(ViewsInTheWay) as caught:
        around(
            connection, "t", ["v"], lambda: connection.execute("ALTER TABLE t ALTER v TYPE text")
        )
    assert caught.value.views == ("public.sums",)
    connection.commit()
    assert _facts(raw) == before
    assert raw.query("SELECT v FROM raw.t ORDER BY id") == [(10,), (20,)]


def test_a_view_of_somebody_else_stays_in_the_way(raw: PostgresDatabase, connection: Any) -> None:
    with raw.server.connect(database=raw.name) as root:
        root.execute("CREATE SCHEMA foreign_schema")
        root.execute("CREATE VIEW foreign_schema.v AS SELECT v FROM raw.t")
    with pytest.raises(ViewsInTheWay, match="permission denied"):
        _widen(connection)
    connection.rollback()
    assert raw.query("SELECT 1 FROM pg_views WHERE viewname = 'v'") == [(1,)]


def test_what_is_not_a_view_is_named(raw: PostgresDatabase, connection: Any) -> None:
    raw.execute("CREATE TABLE public.log (v smallint)")
    raw.execute(
        "CREATE RULE note AS ON INSERT TO public.log DO ALSO UPDATE raw.t SET v = v WHERE id = 1"
    )
    with pytest.raises(ViewsInTheWay, match="a rule on a table"):
        read_views(connection, "t", ["v"])


def test_a_reader_that_polls_a_view_sees_no_error(raw: PostgresDatabase, connection: Any) -> None:
    raw.execute("CREATE VIEW public.staging AS SELECT id, v FROM raw.t")
    raw.execute("CREATE VIEW public.sums AS SELECT sum(v) AS total FROM public.staging")
    stop, errors, seen = threading.Event(), [], set()

    def poll() -> None:
        with closing(raw.connect(autocommit=True, prepare_threshold=None)) as reader:
            while not stop.is_set():
                try:
                    seen.update(reader.execute("SELECT total FROM public.sums").fetchall())
                except psycopg.Error as error:
                    errors.append(str(error))

    pollers = [threading.Thread(target=poll) for _ in range(3)]
    for poller in pollers:
        poller.start()
    try:
        for kind in ("bigint", "numeric", "bigint", "integer", "numeric"):
            around(
                connection,
                "t",
                ["v"],
                lambda kind=kind: connection.execute(f"ALTER TABLE t ALTER v TYPE {kind}"),
            )
            connection.commit()
    finally:
        stop.set()
        for poller in pollers:
            poller.join()
    assert errors == []
    assert {total for (total,) in seen} == {30}


_OTHERS = """
SELECT polname, polpermissive, polcmd, (SELECT string_agg(rolname, ',' ORDER BY rolname)
    FROM pg_roles WHERE oid = ANY(polroles)), pg_get_expr(polqual, polrelid),
  pg_get_expr(polwithcheck, polrelid), obj_description(oid, 'pg_policy') FROM pg_policy
UNION ALL
SELECT tgname, tgenabled = 'D', '', '', pg_get_triggerdef(oid), '',
  obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT proname, prosecdef, '', pg_get_userbyid(proowner), pg_get_functiondef(oid), proacl::text,
  obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1
"""


def test_policies_triggers_and_functions_come_back_the_same(
    raw: PostgresDatabase, connection: Any, roles: tuple[str, str]
) -> None:
    owner, reader = roles
    for statement in (
        "CREATE TABLE public.seen (v bigint)",
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.seen VALUES (NEW.v); RETURN NULL; END'",
        "CREATE TRIGGER watch AFTER UPDATE OF v ON raw.t FOR EACH ROW WHEN (NEW.v > 5)"
        " EXECUTE FUNCTION public.note()",
        "CREATE TRIGGER asleep AFTER UPDATE OF v ON raw.t FOR EACH ROW"
        " EXECUTE FUNCTION public.note()",
        "ALTER TABLE raw.t DISABLE TRIGGER asleep",
        "COMMENT ON TRIGGER watch ON raw.t IS 'wakes'",
        "CREATE VIEW public.staging AS SELECT id, v FROM raw.t",
        "CREATE FUNCTION public.total(low int) RETURNS numeric STABLE SECURITY DEFINER"
        " BEGIN ATOMIC SELECT sum(v) FROM raw.t WHERE v >= low; END",
        "CREATE PROCEDURE public.forget() BEGIN ATOMIC DELETE FROM public.seen"
        " WHERE v IN (SELECT v FROM public.staging); END",
        "COMMENT ON FUNCTION public.total IS 'a sum'",
        "REVOKE ALL ON FUNCTION public.total FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION public.total TO {reader} WITH GRANT OPTION",
        "ALTER TABLE raw.t ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY small ON raw.t FOR SELECT TO {reader}, {owner} USING (v < 15)",
        "CREATE POLICY any_row ON raw.t AS RESTRICTIVE USING (v > 0) WITH CHECK (v > 1)",
        "COMMENT ON POLICY small ON raw.t IS 'it''s small'",
    ):
        raw.execute(statement)
    before = raw.query(_OTHERS)
    assert len(before) == 7
    assert {
        "policy small on t",
        "policy any_row on t",
        "trigger watch on t",
        "trigger asleep on t",
        "public.staging",
        "function public.total(integer)",
        "function public.forget()",
    } == set(_widen(connection))
    assert raw.query(_OTHERS) == before
    raw.execute("UPDATE raw.t SET v = v + 1")
    assert raw.query("SELECT v FROM public.seen ORDER BY v") == [(11,), (21,)]
    assert raw.query("SELECT public.total(15)") == [(21,)]


def test_rows_that_do_not_fit_are_nobodys_views_fault(
    raw: PostgresDatabase, connection: Any
) -> None:
    raw.execute("CREATE VIEW public.staging AS SELECT id, w FROM raw.t")
    with pytest.raises(psycopg.DataError):
        around(
            connection,
            "t",
            ["w"],
            lambda: connection.execute("ALTER TABLE t ALTER w TYPE int USING w::int"),
        )
    connection.commit()
    assert raw.query("SELECT count(*) FROM public.staging") == [(2,)]


def test_what_can_only_stay_in_the_way_is_named(raw: PostgresDatabase, connection: Any) -> None:
    with raw.server.connect(database=raw.name) as root:
        root.execute("CREATE PUBLICATION outlet FOR TABLE raw.t WHERE (v > 5)")
    with pytest.raises(ViewsInTheWay, match="publication") as caught:
        _widen(connection)
    connection.rollback()
    assert caught.value.views == ("publication of table t in publication outlet",)
