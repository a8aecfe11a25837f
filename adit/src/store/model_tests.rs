//! The store beside a naive model: random requests, restarts, and power that fails at any write.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proptest::prelude::*;
use redb::{Database, StorageBackend};

use super::{
    reserved::Reserved,
    tests::{NOW, agent as of, enrolment, id},
    *,
};

/// A request, with small numbers for tokens, agents and keys.
#[derive(Clone, Copy, Debug)]
enum Request {
    Issue(u8),
    Revoke(u8),
    /// An enrolment that is begun and given up.
    GiveBack(u8),
    Enrol {
        jti: u8,
        agent: u8,
        key: u8,
    },
    Delete(u8),
    Renew {
        agent: u8,
        shown: u8,
        next: u8,
    },
    Confirm {
        agent: u8,
        shown: u8,
    },
    Scope(u8),
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Request(Request),
    Restart,
    /// The power fails at so many writes, truncations and syncs from here; of what was not synced the bits say what is
    /// there afterwards.
    Crash {
        request: Request,
        at: u32,
        keep: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Used,
    Revoked,
    OtherKey,
    Unknown,
    /// The disk failed: done or not.
    Lost,
}

/// What ought to be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    tokens: BTreeMap<u8, TokenState>,
    /// Key, and renewed key.
    agents: BTreeMap<u8, (u8, Option<u8>)>,
    scopes: BTreeSet<u8>,
}

impl Model {
    fn apply(&mut self, request: Request) -> Outcome {
        match request {
            Request::Issue(jti) => {
                self.tokens.entry(jti).or_insert(TokenState::Issued);
                Outcome::Done
            }
            Request::Revoke(jti) => {
                if let Some(state @ TokenState::Issued) = self.tokens.get_mut(&jti) {
                    *state = TokenState::Revoked;
                }
                Outcome::Done
            }
            Request::GiveBack(jti) => self.spent(jti).unwrap_or(Outcome::Done),
            Request::Enrol { jti, agent, key } => {
                let spent = self.spent(jti);
                let is_other = |(current, renewed): &(u8, Option<u8>)| {
                    *current != key && *renewed != Some(key)
                };
                if let Some(spent) = spent {
                    return spent;
                }
                if self.agents.get(&agent).is_some_and(is_other) {
                    return Outcome::OtherKey;
                }
                self.tokens.insert(jti, TokenState::Used { by: id(agent) });
                self.agents.insert(agent, (key, None));
                Outcome::Done
            }
            Request::Delete(agent) => {
                self.agents.remove(&agent);
                Outcome::Done
            }
            Request::Renew { agent, shown, next } => {
                let Some((current, renewed)) = self.agents.get_mut(&agent) else {
                    return Outcome::Unknown;
                };
                if *current != shown && *renewed != Some(shown) {
                    return Outcome::OtherKey;
                }
                (*current, *renewed) = (shown, (next != shown).then_some(next));
                Outcome::Done
            }
            Request::Confirm { agent, shown } => {
                let Some((current, renewed)) = self.agents.get_mut(&agent) else {
                    return Outcome::Unknown;
                };
                if *renewed == Some(shown) {
                    (*current, *renewed) = (shown, None);
                }
                Outcome::Done
            }
            Request::Scope(jti) => match self.scopes.insert(jti) {
                true => Outcome::Done,
                false => Outcome::Used,
            },
        }
    }

    fn spent(&self, jti: u8) -> Option<Outcome> {
        match self.tokens.get(&jti)? {
            TokenState::Issued => None,
            TokenState::Used { .. } => Some(Outcome::Used),
            TokenState::Revoked => Some(Outcome::Revoked),
        }
    }
}

/// The store on an imitated disk.
struct Bed {
    disk: Disk,
    directory: AgentDirectory,
    worker: Worker,
}

impl Bed {
    fn on(disk: Disk) -> Self {
        let database = Database::builder().create_with_backend(disk.clone());
        let directory = AgentDirectory::default();
        let worker = Worker::with(
            PathBuf::from("store"),
            database.unwrap(),
            directory.clone(),
            Reserved::default(),
        );
        Self {
            disk,
            directory,
            worker: worker.unwrap(),
        }
    }

    fn restarted(self) -> Self {
        drop(self.worker);
        Self::on(self.disk)
    }

    fn perform(&mut self, request: Request) -> Outcome {
        let done = match request {
            // Ids of tokens are drawn, so that none is issued twice.
            Request::Issue(jti) => match self.worker.tokens(NOW) {
                Ok(known) if known.iter().any(|token| token.jti == uuid(jti)) => Ok(()),
                Ok(_) => self.worker.record_token(NOW, &issued(jti)),
                Err(error) => Err(error),
            },
            Request::Revoke(jti) => self.worker.revoke_token(uuid(jti)).map(drop),
            Request::GiveBack(jti) => self.worker.reserve(uuid(jti), None).map(|held| {
                let second = self.worker.reserve(uuid(jti), None);
                assert!(matches!(second, Err(StoreError::TokenReserved)));
                drop(held);
                drop(self.worker.reserve(uuid(jti), None).unwrap());
            }),
            Request::Enrol { jti, agent, key } => self
                .worker
                .reserve(uuid(jti), None)
                .and_then(|held| self.worker.commit_enrolment(&held, &enrolment(agent, key))),
            Request::Delete(agent) => self.worker.delete_agent(id(agent)).map(drop),
            Request::Renew { agent, shown, next } => {
                self.worker.renew(&of(agent, shown), renewal(next))
            }
            Request::Confirm { agent, shown } => self.worker.confirm(&of(agent, shown)),
            Request::Scope(jti) => self
                .worker
                .use_up(TokenKind::Scope, NOW, uuid(jti), NOW + 60),
        };
        match done {
            Ok(()) => Outcome::Done,
            Err(StoreError::TokenUsed) => Outcome::Used,
            Err(StoreError::TokenRevoked) => Outcome::Revoked,
            Err(StoreError::OtherKey) => Outcome::OtherKey,
            Err(StoreError::UnknownAgent) => Outcome::Unknown,
            Err(StoreError::Disk { .. }) => Outcome::Lost,
            Err(other) => panic!("{request:?}: {other}"),
        }
    }

    /// What is on the disk; of scope tokens nothing. What is admitted must be the same.
    fn known(&self) -> Model {
        let short = |key: [u8; 32]| key[0];
        let agents = self.worker.agents().unwrap().into_iter();
        let agents: BTreeMap<u8, (u8, Option<u8>)> = agents
            .map(|a| {
                (
                    a.id.0.as_bytes()[15],
                    (short(a.spki_sha256), a.renewed_spki_sha256.map(short)),
                )
            })
            .collect();
        for agent in 0..FEW {
            let keys = agents.get(&agent);
            assert_eq!(self.directory.knows(id(agent)), keys.is_some());
            for key in 0..FEW {
                let is_other = keys.is_some_and(|(k, next)| *k != key && *next != Some(key));
                assert_eq!(
                    self.directory.belongs_to_other(id(agent), [key; 32]),
                    is_other
                );
            }
        }
        let tokens = self.worker.tokens(NOW).unwrap().into_iter();
        Model {
            tokens: tokens.map(|t| (t.jti.as_bytes()[15], t.state)).collect(),
            agents,
            scopes: BTreeSet::new(),
        }
    }
}

fn run(events: Vec<Event>) {
    let mut bed = Bed::on(Disk::default());
    let mut model = Model::default();
    for event in events {
        match event {
            Event::Request(request) => assert_eq!(bed.perform(request), model.apply(request)),
            Event::Restart => bed = bed.restarted(),
            Event::Crash { request, at, keep } => {
                bed.disk.lock().steps_left = Some(at);
                let outcome = bed.perform(request);
                bed.disk.lock().steps_left = Some(0);
                drop(bed.worker);
                bed.disk.lock().crash(keep);
                bed = Bed::on(bed.disk);
                let mut after = model.clone();
                let wanted = after.apply(request);
                if outcome == Outcome::Lost {
                    if let Request::Scope(jti) = request {
                        // Whichever it is, it is used from here on.
                        let again = bed.perform(request);
                        assert!([Outcome::Done, Outcome::Used].contains(&again));
                        model.scopes.insert(jti);
                    } else if bed.known().same(&after) {
                        model = after;
                    }
                } else {
                    assert_eq!(outcome, wanted);
                    model = after;
                }
            }
        }
        assert!(
            bed.known().same(&model),
            "{event:?}: {:?} is not {model:?}",
            bed.known()
        );
    }
    for jti in model.scopes {
        assert_eq!(bed.perform(Request::Scope(jti)), Outcome::Used);
    }
}

impl Model {
    /// But for scope tokens, which nobody lists.
    fn same(&self, other: &Self) -> bool {
        (&self.tokens, &self.agents) == (&other.tokens, &other.agents)
    }
}

/// A disk that forgets what was not synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Image>>);

#[derive(Debug, Default)]
struct Image {
    durable: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Change>,
    /// Until the power fails.
    steps_left: Option<u32>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(length, 0),
            Self::Bytes(at, new) => {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[at..at + new.len()].copy_from_slice(&new);
            }
        }
    }
}

impl Image {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.step()?;
        change.clone().apply(&mut self.seen);
        self.pending.push(change);
        Ok(())
    }

    fn crash(&mut self, keep: u64) {
        for (n, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if keep >> (n % 64) & 1 == 1 {
                change.apply(&mut self.durable);
            }
        }
        self.seen = self.durable.clone();
        self.steps_left = None;
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let image = self.lock();
        let bytes = image.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).unwrap();
        self.lock().change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut image = self.lock();
        image.step()?;
        image.pending.clear();
        image.durable = image.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.lock().change(Change::Bytes(at, data.to_vec()))
    }
}

fn request() -> impl Strategy<Value = Request> {
    let few = || 0..FEW;
    prop_oneof![
        few().prop_map(Request::Issue),
        few().prop_map(Request::Revoke),
        few().prop_map(Request::GiveBack),
        (few(), few(), few()).prop_map(|(jti, agent, key)| Request::Enrol { jti, agent, key }),
        few().prop_map(Request::Delete),
        (few(), few(), few()).prop_map(|(agent, shown, next)| Request::Renew {
            agent,
            shown,
            next
        }),
        (few(), few()).prop_map(|(agent, shown)| Request::Confirm { agent, shown }),
        few().prop_map(Request::Scope),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => request().prop_map(Event::Request),
        1 => Just(Event::Restart),
        3 => (request(), 0..30_u32, any::<u64>())
            .prop_map(|(request, at, keep)| Event::Crash { request, at, keep }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Tokens count once, ids belong to keys, what was deleted stays so, and a change is done or not, whatever happens.
    #[test]
    fn the_store_is_as_the_model(events in prop::collection::vec(event(), 1..40)) {
        run(events);
    }
}

fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn renewal(key: u8) -> Renewal {
    Renewal {
        spki_sha256: [key; 32],
        fingerprint: [8; 32],
        not_after: 9,
        issuer_sha256: [9; 32],
    }
}

fn issued(jti: u8) -> TokenRecord {
    TokenRecord {
        jti: uuid(jti),
        name: "a".to_owned(),
        expires_at: NOW + 60,
        state: TokenState::Issued,
    }
}

const FEW: u8 = 4;
