#!/usr/bin/env python3
"""Makes peer-rpc-extensions.jsonl: keys, envelopes and refusals of docs/protocol-peer.md, section "Peer RPC".

Written after the text of that section with nothing but Python's own hashlib and hmac, so that the vectors share no code
with adit. Run it in its folder; the output is the same each time.
"""

import hashlib
import hmac
import json
import struct

OUT = "peer-rpc-extensions.jsonl"


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(ikm, salt, info):
    """RFC 5869, one block."""
    return mac(mac(salt, ikm), info + b"\x01")


def derive(secret, exporter, key_id, direction, sender, receiver):
    info = bytes([key_id, direction]) + struct.pack("<QQ", sender, receiver)
    return hkdf(secret, exporter, info)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(kind, epoch, payload):
    return struct.pack("<BBIIQ", 3, kind, len(payload), crc32c(payload), epoch) + payload


def envelope(key, key_id, sender, receiver, seq, inner, answered):
    head = struct.pack("<BBQQQI", 2, key_id, sender, receiver, seq, len(inner))
    tag = mac(key, head + inner + answered)
    return head + inner + tag, tag


def bytes_of(seed, count):
    out = b""
    while len(out) < count:
        out += hashlib.sha256(seed + struct.pack("<I", len(out))).digest()
    return out[:count]


def call(n):
    """A request and its answer on one connection."""
    seed = b"adit peer-rpc extension %d" % n
    secret, exporter = bytes_of(seed + b" secret", 32), bytes_of(seed + b" exporter", 32)
    key_id, client, server = (7 * n) % 256, [1, 2**63, 2**64 - 2, 300][n % 4], n + 5
    receiver = 0 if n % 5 == 4 else server
    ask, answer = ((7, 8) if n % 5 == 4 else (9, 10))
    ask_seq, answer_seq = (3 << 44) + n, 2**64 - 1 - n
    request_key = derive(secret, exporter, key_id, 0, client, receiver)
    response_key = derive(secret, exporter, key_id, 1, server, client)
    ask_inner = frame(ask, 0, bytes_of(seed, 3 * n))
    answer_inner = frame(answer, n, bytes_of(seed + b"!", n))
    request, tag = envelope(request_key, key_id, client, receiver, ask_seq, ask_inner, b"")
    response, _ = envelope(response_key, key_id, server, client, answer_seq, answer_inner, tag)
    unread, _ = envelope(response_key, key_id, server, client, answer_seq, answer_inner, bytes(32))
    return {
        "kind": "call", "secret": secret.hex(), "exporter": exporter.hex(), "key_id": key_id,
        "client": client, "server": server, "receiver": receiver,
        "request_key": request_key.hex(), "response_key": response_key.hex(),
        "request_seq": ask_seq, "request_inner": ask_inner.hex(), "request": request.hex(),
        "response_seq": answer_seq, "response_inner": answer_inner.hex(),
        "response": response.hex(), "response_to_unread": unread.hex(),
    }


def refusal(reason, code, value):
    payload = struct.pack("<BQ", code, value)
    return {
        "kind": "refusal", "reason": reason, "value": value, "payload": payload.hex(),
        "frame": frame(255, 0, payload).hex(),
    }


def window_reset(high, seq):
    return {
        "kind": "window_reset", "high": high, "seq": seq,
        "request_frame": frame(253, 0, struct.pack("<Q", high)).hex(),
        "answer_frame": frame(254, 0, struct.pack("<Q", seq)).hex(),
    }


def capabilities():
    def active(hello, ack):
        both = hello & ack & 7
        return both if both & 3 == 3 else both & 3

    numbers = [0, 1, 2, 3, 4, 5, 6, 7, 8, 2**64 - 1]
    return [
        {"kind": "capabilities", "hello": a, "ack": b, "active": active(a, b)}
        for a in numbers for b in numbers
    ]


def main():
    lines = [call(n) for n in range(10)]
    lines += [
        refusal("number", 1, 0), refusal("number", 1, 2**64 - 1), refusal("identity", 2, 0),
        refusal("overload", 3, 100), refusal("overload", 3, 2**32),
    ]
    lines += [window_reset(h, s) for h, s in [(1, 2), (2**64 - 1, 7), (5 << 44, (1 << 44) + 1)]]
    lines += capabilities()
    with open(OUT, "w", encoding="ascii") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")


main()
