#!/usr/bin/env python3
"""Makes peer-forward.jsonl: headers and answers of docs/protocol-peer.md, section "Forwarded sessions", on streams and,
of "Forwarded sessions over a replica link", in records.

Written after the text of that section with nothing but Python's own hashlib and hmac, so that the vectors share no code
with adit. Run it in its folder; the output is the same each time.
"""

import hashlib
import hmac
import json
import struct

OUT = "peer-forward.jsonl"

STATUSES = ["open", "refused", "no_route", "timed_out", "overload", "lost", "denied", "stopping"]

TARGETS = [
    "10.1.2.3:22", "[2001:db8::7]:443", "db.corp.local:5432", "x:1",
    ".".join(["a" * 63] * 4)[:255] + ":65535",
]

ORIGINS = ["", "alice", "alice at 192.0.2.7:50123", "b\u00fcro \u2713", "o" * 256]


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(ikm, salt, info):
    """RFC 5869, one block."""
    return mac(mac(salt, ikm), info + b"\x01")


def derive(secret, exporter, key_id, direction, sender, receiver):
    info = bytes([key_id, direction]) + struct.pack("<QQ", sender, receiver)
    return hkdf(secret, exporter, info)


def bytes_of(seed, count):
    out = b""
    while len(out) < count:
        out += hashlib.sha256(seed + struct.pack("<I", len(out))).digest()
    return out[:count]


def uuid_text(raw):
    digits = raw.hex()
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def header(key, version, key_id, hop, sender, receiver, session, agent, target, origin):
    head = struct.pack("<BBBQQ", version, key_id, hop, sender, receiver) + session + agent
    head += struct.pack("<HH", len(target), len(origin)) + target + origin
    tag = mac(key, head)
    return head + tag, tag


def answer(key, status, reason, asked):
    head = struct.pack("<BBH", 1, status, len(reason)) + reason
    return head + mac(key, head + asked)


def session(n):
    """A session that is asked for and answered."""
    seed = b"adit forward %d" % n
    secret, exporter = bytes_of(seed + b" secret", 32), bytes_of(seed + b" exporter", 32)
    key_id, sender, receiver = (11 * n) % 256, [1, 2**63, 2**64 - 1, 300][n % 4], n + 7
    name = bytes_of(seed + b" session", 16)
    agent = bytes(16) if n % 3 == 0 else bytes_of(seed + b" agent", 16)
    target, origin = TARGETS[n % len(TARGETS)], ORIGINS[(n // 2) % len(ORIGINS)]
    status, reason = n % len(STATUSES), "" if n % 8 == 0 else "r" * (n * 64) + "\u00e9"
    request_key = derive(secret, exporter, key_id, 0, sender, receiver)
    response_key = derive(secret, exporter, key_id, 1, receiver, sender)
    asked, tag = header(
        request_key, 1, key_id, 1, sender, receiver, name, agent,
        target.encode(), origin.encode(),
    )
    return {
        "kind": "session", "secret": secret.hex(), "exporter": exporter.hex(), "key_id": key_id,
        "from": sender, "to": receiver, "session": uuid_text(name),
        "agent": None if agent == bytes(16) else uuid_text(agent),
        "target": target, "origin": origin, "header": asked.hex(),
        "status": STATUSES[status], "reason": reason,
        "answer": answer(response_key, status, reason.encode(), tag).hex(),
    }


def refused(error, **change):
    """A header with one field that is not allowed, under a tag that verifies."""
    seed = b"adit forward refused"
    fields = {
        "version": 1, "key_id": 3, "hop": 1, "sender": 5, "receiver": 6,
        "session": bytes_of(seed, 16), "agent": bytes(16), "target": b"a.b:1", "origin": b"x",
    }
    fields.update(change)
    secret, exporter = bytes_of(seed + b" secret", 32), bytes_of(seed + b" exporter", 32)
    key = derive(secret, exporter, 3, 0, fields["sender"], fields["receiver"])
    asked, _ = header(key, **fields)
    return {
        "kind": "refused", "error": error, "secret": secret.hex(), "exporter": exporter.hex(),
        "key_id": 3, "from": 5, "to": 6, "header": asked.hex(),
    }


def plain(version, key_id, hop, sender, receiver, session, agent, target, origin):
    """A header without a tag."""
    head = struct.pack("<BBBQQ", version, key_id, hop, sender, receiver) + session + agent
    return head + struct.pack("<HH", len(target), len(origin)) + target + origin


def record(n):
    """A session that is asked for and answered on a sealed link."""
    seed = b"adit forward record %d" % n
    sender, receiver = (37 * n) % 255 + 1, (91 * n) % 254 + 2
    name = bytes_of(seed + b" session", 16)
    agent = bytes(16) if n % 3 == 0 else bytes_of(seed + b" agent", 16)
    target, origin = TARGETS[n % len(TARGETS)], ORIGINS[(n // 2) % len(ORIGINS)]
    status, reason = n % len(STATUSES), "" if n % 8 == 0 else "r" * (n * 64) + "\u00e9"
    text = reason.encode()
    return {
        "kind": "record", "from": sender, "to": receiver, "session": uuid_text(name),
        "agent": None if agent == bytes(16) else uuid_text(agent),
        "target": target, "origin": origin,
        "header": plain(
            1, 0, 1, sender, receiver, name, agent, target.encode(), origin.encode()
        ).hex(),
        "status": STATUSES[status], "reason": reason,
        "answer": (struct.pack("<BBH", 1, status, len(text)) + text).hex(),
    }


def refused_record(error, behind=b"", cut=0, **change):
    """A record with something that is not allowed."""
    fields = {
        "version": 1, "key_id": 0, "hop": 1, "sender": 5, "receiver": 6,
        "session": bytes_of(b"adit forward refused", 16), "agent": bytes(16),
        "target": b"a.b:1", "origin": b"x",
    }
    fields.update(change)
    header = plain(**fields)
    return {
        "kind": "refused_record", "error": error, "from": 5, "to": 6,
        "header": (header[: len(header) - cut] + behind).hex(),
    }


def main():
    lines = [session(n) for n in range(16)]
    lines += [
        refused("version", version=0), refused("version", version=2),
        refused("hop", hop=0), refused("hop", hop=2), refused("hop", hop=255),
        refused("target_len", target=b""), refused("target_len", target=b"a" * 260 + b":1"),
        refused("origin_len", origin=b"o" * 257),
        refused("mac", key_id=4), refused("from", sender=4), refused("to", receiver=5),
        refused("target", target=b"a.b"), refused("target", target=b"a.b:0"),
        refused("not_utf8", target=b"\xff:1"), refused("not_utf8", origin=b"\xff"),
    ]
    lines += [record(n) for n in range(12)]
    lines += [
        refused_record("version", version=2), refused_record("key_id", key_id=1),
        refused_record("hop", hop=2), refused_record("target_len", target=b""),
        refused_record("origin_len", origin=b"o" * 257),
        refused_record("from", sender=4), refused_record("to", receiver=5),
        refused_record("target", target=b"a.b:0"), refused_record("not_utf8", origin=b"\xff"),
        refused_record("behind", behind=b"x"), refused_record("truncated", cut=1),
        refused_record("truncated", cut=7),
    ]
    with open(OUT, "w", encoding="ascii") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")


main()
