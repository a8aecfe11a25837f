#!/usr/bin/env python3
"""Makes peer-catalogue.jsonl: payloads of docs/protocol-peer.md, section "Catalogue".

Written after the text of that section with nothing but Python's own modules, so that the vectors share no code with adit.
Run it in its folder; the output is the same each time.
"""

import ipaddress
import json
import uuid

OUT = "peer-catalogue.jsonl"


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(raw):
    return number(len(raw)) + raw


def items(encoded):
    return number(len(encoded)) + b"".join(encoded)


def net(shown):
    parsed = ipaddress.ip_network(shown)
    return bytes([0 if parsed.version == 4 else 1]) + parsed.network_address.packed + bytes([parsed.prefixlen])


def holding(agents, subnets, domains):
    return (
        items([text(uuid.UUID(agent).bytes) for agent in agents])
        + items([net(subnet) for subnet in subnets])
        + items([text(domain.encode()) for domain in domains])
    )


def stamp(epoch, version):
    return number(epoch) + number(version)


def announcement(node, epoch, version, news, agents=(), subnets=(), domains=()):
    payload = number(node) + stamp(epoch, version)
    payload += number(["whole", "unchanged", "goodbye"].index(news))
    if news == "whole":
        payload += holding(agents, subnets, domains)
    return {
        "kind": "announcement", "node": node, "epoch": epoch, "version": version, "news": news,
        "agents": list(agents), "subnets": list(subnets), "domains": list(domains),
        "payload": payload.hex(),
    }


def received(held, highest):
    payload = (b"\x00" if held is None else b"\x01" + stamp(*held)) + stamp(*highest)
    return {"kind": "received", "held": held, "highest": list(highest), "payload": payload.hex()}


def refused(error, payload):
    return {"kind": "refused", "error": error, "payload": payload.hex()}


def main():
    agents = [str(uuid.UUID(int=n)) for n in (1, 2**64, 2**127 + 5)]
    subnets = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32"]
    domains = ["*.corp.local", "db.corp.local", "h\u00e9.x"]
    lines = [
        announcement(1, 1, 0, "whole"),
        announcement(2**64 - 1, 2**64 - 1, 2**64 - 1, "whole", agents, subnets, domains),
        announcement(300, 128, 127, "whole", agents[:1], subnets[1:2], domains[:1]),
        announcement(7, 3, 9, "whole", [str(uuid.UUID(int=n)) for n in range(200)]),
        announcement(7, 3, 9, "unchanged"), announcement(7, 3, 10, "goodbye"),
        received(None, (0, 0)), received((1, 128), (1, 128)), received((2**64 - 1, 0), (2**64 - 1, 2**63)),
    ]
    head = number(7) + stamp(3, 9)
    lines += [
        refused("malformed", b""), refused("malformed", head), refused("malformed", head + b"\x03"),
        refused("malformed", head + b"\x00\x01\x0f" + bytes(15) + b"\x00\x00"),
        refused("malformed", head + b"\x00\xff\xff\xff\xff\x0f"),
        refused("malformed", head + b"\x00\x00\x01\x00\x0a\x00\x00\x00\x21\x00"),
        refused("malformed", head + b"\x00\x00\x00\x01\x01*"),
        refused("trailing", head + b"\x01\x00"), refused("trailing", head + b"\x02" + bytes(9)),
    ]
    with open(OUT, "w", encoding="ascii") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")


main()
