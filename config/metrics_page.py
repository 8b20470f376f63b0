"""`docs/metrics.md`, made of the catalogue: python -m config.metrics_page > docs/metrics.md"""

from __future__ import annotations

from config.metrics import CATALOGUE, Entry

_HEAD = """\
# Metrics

<!-- Made by `python -m config.metrics_page > docs/metrics.md`; a test keeps it as it is. -->

`replicator run` serves them at `http://127.0.0.1:9405/metrics`, `loader run` at
`http://127.0.0.1:9406/metrics` (`REPLICATOR_METRICS_HOST`, `_PORT`, `LOADER_METRICS_HOST`,
`_PORT`). `deploy/prometheus/` has a scrape configuration, recording rules and alerts,
`deploy/grafana/` a dashboard. Beside the metrics below, each daemon tells of its own process
(`process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, …).

**What a lag is.** The time since everything that the other side had committed was *known* to be
written. It is 0 when nothing waits and the link is alive; it grows, by a second each second, while
something waits, while the daemon hangs, and while the link is dead: then nobody here can know
whether the source goes on, and the lag is what may be missing at most. `replicator_stream_up` tells
the two apart. Lags are computed when they are scraped.

* A link counts as alive for one and a half heartbeats and a second and a half behind the last
  thing heard (9 s by default). A dead link shows as a lag of that height at first.
* Moments are on the monotonic clock of the daemon's host. The servers' clocks are read through
  their connections and are allowed for: the source's by the replicator, which notes on the replica
  how far it is apart from the replica's; so the loader, which does not speak to the source, gets
  the pipeline's lag right as well. A clock that is set is believed at the next look, and no moment
  is taken for later than now.
* MariaDB's binlog tells a commit's second only: a lag that is not 0 may be 1 s too high there.
* The pipeline is caught up when `raw` stands at the position that leg 1 noted as its end of the
  source's binlog. Leg 1 notes it every two seconds (`etl_horizon` on the replica, not logged in
  its binlog). While it does not, `pipeline_lag_seconds` grows.
* The source is asked once a heartbeat where its binlog ends, what time it is, and once a minute
  which files it keeps.

A halted daemon serves no metrics: alert on `up == 0`. Its halt is noted on the replica
(`etl_halt`), and shows in both daemons' metrics and pages from their next look on.
"""


def as_markdown() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section in dict.fromkeys(entry.section for entry in CATALOGUE):
        parts.append(
            f"## {section}\n\n| metric | type | labels | daemon | what |\n|---|---|---|---|---|"
        )
        parts[-1] += "".join(f"\n{_row(entry)}" for entry in CATALOGUE if entry.section == section)
        parts[-1] += "\n"
    return "\n".join(parts)


def _row(entry: Entry) -> str:
    name = entry.name
    labels = ", ".join(f"`{label}`" for label in entry.labels) or "–"
    what = entry.what.replace("|", r"\|")
    return f"| `{name}` | {entry.kind} | {labels} | {', '.join(entry.kept_by)} | {what} |"


if __name__ == "__main__":
    print(as_markdown(), end="")
