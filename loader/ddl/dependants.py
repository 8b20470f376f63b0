"""Take views out of an ALTER's way and put them back, in the caller's transaction.

Left: a raw table and the columns that are about to change. Right: the same views
over the changed columns, nested and materialised ones, with owner, grants, comments,
options, column defaults, rules, triggers, indexes and statistics. `views` plans,
this module reads the catalog and runs the plan; `attached` knows what else reads columns
and can be put back. What cannot be put back as it was leaves
everything as it was (a savepoint) and raises `ViewsInTheWay`, naming the views.

Locks: views are locked before what they read, top first, as a reader's query locks
them; first without waiting, so that we never hold one while we wait for another.
A materialised view is filled anew from what the tables hold at that moment. Not put
back: security labels, who granted a grant (its owner did, afterwards), settings of
single index columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from config.connections import PostgresConnection
from loader.ddl.attached import read_attached
from loader.ddl.views import Grant, Statement, View, plan
from loader.schema import dependants

LOCK_ATTEMPTS, LOCK_PAUSE = 40, 0.05
"""Locks are asked for so often without waiting, so many seconds apart; then with waiting."""

_NEVER_THE_VIEWS = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes that say nothing about views: the connection, locks, resources, the server."""


class ViewsInTheWay(Exception):
    """Views depend on what should change, and could not be put back over it."""

    def __init__(self, views: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.views = tuple(views)
        self.reason = reason


def around(
    connection: PostgresConnection,
    table: str,
    columns: Collection[str],
    change: Callable[[], object],
) -> tuple[str, ...]:
    """Run `change` with what reads these columns taken down; return the names of that.

    Raises ViewsInTheWay, everything being as before, where it cannot be put back; and what
    `change` raises about rows (they do not fit), which nobody's view is the reason of.
    """
    views = read_views(connection, table, columns)
    others = read_attached(connection, table, columns, views)
    labels = sorted([*(view.label for view in views), *(other.label for other in others)])
    statements = plan(views)
    if views:
        _lock(connection, table, statements.lock)
    changed = False
    try:
        with connection.transaction():
            for statement in (*(other.down for other in others), *statements.down):
                connection.execute(statement)
            change()
            changed = True
            for statement in (*statements.up, *(s for other in others for s in other.up)):
                connection.execute(statement)
            _drop_unasked_grants(connection, views)
    except psycopg.Error as error:
        of_rows = not changed and isinstance(error, psycopg.DataError | psycopg.IntegrityError)
        if error.sqlstate is None or error.sqlstate.startswith(_NEVER_THE_VIEWS) or of_rows:
            raise
        reason = (error.diag.message_primary or type(error).__name__).strip()
        raise ViewsInTheWay(labels or _named(connection, table, columns), reason) from error
    return tuple(labels)


def _named(connection: PostgresConnection, table: str, columns: Collection[str]) -> list[str]:
    return sorted({name for column in columns for name in dependants(connection, table, column)})


def _lock(connection: PostgresConnection, table: str, locks: Sequence[Statement]) -> None:
    """Lock the views and then the table; patiently, and at last with waiting."""
    wanted = [
        *locks,
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)),
    ]
    for _ in range(LOCK_ATTEMPTS):
        try:
            with connection.transaction():
                for statement in wanted:
                    connection.execute(sql.SQL("{} NOWAIT").format(statement))
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(LOCK_PAUSE)
        except psycopg.errors.InsufficientPrivilege:
            return  # the drop will be refused too, and says so better
    for statement in wanted:
        connection.execute(statement)


_UNASKED = """
SELECT DISTINCT a.grantee, coalesce(r.rolname, '') FROM pg_class c, aclexplode(c.relacl) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE c.oid = %s::regclass AND a.grantee <> c.relowner
"""


def _drop_unasked_grants(connection: PostgresConnection, views: Collection[View]) -> None:
    """Take back what default privileges gave to roles that had nothing before."""
    for view in views:
        asked = {grant.grantee for grant in view.grants if grant.column is None}
        name = view.identifier.as_string(connection)
        for oid, role in connection.execute(_UNASKED, [name]).fetchall():
            grantee = role if oid else None
            if grantee not in asked:
                who = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
                connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(view.identifier, who))


_READ = """
WITH RECURSIVE target AS (
  SELECT c.oid FROM pg_class c WHERE c.relname = %(table)s AND c.relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
), above(oid, level) AS (
  SELECT r.ev_class, 1 FROM target t
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
    AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> t.oid
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
  WHERE a.attname = ANY(%(columns)s)
  UNION
  SELECT r.ev_class, b.level + 1 FROM above b
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.oid
    AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> b.oid
), highest AS (SELECT oid, max(level) AS level FROM above GROUP BY oid)
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, h.level,
  pg_get_userbyid(c.relowner) AS owner,
  CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS definition,
  ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0
        AND NOT attisdropped ORDER BY attnum) AS columns,
  coalesce(c.reloptions, '{}') AS options, c.relacl IS NULL AS untouched,
  ARRAY(SELECT json_build_array(r.rolname, a.privilege_type, a.is_grantable, NULL)
        FROM aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee) AS grants,
  ARRAY(SELECT json_build_array(r.rolname, x.privilege_type, x.is_grantable, a.attname)
        FROM pg_attribute a, aclexplode(a.attacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee
        WHERE a.attrelid = c.oid AND a.attnum > 0) AS column_grants,
  obj_description(c.oid, 'pg_class') AS comment,
  ARRAY(SELECT json_build_array(attname, col_description(c.oid, attnum)) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
          AND col_description(c.oid, attnum) IS NOT NULL ORDER BY attnum) AS column_comments,
  ARRAY(SELECT json_build_array(a.attname, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = c.oid) AS defaults,
  ARRAY(SELECT json_build_array(attname, attstattarget) FROM pg_attribute WHERE attrelid = c.oid
        AND attnum > 0 AND attstattarget >= 0 AND NOT attisdropped AND c.relkind = 'm')
    AS statistics_targets,
  ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid
        ORDER BY indexrelid)
  || ARRAY(SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = c.oid
           ORDER BY oid)
  || ARRAY(SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = c.oid
           AND rulename <> '_RETURN' ORDER BY oid)
  || ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = c.oid
           AND NOT tgisinternal ORDER BY oid) AS more,
  ARRAY(SELECT json_build_array(i.relname, obj_description(i.oid, 'pg_class'))
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid
          AND obj_description(i.oid, 'pg_class') IS NOT NULL) AS index_comments,
  (SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
   WHERE x.indrelid = c.oid AND x.indisclustered) AS clustered_on,
  c.relispopulated AS populated,
  (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace) AS tablespace,
  (SELECT amname FROM pg_am WHERE oid = c.relam) AS access_method
FROM highest h JOIN pg_class c ON c.oid = h.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY h.level, 1, 2
"""


def read_views(connection: PostgresConnection, table: str, columns: Collection[str]) -> list[View]:
    """Views that read any of these columns of a raw table, and the views over those.

    Raises ViewsInTheWay where something else than a view does (a rule on a table).
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_READ, {"table": table, "columns": list(columns)}).fetchall()
    others = [f"{row['schema']}.{row['name']}" for row in rows if row["definition"] is None]
    if others:
        raise ViewsInTheWay(others, "a rule on a table reads the column")
    return [_view(row) for row in rows]


def _view(row: dict[str, Any]) -> View:
    granted = [*row["grants"], *row["column_grants"]]
    grants = tuple(Grant(who, what, option, column) for who, what, option, column in granted)
    return View(
        schema=row["schema"],
        name=row["name"],
        materialized=row["kind"] == "m",
        level=row["level"],
        owner=row["owner"],
        definition=row["definition"],
        columns=tuple(row["columns"]),
        options=tuple(row["options"]),
        grants=grants,
        owner_as_made=row["untouched"],
        comment=row["comment"],
        column_comments=_pairs(row["column_comments"]),
        defaults=_pairs(row["defaults"]),
        statistics_targets=_pairs(row["statistics_targets"]),
        more=tuple(row["more"]),
        index_comments=_pairs(row["index_comments"]),
        clustered_on=row["clustered_on"],
        populated=row["populated"],
        tablespace=row["tablespace"],
        access_method=row["access_method"],
    )


def _pairs(rows: list[list[Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in rows)
