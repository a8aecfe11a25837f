#!/usr/bin/env python3
"""What an agent takes at rest, and for each of 1,000 idle sessions, in KiB of /proc/PID/status.

  bench/memory.py ADIT [AGENT]...     ADIT is the gateway's binary and an agent's with either driver; further ones are
                                      builds of the agent alone, which have the driver mio
"""

import resource
import socket
import sys
import threading
import time

from pair import pair

SESSIONS = 1_000


def memory(process):
    with open(f"/proc/{process.pid}/status") as status:
        lines = [line.split() for line in status]
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[0] in ("VmRSS:", "RssAnon:")}


def target():
    """Says one byte to whoever comes, and keeps the connection."""
    listener, kept = socket.create_server(("127.0.0.1", 0), backlog=SESSIONS), []

    def serve():
        while True:
            kept.append(listener.accept()[0])
            kept[-1].sendall(b"x")

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def session(port):
    user = socket.create_connection(("127.0.0.1", port), timeout=10)
    assert user.recv(1) == b"x", "the session was not opened"
    return user


def main(adit, agents):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16_384), most))
    port = target()
    print("| agent | at rest | its own | per idle session |\n|---|---|---|---|")
    for binary, driver in [(adit, "tokio"), (adit, "mio"), *((agent, "mio") for agent in agents)]:
        with pair(adit, binary, driver, port) as (ingress, _, agent):
            time.sleep(3)
            rest = memory(agent)
            users = [session(ingress) for _ in range(SESSIONS)]
            time.sleep(2)
            more = memory(agent)["VmRSS"] - rest["VmRSS"]
            print(f"| {binary} {driver} | {rest['VmRSS']:,} | {rest['RssAnon']:,} | {more / len(users):.2f} |", flush=True)
            for user in users:
                user.close()


main(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else sys.exit(__doc__)
