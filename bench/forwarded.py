#!/usr/bin/env python3
"""What a session costs that one gateway hands to another, beside one that the gateway of the agent has itself: two
gateways that are peers and one agent on loopback, both ways in turns, in one run.

  LOAD=<the yardstick's load> bench/forwarded.py ADIT [ROUNDS]
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from pair import AGENT, GATEWAY, environment, free_port, made, until

PEERS = """[peers]
node = {node}
listen = "127.0.0.1:{peers}"
cert = "{dir}/node-{node}/node-cert.pem"
key = "{dir}/node-{node}/node-key.pem"
ca = "{dir}/node-{node}/peer-ca-cert.pem"
cluster_key_file = "{dir}/cluster.key"
"""
SECONDS = 3
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def cluster(adit, driver, target):
    """Gives the ports of the ways in, the forwarded and the direct one, and the processes: first gateway, second, agent."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:

        def run(*words, text=None):
            ran = subprocess.run([adit, *words], input=text, text=True, check=True, capture_output=True)
            return ran.stdout

        run("peers", "init", f"{folder}/ca")
        run("peers", "genkey", "--out", f"{folder}/cluster.key")
        names = ("tunnel", "enroll", "ingress", "peers")
        ports = {node: {name: free_port() for name in names} for node in (1, 2)}
        entries = {}
        for node, of in ports.items():
            where = ("--address", f"127.0.0.1:{of['peers']}", "--out", f"{folder}/node-{node}")
            entries[node] = run("peers", "issue", "--ca", f"{folder}/ca", "--node", str(node), *where)
        files = {}
        for node, of in ports.items():
            files[node] = pathlib.Path(folder, f"gateway-{node}.toml")
            text = GATEWAY.replace("{dir}/gateway", "{dir}/gateway-{node}") + PEERS
            text = text.format(dir=folder, node=node, target=target, **of)
            files[node].write_text(text + entries[3 - node])

        def start(file, *words):
            command = [adit, "--config", file, *words, "run", "--driver", driver]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        processes = [start(files[node], "gateway") for node in (1, 2)]
        token = until(lambda: made([adit, "--config", files[2], "token", "create", "--name", "bench"]))
        agent = pathlib.Path(folder, "agent.toml")
        agent.write_text(AGENT.format(dir=folder))
        run("--config", agent, "agent", "up", "--enrollment-string", "-", text=token)
        processes.append(start(agent, "agent"))

        def is_known():
            view = made([adit, "--config", files[1], "route", "explain", f"127.0.0.1:{target}", "--json"])
            return view and json.loads(view).get("peers")

        until(is_known)
        yield ports[1]["ingress"], ports[2]["ingress"], processes


def cpu(process):
    """Seconds of user and system so far."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(load, port, target, direction, processes):
    """Gigabits per second, and CPU seconds per gigabyte: of all processes of the tunnel, and of the busiest one."""
    way = ["--connect", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{target}", "--dir", direction]
    command = [load, "throughput", *way, "--secs", str(SECONDS), "--warmup", "0"]
    before = [*map(cpu, processes)]
    ran = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    gigabytes = ran["bytes_total"] / 1e9
    costs = [(cpu(process) - former) / gigabytes for process, former in zip(processes, before)]
    return ran["gbps"], sum(costs), max(costs)


def main(adit, rounds=5):
    load = environment("LOAD", "the yardstick's load tool")
    target = free_port()
    server = subprocess.Popen([load, "target-server", "--listen", f"127.0.0.1:{target}"], stdout=subprocess.DEVNULL)
    values = ("Gbit/s", "CPU s/GB of all", "of the busiest process")
    heading = " | ".join(f"{value}: direct | forwarded | ratio" for value in values)
    print(f"| driver | direction | {heading} |\n{'|---' * 11}|")
    try:
        for driver in ("tokio", "mio"):
            with cluster(adit, driver, target) as (forwarded, direct, processes):
                for direction in ("down", "up"):
                    turns = []
                    for _ in range(int(rounds)):
                        turns.append([measure(load, port, target, direction, processes) for port in (direct, forwarded)])
                    # By value, each a list of both ways turn by turn.
                    values = zip(*([*zip(*turn)] for turn in turns))
                    row = [f"{n:.2f}" for pairs in values for n in medians(pairs)]
                    print(f"| {driver} | {direction} | {' | '.join(row)} |", flush=True)
    finally:
        server.kill()
        server.wait()


def medians(pairs):
    """Of the direct way, the forwarded one, and of the ratios of each turn."""
    return [*map(statistics.median, zip(*pairs)), statistics.median(other / one for one, other in pairs)]


main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else sys.exit(__doc__)
