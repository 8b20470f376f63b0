"""A leg that is lied to: a process of little memory, told through its standard input what to try.

A program, run by `test_lying_server`; each line read is JSON: the settings' variables, a leg,
and for how many seconds it is stepped at most. The line that answers tells what ended it, as
classes and messages of config/errors.py; whatever else is raised ends the program. Bounds that no
server reaches honestly, of 1 GiB, are lowered here, so that reaching them takes no minutes.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from config import driver, postgres_driver
from config.errors import ReplicatorError
from config.settings import load_settings
from config.tables import TableRules
from loader.daemon import Loader
from replicator.binlog import stream
from replicator.daemon import Replicator

BOUND = 24 << 20
MORE_MEMORY = 1 << 30
"""Of addresses, of which each thread takes many that it never uses."""
PATIENCE = 25.0


def ending(leg: Replicator | Loader, seconds: float) -> dict[str, str]:
    """What made it end."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            leg.step()
    except ReplicatorError as error:
        return {"error": type(error).__name__, "message": f"{error} {error.hint}"}
    finally:
        leg.close()
    return {"error": "", "message": leg.describe()}


def main() -> int:
    driver.ANSWER_BYTES = stream._EVENT_LIMIT = BOUND  # type: ignore[misc]
    postgres_driver.GuardedPostgres.limit = BOUND
    postgres_driver.GuardedPostgres.patience = postgres_driver._SOON = 0.5  # type: ignore[misc]
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, now + MORE_MEMORY))
    for line in sys.stdin:
        asked = json.loads(line)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        settings = load_settings(None, asked["environ"])
        replicator = asked["leg"] == "replicator"
        leg = Replicator(settings, TableRules()) if replicator else Loader(settings)
        found = ending(leg, asked["seconds"])
        status = Path("/proc/self/status").read_text()  # ru_maxrss would know our parent's, too
        found["peak"] = str(int(status.partition("VmHWM:")[2].split()[0]) << 10)
        print(json.dumps(found), flush=True)
        faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
