//! The store's thread: the only user of the file.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use adit_proto_core::{id::AgentId, identity::AgentIdentity};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use uuid::Uuid;

use super::{
    AgentDirectory, AgentRecord, Enrolment, KEPT_S, Renewal, Reservation, StoreError, TokenKind,
    TokenRecord, TokenState,
    directory::{Known, Snapshot},
    record::Stored,
    reserved::Reserved,
    scopes::{ASSOCIATIONS, SCOPES, TokenUse, USED_MAX, UsedTokens},
};
use crate::token::LEEWAY_S;

pub(super) struct Worker {
    path: PathBuf,
    database: Database,
    directory: AgentDirectory,
    reserved: Reserved,
    scopes: UsedTokens,
    associations: UsedTokens,
}

impl Worker {
    /// Opens the file, making it where there is none. One that is there and empty is damaged, like any other torn one.
    pub(super) fn make(
        path: PathBuf,
        directory: AgentDirectory,
        reserved: Reserved,
    ) -> Result<Self, StoreError> {
        if let Err(e) = make_file(&path) {
            return Err(StoreError::of_file(path, e));
        }
        Self::reopen(path, directory, reserved)
    }

    /// Opens a file that was open before. One that has gone meanwhile, with its disk perhaps, is not made again: it
    /// would know no agents.
    pub(super) fn reopen(
        path: PathBuf,
        directory: AgentDirectory,
        reserved: Reserved,
    ) -> Result<Self, StoreError> {
        let database = match Database::open(&path) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path }),
            Err(e) => return Err(StoreError::of_file(path, e.into())),
        };
        Self::with(path, database, directory, reserved)
    }

    /// Begins with a database; the path is for errors.
    pub(super) fn with(
        path: PathBuf,
        database: Database,
        directory: AgentDirectory,
        reserved: Reserved,
    ) -> Result<Self, StoreError> {
        let used = |table| {
            UsedTokens::open(&database, table, USED_MAX)
                .map_err(|e| StoreError::of_file(path.clone(), e))
        };
        let (scopes, associations) = (used(SCOPES)?, used(ASSOCIATIONS)?);
        let worker = Self {
            path,
            database,
            directory,
            reserved,
            scopes,
            associations,
        };
        // Opening a table in a write transaction makes it, so that readers find it.
        worker.write(|_| Ok(()))?;
        worker.publish()?;
        Ok(worker)
    }

    /// Takes a token that is unused, or was used by this agent.
    pub(super) fn reserve(
        &self,
        jti: Uuid,
        again: Option<AgentId>,
    ) -> Result<Reservation, StoreError> {
        let reservation = self.reserved.take(jti);
        let reservation = reservation.ok_or(StoreError::TokenReserved)?;
        let read = self.database.begin_read().map_err(self.failed())?;
        let tokens = read.open_table(TOKENS).map_err(self.failed())?;
        match self.used_by(&tokens, jti)? {
            used @ Some(_) if used != again => Err(StoreError::TokenUsed),
            _unused_or_again => Ok(reservation),
        }
    }

    pub(super) fn commit_enrolment(
        &self,
        reservation: &Reservation,
        enrolment: &Enrolment,
    ) -> Result<(), StoreError> {
        let agent = &enrolment.agent;
        let token = TokenRecord {
            jti: reservation.jti(),
            name: agent.name.clone(),
            expires_at: enrolment.token_expires_at,
            state: TokenState::Used { by: agent.id },
        };
        self.change(agent.id, |tables| {
            // A revocation may have come between reservation and commit.
            let used_by = self.used_by(&tables.tokens, token.jti)?;
            // Whoever used it may not have heard of it: the same agent with the same key gets its answer again, until it
            // has connected.
            if let Some(by) = used_by
                && !(by == agent.id && self.may_lack_answer(&tables.agents, agent)?)
            {
                return Err(StoreError::TokenUsed);
            }
            if self.directory.belongs_to_other(agent.id, agent.spki_sha256) {
                return Err(StoreError::OtherKey);
            }
            self.put(&mut tables.agents, agent.id.0, agent)?;
            self.put(&mut tables.tokens, token.jti, &token)?;
            self.prune(&mut tables.tokens, agent.enrolled_at)
        })
    }

    pub(super) fn renew(&self, shown: &AgentIdentity, renewal: Renewal) -> Result<(), StoreError> {
        self.update_agent(shown.id, |agent| {
            confirm(agent, shown);
            if agent.spki_sha256 != shown.spki_sha256 {
                return Err(StoreError::OtherKey);
            }
            agent.renewed_spki_sha256 =
                (renewal.spki_sha256 != agent.spki_sha256).then_some(renewal.spki_sha256);
            agent.fingerprint = renewal.fingerprint;
            agent.not_after = renewal.not_after;
            let issuer = Some(renewal.issuer_sha256);
            agent.renewed_issuer_sha256 = issuer.filter(|_| agent.issuer_sha256 != issuer);
            Ok(())
        })
    }

    pub(super) fn confirm(&self, shown: &AgentIdentity) -> Result<(), StoreError> {
        self.update_agent(shown.id, |agent| {
            confirm(agent, shown);
            Ok(())
        })
    }

    pub(super) fn agent(&self, id: AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed())?;
        let rows = read.open_table(AGENTS).map_err(self.failed())?;
        self.get(&rows, id.0)
    }

    pub(super) fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.all(AGENTS)
    }

    pub(super) fn delete_agent(&self, id: AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.change(id, |tables| {
            let record = self.get(&tables.agents, id.0)?;
            let key = id.0.as_bytes();
            tables.agents.remove(key).map_err(self.failed())?;
            tables.drained.remove(key).map_err(self.failed())?;
            Ok(record)
        })
    }

    pub(super) fn set_drained(&self, id: AgentId, drained: bool) -> Result<bool, StoreError> {
        self.change(id, |tables| {
            let key = id.0.as_bytes();
            let known = tables.agents.get(key).map_err(self.failed())?.is_some();
            if known && drained {
                tables.drained.insert(key, ()).map_err(self.failed())?;
            } else {
                tables.drained.remove(key).map_err(self.failed())?;
            }
            Ok(known)
        })
    }

    pub(super) fn record_token(&self, now: u64, token: &TokenRecord) -> Result<(), StoreError> {
        self.write(|tables| {
            self.put(&mut tables.tokens, token.jti, token)?;
            self.prune(&mut tables.tokens, now)
        })
    }

    pub(super) fn tokens(&self, now: u64) -> Result<Vec<TokenRecord>, StoreError> {
        let mut tokens = self.all::<TokenRecord>(TOKENS)?;
        tokens.retain(|token| !has_expired(token, now));
        Ok(tokens)
    }

    pub(super) fn revoke_token(&self, jti: Uuid) -> Result<Option<TokenRecord>, StoreError> {
        self.write(|tables| {
            let found = self.get::<TokenRecord>(&tables.tokens, jti)?;
            if let Some(token) = &found
                && token.state == TokenState::Issued
            {
                let state = TokenState::Revoked;
                let revoked = TokenRecord {
                    state,
                    ..token.clone()
                };
                self.put(&mut tables.tokens, jti, &revoked)?;
            }
            Ok(found)
        })
    }

    pub(super) fn use_up(
        &mut self,
        kind: TokenKind,
        now: u64,
        jti: Uuid,
        expires_at: u64,
    ) -> Result<(), StoreError> {
        let (own, other) = match kind {
            TokenKind::Scope => (&mut self.scopes, &self.associations),
            TokenKind::Association => (&mut self.associations, &self.scopes),
        };
        if other.knows(jti) {
            return Err(StoreError::TokenUsed);
        }
        let used = own.take(&self.database, now, jti, expires_at);
        match used.map_err(self.failed())? {
            TokenUse::First => Ok(()),
            TokenUse::Again => Err(StoreError::TokenUsed),
            TokenUse::Full => Err(StoreError::UsedTokensFull),
        }
    }

    pub(super) fn used_tokens(&self, kind: TokenKind) -> (usize, usize) {
        match kind {
            TokenKind::Scope => self.scopes.usage(),
            TokenKind::Association => self.associations.usage(),
        }
    }

    /// Tells who used a token.
    fn used_by(
        &self,
        tokens: &impl ReadableTable<&'static [u8; 16], &'static [u8]>,
        jti: Uuid,
    ) -> Result<Option<AgentId>, StoreError> {
        match self.get::<TokenRecord>(tokens, jti)?.map(|t| t.state) {
            None | Some(TokenState::Issued) => Ok(None),
            Some(TokenState::Used { by }) => Ok(Some(by)),
            Some(TokenState::Revoked) => Err(StoreError::TokenRevoked),
        }
    }

    /// Tells whether the agent is enrolled with this key, and has not connected since.
    fn may_lack_answer(&self, agents: &Rows<'_>, agent: &AgentRecord) -> Result<bool, StoreError> {
        let known = self.get::<AgentRecord>(agents, agent.id.0)?;
        Ok(known.is_some_and(|k| k.spki_sha256 == agent.spki_sha256 && !k.has_connected))
    }

    fn update_agent(
        &self,
        id: AgentId,
        update: impl FnOnce(&mut AgentRecord) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.change(id, |tables| {
            let mut agent = self
                .get::<AgentRecord>(&tables.agents, id.0)?
                .ok_or(StoreError::UnknownAgent)?;
            update(&mut agent)?;
            self.put(&mut tables.agents, id.0, &agent)
        })
    }

    /// Changes one agent on disk, then in the directory: admission never runs ahead of the disk, and nothing that could
    /// fail stands between the two.
    fn change<T>(
        &self,
        id: AgentId,
        act: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (result, known) = self.write(|tables| {
            let result = act(tables)?;
            let drained = tables.drained.get(id.0.as_bytes());
            let drained = drained.map_err(self.failed())?.is_some();
            let agent = self.get::<AgentRecord>(&tables.agents, id.0)?;
            Ok((result, agent.map(|agent| Known::new(&agent, drained))))
        })?;
        self.directory.set(id, known);
        Ok(result)
    }

    /// Runs `act` in one transaction, on disk when this returns; an error undoes all of it.
    fn write<T>(
        &self,
        act: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction: WriteTransaction = self.database.begin_write().map_err(self.failed())?;
        let result = {
            act(&mut Tables {
                agents: transaction.open_table(AGENTS).map_err(self.failed())?,
                tokens: transaction.open_table(TOKENS).map_err(self.failed())?,
                drained: transaction.open_table(DRAINED).map_err(self.failed())?,
            })?
        };
        transaction.commit().map_err(self.failed())?;
        Ok(result)
    }

    fn publish(&self) -> Result<(), StoreError> {
        let drained = self.drained()?;
        let known = |agent: AgentRecord| {
            let known = Known::new(&agent, drained.contains(&agent.id.0));
            (agent.id, known)
        };
        let snapshot: Snapshot = self.agents()?.into_iter().map(known).collect();
        self.directory.swap(snapshot);
        Ok(())
    }

    fn drained(&self) -> Result<BTreeSet<Uuid>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed())?;
        let rows = read.open_table(DRAINED).map_err(self.failed())?;
        let mut ids = BTreeSet::new();
        for row in rows.iter().map_err(self.failed())? {
            let (key, _) = row.map_err(self.failed())?;
            ids.insert(Uuid::from_bytes(*key.value()));
        }
        Ok(ids)
    }

    fn all<R: Stored>(&self, table: Definition) -> Result<Vec<R>, StoreError> {
        let read = self.database.begin_read().map_err(self.failed())?;
        let rows = read.open_table(table).map_err(self.failed())?;
        let mut records = Vec::new();
        for row in rows.iter().map_err(self.failed())? {
            let (key, value) = row.map_err(self.failed())?;
            let key = Uuid::from_bytes(*key.value());
            records.push(R::decode(key, value.value()).ok_or_else(|| self.bad_record())?);
        }
        Ok(records)
    }

    fn get<R: Stored>(
        &self,
        rows: &impl ReadableTable<&'static [u8; 16], &'static [u8]>,
        key: Uuid,
    ) -> Result<Option<R>, StoreError> {
        let Some(value) = rows.get(key.as_bytes()).map_err(self.failed())? else {
            return Ok(None);
        };
        let record = R::decode(key, value.value()).ok_or_else(|| self.bad_record())?;
        Ok(Some(record))
    }

    fn put(&self, rows: &mut Rows<'_>, key: Uuid, record: &impl Stored) -> Result<(), StoreError> {
        let bytes = record.encode().ok_or_else(|| self.bad_record())?;
        rows.insert(key.as_bytes(), bytes.as_slice())
            .map_err(self.failed())?;
        Ok(())
    }

    fn prune(&self, tokens: &mut Rows<'_>, now: u64) -> Result<(), StoreError> {
        tokens
            .retain(|key, value| {
                // A record that cannot be read is for its reader to report.
                TokenRecord::decode(Uuid::from_bytes(*key), value)
                    .is_none_or(|token| token.expires_at.saturating_add(KEPT_S) >= now)
            })
            .map_err(self.failed())
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + use<E> {
        let path = self.path.clone();
        move |e| StoreError::of_file(path.clone(), e.into())
    }

    fn bad_record(&self) -> StoreError {
        StoreError::BadRecord {
            path: self.path.clone(),
        }
    }
}

/// Under another name first, so that a crash leaves no empty file, which would know no agents.
fn make_file(path: &Path) -> Result<(), redb::Error> {
    if path.try_exists()? {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    // The library makes the file as the umask says; what it keeps is nobody else's.
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh);
    drop(made?);
    drop(Database::create(&fresh)?);
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Takes over what an agent has shown that it has: its key, perhaps a renewed one, and its last certificate.
fn confirm(agent: &mut AgentRecord, shown: &AgentIdentity) {
    if agent.renewed_spki_sha256 == Some(shown.spki_sha256) {
        agent.spki_sha256 = shown.spki_sha256;
        agent.renewed_spki_sha256 = None;
    }
    agent.has_connected |= agent.spki_sha256 == shown.spki_sha256;
    if agent.fingerprint == shown.fingerprint {
        let issuer = agent.renewed_issuer_sha256.take();
        agent.issuer_sha256 = issuer.or(agent.issuer_sha256);
    }
}

/// A token is listed for as long as its signature could be taken.
fn has_expired(token: &TokenRecord, now: u64) -> bool {
    token.expires_at.saturating_add(LEEWAY_S) < now
}

/// All tables, open in one transaction.
struct Tables<'a> {
    agents: Rows<'a>,
    tokens: Rows<'a>,
    drained: Table<'a, &'static [u8; 16], ()>,
}

type Rows<'a> = Table<'a, &'static [u8; 16], &'static [u8]>;
type Definition = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;

const AGENTS: Definition = TableDefinition::new("agents");
const TOKENS: Definition = TableDefinition::new("tokens");
/// Ids of the agents that are drained; apart from their records, as enrolling again does not end it.
const DRAINED: TableDefinition<'static, &'static [u8; 16], ()> = TableDefinition::new("drained");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_one_agent_hinders_no_change_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let directory = AgentDirectory::default();
        let reserved = Reserved::default();
        let worker = Worker::make(dir.path().join("db"), directory.clone(), reserved).unwrap();
        let id = AgentId(Uuid::from_u128(1));
        enrol(&worker, id);
        // The disk gives back something else than was written.
        let damaged = Uuid::from_u128(2);
        let damage = |tables: &mut Tables<'_>| {
            let garbage: &[u8] = b"garbage";
            let inserted = tables.agents.insert(damaged.as_bytes(), garbage);
            inserted.map(drop).map_err(worker.failed())
        };
        worker.write(damage).unwrap();
        assert!(directory.knows(id));
        assert!(worker.delete_agent(id).unwrap().is_some());
        assert!(!directory.knows(id));
        assert!(matches!(worker.agents(), Err(StoreError::BadRecord { .. })));
    }

    fn enrol(worker: &Worker, id: AgentId) {
        let reservation = worker.reserve(Uuid::nil(), None).unwrap();
        let agent = AgentRecord {
            id,
            name: "a".to_owned(),
            spki_sha256: [1; 32],
            renewed_spki_sha256: None,
            fingerprint: [0; 32],
            hostname: None,
            enrolled_at: 0,
            not_after: 0,
            issuer_sha256: None,
            renewed_issuer_sha256: None,
            has_connected: false,
        };
        let enrolment = Enrolment {
            agent,
            token_expires_at: 0,
        };
        let committed = worker.commit_enrolment(&reservation, &enrolment);
        committed.unwrap();
    }
}
