"""A practice's day as SQL: what a replicator meets, in no order it could count on.

From the left come connections and a seed; to the right go transactions on the
source, one each `step`. Each action is a method that speaks through one cursor
inside a transaction; whether it commits is decided here. Workers that run side
by side either keep to keys of their own or, `shared`, fight over the same rows:
then deadlocks, lock time-outs and duplicate keys are part of the day, and are
counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from threading import Event

import pymysql
from pymysql.cursors import Cursor

from replicator.sandbox.data import RowMaker, insert_statement, quoted
from replicator.sandbox.schema import TABLES

Connect = Callable[[], "pymysql.Connection[Cursor]"]

# What a busy server answers now and then; the step is rolled back and counted.
_CONTENTION = {
    1020: "record changed",
    1062: "duplicate key",
    1205: "lock time-out",
    1213: "deadlock",
}
_KEPT_KEYS = 400  # rows of each table that a worker remembers and comes back to


class Workload:
    """One worker's day; each worker needs a connection of its own, so one object a thread.

    `connect` gives autocommit connections to the source's database. Workers
    with different `worker` numbers draw different keys and values from the same
    `seed`. `shared`: work on the rows that are in the tables, as the other
    workers do, instead of only on one's own. `done` counts steps by action,
    `contended` what the server turned down.
    """

    def __init__(
        self, connect: Connect, seed: int = 1, *, worker: int = 0, shared: bool = False
    ) -> None:
        self._connect = connect
        self._connection: pymysql.Connection[Cursor] | None = None
        self.random = random.Random(f"{seed}/workload/{worker}")
        self._seed = seed * 10_007 + worker + 1
        self._shared = shared
        self._makers: dict[str, RowMaker] = {}
        self._keys: dict[str, list[int]] = {name: [] for name in TABLES}
        self._fresh: list[tuple[str, int]] = []
        self.done: Counter[str] = Counter()
        self.contended: Counter[str] = Counter()

    # The day.

    def run(self, stop: Event, rate: float | None = None) -> None:
        """Step until `stop` is set, about `rate` times a second; None: without pause."""
        try:
            while not stop.is_set():
                self.step()
                if rate is not None:
                    stop.wait(self.random.expovariate(rate))
        finally:
            self.close()

    def step(self) -> str:
        """Do one transaction of a random kind and return the kind's name.

        Contention is counted and the transaction rolled back; any other error
        of the server is raised.
        """
        name, action = self.random.choices(_ACTIONS, _WEIGHTS)[0]
        connection = self._open()
        self._fresh = []
        try:
            with connection.cursor() as cursor:
                connection.begin()
                self._finish(connection, commit=action(self, cursor) is not False)
        except pymysql.MySQLError as error:
            reason = _CONTENTION.get(error.args[0] if error.args else 0)
            if reason is None:
                raise
            connection.rollback()
            self.contended[reason] += 1
            if reason == "duplicate key":
                self._draw_other_keys()
        self.done[name] += 1
        return name

    def close(self) -> None:
        if self._connection is not None and self._connection.open:
            self._connection.close()
        self._connection = None

    # Actions: False asks for a rollback.

    def book(self, cursor: Cursor) -> None:
        """An appointment, its history and log lines, and a signal to other workstations."""
        self._insert(cursor, "appointment")
        self._insert(cursor, "histappointment")
        self._insert(cursor, "securitylog", self.random.randint(1, 3))
        self._insert(cursor, "signalod")

    def move(self, cursor: Cursor) -> None:
        self._update(cursor, "appointment", "AptDateTime = AptDateTime + INTERVAL 15 MINUTE")
        self._insert(cursor, "histappointment")

    def complete(self, cursor: Cursor) -> None:
        """A visit: procedures in one statement, treatments, the appointment set complete."""
        self._insert(cursor, "procedurelog", self.random.randint(1, 6))
        self._insert(cursor, "treatment", self.random.randint(1, 2))
        self._update(cursor, "appointment", "AptStatus = 2, Note = NULL")

    def claim(self, cursor: Cursor) -> None:
        self._insert(cursor, "claim")
        self._insert(cursor, "claimproc", self.random.randint(1, 5))
        self._update(cursor, "claim", "ClaimStatus = 'S', DateSent = CURDATE()")

    def pay(self, cursor: Cursor) -> None:
        """A payment with its splits; balances move by amounts without a short decimal form."""
        self._insert(cursor, "payment")
        self._insert(cursor, "paysplit", self.random.randint(1, 4))
        self._update(cursor, "patient", "EstBalance = EstBalance / 3 + 0.1, BalTotal = EstBalance")

    def adjust(self, cursor: Cursor) -> None:
        self._insert(cursor, "adjustment")
        self._update(cursor, "adjustment", "AdjAmt = -AdjAmt, AdjNote = CONCAT('é', AdjNote)")

    def new_patient(self, cursor: Cursor) -> None:
        self._insert(cursor, "patient")
        self._insert(cursor, "sheetfield", self.random.randint(5, 40))
        self._insert(cursor, "commlog")

    def edit_patient(self, cursor: Cursor) -> None:
        """NULL and text take each other's place."""
        text = quoted(f"synthetic note {self.random.randrange(10**6)} 東京")
        self._update(
            cursor,
            "patient",
            f"AddrNote = IF(AddrNote IS NULL, {text}, NULL), Title = NULL, SchedBeforeTime = NULL",
        )

    def clock(self, cursor: Cursor) -> None:
        """In with the sentinel -01:00:00, out again with a span."""
        self._insert(cursor, "clockevent")
        self._update(cursor, "clockevent", "OTimeHours = '-01:00:00', TimeDisplayed2 = NOW()")

    def renumber(self, cursor: Cursor) -> None:
        """A primary key changes; another row may take the old number at once."""
        table = self.random.choice(["appointment", "paysplit", "preference", "famaging"])
        old = self._key(cursor, table)
        maker = self._maker(table)
        new = maker.random_key()
        key = TABLES[table].key
        changed = cursor.execute(f"UPDATE `{table}` SET `{key}` = {new} WHERE `{key}` = {old}")
        if changed:
            self._fresh.append((table, new))
        if self.random.random() < 0.5:
            cursor.execute(insert_statement(table, [maker.row(old)], "REPLACE"))

    def delete(self, cursor: Cursor) -> None:
        """Hard deletes, as OpenDental does them, from several tables at once."""
        for table in self.random.sample(["appointment", "commlog", "claimproc", "paysplit"], 2):
            key = TABLES[table].key
            cursor.execute(f"DELETE FROM `{table}` WHERE `{key}` = {self._key(cursor, table)}")

    def delete_many(self, cursor: Cursor) -> None:
        keys = ",".join(str(self._key(cursor, "sheetfield")) for _ in range(10))
        cursor.execute(f"DELETE FROM sheetfield WHERE SheetFieldNum IN ({keys})")

    def update_many(self, cursor: Cursor) -> None:
        keys = ",".join(str(self._key(cursor, "procedurelog")) for _ in range(10))
        cursor.execute(
            "UPDATE procedurelog SET ProcFee = ProcFee * 1.01, DrugQty = DrugQty + 0.1,"
            f" ProcStatus = 2 WHERE ProcNum IN ({keys})"
        )

    def upsert(self, cursor: Cursor) -> None:
        """ON DUPLICATE KEY UPDATE and REPLACE: inserts that turn out to be updates."""
        row = self._maker("definition").row(self._key(cursor, "definition"))
        cursor.execute(
            insert_statement("definition", [row])
            + " ON DUPLICATE KEY UPDATE ItemOrder = (ItemOrder + 1) % 1000"
        )
        row = self._maker("preference").row(self._key(cursor, "preference"))
        cursor.execute(insert_statement("preference", [row], "REPLACE"))

    def age(self, cursor: Cursor) -> None:
        """The aging run: empty famaging, fill it again."""
        cursor.execute("TRUNCATE TABLE famaging")  # commits by itself; the rest is one more
        cursor.execute(
            "INSERT IGNORE INTO famaging SELECT PatNum, EstBalance, Bal_31_60, Bal_61_90,"
            " BalOver90, InsEst, BalTotal, PayPlanDue FROM patient ORDER BY PatNum LIMIT 50"
        )

    def signals(self, cursor: Cursor) -> None:
        """Born and gone within one transaction, and an old one swept up."""
        key = self._insert(cursor, "signalod")
        cursor.execute(f"DELETE FROM signalod WHERE SignalNum = {key}")
        cursor.execute(f"DELETE FROM signalod WHERE SignalNum = {self._key(cursor, 'signalod')}")

    def nothing(self, cursor: Cursor) -> None:
        """Statements that find no row leave nothing in a row-based binlog."""
        cursor.execute("UPDATE patient SET LName = 'Synthetic-none' WHERE PatNum = -1")
        cursor.execute("DELETE FROM appointment WHERE AptNum = -1")

    def change_of_mind(self, cursor: Cursor) -> bool:
        """Rolled back as a whole; MyISAM keeps the rows, and its binlog says so."""
        self._insert(cursor, "commlog", 2)
        self._update(cursor, "patient", "Language = 'synthetic rollback'")
        return False

    def second_thoughts(self, cursor: Cursor) -> None:
        """Rolled back in part: what follows the savepoint goes, what precedes it stays."""
        self._insert(cursor, "commlog")
        cursor.execute("SAVEPOINT first_thought")
        self._insert(cursor, "adjustment", 2)
        cursor.execute("SAVEPOINT second_thought")
        self._update(cursor, "commlog", "Note = 'synthetic, after the savepoint'")
        cursor.execute("ROLLBACK TO SAVEPOINT first_thought")
        self._insert(cursor, "securitylog")

    def paperwork(self, cursor: Cursor) -> None:
        """A transaction of a few hundred rows."""
        self._insert(cursor, "sheetfield", self.random.randint(100, 300))

    # Inside.

    def _open(self) -> pymysql.Connection[Cursor]:
        if self._connection is None or not self._connection.open:
            self._connection = self._connect()
            with self._connection.cursor() as cursor:
                cursor.execute("SET SESSION lock_wait_timeout = 10")
                cursor.execute("SET SESSION innodb_lock_wait_timeout = 3")
        return self._connection

    def _finish(self, connection: pymysql.Connection[Cursor], *, commit: bool) -> None:
        """End the transaction; keys that it brought are remembered only if they are there."""
        if not commit:
            connection.rollback()
            return
        connection.commit()
        for table, key in self._fresh:
            known = self._keys[table]
            if len(known) >= _KEPT_KEYS:
                known[self.random.randrange(_KEPT_KEYS)] = key
            else:
                known.append(key)

    def _draw_other_keys(self) -> None:
        """Our keys are taken, as after an earlier run with the same seed: leave that sequence."""
        self._seed += 1_000_003
        self._makers.clear()

    def _maker(self, table: str) -> RowMaker:
        if table not in self._makers:
            self._makers[table] = RowMaker(TABLES[table], seed=self._seed, patients=1000)
        return self._makers[table]

    def _insert(self, cursor: Cursor, table: str, count: int = 1) -> int:
        """New rows in one statement; the last one's key."""
        maker = self._maker(table)
        keys = [maker.random_key() for _ in range(count)]
        cursor.execute(insert_statement(table, [maker.row(key) for key in keys]))
        self._fresh += [(table, key) for key in keys]
        return keys[-1]

    def _update(self, cursor: Cursor, table: str, change: str) -> None:
        key = self._key(cursor, table)
        cursor.execute(f"UPDATE `{table}` SET {change} WHERE `{TABLES[table].key}` = {key}")

    def _key(self, cursor: Cursor, table: str) -> int:
        """A row to come back to; a number that hits nothing while there is none."""
        known = self._keys[table]
        if self._shared and not known:
            cursor.execute(f"SELECT `{TABLES[table].key}` FROM `{table}` ORDER BY 1 LIMIT 25")
            known += [key for (key,) in cursor.fetchall()]
        return self.random.choice(known) if known else self.random.randint(1, 2**40)


_DAY: dict[Callable[[Workload, Cursor], bool | None], int] = {
    Workload.book: 12,
    Workload.move: 10,
    Workload.complete: 8,
    Workload.claim: 6,
    Workload.pay: 8,
    Workload.adjust: 4,
    Workload.new_patient: 3,
    Workload.edit_patient: 10,
    Workload.clock: 3,
    Workload.renumber: 5,
    Workload.delete: 6,
    Workload.delete_many: 2,
    Workload.update_many: 4,
    Workload.upsert: 4,
    Workload.age: 1,
    Workload.signals: 5,
    Workload.nothing: 3,
    Workload.change_of_mind: 4,
    Workload.second_thoughts: 4,
    Workload.paperwork: 1,
}
_ACTIONS = [(action.__name__, action) for action in _DAY]
_WEIGHTS = list(_DAY.values())
