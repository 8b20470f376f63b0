"""Settings in, live connections out: raw driver connections and pooled engines.

Every connection of the project is opened here, so that TLS, time-outs and the
source's read-only session hold everywhere. `connect_*` give driver connections
for the hot paths; `ConnectionFactory` gives SQLAlchemy engines for people and
scripts, one method for each server and schema.

A peer that vanished without a word is noticed by TCP keep-alives rather than
by read time-outs, because a statement may rightly take an hour; and one that waits
for us while we wait for it, by asking (`silence`).
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import psycopg
import pymysql
from sqlalchemy import URL, Engine, create_engine

from config.driver import GuardedConnection
from config.errors import translated
from config.postgres_driver import GuardedCursor, GuardedPostgres, no_plain_password
from config.settings import MySQLServer, PostgresServer, Settings, load_settings
from config.silence import listen

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    MySQLConnection: TypeAlias = pymysql.Connection[Cursor]
else:
    MySQLConnection = pymysql.Connection

PostgresConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

KEEPALIVE_IDLE: Final = 15  # seconds of silence before the first probe
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_PROBES: Final = 3
SEND_TIMEOUT: Final = KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_PROBES  # unacknowledged data

# Every transaction of the session is read only, so that a write fails at the server (error 1792).
READ_ONLY_SESSION: Final = "SET SESSION TRANSACTION READ ONLY"


def quote_mysql_identifier(name: str) -> str:
    """`name` in back quotes, for the places where SQL takes no parameter."""
    if not name or "\0" in name:
        raise ValueError("an identifier is neither empty nor holds a NUL")
    return "`" + name.replace("`", "``") + "`"


def connect_mysql(
    server: MySQLServer, *, database: str | None = None, autocommit: bool = True, **options: Any
) -> MySQLConnection:
    """Connect to `server`, with no default database unless one is named.

    `options` go to PyMySQL. Raises ConnectionLost, ServerBusy or ConfigError.
    """
    with translated(server.label):
        arguments: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password.get_secret_value(),
            "database": database,
            "autocommit": autocommit,
            "charset": "utf8mb4",
            "connect_timeout": server.connect_timeout,
            **mysql_tls_options(server),
            **options,
        }
        # PyMySQL's connect_timeout ends with TCP's handshake; a server that accepts and then
        # says nothing would hold us for ever, so logging in has a read time-out of its own.
        read_timeout = arguments.pop("read_timeout", None)
        connection = _Connection(read_timeout=server.connect_timeout, **arguments)
        _set_read_timeout(connection, read_timeout)
        _keep_alive(connection)
        listen(connection, partial(_Connection, read_timeout=SEND_TIMEOUT, **arguments))
        return connection


class _Connection(GuardedConnection):
    """PyMySQL's (guarded), but for its context for TLS that verifies nobody.

    PyMySQL reads all of the system's authorities for each connection, which takes thirty
    times as long as everything else, and then asks none of them.
    """

    def _create_ssl_ctx(self, given: Any) -> ssl.SSLContext:
        return given if isinstance(given, ssl.SSLContext) else _unverified()


@cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect_source(server: MySQLServer | Settings, **options: Any) -> MySQLConnection:
    """Connect to the source's own database in a session that cannot write."""
    source = server.source if isinstance(server, Settings) else server
    options.setdefault("database", source.db)
    connection = connect_mysql(source, **options)
    with translated(source.label), connection.cursor() as cursor:
        cursor.execute(READ_ONLY_SESSION)
    return connection


def connect_postgres(
    server: PostgresServer,
    *,
    autocommit: bool = False,
    application_name: str = "opendental-replicator",
    schema: str | None = None,
    **options: Any,
) -> PostgresConnection:
    """Connect to the analytics database with `schema` (the raw one by default) as search path."""
    path = search_path_option(server.schema_name if schema is None else schema)
    with translated(server.label):
        return GuardedPostgres.connect(
            host=server.host,
            port=server.port,
            dbname=server.db,
            user=server.user,
            password=server.password.get_secret_value() or None,
            connect_timeout=max(2, math.ceil(server.connect_timeout)),  # libpq's smallest is 2
            application_name=application_name,
            options=path,
            keepalives_idle=KEEPALIVE_IDLE,
            keepalives_interval=KEEPALIVE_INTERVAL,
            keepalives_count=KEEPALIVE_PROBES,
            tcp_user_timeout=SEND_TIMEOUT * 1000,
            autocommit=autocommit,
            cursor_factory=GuardedCursor,
            **postgres_tls_options(server),
            **no_plain_password(server.ssl_mode),
            **options,
        )


def mysql_tls_options(server: MySQLServer) -> dict[str, Any]:
    """PyMySQL's arguments for the server's TLS mode.

    "preferred" is PyMySQL's own default: TLS where the server offers it, unverified. A context
    of ours makes PyMySQL refuse a server without TLS before the password is sent.
    """
    if server.ssl_mode == "disabled":
        return {"ssl_disabled": True}
    if server.ssl_mode == "preferred" and server.ssl_cert is None:
        return {}
    context = ssl.create_default_context(cafile=server.ssl_ca)
    context.check_hostname = server.ssl_mode == "verify_identity"
    verified = server.ssl_mode in ("verify_ca", "verify_identity")
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    # Servers make their own certificates without the extensions that strict X.509 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if server.ssl_cert is not None:
        context.load_cert_chain(server.ssl_cert, server.ssl_key)
    return {"ssl": context}


def postgres_tls_options(server: PostgresServer) -> dict[str, Any]:
    """libpq's arguments for the server's TLS mode and files."""
    files = {
        "sslrootcert": server.ssl_ca,
        "sslcert": server.ssl_cert,
        "sslkey": server.ssl_key,
    }
    named = {word: str(path) for word, path in files.items() if path is not None}
    return {"sslmode": server.ssl_mode, **named}


def search_path_option(schema: str) -> str:
    """libpq's `options` that make `schema` the search path, whatever characters it has.

    Given at connection time it survives RESET ALL and DISCARD ALL.
    """
    quoted = '"' + schema.replace('"', '""') + '"'
    escaped = quoted.replace("\\", "\\\\").replace(" ", "\\ ")
    return f"-c search_path={escaped}"


@contextmanager
def answered_within(connection: MySQLConnection, seconds: float) -> Iterator[None]:
    """Questions that a living server answers at once: a longer silence is a lost connection."""
    before = vars(connection)["_read_timeout"]
    _set_read_timeout(connection, seconds)
    try:
        yield
    finally:
        _set_read_timeout(connection, before)


def _set_read_timeout(connection: MySQLConnection, seconds: float | None) -> None:
    """Set how long a later read may take; PyMySQL puts it on the socket at the next read."""
    vars(connection)["_read_timeout"] = seconds


def _keep_alive(connection: MySQLConnection) -> None:
    stream = vars(connection).get("_sock")
    if not isinstance(stream, socket.socket) or stream.family == socket.AF_UNIX:
        return
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT * 1000)


Opener: TypeAlias = Callable[[Settings], Engine]


class _EngineMethod:
    """A method that works on the class as on an instance.

    `ConnectionFactory.get_…()` takes its settings from the environment, at the first call;
    `ConnectionFactory(settings).get_…()` takes those. Each opens its engine once.
    """

    def __init__(self, opener: Opener, doc: str) -> None:
        self._opener = opener
        self.__doc__ = doc
        self._name = ""

    def __set_name__(self, owner: type[ConnectionFactory], name: str) -> None:
        self._name = name

    def __get__(
        self, instance: ConnectionFactory | None, owner: type[ConnectionFactory]
    ) -> Callable[[], Engine]:
        return partial(self._engine, instance, owner)

    def _engine(self, instance: ConnectionFactory | None, owner: type[ConnectionFactory]) -> Engine:
        factory = owner.from_environment() if instance is None else instance
        return factory.engine(self._name, self._opener)


def _source_engine(settings: Settings) -> Engine:
    return _mysql_engine(
        settings.source, partial(connect_source, settings.source, autocommit=False)
    )


def _replication_engine(settings: Settings) -> Engine:
    server = settings.replication
    return _mysql_engine(
        server, partial(connect_mysql, server, database=server.db, autocommit=False)
    )


def _mysql_engine(server: MySQLServer, creator: Callable[[], MySQLConnection]) -> Engine:
    # The URL only describes: connections come from `creator`, so it needs no password.
    url = URL.create(
        "mysql+pymysql",
        username=server.user,
        host=server.host,
        port=server.port,
        database=server.db,
        query={"charset": "utf8mb4"},
    )
    return create_engine(url, creator=creator, pool_pre_ping=True, pool_recycle=1800)


def _raw_engine(settings: Settings) -> Engine:
    return _postgres_engine(settings.analytics.schema_name, settings)


def _postgres_engine(schema: str, settings: Settings) -> Engine:
    server = settings.analytics
    url = URL.create(
        "postgresql+psycopg",
        username=server.user,
        host=server.host,
        port=server.port,
        database=server.db,
    )
    creator = partial(connect_postgres, server, schema=schema)
    return create_engine(url, creator=creator, pool_pre_ping=True, pool_recycle=1800)


class ConnectionFactory:
    """Pooled SQLAlchemy engines, one for each server and schema.

    Every method may be called on the class (settings from the environment) or on an instance
    made with settings of one's own. The source's engine cannot write.
    """

    _shared: ClassVar[ConnectionFactory | None] = None
    _shared_lock: ClassVar[Lock] = Lock()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engines: dict[str, Engine] = {}
        self._lock = Lock()

    get_opendental_source_connection = _EngineMethod(
        _source_engine, "The source MySQL (OpenDental), read only."
    )
    get_mysql_replication_connection = _EngineMethod(
        _replication_engine, "The replica MySQL, full read and write."
    )
    get_postgres_analytics_connection = _EngineMethod(
        _raw_engine, "The analytics PostgreSQL, in the raw schema."
    )
    get_opendental_analytics_raw_connection = _EngineMethod(
        _raw_engine, "The analytics PostgreSQL, in the raw schema."
    )
    get_opendental_analytics_public_connection = _EngineMethod(
        partial(_postgres_engine, "public"), "The analytics PostgreSQL, in schema public."
    )
    get_opendental_analytics_staging_connection = _EngineMethod(
        partial(_postgres_engine, "public_staging"),
        "The analytics PostgreSQL, in dbt's schema public_staging.",
    )
    get_opendental_analytics_intermediate_connection = _EngineMethod(
        partial(_postgres_engine, "public_intermediate"),
        "The analytics PostgreSQL, in dbt's schema public_intermediate.",
    )
    get_opendental_analytics_marts_connection = _EngineMethod(
        partial(_postgres_engine, "public_marts"),
        "The analytics PostgreSQL, in dbt's schema public_marts.",
    )

    @classmethod
    def from_environment(cls) -> ConnectionFactory:
        """The process's shared factory; raises ConfigError when the environment is wrong."""
        with cls._shared_lock:
            if ConnectionFactory._shared is None:
                ConnectionFactory._shared = ConnectionFactory(load_settings())
            return ConnectionFactory._shared

    @classmethod
    def forget_environment(cls) -> None:
        """Close the shared factory; the next call on the class reads the environment anew."""
        with cls._shared_lock:
            shared, ConnectionFactory._shared = ConnectionFactory._shared, None
        if shared is not None:
            shared.dispose()

    def engine(self, name: str, opener: Opener) -> Engine:
        """The engine kept under `name`, made by `opener` when it is first asked for."""
        with self._lock:
            if name not in self._engines:
                self._engines[name] = opener(self._settings)
            return self._engines[name]

    def dispose(self) -> None:
        """Close every pooled connection; engines asked for later are new."""
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.dispose()
