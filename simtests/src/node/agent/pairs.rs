//! An agent's key pairs: on its disk, in its machine for renewals, and in what its connections show (design 8.6).

use std::sync::Arc;

use adit_proto_core::{
    agent::{
        renewal::{Renewal, RenewalStep, Validity},
        supervisor::{Credentials, DialId, KeptPairs, Swap},
    },
    link::tls::AgentTls,
    output::Renewed,
};

use super::{Agent, AgentConfig, Answer, Message};
use crate::{
    At,
    facts::Fact,
    node::{
        Ctx, Host,
        files::{DiskStep, Files},
        renewal::{LONG, RenewalPlan, renewed, request_text},
    },
};

/// What an agent that renews has beside the others.
#[derive(Debug)]
pub(super) struct Pairs {
    plan: RenewalPlan,
    pub(super) machine: Renewal,
    /// Number of the latest request; requests of all processes have numbers of their own.
    asked: u64,
    files: Files<Filed>,
}

/// What became durable.
#[derive(Clone, Copy, Debug)]
enum Filed {
    Stored,
    InPlace,
    Discarded,
}

impl Pairs {
    pub(super) fn open(ctx: &Ctx<'_>, host: &Host, plan: &RenewalPlan) -> Self {
        let has_next = pair_on(ctx, NEXT).is_some();
        let validity = validity(ctx, plan);
        Self {
            plan: plan.clone(),
            machine: Renewal::new(ctx.now(), validity, has_next, &host.env().seed),
            asked: u64::from(host.incarnation) * 1_000,
            files: Files::new(),
        }
    }

    pub(super) fn next_at(&self, ctx: &Ctx<'_>, host: &Host) -> Option<At> {
        let machine = self.machine.poll_timeout();
        let machine = machine.map(|at| ctx.since(at) + host.timer_slack);
        [machine, self.files.next_at()].into_iter().flatten().min()
    }
}

/// Tells which pairs are on the disk beside the current one.
pub(super) fn kept(ctx: &Ctx<'_>, config: &AgentConfig) -> KeptPairs {
    let has = |name| config.renewal.is_some() && pair_on(ctx, name).is_some();
    KeptPairs {
        next: has(NEXT),
        previous: has(PREVIOUS),
    }
}

/// The life of the current pair's certificate. What was renewed is not due in this run.
fn validity(ctx: &Ctx<'_>, plan: &RenewalPlan) -> Validity {
    match pair_on(ctx, CURRENT).unwrap_or(FIRST) {
        FIRST => plan.validity,
        _ => LONG,
    }
}

impl Agent {
    /// Tells whether one of two key pairs has to prove itself.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        self.supervisor.is_renewing()
    }

    /// What a connection shows; none where there is no such pair.
    pub(super) fn shown(&self, ctx: &Ctx<'_>, which: Credentials) -> Option<Arc<AgentTls>> {
        let first = || Some(Arc::clone(&self.config.tls));
        let Some(pairs) = &self.pairs else {
            return first();
        };
        let nth = match which {
            Credentials::Current => pair_on(ctx, CURRENT).unwrap_or(FIRST),
            Credentials::Next => pair_on(ctx, NEXT)?,
            Credentials::Previous => pair_on(ctx, PREVIOUS)?,
        };
        if nth == FIRST {
            return first();
        }
        let authority = &self.config.authority;
        let pair = authority.renewed(self.config.id.0, &pairs.plan.name, nth);
        Some(Arc::new(
            authority.agent_tls(&pair, self.config.tls.gateway_pin),
        ))
    }

    /// Fires the machine's timer and finishes what the disk has done.
    pub(super) fn expire_pairs(&mut self, ctx: &mut Ctx<'_>, host: &Host) {
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        let due = |at| ctx.since(at) + host.timer_slack <= ctx.at;
        if pairs.machine.poll_timeout().is_some_and(due) {
            pairs.machine.handle_timeout(ctx.now(), unix_s(host));
        }
        while let Some(filed) = self.pairs.as_mut().and_then(|pairs| pairs.files.run(ctx)) {
            self.filed(ctx, host, filed);
        }
    }

    pub(super) fn poll_renewal(&mut self) -> Option<RenewalStep> {
        self.pairs.as_mut()?.machine.poll_step()
    }

    pub(super) fn perform_renewal(&mut self, ctx: &mut Ctx<'_>, host: &Host, step: RenewalStep) {
        ctx.note(host.id, &Fact::Renewal(&step));
        let up = self.supervisor.connection();
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        match step {
            RenewalStep::Request => {
                pairs.asked += 1;
                let text = request_text(self.config.id, pairs.asked);
                let after = ctx.choices.time(At::ZERO, KEY_MAX);
                self.later(ctx.at + after, Answer::Requested(text));
            }
            RenewalStep::Ask { csr_pem } => match up {
                Some(dial) => self.push(ctx, host, Message::Renew(dial, csr_pem)),
                None => pairs.machine.handle_answer(ctx.now(), None),
            },
            RenewalStep::Store(issued) => self.store(ctx, &issued),
        }
    }

    /// Checks what the gateway issued: it may answer an earlier process's request.
    fn store(&mut self, ctx: &mut Ctx<'_>, issued: &Renewed) {
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        let authority = &self.config.authority;
        let wanted = authority.renewed(self.config.id.0, &pairs.plan.name, pairs.asked);
        if *issued == renewed(&wanted) {
            let steps = Files::<Filed>::replace(NEXT, format!("{}\n", pairs.asked).into());
            pairs.files.push(ctx, steps, Filed::Stored);
        } else {
            pairs.machine.handle_stored(ctx.now(), false);
        }
    }

    pub(super) fn adopt(&mut self, ctx: &mut Ctx<'_>) {
        let steps = in_place(ctx);
        self.file(ctx, steps, Filed::InPlace);
    }

    pub(super) fn discard(&mut self, ctx: &mut Ctx<'_>) {
        let steps = vec![DiskStep::Rename(NEXT, PREVIOUS), DiskStep::SyncNames];
        self.file(ctx, steps, Filed::Discarded);
    }

    pub(super) fn revert(&mut self, ctx: &mut Ctx<'_>) {
        let mut steps = vec![DiskStep::Rename(PREVIOUS, NEXT), DiskStep::SyncNames];
        steps.extend(in_place(ctx));
        self.file(ctx, steps, Filed::InPlace);
    }

    fn file(&mut self, ctx: &mut Ctx<'_>, steps: Vec<DiskStep>, filed: Filed) {
        if let Some(pairs) = &mut self.pairs {
            pairs.files.push(ctx, steps, filed);
        }
    }

    fn filed(&mut self, ctx: &mut Ctx<'_>, host: &Host, filed: Filed) {
        let what = match filed {
            Filed::Stored => "the next pair",
            Filed::InPlace => "that another pair is the current one",
            Filed::Discarded => "that there is no next pair",
        };
        ctx.note(host.id, &Fact::Filed(what));
        let now = ctx.now();
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        match filed {
            Filed::Stored => {
                pairs.machine.handle_stored(now, true);
                self.supervisor.handle_renewed(now, Swap::Overlap);
            }
            Filed::InPlace => {
                self.supervisor.handle_adopted(now, true);
                let validity = validity(ctx, &pairs.plan);
                pairs.machine.handle_adopted(now, unix_s(host), validity);
                self.tell_up(ctx, host);
            }
            Filed::Discarded => pairs.machine.handle_discarded(now),
        }
    }

    pub(super) fn note_renewal(&self, ctx: &mut Ctx<'_>, host: &Host) {
        if let Some(pairs) = &self.pairs {
            let until = pairs.machine.poll_timeout().map(|at| ctx.since(at));
            let (machine, slack) = ("renewal", host.timer_slack);
            let fact = Fact::MachineWaits {
                machine,
                until,
                slack,
            };
            ctx.note(host.id, &fact);
        }
    }

    /// The machine is told that a connection is up; with a former pair not before that has proved itself.
    pub(super) fn tell_up(&mut self, ctx: &Ctx<'_>, host: &Host) {
        let settled = self.is_up() && !self.supervisor.is_renewing();
        if let Some(pairs) = self.pairs.as_mut().filter(|_| settled) {
            pairs.machine.handle_up(ctx.now(), unix_s(host));
        }
    }

    pub(super) fn tell_down(&mut self) {
        if let Some(pairs) = &mut self.pairs
            && self.supervisor.connection().is_none()
        {
            pairs.machine.handle_down();
        }
    }

    /// Asks over a connection, if it is still there.
    pub(super) fn renew_over(&mut self, dial: DialId, csr_pem: String) {
        let conn = self.dials.get(&dial).copied();
        let wire = conn.and_then(|conn| self.wires.touch(conn));
        if let Some(mut agent) = wire.and_then(|wire| wire.conn.as_agent()) {
            // One that is closed does not ask; the machine asks again.
            let _closed = agent.renew(csr_pem);
        }
    }

    pub(super) fn drain_over(&mut self, dial: DialId) {
        let conn = self.dials.get(&dial).copied();
        let wire = conn.and_then(|conn| self.wires.touch(conn));
        if let Some(mut agent) = wire.and_then(|wire| wire.conn.as_agent()) {
            agent.drain();
        }
    }
}

/// The next pair takes the current one's place, which is kept.
fn in_place(ctx: &Ctx<'_>) -> Vec<DiskStep> {
    let current = pair_on(ctx, CURRENT).unwrap_or(FIRST);
    let mut steps = Files::<Filed>::replace(PREVIOUS, format!("{current}\n").into());
    steps.extend([DiskStep::Rename(NEXT, CURRENT), DiskStep::SyncNames]);
    steps
}

/// The number of a pair; none where there is no file, or a torn one.
fn pair_on(ctx: &Ctx<'_>, name: &str) -> Option<u64> {
    let bytes = ctx.disk.read(name)?;
    let text = std::str::from_utf8(&bytes).ok()?;
    text.strip_suffix('\n')?.parse().ok()
}

fn unix_s(host: &Host) -> i64 {
    let unix_ms = adit_proto_core::env::WallClock::unix_ms(&*host.wall);
    i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX)
}

const CURRENT: &str = "pair";
const NEXT: &str = "next";
const PREVIOUS: &str = "previous";
/// The pair that the plan gives; requests have higher numbers.
const FIRST: u64 = 0;
/// Time to make a key.
const KEY_MAX: At = At::from_millis(50);
