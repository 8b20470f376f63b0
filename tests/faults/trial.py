"""A practice made for breaking things: small enough to be compared row by row after each fault.

Left: a `Pipeline`. Right: clerks who never rest, a reader of `raw` who notices what must never be
seen, and `settle`, after which source, replica and `raw` must be the same, row for row.

    visit      keyed; what clerks do all day, and an UPDATE of every row now and then
    tally      no key; one row more each time, numbered: a row applied twice is there twice, and
               `raw` at any moment must hold the numbers 1 to n and nothing else
    counter    no key, one row; an UPDATE applied twice does not find it, or leaves two
    account    two rows whose sum is always the same: half a transaction would show
    sheet      filled and emptied by one transaction each, larger than anybody's memory for it
    note       altered and truncated; `scratchpad` comes and goes
    mover      rows change their keys, and the binlog tells nothing but those: a copy has to read
               such rows again behind its window

`Trial.counts` is what `docs/guarantees.md` asks for: faults, lost rows, doubled rows.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from config import failpoints
from replicator import resync_requests, tracking
from replicator.mend_requests import REPLICA, queue_mend
from replicator.sandbox.waiting import wait_until
from tests.fix_pipeline import Daemon, Pipeline
from tests.fix_proxy import Proxy
from tests.numbers import numbers

TIMES = int(os.environ.get("FAULTS_TIMES", "1"))
"""The knob: how often each fault is tried; with 2 and more, on both engines."""

SETTINGS = {
    "REPLICATOR_BATCH_BYTES": "64KiB",
    "REPLICATOR_COPY_CHUNK_ROWS": "100",
    "REPLICATOR_COPY_GAP_SECONDS": "0.2",
    "REPLICATOR_COPY_LOCK": "short",
    "REPLICATOR_COPY_BYTES_PER_SECOND": "400KiB",  # so that copies have windows worth the name
    "REPLICATOR_POLL_SECONDS": "0.1",
    "REPLICATOR_ON_CONFLICT": "repair",
    "LOADER_BATCH_BYTES": "64KiB",
    "LOADER_POLL_SECONDS": "0.1",
}
VISITS, SHEETS, MOVERS = 300, 170, 250
MOST_COLUMNS = 12
"""That note has beside its own: what people do all day does not grow either."""
MOST_BEHIND = 300
"""Numbers of tally that `raw` may lack before people are told to work more slowly."""
TABLES = ("visit", "tally", "counter", "account", "sheet", "note", "mover")

_CREATE = (
    "CREATE TABLE visit (VisitNum BIGINT AUTO_INCREMENT PRIMARY KEY, PatNum BIGINT NOT NULL,"
    " Fee DOUBLE NOT NULL, Note VARCHAR(200))",
    "CREATE TABLE tally (seq INT NOT NULL, word VARCHAR(20)) ENGINE=InnoDB",
    "CREATE TABLE counter (n INT NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE account (id INT PRIMARY KEY, amount INT NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE sheet (SheetNum BIGINT PRIMARY KEY, Body TEXT) ENGINE=InnoDB",
    "CREATE TABLE note (NoteNum BIGINT AUTO_INCREMENT PRIMARY KEY, Body TEXT)",
    "CREATE TABLE mover (id INT PRIMARY KEY, Body VARCHAR(1200))",
    "INSERT INTO counter VALUES (0)",
    "INSERT INTO account VALUES (1, 500), (2, 500)",
    "INSERT INTO visit (PatNum, Fee, Note) SELECT seq % 7, seq / 3, REPEAT('synthetic ', 15)"
    f" FROM {numbers(1, VISITS)}",
    f"INSERT INTO mover SELECT seq, REPEAT('synthetic ', 100) FROM {numbers(1, MOVERS)}",
    f"INSERT INTO note (Body) SELECT CONCAT('note ', seq) FROM {numbers(1, 40)}",
)


def wait_for_word(daemon: Daemon, words: str, since: int, deadline: float = 60) -> None:
    """Until the daemon has said so, behind that many characters of its log."""
    wait_until(
        lambda: words in daemon.output[since:],
        deadline,
        what=lambda: f"{daemon.program} to say {words!r}:\n{daemon.output[-3000:]}",
    )


class Clerk(threading.Thread):
    """Someone who works on the source until told to stop, with a pause behind each piece.

    When the source is gone he waits until it is back, and `look` sees what came of the piece
    that he was at: it was committed, or it was not.
    """

    def __init__(
        self,
        trial: Trial,
        work: Callable[[Any, random.Random], None],
        look: Callable[[Any], None],
        pause: float,
    ) -> None:
        super().__init__(daemon=True)
        self._trial, self._work, self._look, self._pause = trial, work, look, pause
        self._dice = random.Random(work.__name__)
        self.error: BaseException | None = None
        self.done = 0

    def run(self) -> None:
        try:
            while not self._trial.closing.wait(self._pause):
                try:
                    self._work_on()
                except (pymysql.OperationalError, pymysql.InterfaceError) as error:
                    if error.args[0] not in _GONE:
                        raise
        except BaseException as error:
            self.error = error

    def _work_on(self) -> None:
        with closing(self._trial.connect()) as connection:
            with self._trial.working:
                self._look(connection.cursor())
            while not self._trial.closing.wait(self._pause * self._trial.slowness):
                with self._trial.working:
                    self._work(connection.cursor(), self._dice)
                self.done += 1


_GONE = frozenset({0, 1040, 1053, 1927, 2003, 2006, 2013})
"""MySQL's errors when the server is not there, or just not for us."""


class Trial:
    """See the module; `with trial:` is the time in which people work."""

    def __init__(self, pipe: Pipeline, *, pace: float = 1.0) -> None:
        """`pace`: how fast everybody works, asks and looks; 0.5 is half as fast."""
        self.pipe = pipe
        self.closing = threading.Event()
        self.working = threading.Semaphore(5)
        """Taken by each clerk for a piece of work; all of it by `settle`."""
        self.asked = threading.Event()
        """Tables are to be reloaded all the time."""
        self.rotation = TABLES
        """Which ones."""
        self.seen: list[str] = []
        """What a reader of `raw` saw and should not have."""
        self.reads = 0
        self.reached_by: dict[str, dict[str, str]] = {}
        """Variables by which a daemon finds its servers otherwise, by program."""
        self.links: dict[str, Proxy] = {}
        """Proxies that stand between the daemons and their servers, by the link's name."""
        self._pace = pace
        self.reshaping = True
        """Do people change the shapes of tables?"""
        self._number = 0
        self._shown = 0
        """The last number of tally, as made and as last seen in `raw`."""
        self._columns: list[int] = []
        """The numbers of note's extra ones."""
        self._named = 0
        with closing(self.connect()) as connection:
            for statement in _CREATE:
                connection.cursor().execute(statement)
        with closing(pipe.sandbox.source.connect()) as root:
            root.cursor().execute("GRANT LOCK TABLES ON opendental.* TO 'readonly_user'@'%'")
        self._people = [
            Clerk(self, self._count, self._recount, 0.05 / pace),
            Clerk(self, self._visit, lambda _cursor: None, 0.05 / pace),
            Clerk(self, self._write_sheets, self._clear_sheets, 2.5 / pace),
            Clerk(self, self._alter, self._recount_columns, 0.6 / pace),
            Clerk(self, self._move, self._tell_little, 0.05 / pace),
        ]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._asker = threading.Thread(target=self._ask, daemon=True)

    @property
    def work_done(self) -> int:
        """Pieces of work that clerks have done so far."""
        return sum(clerk.done for clerk in self._people)

    @property
    def slowness(self) -> int:
        """How many times longer people rest: a busy machine that is far behind has to catch up."""
        return 5 if self._number - self._shown > MOST_BEHIND else 1

    def connect(self) -> Any:
        return self.pipe.sandbox.source.connect(database="opendental")

    def __enter__(self) -> Trial:
        for thread in (*self._people, self._reader, self._asker):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for thread in (*self._people, self._reader, self._asker):
            thread.join(timeout=30)

    def end(self) -> None:
        """People go home; servers, daemons and links are gone."""
        self.__exit__()
        self.pipe.close()
        for link in self.links.values():
            link.close()

    # --- what clerks do ------------------------------------------------------------------

    def _count(self, cursor: Any, dice: random.Random) -> None:
        self._number += 1
        cursor.execute("INSERT INTO tally VALUES (%s, 'synthetic')", (self._number,))
        cursor.execute("UPDATE counter SET n = n + 1")
        cursor.execute("BEGIN")
        amount = dice.randint(-50, 50)
        cursor.execute("UPDATE account SET amount = amount + %s WHERE id = 1", (amount,))
        cursor.execute("UPDATE account SET amount = amount - %s WHERE id = 2", (amount,))
        cursor.execute("COMMIT")

    def _recount(self, cursor: Any) -> None:
        cursor.execute("SELECT COALESCE(MAX(seq), 0) FROM tally")
        (self._number,) = cursor.fetchone()

    def _visit(self, cursor: Any, dice: random.Random) -> None:
        what = dice.random()
        if what < 0.4:
            cursor.execute("INSERT INTO visit (PatNum, Fee, Note) VALUES (1, 0.1, 'new')")
        elif what < 0.95:
            key = dice.randint(1, VISITS)
            cursor.execute("UPDATE visit SET Fee = Fee / 3 + 0.1 WHERE VisitNum = %s", (key,))
        elif what < 0.98:
            cursor.execute("DELETE FROM visit WHERE VisitNum > %s ORDER BY VisitNum LIMIT 30",
                           (VISITS,))  # fmt: skip
        else:
            cursor.execute("UPDATE visit SET PatNum = PatNum + 1")

    def _write_sheets(self, cursor: Any, _dice: random.Random) -> None:
        cursor.execute(
            f"INSERT INTO sheet SELECT seq, REPEAT('synthetic ', 800) FROM {numbers(1, SHEETS)}"
        )
        cursor.execute("DELETE FROM sheet")

    def _clear_sheets(self, cursor: Any) -> None:
        cursor.execute("DELETE FROM sheet")

    def _alter(self, cursor: Any, dice: random.Random) -> None:
        what = dice.random()
        cursor.execute("INSERT INTO note (Body) VALUES ('before a change')")
        if not self.reshaping:
            return
        if len(self._columns) >= MOST_COLUMNS or (self._columns and 0.5 <= what < 0.6):
            cursor.execute(f"ALTER TABLE note DROP COLUMN Extra{self._columns.pop(0)}")
        elif what < 0.5:
            self._named += 1  # always another one: no shape comes again
            self._columns.append(self._named)
            cursor.execute(f"ALTER TABLE note ADD COLUMN Extra{self._named} INT DEFAULT 7")
        elif what < 0.8:
            cursor.execute("TRUNCATE TABLE note")
        else:
            cursor.execute("CREATE TABLE scratchpad (id INT PRIMARY KEY)")
            cursor.execute("INSERT INTO scratchpad VALUES (1), (2)")
            cursor.execute("DROP TABLE scratchpad")
        cursor.execute("INSERT INTO note (Body) VALUES ('behind a change')")

    def _recount_columns(self, cursor: Any) -> None:
        cursor.execute("DROP TABLE IF EXISTS scratchpad")
        cursor.execute(
            "SELECT SUBSTRING(column_name, 6) FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = 'note'"
            " AND column_name LIKE 'Extra%' ORDER BY ordinal_position"
        )
        self._columns = [int(number) for (number,) in cursor.fetchall()]
        self._named = max([self._named, *self._columns])

    def _tell_little(self, cursor: Any) -> None:
        """What the binlog does not tell must be read again behind a copy's window."""
        cursor.execute("SET SESSION binlog_row_image = 'MINIMAL'")

    def _move(self, cursor: Any, dice: random.Random) -> None:
        key = dice.randint(1, MOVERS)
        cursor.execute(f"UPDATE mover SET id = -id WHERE id IN ({key}, -{key})")

    # --- someone else writes on the replica ----------------------------------------------

    def spoil(self) -> None:
        """Someone removes rows there which the source is about to change: that must be noticed."""
        replica = self.pipe.sandbox.replica_db
        open_ones = "table_name = 'visit' AND state IN ('queued', 'copying', 'catching_up')"
        wait_until(  # a reload under way would heal it
            lambda: not self._ask_replica(f"SELECT 1 FROM etl_resync_request WHERE {open_ones}"),
            60,
            what="no reload of visit to be under way",
        )
        with closing(replica.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(  # or they would be too many within an hour
                "UPDATE etl_resync_request SET requested_at = requested_at - INTERVAL 2 HOUR"
                " WHERE reason = 'conflict'"
            )
            cursor.execute("DELETE FROM visit WHERE VisitNum BETWEEN 11 AND 15")
        with closing(self.connect()) as connection:
            connection.cursor().execute(
                "UPDATE visit SET Fee = Fee + 1 WHERE VisitNum BETWEEN 11 AND 15"
            )

    def spoil_quietly(self) -> None:
        """Someone changes rows there; whoever finds them asks for them to be mended."""
        keys = [(str(key),) for key in range(101, 141)]
        with closing(self.pipe.sandbox.replica_db.connect()) as connection:
            connection.cursor().execute(
                "UPDATE visit SET Note = 'spoilt' WHERE VisitNum BETWEEN 101 AND 140"
            )
            queue_mend(connection, "visit", REPLICA, keys)

    def _ask_replica(self, question: str) -> list[tuple[Any, ...]]:
        """By a connection of our own: the database's shorthand is for one thread."""
        with closing(self.pipe.sandbox.replica_db.connect()) as connection:
            return tracking.fetch(connection, question)

    @property
    def mending(self) -> bool:
        """Does a request to mend rows wait, as far as can be told?"""
        try:
            return bool(self._ask_replica("SELECT 1 FROM etl_mend_request WHERE state = 'queued'"))
        except pymysql.MySQLError as error:
            return error.args[0] not in _NOT_YET

    # --- reloads -------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask for one table after the other to be reloaded, while `asked` is set."""
        turn = 0
        while not self.closing.wait(0.3 / self._pace):
            if self.asked.is_set() and not self._asked_before():
                self.request(self.rotation[turn % len(self.rotation)])
                turn += 1

    def _asked_before(self) -> bool:
        """Does one wait? Not all tables at once: that would mean a copy of everything."""
        # A connection of our own: the database's shorthand is for one thread.
        with (
            suppress(pymysql.MySQLError),
            closing(self.pipe.sandbox.replica_db.connect()) as connection,
        ):
            return bool(
                tracking.fetch(
                    connection,
                    "SELECT 1 FROM etl_resync_request"
                    " WHERE state IN ('queued', 'restarting', 'copying', 'catching_up')",
                )
            )
        return True

    def request(self, *tables: str) -> None:
        """Queue reloads as `replicator resync` does; at first there is no queue to stand in."""
        with (
            suppress(pymysql.MySQLError),
            closing(self.pipe.sandbox.replica_db.connect()) as connection,
        ):
            resync_requests.queue_resync(connection, tables)

    def copy_everything(self) -> None:
        """Start the replicator again, to copy all tables anew.

        It is down when they are asked for: at work, it would answer one by one.
        """
        self.pipe.replicator.kill()
        states = self.pipe.sandbox.replica_db.query("SELECT table_name FROM etl_extract_status")
        self.request(*(name for (name,) in states))
        self._start(self.pipe.replicator)

    # --- what readers see ----------------------------------------------------------------

    def _read(self) -> None:
        """Look at `raw` all the time; a connection that is lost is made again."""
        while not self.closing.is_set():
            with suppress(psycopg.Error), self.raw() as connection:
                while not self.closing.wait(0.05 / self._pace):
                    self._look(connection)

    def _look(self, connection: Any) -> None:
        for question, right in _NEVER_OTHERWISE:
            with suppress(psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                answer = connection.execute(question).fetchone()
                if question == _TALLY:
                    self._shown = answer[3]
                if not right(*answer):
                    now = datetime.now(UTC).isoformat(timespec="milliseconds")
                    self.seen.append(f"{now} {question}: {answer}")
        self.reads += 1

    def raw(self) -> Any:
        sandbox = self.pipe.sandbox
        return sandbox.analytics.connect(database=sandbox.analytics_db.name)

    # --- the end of a fault --------------------------------------------------------------

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nobody works."""
        for _ in self._people:
            assert self.working.acquire(timeout=30)
        try:
            yield
        finally:
            self.working.release(len(self._people))

    def settle(self, deadline: float = 90.0) -> None:
        """Let everything arrive, and see that nothing was lost, doubled, or shown half."""
        with self._nobody_asking(), self.at_rest():
            # Behind all that was read before them: as long as everything else may take.
            wait_until(lambda: not self.mending, deadline, what="the rows to be mended")
            self.pipe.catch_up(deadline)
            found = self.pipe.differences()
            assert found == {}, found
        for clerk in self._people:
            assert clerk.error is None, repr(clerk.error)
        assert self.seen == [], f"{len(self.seen)} of {self.reads} looks: {self.seen[:5]}"

    @contextmanager
    def _nobody_asking(self) -> Iterator[None]:
        asked = self.asked.is_set()
        self.asked.clear()
        try:
            yield
        finally:
            if asked:
                self.asked.set()

    def verify(self, deadline: float = 90.0) -> None:
        """The product's own comparison agrees."""
        with self._nobody_asking(), self.at_rest():
            self.pipe.catch_up(deadline)
            found = self.pipe.run("verify")
        assert found.returncode == 0, found.stdout + found.stderr

    # --- what is left to itself ------------------------------------------------------------

    @contextmanager
    def unaided(self) -> Iterator[None]:
        """Neither daemon ends meanwhile, nor is started."""
        before = [daemon.pid for daemon in self.daemons]
        yield
        for daemon in self.daemons:
            assert daemon.running, f"{daemon.program} has ended:\n{daemon.output[-3000:]}"
        assert [daemon.pid for daemon in self.daemons] == before

    def wait_for_work(self, pieces: int, deadline: float = 60) -> None:
        """Until clerks have done so many more pieces of work."""
        done = self.work_done
        wait_until(lambda: self.work_done > done + pieces, deadline, what="work")

    # --- links ---------------------------------------------------------------------------

    def link(self) -> None:
        """Let the daemons reach their servers by proxies: source, replica (leg 1's, for writing),
        stream (leg 2's, of the replica) and analytics."""
        sandbox = self.pipe.sandbox
        self.links = {
            "source": Proxy(sandbox.source.port),
            "replica": Proxy(sandbox.replica.port),
            "stream": Proxy(sandbox.replica.port),
            "analytics": Proxy(sandbox.analytics.port),
        }
        ports = {name: str(link.port) for name, link in self.links.items()}
        self.reached_by = {
            "replicator": {
                "OPENDENTAL_SOURCE_PORT": ports["source"],
                "MYSQL_REPLICATION_PORT": ports["replica"],
            },
            "loader": {
                "MYSQL_REPLICATION_PORT": ports["stream"],
                "POSTGRES_ANALYTICS_PORT": ports["analytics"],
            },
        }

    def daemon_at(self, link: str) -> Daemon:
        """Whose link it is."""
        return self.pipe.replicator if link in ("source", "replica") else self.pipe.loader

    # --- daemons -------------------------------------------------------------------------

    def daemon_of(self, point: str) -> Daemon:
        return self.pipe.replicator if point in failpoints.REPLICATOR else self.pipe.loader

    def start(self) -> None:
        """Start both daemons; they take orders from here on."""
        for daemon in self.daemons:
            self._start(daemon)

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        return self.pipe.replicator, self.pipe.loader

    def daemon_named(self, program: str) -> Daemon:
        return next(daemon for daemon in self.daemons if daemon.program == program)

    def _orders(self, daemon: Daemon) -> Path:
        return daemon.log.with_suffix(".orders")

    def _start(self, daemon: Daemon) -> None:
        file = self._orders(daemon)
        file.touch()
        way = self.reached_by.get(daemon.program, {})
        daemon.start(**{failpoints.ORDER: f"@{file}", failpoints.CONSENT: "yes"}, **way)

    def restart(self, daemon: Daemon) -> None:
        """kill -9, wherever it is, and a new beginning."""
        daemon.kill()
        self._start(daemon)

    def restart_and_wait(self, daemon: Daemon, deadline: float = 60) -> None:
        """The same, until it is at work."""
        said = len(daemon.output)
        self.restart(daemon)
        word = '"streaming"' if daemon is self.pipe.replicator else '"loader_started"'
        wait_for_word(daemon, word, said, deadline)

    def order(self, point: str, action: str = "kill", passing: int = 1) -> Daemon:
        """What the daemon of this point is to do there, from now on."""
        daemon = self.daemon_of(point)
        written = self._orders(daemon).with_suffix(".new")
        written.write_text(f"{point}:{action}@{passing}")
        written.replace(self._orders(daemon))
        return daemon

    def no_orders(self) -> None:
        for daemon in self.daemons:
            self._orders(daemon).write_text("")

    def wait_for_death(self, *daemons: Daemon, deadline: float = 150.0) -> None:
        """Until each has ended by its order; whoever did so is started again, without one.

        Raises where one ended otherwise, or did not end at all.
        """
        waiting = list(daemons)

        def all_ended() -> bool:
            for daemon in list(waiting):
                if not daemon.running:
                    code = daemon.wait(0)
                    assert code == -signal.SIGKILL, (
                        f"{daemon.program} ended with {code}:\n" + (daemon.output[-3000:])
                    )
                    waiting.remove(daemon)
                    self._orders(daemon).write_text("")
                    self._start(daemon)
            return not waiting

        wait_until(
            all_ended,
            deadline,
            what=lambda: f"{[d.program for d in waiting]} to obey:\n" + waiting[0].output[-3000:],
        )

    def wait_for_pause(self, point: str, deadline: float = 150.0) -> Daemon:
        """Until the daemon stands still at its point; SIGCONT lets it go on."""
        daemon = self.daemon_of(point)
        wait_until(
            lambda: daemon.stopped, deadline, what=lambda: f"a pause:\n{daemon.output[-3000:]}"
        )
        self._orders(daemon).write_text("")
        return daemon


_NOT_YET = (1049, 1146)
"""MySQL's errors where leg 1 has not made its database and its tables."""

_TALLY = (
    "SELECT count(*), count(DISTINCT seq), coalesce(min(seq), 1), coalesce(max(seq), 0)"
    " FROM raw.tally"
)
_NEVER_OTHERWISE: tuple[tuple[str, Callable[..., bool]], ...] = (
    (
        _TALLY,
        lambda rows, different, first, last: rows == different == last and first == 1,
    ),
    ("SELECT count(*) FROM raw.counter", lambda rows: rows == 1),
    (
        "SELECT count(*), coalesce(sum(amount), 1000) FROM raw.account",
        lambda rows, total: rows == 2 and total == 1000,
    ),
    (
        "SELECT count(*), count(DISTINCT abs(id)) FROM raw.mover",
        lambda rows, different: rows == different == MOVERS,
    ),
    ("SELECT count(*) FROM raw.sheet", lambda rows: rows in (0, SHEETS)),
)
