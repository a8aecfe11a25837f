//! Builds, packs and unpacks the corpora.
//!
//! `corpus seed` writes what the vectors and a few generated scripts give to `corpus/<target>/`; `corpus unpack` adds the
//! committed archives to it; `corpus pack` makes the archives of what is there, smallest inputs first up to a bound;
//! `corpus hash` prints one line per target: name, inputs, hash.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use adit_fuzz::{TARGETS, archive};
use anyhow::{Context, Result, bail};
use serde_json::Value;

fn main() -> Result<()> {
    let verb = std::env::args().nth(1).unwrap_or_default();
    for (target, _) in TARGETS {
        match verb.as_str() {
            "seed" => store(target, seeds(target)?)?,
            "unpack" => {
                let packed = fs::read(archive_of(target))?;
                let inputs = archive::unpack(&packed).context("a damaged archive")?;
                store(target, inputs.into_iter().map(Into::into).collect())?;
            }
            "pack" => pack(target)?,
            "hash" => {}
            _ => bail!("say one of: seed, unpack, pack, hash"),
        }
        let inputs = load(target)?;
        let (count, hash) = (inputs.len(), archive::hash(inputs));
        writeln!(std::io::stdout(), "{target}\t{count}\t{hash}")?;
    }
    Ok(())
}

fn pack(target: &str) -> Result<()> {
    let mut inputs = load(target)?;
    inputs.sort_by_key(|input| (input.len(), archive::name(input)));
    let mut size = 0;
    inputs.retain(|input| {
        size += input.len() + 4;
        size <= ARCHIVE_LEN_MAX
    });
    fs::create_dir_all(root().join("corpora"))?;
    Ok(fs::write(archive_of(target), archive::pack(inputs))?)
}

fn load(target: &str) -> Result<Vec<Vec<u8>>> {
    let dir = root().join("corpus").join(target);
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let files = fs::read_dir(dir)?.map(|entry| Ok(fs::read(entry?.path())?));
    files.collect()
}

fn store(target: &str, inputs: Vec<Vec<u8>>) -> Result<()> {
    let dir = root().join("corpus").join(target);
    fs::create_dir_all(&dir)?;
    for input in inputs {
        fs::write(dir.join(archive::name(&input)), input)?;
    }
    Ok(())
}

fn archive_of(target: &str) -> PathBuf {
    root().join("corpora").join(target).with_extension("bin")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds(target: &str) -> Result<Vec<Vec<u8>>> {
    Ok(match target {
        "control" => vectors("hex", "control")?
            .into_iter()
            .flat_map(|frame| {
                let payload = frame.get(4..).unwrap_or_default().to_vec();
                [joined(&[0, 7], &frame), joined(&[0, 7], &payload)]
            })
            .collect(),
        "connect" => connect_seeds()?,
        "socks5" => SOCKS5.iter().map(|seed| seed.to_vec()).collect(),
        "certs" => cert_seeds()?,
        "replica_acceptor" => replica_seeds("d2a")?,
        "replica_dialer" => replica_seeds("a2d")?,
        "journal_file" => journal_file_seeds(),
        "hello" => peer_vectors(&["wire", "wire_prefix"], &[[1, 2, 7]])?,
        "envelope" => envelope_seeds()?,
        "forward" => forward_seeds()?,
        "frame" => peer_vectors(&["frame", "data"], &[[0], [1], [2]])?,
        // Scripts have no vectors; a spread of bytes lets the fuzzer begin with some of each step.
        _ => (0..32).map(script).collect(),
    })
}

fn connect_seeds() -> Result<Vec<Vec<u8>>> {
    let frames = vectors("hex", "connect")?;
    let payloads = frames
        .iter()
        .map(|frame| frame.get(4..).unwrap_or_default());
    let mut seeds: Vec<Vec<u8>> = payloads
        .flat_map(|payload| [joined(&[0], payload), joined(&[1], payload)])
        .collect();
    let texts = vectors("route", "")?.into_iter().map(|t| joined(&[3], &t));
    seeds.extend(texts);
    seeds.extend(vectors("target", "")?.into_iter().map(|t| joined(&[2], &t)));
    seeds.extend(["a.b:1", "[2001:db8::1]:22", "x.y.:80"].map(|t| joined(&[2], t.as_bytes())));
    seeds.push(joined(&[4], "é".repeat(600).as_bytes()));
    Ok(seeds)
}

/// Files with two chunks: whole, each byte of the first chunk changed, and cut; and the beginnings of files.
fn journal_file_seeds() -> Vec<Vec<u8>> {
    let chunks = [2, 1, 4, 2, 0];
    let changed = (0..96).map(|at| joined(&chunks, &[0, at, 0xa5]));
    let cut = (0..=255)
        .step_by(8)
        .map(|share| joined(&chunks, &[0xff, 0xff, share]));
    let others = [
        "",
        "adit journal",
        "adit journal 1 0.1.0 gateway mio 5\n",
        "adit journal 2 ",
    ];
    let others = others.map(|text| joined(&[0xff], text.as_bytes()));
    let whole = [chunks.to_vec(), vec![0]];
    whole
        .into_iter()
        .chain(changed)
        .chain(cut)
        .chain(others)
        .collect()
}

fn envelope_seeds() -> Result<Vec<Vec<u8>>> {
    let fields = ["envelope", "request", "response", "data"];
    let mut seeds = peer_vectors(&fields, &[[0, 7], [1, 7]])?;
    // Requests of the member: mode, capabilities, then sender, receiver, number, shift, length and frame of each.
    let frames = peer_vectors(&["frame", "request_frame"], &[[2, 1, 1]])?;
    seeds.extend(frames.iter().enumerate().map(|(i, frame)| {
        let (route, frame) = frame.split_at(3);
        let len = u8::try_from(frame.len()).unwrap_or(39).min(39);
        let agreed = u8::try_from(i % 8).unwrap_or(0);
        let head = [2, agreed, route[0], route[1], route[2], 0, len];
        joined(&head, frame)
    }));
    Ok(seeds)
}

/// Headers as they come, and good ones, and answers, with a byte of each field changed.
fn forward_seeds() -> Result<Vec<Vec<u8>>> {
    let mut seeds = hex_fields("peer-forward.jsonl", &["header"], &[[0, 7]])?;
    for mode in [1, 2] {
        seeds.push(joined(&[mode, 9, 0, 0], b"behind"));
        let fields = [0, 1, 2, 3, 4, 11, 19, 35, 51, 53, 55, 75, 100];
        seeds.extend(fields.map(|at| vec![mode, 9, 1, 0, at, 1]));
    }
    Ok(seeds)
}

/// The hex of some fields of the peer RPC's vectors, behind each of some heads.
fn peer_vectors<const N: usize>(fields: &[&str], heads: &[[u8; N]]) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for file in ["peer-rpc.jsonl", "peer-rpc-extensions.jsonl"] {
        found.extend(hex_fields(file, fields, heads)?);
    }
    Ok(found)
}

fn hex_fields<const N: usize>(
    file: &str,
    fields: &[&str],
    heads: &[[u8; N]],
) -> Result<Vec<Vec<u8>>> {
    let path = root().join("../proto-core/tests/vectors").join(file);
    let mut found = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let texts = fields.iter().filter_map(|field| line.get(field)?.as_str());
        for text in texts.filter(|text| text.len() <= SEED_HEX_MAX) {
            let bytes = unhex(text)?;
            found.extend(heads.iter().map(|head| joined(head, &bytes)));
        }
    }
    Ok(found)
}

fn cert_seeds() -> Result<Vec<Vec<u8>>> {
    let kinds = [
        (0, "agent.der"),
        (1, "agent-csr.pem"),
        (2, "agent.der"),
        (3, "gateway.der"),
        (4, "gateway-key.der"),
        (5, "ca.der"),
        (6, "agent.der"),
        (7, "agent-key.der"),
        (8, "ca.der"),
    ];
    let mut seeds = Vec::new();
    for (kind, file) in kinds {
        seeds.push(joined(
            &[kind],
            &fs::read(root().join("fixtures").join(file))?,
        ));
        seeds.extend((0..8).map(|n| vec![kind, 0xff, 0, n * 31, n]));
    }
    seeds.push(joined(
        &[9],
        b"eyJhbGciOiJFUzI1NiIsImN0eSI6IkVOUk9MTE1FTlQifQ.e30.AA",
    ));
    seeds.extend([10, 11].map(|kind| joined(&[kind], CLAIMS)));
    Ok(seeds)
}

/// What one end received in each recorded exchange, in the form of bytes that are taken as they are, and good exchanges
/// with some of their bytes changed.
fn replica_seeds(direction: &str) -> Result<Vec<Vec<u8>>> {
    let path = root().join("../proto-core/tests/vectors/replica-handshake.jsonl");
    let mut seeds: Vec<Vec<u8>> = (0..128).map(|flags| vec![flags, 40]).collect();
    for line in fs::read_to_string(path)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let frames = line.get("frames").and_then(Value::as_array);
        let mut stream = Vec::new();
        for frame in frames.into_iter().flatten() {
            let text = |name: &str| frame.get(name).and_then(Value::as_str);
            if text("dir") == Some(direction) {
                let hex = text("delivered").or_else(|| text("sent"));
                stream.extend(unhex(hex.unwrap_or_default())?);
            }
        }
        if !stream.is_empty() {
            seeds.push(joined(&[32, 40, 0xff], &stream));
        }
    }
    // Changes of each field that counts.
    for at in [32, 47, 48, 60, 61, 128, 160, 192, 256] {
        let [high, low] = u16::to_be_bytes(at);
        seeds.push(vec![8, 40, 0, 1, high, low, 1]);
    }
    Ok(seeds)
}

/// The values of one field of the vectors; hex is decoded. `kind` narrows frames to those of one kind of stream.
fn vectors(field: &str, kind: &str) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for file in ["agent-tunnel.jsonl", "agent-tunnel-routing.jsonl"] {
        let path = root().join("../proto-core/tests/vectors").join(file);
        for line in fs::read_to_string(path)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            let text = |name: &str| line.get(name).and_then(Value::as_str);
            let Some(value) = text(field) else { continue };
            let is_session = [text("type"), text("channel")]
                .iter()
                .flatten()
                .any(|name| name.to_lowercase().starts_with("connect"));
            match field {
                "hex" if is_session == (kind == "connect") => found.push(unhex(value)?),
                "hex" => {}
                _ => found.push(value.as_bytes().to_vec()),
            }
        }
    }
    Ok(found)
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let digits = digits.context("a vector that is not hex")?;
    let bytes = digits
        .chunks_exact(2)
        .map(|d| u8::try_from(d[0] << 4 | d[1]));
    Ok(bytes.collect::<Result<_, _>>()?)
}

fn joined(head: &[u8], rest: &[u8]) -> Vec<u8> {
    [head, rest].concat()
}

fn script(nth: u8) -> Vec<u8> {
    let mut bytes = vec![0; 8 + 8 * usize::from(nth)];
    blake3::Hasher::new()
        .update(&[nth])
        .finalize_xof()
        .fill(&mut bytes);
    joined(&[nth], &bytes)
}

/// Whole handshakes: flags, split, greeting, credentials, request, and bytes behind it.
const SOCKS5: [&[u8]; 8] = [
    b"\x00\x07\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x16rest",
    b"\x00\x07\x05\x02\x00\x02\x05\x01\x00\x03\x03a.b\x01\xbbrest",
    b"\x03\x09\x05\x02\x00\x02\x01\x01u\x02pw\x05\x01\x00\x03\x03a.b\x01\xbbrest",
    b"\x01\x09\x05\x01\x02\x01\x01u\x02pw\x05\x01\x00",
    b"\x00\x11\x05\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
    b"\x00\x00\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x16",
    b"\x00\x00GET / HTTP/1.1\r\n\r\n",
    b"\x01\x00\x04\x01\x00\x50\x0a\x00\x00\x01\x00",
];

/// What a good enrolment token says, at the time at which the fixtures are good.
const CLAIMS: &[u8] =
    br#"{"exp":1893459600,"nbf":1893456000,"jti":"7c4f5b1e-9d3e-4a52-8e0f-0a6b1d2c3e4f",
"jet_gw_url":"https://g","jet_agent_name":"a","type":"enrollment"}"#;

/// Longer vectors differ from shorter ones in nothing that a reader sees.
const SEED_HEX_MAX: usize = 1_000;

/// An archive stays small enough for the repository.
const ARCHIVE_LEN_MAX: usize = 300_000;
