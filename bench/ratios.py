#!/usr/bin/env python3
"""The tables of docs/performance.md from the samples that the yardstick's run.py has written.

    bench/ratios.py SAMPLES.json [SYSTEM [BASE]]

Figures are medians over the repetitions; a ratio is SYSTEM's (adit) figure by BASE's (naive-quinn). Tests that were not
run are left out.
"""

import json
import statistics
import sys
from pathlib import Path

BULK = {
    f"{way}{count}": f"{count} stream{'s' if count > 1 else ''} {way}" for count in (1, 10, 100) for way in ("up", "down")
}
TRIPS = {
    "lat1": ("64 bytes, 1 session", [("p50, us", "p50_us"), ("p99, us", "p99_us"), ("CPU us per trip", "cpu_us_per_op")]),
    "lat64": ("64 bytes, 64 sessions", [("trips/s", "per_s"), ("p99, us", "p99_us"), ("CPU us per trip", "cpu_us_per_op")]),
    "conn1": ("new sessions, 1 client", [("per s", "per_s"), ("p50, us", "p50_us")]),
    "conn16": (
        "new sessions, 16 clients",
        [("per s", "per_s"), ("p50, us", "p50_us"), ("CPU us per session", "cpu_us_per_op")],
    ),
    "rss_start": ("both processes at start", [("KiB resident", "rss_kib")]),
    "idle1000": ("1,000 idle sessions", [("KiB per session", "kib_per_session")]),
    "idle5000": ("5,000 idle sessions", [("KiB per session", "kib_per_session"), ("KiB resident", "rss_open_kib")]),
    "recover_agent": ("agent killed and restarted", [("first session, ms", "ms")]),
    "recover_gateway": ("gateway killed and restarted", [("first session, ms", "ms")]),
}


def main():
    if not 2 <= len(sys.argv) <= 4:
        raise SystemExit(__doc__)
    samples = json.loads(Path(sys.argv[1]).read_text())["results"]
    system, base = (sys.argv[2:] + ["adit", "naive-quinn"][len(sys.argv) - 2 :])[:2]
    if missing := {system, base} - samples.keys():
        raise SystemExit(f"no samples of {', '.join(sorted(missing))}")

    def median(name, test, figure):
        values = [sample[figure] for sample in samples[name].get(test, []) if figure in sample]
        return statistics.median(values) if values else None

    def compared(test, figure):
        """The cells of base, system and their ratio."""
        theirs, ours = median(base, test, figure), median(system, test, figure)
        ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
        return [shown(theirs), shown(ours), ratio]

    run = {test for name in (system, base) for test in samples[name]}
    bulk = [
        [label, *compared(test, "gbps"), *compared(test, "cpu_s_per_gb"), *compared(test, "fairness")[:2]]
        for test, label in BULK.items()
        if test in run
    ]
    figures = ["Gbit/s", "CPU s/GB"]
    columns = [cell for figure in figures for cell in (f"{figure} {base}", system, "ratio")]
    table(["test", *columns, f"fairness {base}", system], bulk)
    trips = [
        [label, name, *compared(test, figure)]
        for test, (label, rows) in TRIPS.items()
        if test in run
        for name, figure in rows
    ]
    table(["test", "figure", base, system, "ratio"], trips)
    shares = [sample["foreign_share"] for tests in samples.values() for of in tests.values() for sample in of if "foreign_share" in sample]
    if shares:
        print(f"\nOthers used {min(shares):.0%} to {max(shares):.0%} of the machine meanwhile.")


def table(head, rows):
    if rows:
        print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))


def shown(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    main()
