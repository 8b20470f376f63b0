"""A view as a value, and the statements that take a set of views down and put them back. Pure.

Left: what `dependants` read in the catalog. Right: drops from the topmost view down,
and everything that makes the same views again, lowest first: columns, options,
defaults, rules, triggers, indexes, statistics, comments, owner, grants.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from psycopg import sql

Statement = sql.SQL | sql.Composed


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege; `column` is None where it is on the whole view, `grantee` None is PUBLIC."""

    grantee: str | None
    privilege: str
    with_option: bool = False
    column: str | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A view as the catalog has it; texts of SQL are the catalog's own."""

    schema: str
    name: str
    materialized: bool
    level: int
    """Views of level n read only views of lower levels, and tables."""
    owner: str
    definition: str
    columns: tuple[str, ...]
    options: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    owner_as_made: bool = True
    """Nobody ever granted anything on the whole view, so that its owner has every right."""
    comment: str | None = None
    column_comments: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    statistics_targets: tuple[tuple[str, int], ...] = ()
    more: tuple[str, ...] = ()
    """Statements as the catalog spells them: rules, triggers, indexes, statistics."""
    index_comments: tuple[tuple[str, str], ...] = ()
    clustered_on: str | None = None
    populated: bool = True
    tablespace: str | None = None
    access_method: str | None = None

    @property
    def label(self) -> str:
        """`schema.name`, for messages."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def kind(self) -> sql.SQL:
        return sql.SQL("MATERIALIZED VIEW" if self.materialized else "VIEW")


@dataclass(frozen=True, slots=True)
class Plan:
    """Statements in order: locks, then drops, then the change, then these to put back."""

    lock: tuple[Statement, ...]
    down: tuple[Statement, ...]
    up: tuple[Statement, ...]


def plan(views: Collection[View]) -> Plan:
    """The way down from the topmost view, and up again."""
    upwards = sorted(views, key=lambda view: (view.level, view.schema, view.name))
    down = upwards[::-1]
    return Plan(
        # LOCK TABLE takes no materialised view: DROP locks those.
        lock=tuple(
            sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(view.identifier)
            for view in down
            if not view.materialized
        ),
        down=tuple(sql.SQL("DROP {} {}").format(view.kind, view.identifier) for view in down),
        up=tuple(statement for view in upwards for statement in _put_back(view)),
    )


def _put_back(view: View) -> list[Statement]:
    statements: list[Statement] = [_create(view)]
    alter = sql.SQL("ALTER {} {}").format(view.kind, view.identifier)
    for column, expression in view.defaults:
        statements.append(
            sql.SQL("{} ALTER COLUMN {} SET DEFAULT {}").format(
                alter, sql.Identifier(column), _catalog(expression)
            )
        )
    for column, target in view.statistics_targets:
        statements.append(
            sql.SQL("{} ALTER COLUMN {} SET STATISTICS {}").format(
                alter, sql.Identifier(column), sql.Literal(target)
            )
        )
    statements += [_catalog(text) for text in view.more]
    if view.clustered_on:
        statements.append(
            sql.SQL("{} CLUSTER ON {}").format(alter, sql.Identifier(view.clustered_on))
        )
    return statements + _comments(view) + _rights(view, alter)


def _catalog(text: str) -> sql.SQL:
    return sql.SQL(text)


def _create(view: View) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, view.columns))
    parts: list[Statement] = [
        sql.SQL("CREATE {} {} ({})").format(view.kind, view.identifier, columns)
    ]
    if view.access_method:
        parts.append(sql.SQL("USING {}").format(sql.Identifier(view.access_method)))
    if view.options:
        pairs = [option.partition("=") for option in view.options]
        options = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(_catalog(name), sql.Literal(value))
            for name, _, value in pairs
        )
        parts.append(sql.SQL("WITH ({})").format(options))
    if view.tablespace:
        parts.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(view.tablespace)))
    parts.append(sql.SQL("AS {}").format(_catalog(view.definition.rstrip().rstrip(";"))))
    if view.materialized:
        parts.append(sql.SQL("WITH DATA" if view.populated else "WITH NO DATA"))
    return sql.SQL(" ").join(parts)


def _comments(view: View) -> list[Statement]:
    made: list[Statement] = []
    if view.comment is not None:
        made.append(
            sql.SQL("COMMENT ON {} {} IS {}").format(
                view.kind, view.identifier, sql.Literal(view.comment)
            )
        )
    for column, comment in view.column_comments:
        made.append(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                sql.Identifier(view.schema, view.name, column), sql.Literal(comment)
            )
        )
    for index, comment in view.index_comments:
        made.append(
            sql.SQL("COMMENT ON INDEX {} IS {}").format(
                sql.Identifier(view.schema, index), sql.Literal(comment)
            )
        )
    return made


def _rights(view: View, alter: sql.Composed) -> list[Statement]:
    """The owner, then exactly the grants: default privileges may have given others."""
    owner = sql.Identifier(view.owner)
    made: list[Statement] = [sql.SQL("{} OWNER TO {}").format(alter, owner)]
    if not view.owner_as_made:
        made.append(sql.SQL("REVOKE ALL ON {} FROM {}").format(view.identifier, owner))
    for grant in view.grants:
        column = (
            sql.SQL(" ({})").format(sql.Identifier(grant.column)) if grant.column else sql.SQL("")
        )
        grantee = sql.SQL("PUBLIC") if grant.grantee is None else sql.Identifier(grant.grantee)
        option = sql.SQL(" WITH GRANT OPTION" if grant.with_option else "")
        made.append(
            sql.SQL("GRANT {}{} ON {} TO {}{}").format(
                _catalog(grant.privilege), column, view.identifier, grantee, option
            )
        )
    return made
