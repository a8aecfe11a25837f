//! Numbers, windows, waits and breakers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adit_proto_core::{
    limits::RPC_ATTEMPTS_MAX,
    peer::{
        breaker::{Breaker, BreakerSettings, BreakerState, HalfOpen},
        ledger::Outbound,
        retry::wait_max,
        window::{ReplayError, ReplayWindow},
    },
};
use serde_json::Value;

use crate::{
    equal, expect_fields,
    fields::{Failure, number, numbers, small, texts},
};

pub(crate) fn window(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["window", "peers", "seqs", "results"])?;
    let width = number(line, "window")?;
    let (peers, seqs) = (numbers(line, "peers")?, numbers(line, "seqs")?);
    equal("number of peers", &peers.len(), &seqs.len())?;
    let mut windows: BTreeMap<u64, ReplayWindow> = BTreeMap::new();
    let verdicts = peers.iter().zip(seqs).map(|(peer, seq)| {
        let fresh = || ReplayWindow::new(width);
        match windows.entry(*peer).or_insert_with(fresh).accept(seq) {
            Ok(()) => "accept",
            Err(ReplayError::Reserved) => "reserved",
            Err(ReplayError::Stale { .. }) => "stale",
            Err(ReplayError::Replay { .. }) => "replay",
            Err(_) => "another error",
        }
    });
    let got: Vec<Option<&str>> = verdicts.map(Some).collect();
    equal("results", &got, &texts(line, "results")?)
}

pub(crate) fn sender(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["boot_epoch", "first"])?;
    let boot_epoch = match &line["boot_epoch"] {
        Value::Null => 0,
        _ => number(line, "boot_epoch")?,
    };
    let expected = match &line["first"] {
        Value::Array(_) => numbers(line, "first")?,
        _ => vec![number(line, "first")?],
    };
    let outbound = Outbound::new(boot_epoch);
    let got: Result<Vec<u64>, _> = expected.iter().map(|_| outbound.take()).collect();
    equal("first numbers", &got, &Ok(expected))
}

pub(crate) fn backoff(line: &Value) -> Result<(), Failure> {
    expect_fields(line, &["max_attempts", "delay_ms_for_retry"])?;
    equal("attempts", &RPC_ATTEMPTS_MAX, &small(line, "max_attempts")?)?;
    let expected = numbers(line, "delay_ms_for_retry")?;
    let delays = (1..).map(|retry| wait_max(retry).as_millis());
    let got: Vec<u128> = delays.take(expected.len()).collect();
    let expected: Vec<u128> = expected.into_iter().map(u128::from).collect();
    equal("longest waits", &got, &expected)
}

pub(crate) fn breaker(line: &Value) -> Result<(), Failure> {
    let known = ["threshold", "cooldown_ms", "ops", "check_results", "states"];
    expect_fields(line, &known)?;
    #[expect(clippy::disallowed_methods, reason = "the base of virtual time")]
    let mut now = Instant::now();
    let settings = BreakerSettings {
        threshold: small(line, "threshold")?,
        cooldown: Duration::from_millis(number(line, "cooldown_ms")?),
        half_open: HalfOpen::EveryCheck,
    };
    let mut breaker = Breaker::new(now, settings);
    let (mut checks, mut states) = (Vec::new(), Vec::new());
    for op in texts(line, "ops")? {
        let mut checked = None;
        match op.ok_or("no op")? {
            "check" => {
                checked = Some(match breaker.check(now) {
                    Ok(_) => "pass",
                    Err(_) => "open",
                });
            }
            "ok" => breaker.succeeded(now),
            "fail" => breaker.failed(now),
            other => {
                let ms = other.strip_prefix("wait").and_then(|ms| ms.parse().ok());
                let ms: u64 = ms.ok_or_else(|| format!("unknown op {other}"))?;
                now += Duration::from_millis(ms);
            }
        }
        checks.push(checked);
        states.push(Some(match breaker.state() {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }));
    }
    equal("check results", &checks, &texts(line, "check_results")?)?;
    equal("states", &states, &texts(line, "states")?)
}
