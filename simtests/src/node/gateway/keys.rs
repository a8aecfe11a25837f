//! The keys that a gateway admits, as its store holds them: durable before they count (design 8.6, 8.11).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use adit_proto_core::{
    id::{AgentId, ConnId},
    identity::AgentIdentity,
    link::tls::Admission,
    output::Renewed,
};

use crate::{
    At,
    facts::Fact,
    node::{
        Ctx, Host,
        files::Files,
        renewal::{hex, key_of, renewed, request_of},
    },
    pki::Pki,
    plan::Roster,
};

/// A gateway's store.
#[derive(Debug)]
pub(super) struct Keys {
    authority: Arc<Pki>,
    admitted: Admitted,
    /// Agents that have renewed, enrolled again or were deleted, as the file is to have them.
    /// Those that were deleted have none.
    stored: BTreeMap<AgentId, Option<Stored>>,
    files: Files<Filed>,
}

/// An agent's keys.
#[derive(Clone, Copy, Debug)]
struct Stored {
    current: [u8; 32],
    /// Certified, and not seen yet.
    renewed: Option<[u8; 32]>,
}

/// What became durable.
#[derive(Debug)]
enum Filed {
    Certified(ConnId, AgentId, Stored, Box<Renewed>),
    Confirmed(AgentId, Stored),
    Enrolled(AgentId, Stored),
    Deleted(AgentId),
}

/// What is durable and has to be acted on.
#[derive(Debug)]
pub(super) enum Done {
    /// The answer to a request that came over this connection.
    Certified(ConnId, Box<Renewed>),
    /// The agent is to be cut off.
    Deleted(AgentId),
}

/// What a handshake reads.
#[derive(Clone, Debug)]
pub(super) struct Admitted(Arc<Mutex<KeySet>>);

/// Agents, each with keys that it may show.
type KeySet = BTreeSet<(AgentId, [u8; 32])>;

impl Admission for Admitted {
    fn admit(&self, identity: &AgentIdentity) -> bool {
        self.with(|keys| keys.contains(&(identity.id, identity.spki_sha256)))
    }
}

impl Admitted {
    fn with<R>(&self, act: impl FnOnce(&mut KeySet) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, id: AgentId, stored: Option<Stored>) {
        self.with(|keys| {
            keys.retain(|(of, _)| *of != id);
            if let Some(stored) = stored {
                keys.insert((id, stored.current));
                keys.extend(stored.renewed.map(|key| (id, key)));
            }
        });
    }
}

impl Keys {
    /// Reads what is durable, on top of what the plan says.
    pub(super) fn open(ctx: &Ctx<'_>, roster: &Roster, authority: &Arc<Pki>) -> Self {
        let admitted = Admitted(Arc::new(Mutex::new(roster.0.clone())));
        let text = ctx.disk.read(STORE).unwrap_or_default();
        let stored: BTreeMap<AgentId, Option<Stored>> = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(read)
            .collect();
        for (id, stored) in &stored {
            admitted.set(*id, *stored);
        }
        Self {
            authority: Arc::clone(authority),
            admitted,
            stored,
            files: Files::new(),
        }
    }

    pub(super) fn admission(&self) -> Arc<dyn Admission> {
        Arc::new(self.admitted.clone())
    }

    /// Tells whether a key is an agent's now.
    pub(super) fn admits(&self, agent: AgentId, key: [u8; 32]) -> bool {
        self.admitted.with(|keys| keys.contains(&(agent, key)))
    }

    /// An operator deletes an agent; [`run`](Self::run) tells when that is durable.
    pub(super) fn delete(&mut self, ctx: &mut Ctx<'_>, agent: AgentId) {
        self.stored.insert(agent, None);
        self.write(ctx, Filed::Deleted(agent));
    }

    /// An agent enrols with a key that is its only one.
    pub(super) fn enroll(&mut self, ctx: &mut Ctx<'_>, agent: AgentId, key: [u8; 32]) {
        let stored = Stored {
            current: key,
            renewed: None,
        };
        self.stored.insert(agent, Some(stored));
        self.write(ctx, Filed::Enrolled(agent, stored));
    }

    /// An agent asks for a certificate; the answer comes from [`run`](Self::run), or at once where it is no.
    pub(super) fn request(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: ConnId,
        identity: &AgentIdentity,
        csr: &str,
    ) -> Result<(), String> {
        let Some((_, nth)) = request_of(csr).filter(|(id, _)| *id == identity.id) else {
            return Err("not a request of this agent".to_owned());
        };
        let pair = self.authority.renewed(identity.id.0, &identity.name, nth);
        let first = Stored {
            current: identity.spki_sha256,
            renewed: None,
        };
        let entry = self.stored.entry(identity.id).or_insert(Some(first));
        let Some(stored) = entry else {
            return Err("deleted".to_owned());
        };
        stored.renewed = Some(pair.spki_sha256);
        let filed = Filed::Certified(conn, identity.id, *stored, Box::new(renewed(&pair)));
        self.write(ctx, filed);
        Ok(())
    }

    /// Tells whether a key is certified and was not seen yet.
    pub(super) fn is_renewed(&self, identity: &AgentIdentity) -> bool {
        let stored = self.stored.get(&identity.id).copied().flatten();
        stored.is_some_and(|stored| stored.renewed == Some(identity.spki_sha256))
    }

    /// A connection with the renewed key was registered: the former one counts no more.
    pub(super) fn confirm(&mut self, ctx: &mut Ctx<'_>, id: AgentId, key: [u8; 32]) {
        if let Some(Some(stored)) = self.stored.get_mut(&id)
            && stored.renewed == Some(key)
        {
            (stored.current, stored.renewed) = (key, None);
            let filed = Filed::Confirmed(id, *stored);
            self.write(ctx, filed);
        }
    }

    pub(super) fn next_at(&self) -> Option<At> {
        self.files.next_at()
    }

    /// Does what is due; gives the next thing that is durable and has to be acted on.
    pub(super) fn run(&mut self, ctx: &mut Ctx<'_>, host: &Host) -> Option<Done> {
        loop {
            match self.files.run(ctx)? {
                Filed::Certified(conn, agent, stored, renewed) => {
                    self.admitted.set(agent, Some(stored));
                    if let Some(key) = stored.renewed {
                        ctx.note(host.id, &Fact::Certified { agent, key });
                    }
                    return Some(Done::Certified(conn, renewed));
                }
                Filed::Confirmed(agent, stored) => {
                    self.admitted.set(agent, Some(stored));
                    let key = stored.current;
                    ctx.note(host.id, &Fact::Confirmed { agent, key });
                }
                Filed::Enrolled(agent, stored) => {
                    self.admitted.set(agent, Some(stored));
                    let key = stored.current;
                    ctx.note(host.id, &Fact::Enrolled { agent, key });
                }
                Filed::Deleted(agent) => {
                    self.admitted.set(agent, None);
                    return Some(Done::Deleted(agent));
                }
            }
        }
    }

    fn write(&mut self, ctx: &mut Ctx<'_>, filed: Filed) {
        let lines = self.stored.iter().map(|(id, stored)| match stored {
            Some(stored) => stored.line(*id),
            None => format!("{} {DELETED}\n", id.0),
        });
        let text: String = lines.collect();
        let steps = Files::<Filed>::replace(STORE, text.into_bytes());
        self.files.push(ctx, steps, filed);
    }
}

impl Stored {
    fn line(&self, id: AgentId) -> String {
        let renewed = self.renewed.map_or_else(|| "-".to_owned(), |key| hex(&key));
        format!("{} {} {renewed}\n", id.0, hex(&self.current))
    }
}

fn read(line: &str) -> Option<(AgentId, Option<Stored>)> {
    let mut words = line.split(' ');
    let id = AgentId(words.next()?.parse().ok()?);
    let current = words.next()?;
    if current == DELETED {
        return Some((id, None));
    }
    let stored = Stored {
        current: key_of(current)?,
        renewed: key_of(words.next()?),
    };
    Some((id, Some(stored)))
}

const DELETED: &str = "deleted";

const STORE: &str = "store";
