"""A daemon's tables, asked of a database when somebody looks at the page.

Left: how to connect, and the question. Right: lines in an `Account`, or none where the database
does not answer: nobody waits for long at a page, and it tells the rest all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg
import pymysql

from config.errors import ReplicatorError
from config.page.account import Account, TableLine

ANSWER_SECONDS: Final = 2.0
"""What connecting, or an answer, may take."""


class TablesAsked:
    """On a connection of its own, kept while it works; for the threads of the port."""

    def __init__(
        self, connect: Callable[[], Any], question: Callable[[Any], list[TableLine]]
    ) -> None:
        """`connect` gives a connection on which no answer is waited for long."""
        self._connect = connect
        self._question = question
        self._lock = threading.Lock()
        self._connection: Any = None

    def tell(self, account: Account) -> None:
        """Put the tables into the account, if they can be had."""
        with suppress(ReplicatorError, pymysql.MySQLError, psycopg.Error, OSError):
            account.tables = self._lines()
            account.tables_told = True

    def _lines(self) -> list[TableLine]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return self._question(self._connection)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()
