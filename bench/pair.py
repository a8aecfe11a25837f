"""A gateway and an agent of one driver on loopback, in front of a target, for what is measured on single processes."""

import contextlib
import os
import pathlib
import socket
import subprocess
import tempfile
import time

GATEWAY = """state_dir = "{dir}/gateway"
[tunnel]
listen = "127.0.0.1:{tunnel}"
names = ["127.0.0.1"]
[enroll]
listen = "127.0.0.1:{enroll}"
[[forward]]
name = "bench"
listen = "127.0.0.1:{ingress}"
target = "127.0.0.1:{target}"
[log]
level = "error"
"""
AGENT = """state_dir = "{dir}/agent"
[advertise]
subnets = ["127.0.0.1/32"]
[log]
level = "error"
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def pair(adit, agent, driver, target):
    """Gives the port of the way in, and both processes. `agent` may be another binary than the gateway's."""
    ports = {name: free_port() for name in ("tunnel", "enroll", "ingress")}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        files = {}
        for role, text in (("gateway", GATEWAY), ("agent", AGENT)):
            files[role] = pathlib.Path(folder, role + ".toml")
            files[role].write_text(text.format(dir=folder, target=target, **ports))

        def start(binary, role):
            command = [binary, "--config", files[role], role, "run", "--driver", driver]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        gateway = start(adit, "gateway")
        token = until(lambda: made([adit, "--config", files["gateway"], "token", "create", "--name", "bench"]))
        up = [agent, "--config", files["agent"], "agent", "up", "--enrollment-string", "-"]
        subprocess.run(up, input=token, text=True, check=True, stdout=subprocess.DEVNULL)
        serving = start(agent, "agent")
        until(lambda: made([agent, "--config", files["agent"], "health", "--role", "agent"]))
        yield ports["ingress"], gateway, serving


def made(command):
    ran = subprocess.run(command, capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else None


def until(ask, limit=20):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise SystemExit("adit does not come up")


def environment(name, what):
    if value := os.environ.get(name):
        return value
    raise SystemExit(f"{name} must name {what}")
