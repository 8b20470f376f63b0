"""What else than a view reads a raw table's columns, and can be put back: policies, triggers,
functions with an SQL body.

Left: a table, columns that are about to change, and views that will be taken down for it.
Right: statements that take these objects away and make the same again, from the catalog's
own texts. PostgreSQL refuses to change a column's type under any of them. Whatever is not
of these kinds (a publication's row filter, a generated column) stays in the way, by name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from config.connections import PostgresConnection
from loader.ddl.views import Statement, View


@dataclass(frozen=True, slots=True)
class Attached:
    """One object: its name for messages, and the statements for the way down and up."""

    label: str
    down: Statement
    up: tuple[Statement, ...]


_WANTED = """
WITH target AS (
  SELECT oid FROM pg_class WHERE relname = %(table)s AND relnamespace =
    (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
), above AS (
  SELECT c.oid FROM unnest(%(schemas)s::text[], %(views)s::text[]) AS v(space, name)
  JOIN pg_namespace n ON n.nspname = v.space
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.name
), wanted AS (
  SELECT DISTINCT d.classid, d.objid FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass
    AND (d.refobjid IN (SELECT oid FROM above) OR EXISTS (
      SELECT FROM target t JOIN pg_attribute a ON a.attrelid = t.oid
      WHERE d.refobjid = t.oid AND d.refobjsubid = a.attnum AND a.attname = ANY(%(columns)s)))
)
"""
_POLICIES = """
SELECT p.polname AS name, p.polrelid::regclass::text AS place, p.polpermissive AS permissive,
  p.polcmd::text AS command, 0::oid = ANY(p.polroles) AS everybody,
  ARRAY(SELECT rolname::text FROM pg_roles WHERE oid = ANY(p.polroles)) AS roles,
  pg_get_expr(p.polqual, p.polrelid) AS visible, pg_get_expr(p.polwithcheck, p.polrelid) AS checked,
  obj_description(p.oid, 'pg_policy') AS comment
FROM pg_policy p JOIN wanted w ON w.classid = 'pg_policy'::regclass AND w.objid = p.oid
ORDER BY p.oid
"""
_TRIGGERS = """
SELECT t.tgname AS name, t.tgrelid::regclass::text AS place, pg_get_triggerdef(t.oid) AS definition,
  t.tgenabled::text AS enabled, obj_description(t.oid, 'pg_trigger') AS comment
FROM pg_trigger t JOIN wanted w ON w.classid = 'pg_trigger'::regclass AND w.objid = t.oid
WHERE NOT t.tgisinternal AND t.tgrelid IN (SELECT oid FROM target) ORDER BY t.oid
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS definition,
  pg_get_userbyid(p.proowner) AS owner, obj_description(p.oid, 'pg_proc') AS comment,
  CASE WHEN p.proacl IS NOT NULL THEN ARRAY(
    SELECT json_build_array(r.rolname, a.is_grantable) FROM aclexplode(p.proacl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee) END AS grants
FROM pg_proc p JOIN wanted w ON w.classid = 'pg_proc'::regclass AND w.objid = p.oid
ORDER BY p.oid
"""


def read_attached(
    connection: PostgresConnection, table: str, columns: Collection[str], views: Collection[View]
) -> list[Attached]:
    """Objects that read these columns of a raw table, or any of these views of it."""
    wanted = {
        "table": table,
        "columns": list(columns),
        "schemas": [view.schema for view in views],
        "views": [view.name for view in views],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        return [
            *map(_policy, cursor.execute(_WANTED + _POLICIES, wanted).fetchall()),
            *map(_trigger, cursor.execute(_WANTED + _TRIGGERS, wanted).fetchall()),
            *map(_function, cursor.execute(_WANTED + _FUNCTIONS, wanted).fetchall()),
        ]


_COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "*": "ALL"}


def _policy(row: dict[str, Any]) -> Attached:
    name, place = sql.Identifier(row["name"]), _catalog(row["place"])
    roles = [*map(sql.Identifier, row["roles"]), *([sql.SQL("PUBLIC")] * row["everybody"])]
    make = [
        sql.SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
            name,
            place,
            sql.SQL("PERMISSIVE" if row["permissive"] else "RESTRICTIVE"),
            sql.SQL(_COMMANDS[row["command"]]),
            sql.SQL(", ").join(roles),
        )
    ]
    if row["visible"] is not None:
        make.append(sql.SQL("USING ({})").format(_catalog(row["visible"])))
    if row["checked"] is not None:
        make.append(sql.SQL("WITH CHECK ({})").format(_catalog(row["checked"])))
    return Attached(
        f"policy {row['name']} on {row['place']}",
        sql.SQL("DROP POLICY {} ON {}").format(name, place),
        (
            sql.SQL(" ").join(make),
            *_comment(sql.SQL("POLICY {} ON {}").format(name, place), row["comment"]),
        ),
    )


_ENABLED = {"D": "DISABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}


def _trigger(row: dict[str, Any]) -> Attached:
    name, place = sql.Identifier(row["name"]), _catalog(row["place"])
    up: list[Statement] = [_catalog(row["definition"])]
    if row["enabled"] in _ENABLED:
        up.append(
            sql.SQL("ALTER TABLE {} {} {}").format(place, sql.SQL(_ENABLED[row["enabled"]]), name)
        )
    return Attached(
        f"trigger {row['name']} on {row['place']}",
        sql.SQL("DROP TRIGGER {} ON {}").format(name, place),
        (*up, *_comment(sql.SQL("TRIGGER {} ON {}").format(name, place), row["comment"])),
    )


def _function(row: dict[str, Any]) -> Attached:
    name = sql.SQL("ROUTINE {}").format(_catalog(row["name"]))
    owner = sql.Identifier(row["owner"])
    up: list[Statement] = [
        _catalog(row["definition"]),
        sql.SQL("ALTER {} OWNER TO {}").format(name, owner),
    ]
    if row["grants"] is not None:
        up.append(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}").format(name, owner))
        up += [_grant(name, *grant) for grant in row["grants"]]
    return Attached(
        f"function {row['name']}",
        sql.SQL("DROP {}").format(name),
        (*up, *_comment(name, row["comment"])),
    )


def _grant(name: sql.Composed, role: str | None, with_option: bool) -> sql.Composed:
    option = sql.SQL(" WITH GRANT OPTION" if with_option else "")
    who = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
    return sql.SQL("GRANT EXECUTE ON {} TO {}{}").format(name, who, option)


def _comment(what: sql.Composed, comment: str | None) -> list[Statement]:
    if comment is None:
        return []
    return [sql.SQL("COMMENT ON {} IS {}").format(what, sql.Literal(comment))]


def _catalog(text: str) -> sql.SQL:
    """A text that the catalog itself spells."""
    return sql.SQL(text)
