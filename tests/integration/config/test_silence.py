"""A server that waits for us as we for it is hung up on; one that works is waited for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pymysql
import pytest
from pydantic import SecretStr

from config import silence
from config.connections import connect_mysql
from config.settings import MySQLServer
from replicator.binlog.resultset import ResultSet
from replicator.sandbox.databases import MySQLDatabase
from tests.fix_proxy import NewProxy, Proxy

LENGTH = 1
"""An answer's second byte, of its first packet's length: damaged, it says 4 KiB more."""
Ask = Callable[[Any], Any]


def _execute(connection: Any) -> Any:
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchall()


def _read_blocks(connection: Any) -> Any:
    with ResultSet(connection, "SELECT 1") as found:
        return list(found.blocks())


@pytest.fixture
def link(replica_db: MySQLDatabase, proxy: NewProxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    monkeypatch.setattr(silence, "PATIENCE", 0.2)
    return proxy(replica_db.server.port)


def _connect(database: MySQLDatabase, link: Proxy, **options: Any) -> Any:
    server = MySQLServer(
        role="replica",
        host="127.0.0.1",
        port=link.port,
        db=database.name,
        user=database.user,
        password=SecretStr(database.password),
        ssl_mode="disabled",
    )
    return connect_mysql(server, database=database.name, **options)


@pytest.mark.parametrize("ask", [_execute, _read_blocks])
def test_an_answer_whose_length_is_damaged_is_not_waited_for(
    replica_db: MySQLDatabase, link: Proxy, ask: Ask
) -> None:
    with closing(_connect(replica_db, link)) as connection:
        assert ask(connection)
        link.corrupt(LENGTH)
        with pytest.raises(pymysql.OperationalError, match="nothing more to say"):
            ask(connection)
        assert link.corrupted == 1


def test_a_question_whose_length_is_damaged_is_not_waited_for_either(
    replica_db: MySQLDatabase, link: Proxy
) -> None:
    """The server is: it awaits the rest of it."""
    with closing(_connect(replica_db, link)) as connection:
        link.corrupt(LENGTH, answers=False)
        with pytest.raises(pymysql.OperationalError, match="nothing more to say"):
            _execute(connection)
        assert link.corrupted == 1


def test_a_server_that_works_is_waited_for(
    replica_db: MySQLDatabase, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works as long as another holds a lock, which is until it was looked at often enough."""
    looks, look = list[bool](), silence.Answers._waits_for_us

    def noted(answers: silence.Answers) -> bool:
        if len(looks) == silence._LOOKS:
            return False  # the answer is on its way
        looks.append(look(answers))
        if len(looks) == silence._LOOKS:
            other.execute("DO RELEASE_LOCK('work')")
        return looks[-1]

    monkeypatch.setattr(silence.Answers, "_waits_for_us", noted)
    with closing(replica_db.connect()) as holder, holder.cursor() as other:
        other.execute("SELECT GET_LOCK('work', 0)")
        with closing(_connect(replica_db, link)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('work', 60)")
            assert cursor.fetchall() == ((1,),)
    assert looks == [False] * silence._LOOKS
