"""Who may do what in PostgreSQL beside the loader: the statements, each with how to see it done.

Left: the names of database, schemas and roles. Right: `Need`s, in the order in which they must be
met. `replicator init` meets those that are not. The loader's own role and the database are made
by the statements of `replicator.grants`; what stands here is the rest of the layout:

* the loader owns `raw`, and nothing else: it writes there alone;
* dbt's role owns the schemas that dbt builds, reads `raw`, and writes nothing there;
* `analytics_readers` is a group without login: its members read `raw` and dbt's schemas, and each
  new table there from its first moment on, by the owners' default privileges. The loader and dbt
  are members: `ConnectionFactory` reads dbt's schemas with the loader's account;
* PUBLIC, which is everybody who has a login, may not even connect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from replicator.grants import postgres_database, postgres_role

DBT_SCHEMAS: Final = ("public_staging", "public_intermediate", "public_marts")
"""What dbt builds into; `ConnectionFactory` has an engine for each."""
_TABLE_KINDS: Final = "('r', 'p', 'v', 'm', 'f')"


@dataclass(frozen=True, slots=True)
class Layout:
    """The names."""

    database: str
    raw: str
    loader: str
    dbt: str = "dbt_user"
    readers: str = "analytics_readers"

    @property
    def schemas(self) -> dict[str, str]:
        """Each schema's owner."""
        return {self.raw: self.loader, **dict.fromkeys(DBT_SCHEMAS, self.dbt)}


@dataclass(frozen=True, slots=True)
class Need:
    """Something that must hold; `met` is a query whose one value says whether it does.

    `shown` is the statement as people may see it, where that holds a password.
    """

    what: str
    met: str
    arguments: tuple[object, ...]
    statement: str
    shown: str = ""


def server_needs(layout: Layout, loader_password: str, dbt_password: str | None) -> Iterator[Need]:
    """What belongs to the whole server: roles, the database, and who may connect to it.

    Passwords as PostgreSQL is to store them (`SCRAM-SHA-256$…`). Without one for dbt its role has
    none, and cannot log in before somebody gives it one.
    """
    loader, dbt = postgres_role(layout.loader, loader_password), postgres_role(layout.dbt, "***")
    there = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)"
    shown = postgres_role(layout.loader, "***")
    yield Need(f"role {layout.loader}, the loader's", there, (layout.loader,), loader, shown)
    if dbt_password is None:
        dbt = f"CREATE ROLE {_name(layout.dbt)} LOGIN;"
        yield Need(f"role {layout.dbt}, dbt's", there, (layout.dbt,), dbt)
    else:
        made = postgres_role(layout.dbt, dbt_password)
        yield Need(f"role {layout.dbt}, dbt's", there, (layout.dbt,), made, dbt)
    group = f"CREATE ROLE {_name(layout.readers)} NOLOGIN;"
    yield Need(f"group {layout.readers}, who may read", there, (layout.readers,), group)
    for member in (layout.loader, layout.dbt):
        yield Need(
            f"{member} is one of {layout.readers}",
            "SELECT EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole(%s)"
            " AND member = to_regrole(%s))",
            (_name(layout.readers), _name(member)),
            f"GRANT {_name(layout.readers)} TO {_name(member)};",
        )
    yield Need(
        f"database {layout.database}",
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)",
        (layout.database,),
        postgres_database(layout.loader, layout.database)[0],
    )
    yield from _database_needs(layout)


def _database_needs(layout: Layout) -> Iterator[Need]:
    held = (
        "FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.datname = %s AND a.grantee ="
    )
    name = _name(layout.database)
    yield Need(
        "only who is meant may connect",
        f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s) AND NOT EXISTS"
        f" (SELECT {held} 0)",
        (layout.database, layout.database),
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
    )
    for role, words in (
        (layout.readers, ("CONNECT",)),
        (layout.loader, ("CONNECT", "TEMPORARY")),
        (layout.dbt, ("CONNECT", "TEMPORARY")),
    ):
        yield Need(
            f"{role} may connect" + (", and make temporary tables" if words[1:] else ""),
            f"SELECT count(DISTINCT a.privilege_type) = {len(words)} {held} to_regrole(%s)"
            " AND a.privilege_type = ANY (%s)",
            (layout.database, _name(role), list(words)),
            f"GRANT {', '.join(words)} ON DATABASE {name} TO {_name(role)};",
        )


def schema_needs(layout: Layout) -> Iterator[Need]:
    """What belongs to the database; to be looked at and met within it."""
    for schema, owner in layout.schemas.items():
        yield Need(
            f"schema {schema}",
            "SELECT to_regnamespace(%s) IS NOT NULL",
            (_name(schema),),
            f"CREATE SCHEMA {_name(schema)} AUTHORIZATION {_name(owner)};",
        )
        yield Need(
            f"{schema} is {owner}'s",
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s"
            " AND nspowner = to_regrole(%s))",
            (schema, _name(owner)),
            f"ALTER SCHEMA {_name(schema)} OWNER TO {_name(owner)};",
        )
        if schema != layout.raw:
            yield _owning_need(schema, owner)
        yield from _reading_needs(schema, owner, layout.readers)
    yield Need(
        "nobody makes tables in schema public unasked",
        "SELECT NOT EXISTS (SELECT FROM pg_namespace n,"
        " aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a"
        " WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE')",
        (),
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
    )


def _owning_need(schema: str, owner: str) -> Need:
    """Where dbt ran as another role before: what it made then becomes its role's."""
    others = (
        "FROM pg_class c WHERE c.relnamespace = to_regnamespace({schema})"
        f" AND c.relkind IN {_TABLE_KINDS} AND c.relowner <> to_regrole({{owner}})"
    )
    command = f"format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, {_literal(owner)})"
    there = others.format(schema=_literal(_name(schema)), owner=_literal(_name(owner)))
    return Need(
        f"what is in {schema} is {owner}'s",
        f"SELECT to_regrole(%s) IS NOT NULL AND NOT EXISTS"
        f" (SELECT {others.format(schema='%s', owner='%s')})",
        (_name(owner), _name(schema), _name(owner)),
        f"DO $$ BEGIN EXECUTE (SELECT string_agg({command}, '; ') {there}); END $$;",
    )


def _reading_needs(schema: str, owner: str, readers: str) -> Iterator[Need]:
    name, group = _name(schema), _name(readers)
    yield Need(
        f"{readers} see {schema}",
        "SELECT EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = %s"
        " AND a.grantee = to_regrole(%s) AND a.privilege_type = 'USAGE')",
        (schema, group),
        f"GRANT USAGE ON SCHEMA {name} TO {group};",
    )
    yield Need(
        f"{readers} read the tables that are in {schema}",
        "SELECT to_regrole(%s) IS NOT NULL AND to_regnamespace(%s) IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM pg_class c WHERE c.relnamespace = to_regnamespace(%s)"
        f" AND c.relkind IN {_TABLE_KINDS}"
        " AND NOT has_table_privilege(to_regrole(%s)::oid, c.oid, 'SELECT'))",
        (group, name, name, group),
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {group};",
    )
    yield Need(
        f"{readers} read the tables that {owner} will make in {schema}",
        "SELECT EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a"
        " WHERE d.defaclrole = to_regrole(%s) AND d.defaclnamespace = to_regnamespace(%s)"
        " AND d.defaclobjtype = 'r' AND a.grantee = to_regrole(%s)"
        " AND a.privilege_type = 'SELECT')",
        (_name(owner), name, group),
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {_name(owner)} IN SCHEMA {name}"
        f" GRANT SELECT ON TABLES TO {group};",
    )


def new_password(user: str, stored: str) -> str:
    """The statement that gives a role another password."""
    return f"ALTER ROLE {_name(user)} PASSWORD {_literal(stored)};"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
