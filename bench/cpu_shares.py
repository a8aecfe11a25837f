#!/usr/bin/env python3
"""Where the time of both processes goes with each driver: shares of samples of `perf record`, grouped by function.

  LOAD=<the yardstick's load> bench/cpu_shares.py ADIT
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from pair import environment, free_port, pair

LOADS = {
    "1 stream down": ["throughput", "--dir", "down", "--streams", "1"],
    "100 streams down": ["throughput", "--dir", "down", "--streams", "100"],
    "64 bytes, 1 session": ["latency", "--conc", "1"],
    "new sessions, 1 client": ["connrate", "--conc", "1"],
}
KERNEL = {
    "kernel: copies": r"_copy_(to|from)_iter|copy_user",
    "waking, switching": r"wak|sched|switch|futex|epoll|idle|enqueue|dequeue|pick_next|update_curr|select_task|ttwu|psi_",
}
OWN = {
    "protection": r"aes|gcm|ghash|EVP|aead|rustls|ctr32",
    "`memmove`": r"mem(move|cpy|set)",
    "engine": r"quinn_proto",
}
GROUPS = [*KERNEL, "other kernel", *OWN, "the rest"]


def group(is_kernel, symbol):
    named = KERNEL if is_kernel else OWN
    found = (name for name, words in named.items() if re.search(words, symbol, re.IGNORECASE))
    return next(found, "other kernel" if is_kernel else "the rest")


def record(folder, role, process):
    data = pathlib.Path(folder, role)
    command = ["perf", "record", "-q", "-F", "997", "-o", data, "-p", str(process.pid), "--", "sleep", "2"]
    return data, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shares(data):
    report = ["perf", "report", "-i", data, "--stdio", "-q", "--sort", "symbol"]
    text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    count = collections.Counter()
    for share, kind, symbol in re.findall(r"^\s*([\d.]+)%\s+\[(.)\]\s+(.*)$", text, re.MULTILINE):
        count[group(kind == "k", symbol)] += float(share)
    return count


def main(adit):
    load = environment("LOAD", "the yardstick's load tool")
    port = free_port()
    target = subprocess.Popen([load, "target-server", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    print(f"| driver | load | process | {' | '.join(GROUPS)} |\n{'|---' * (len(GROUPS) + 3)}|")
    try:
        for driver in ("tokio", "mio"):
            with pair(adit, adit, driver, port) as (ingress, gateway, agent), tempfile.TemporaryDirectory() as folder:
                for name, command in LOADS.items():
                    command = [load, command[0], "--connect", f"127.0.0.1:{ingress}", *command[1:], "--secs", "3"]
                    loaded = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                    time.sleep(0.6)
                    roles = {"gateway": gateway, "agent": agent}
                    recorded = {role: record(folder, role, process) for role, process in roles.items()}
                    for role, (data, perf) in recorded.items():
                        perf.wait()
                        count = shares(data)
                        row = " | ".join(f"{count[name]:.0f}" for name in GROUPS)
                        print(f"| {driver} | {name} | {role} | {row} |", flush=True)
                    loaded.wait()
    finally:
        target.kill()
        target.wait()


main(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
