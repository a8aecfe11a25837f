#!/usr/bin/env python3
"""Counts the instructions that a session and a MiB cost, in the core alone and through each driver.

    bench/instructions.py [--check] [--only core --only tokio]

Needs valgrind. What is counted is all of the process in user space: gateway and agent, and in the drivers' rows also the
few instructions of the user and the target. Each figure is the difference of two runs, one of which does twice as much,
so that the start and the handshake do not count. `--check` compares with the table in docs/performance.md.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs/performance.md"
# The row's name in the table -> package, program, and what the program is told first.
ROWS = {
    "core": ("adit-proto-core", "instructions_core"),
    "tokio": ("adit-conformance", "instructions", "tokio"),
    "mio": ("adit-conformance", "instructions", "mio"),
    "tokio, journal": ("adit-conformance", "instructions", "tokio-journal"),
    "mio, journal": ("adit-conformance", "instructions", "mio-journal"),
}
# The column's name in the table -> how many of them the shorter run does: so many that what differs from start to start
# does not show.
COLUMNS = {"sessions": 1000, "mib": 16}
# Share by which a figure may differ from the table's; docs/performance.md says how far runs differ from each other.
TOLERANCE = 0.05
DRIVERS_TOLERANCE = 0.08


def build():
    """Always all of them and together, since a package built alone may have other features."""
    argv = ["cargo", "build", "--release", "--locked"]
    for package, program, *_ in ROWS.values():
        argv += ["--package", package, "--example", program]
    subprocess.run(argv, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    examples = target / "release/examples"
    return {name: [examples / program, *first] for name, (_, program, *first) in ROWS.items()}


def instructions(program, what, count):
    """All instructions of one run."""
    argv = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *program, what, str(count)]
    run = subprocess.run(argv, capture_output=True, text=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"{program[0]} {what} {count} failed:\n{run.stderr}")
    return number(found[1])


def number(text):
    return int(text.replace(",", ""))


def kept():
    """The figures in the table: (row, column) -> instructions."""
    found = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ROWS and len(cells) == 1 + len(COLUMNS):
            found |= {(cells[0], column): number(cell) for column, cell in zip(COLUMNS, cells[1:])}
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true", help="fail where a figure is not that of the table")
    ap.add_argument("--only", action="append", help="a row (default: all)")
    a = ap.parse_args()
    rows = a.only or list(ROWS)
    if unknown := [row for row in rows if row not in ROWS]:
        raise SystemExit(f"unknown: {unknown}")

    programs, table, off = build(), kept(), []
    print("| instructions | session | MiB |\n|---|---|---|", flush=True)
    for row in rows:
        figures = []
        for column, count in COLUMNS.items():
            shorter, longer = (instructions(programs[row], column, n) for n in (count, 2 * count))
            figure = round((longer - shorter) / count)
            figures.append(f"{figure:,}")
            want = table.get((row, column))
            if want is None:
                off.append(f"{row}, {column}: not in the table")
            elif abs(figure / want - 1) > (TOLERANCE if row == "core" else DRIVERS_TOLERANCE):
                off.append(f"{row}, {column}: {figure:,} is {figure / want - 1:+.1%} of the table's {want:,}")
        print(f"| {row} | {' | '.join(figures)} |", flush=True)
    if a.check and off:
        raise SystemExit("\n".join(off))


if __name__ == "__main__":
    main()
