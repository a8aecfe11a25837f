#!/usr/bin/env python3
"""Writes replica-seal.jsonl: sealed replica links, computed apart from adit's code.

BLAKE3 (one chunk) and AES-256-GCM are written out below after their specifications, so that nothing but Python is
needed, and are checked against published values first.

    python3 replica-seal.py > replica-seal.jsonl
"""

import json

# BLAKE3, inputs of at most one chunk.

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, ROOT = 1, 2, 8
KEYED_HASH, DERIVE_KEY_CONTEXT, DERIVE_KEY_MATERIAL = 16, 32, 64


def rotated(word, bits):
    return (word >> bits | word << (32 - bits)) & 0xFFFFFFFF


def mix(state, a, b, c, d, x, y):
    for word, (first, second) in ((x, (16, 12)), (y, (8, 7))):
        state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
        state[d] = rotated(state[d] ^ state[a], first)
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = rotated(state[b] ^ state[c], second)


def compress(chaining, block, flags):
    words = [int.from_bytes(block.ljust(64, b"\0")[i : i + 4], "little") for i in range(0, 64, 4)]
    state = chaining + IV[:4] + [0, 0, len(block), flags]
    for _ in range(7):
        for i in range(4):
            mix(state, i, i + 4, i + 8, i + 12, words[2 * i], words[2 * i + 1])
        for i in range(4):
            mix(state, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, words[2 * i + 8], words[2 * i + 9])
        words = [words[i] for i in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)]


def blake3(data, chaining=IV, flags=0):
    assert len(data) <= 1024
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for nth, block in enumerate(blocks):
        position = (CHUNK_START if nth == 0 else 0) | (CHUNK_END | ROOT if nth == len(blocks) - 1 else 0)
        chaining = compress(chaining, block, flags | position)
    return b"".join(word.to_bytes(4, "little") for word in chaining)


def words_of(key):
    return [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]


def keyed_hash(key, data):
    return blake3(data, words_of(key), KEYED_HASH)


def derive_key(context, material):
    key = blake3(context.encode(), flags=DERIVE_KEY_CONTEXT)
    return blake3(material, words_of(key), DERIVE_KEY_MATERIAL)


# AES-256 (FIPS 197) and GCM (NIST SP 800-38D) with nonces of 12 bytes.


def doubled(byte):
    return (byte << 1 ^ (0x11B if byte & 0x80 else 0)) & 0xFF


def product(a, b):
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a, b = doubled(a), b >> 1
    return total


def substitution():
    table = []
    for byte in range(256):
        inverse = next((x for x in range(256) if product(byte, x) == 1), 0)
        spread = inverse | inverse << 8
        table.append((inverse ^ spread >> 7 ^ spread >> 6 ^ spread >> 5 ^ spread >> 4) & 0xFF ^ 0x63)
    return table


SBOX = substitution()


def round_keys(key):
    words, constant = [list(key[i : i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = doubled(constant)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[-8], word)])
    return [sum(words[i : i + 4], []) for i in range(0, 60, 4)]


def aes(keys, block):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for nth, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if nth < 14:
            mixed = []
            for i in range(0, 16, 4):
                column = state[i : i + 4]
                for j in range(4):
                    a, b, c, d = column[j:] + column[:j]
                    mixed.append(doubled(a) ^ doubled(b) ^ b ^ c ^ d)
            state = mixed
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


def gcm_product(x, y):
    total = 0
    for i in range(127, -1, -1):
        total ^= y if x >> i & 1 else 0
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return total


def gcm_seal(key, nonce, aad, plaintext):
    keys = round_keys(key)
    subkey = int.from_bytes(aes(keys, bytes(16)), "big")
    stream = b"".join(
        aes(keys, nonce + counter.to_bytes(4, "big")) for counter in range(1, 2 + (len(plaintext) + 15) // 16)
    )
    sealed = bytes(a ^ b for a, b in zip(plaintext, stream[16:]))
    padded = lambda data: data + bytes(-len(data) % 16)
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    hashed, total = padded(aad) + padded(sealed) + lengths, 0
    for i in range(0, len(hashed), 16):
        total = gcm_product(total ^ int.from_bytes(hashed[i : i + 16], "big"), subkey)
    return sealed + bytes(a ^ b for a, b in zip(total.to_bytes(16, "big"), stream))


# The sealed link, after docs/protocol-peer.md.

CONFIRMATION, DATA, END = 1, 2, 3
REKEY_AFTER, RECORD_MAX = 1 << 24, 1 << 14


def traffic_secret(link, direction):
    transcript = (
        b"apache-iggy replica-auth v1"
        + blake3(link["cluster_name"].encode())[:16]
        + bytes([link["dialer_id"], link["acceptor_id"]])
        + bytes.fromhex(link["nonce_d"])
        + bytes.fromhex(link["nonce_a"])
        + bytes([link["mode"]])
        + bytes.fromhex(link["exporter"])
        + bytes([direction])
    )
    assert len(transcript) == 143
    seal_keys = b"".join(
        derive_key("adit replica-seal v1 psk->seal-key", bytes.fromhex(link[field]))
        for field in ("dialer_psk_hex", "acceptor_psk_hex")
    )
    return derive_key("adit replica-seal v1 handshake->traffic-secret", seal_keys + transcript)


def records(secret, number, parts):
    """Seals parts, each a type and a payload; `secret` is that of record `number`."""
    wire, first = b"", number
    for kind, payload in parts:
        if number % REKEY_AFTER == 0 and number != first:
            secret = derive_key("adit replica-seal v1 traffic-secret->next", secret)
        header = len(payload).to_bytes(2, "little") + bytes([kind, 0])
        nonce = bytes(4) + number.to_bytes(8, "little")
        wire += header + gcm_seal(secret, nonce, header, payload)
        number += 1
    return wire


def link(name, note, dialer_psk, acceptor_psk, profile="B", mode=0, exporter=bytes(32)):
    line = {
        "id": name,
        "kind": "link",
        "note": note,
        "profile": profile,
        "dialer_psk_hex": dialer_psk.hex(),
        "acceptor_psk_hex": acceptor_psk.hex(),
        "cluster_name": "iggy-cluster",
        "dialer_id": 1,
        "acceptor_id": 3,
        "nonce_d": blake3(b"dialer " + name.encode()).hex(),
        "nonce_a": blake3(b"acceptor " + name.encode()).hex(),
        "mode": mode,
        "exporter": exporter.hex(),
    }
    for direction, field, words in ((1, "d2a", b"from the dialer"), (2, "a2d", b"from the acceptor")):
        secret = traffic_secret(line, direction)
        parts = [(CONFIRMATION, b""), (DATA, words), (END, b"")]
        line["secret_" + field] = secret.hex()
        line["data_" + field] = words.hex()
        line["wire_" + field] = records(secret, 0, parts).hex()
    return line


def sequence(name, note, number, payloads):
    secret = blake3(b"secret " + name.encode())
    parts = [(DATA, payload) for payload in payloads]
    return {
        "id": name,
        "kind": "records",
        "note": note,
        "secret": secret.hex(),
        "number": number,
        "payloads": [payload.hex() for payload in payloads],
        "wire": records(secret, number, parts).hex(),
    }


def check():
    """Published values: the BLAKE3 test vectors, and test case 16 of the GCM specification."""
    sample = bytes(i % 251 for i in range(1024))
    assert blake3(b"").hex().startswith("af1349b9f5f9a1a6a0404dea36dcc949")
    assert blake3(sample).hex().startswith("42214739f095a406f3fc83deb889744a")
    key = b"whats the Elvish word for friend"
    assert keyed_hash(key, b"").hex().startswith("92b2b75604ed3c761f9d6f62392c8a92")
    context = "BLAKE3 2019-12-27 16:29:52 test vectors context"
    assert derive_key(context, b"").hex().startswith("2cc39783c223154fea8dfb7c1b1660f2")
    sealed = gcm_seal(
        bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2),
        bytes.fromhex("cafebabefacedbaddecaf888"),
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
    )
    assert sealed.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


def main():
    check()
    one, two = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba98765432100"
    lines = [
        link("link-000", "both ends sign with one key", one, one),
        link("link-001", "the dialer's key is changed already", two, one),
        link("link-002", "the acceptor's key is changed already", one, two),
        link("link-003", "the MACs are of profile A, the keys are not", one, one, profile="A"),
        link("link-004", "inside TLS", one, one, mode=1, exporter=bytes(range(32))),
        sequence("records-000", "the first records of a stream", 1, [b"a", bytes(16), bytes(range(100))]),
        sequence("records-001", "a full record", 7, [b"x" * RECORD_MAX]),
        sequence("records-002", "across a change of keys", REKEY_AFTER - 1, [b"last", b"first", b"second"]),
        sequence("records-003", "across the 256th change", (REKEY_AFTER << 8) - 1, [b"last", b"first"]),
        sequence("records-004", "all bytes of a number", 0x0000_0102_0304_0506, [b"number"]),
    ]
    for line in lines:
        print(json.dumps(line, separators=(",", ":")))


main()
