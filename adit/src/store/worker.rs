//! The store's thread: the only user of the file.

use std::{collections::BTreeSet, fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::PathBuf};

use adit_proto_core::id::AgentId;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use uuid::Uuid;

use super::{
    AgentDirectory, AgentRecord, Enrolment, Renewal, StoreError, TokenRecord, TokenState,
    directory::{Keys, Snapshot},
    record::Stored,
};
use crate::token::LEEWAY_S;

pub(super) struct Worker {
    path: PathBuf,
    database: Database,
    directory: AgentDirectory,
    reserved: BTreeSet<Uuid>,
}

impl Worker {
    pub(super) fn open(path: PathBuf, directory: AgentDirectory) -> Result<Self, StoreError> {
        // The library makes the file as the umask says; what it keeps is nobody else's.
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        if let Err(e) = made {
            let cause = Box::new(redb::Error::Io(e));
            return Err(StoreError::Unreadable { path, cause });
        }
        let database = match Database::create(&path) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path }),
            Err(e) => {
                let cause = Box::new(e.into());
                return Err(StoreError::Unreadable { path, cause });
            }
        };
        let worker = Self {
            path,
            database,
            directory,
            reserved: BTreeSet::new(),
        };
        // Opening a table in a write transaction makes it, so that readers find it.
        worker.write(|_, _| Ok(()))?;
        worker.publish()?;
        Ok(worker)
    }

    pub(super) fn reserve(&mut self, jti: Uuid) -> Result<(), StoreError> {
        if self.reserved.contains(&jti) {
            return Err(StoreError::TokenReserved);
        }
        let read = self.database.begin_read().map_err(self.failed())?;
        let tokens = read.open_table(TOKENS).map_err(self.failed())?;
        self.check_unused(&tokens, jti)?;
        self.reserved.insert(jti);
        Ok(())
    }

    pub(super) fn release(&mut self, jti: Uuid) {
        self.reserved.remove(&jti);
    }

    pub(super) fn commit_enrolment(&mut self, enrolment: &Enrolment) -> Result<(), StoreError> {
        if !self.reserved.remove(&enrolment.jti) {
            return Err(StoreError::NotReserved);
        }
        let agent = &enrolment.agent;
        if self.directory.belongs_to_other(agent.id, agent.spki_sha256) {
            return Err(StoreError::OtherKey);
        }
        let token = TokenRecord {
            jti: enrolment.jti,
            name: agent.name.clone(),
            expires_at: enrolment.token_expires_at,
            state: TokenState::Used { by: agent.id },
        };
        self.change(|agents, tokens| {
            // A revocation may have come between reservation and commit.
            self.check_unused(tokens, enrolment.jti)?;
            self.put(agents, agent.id.0, agent)?;
            self.put(tokens, token.jti, &token)?;
            self.prune(tokens, agent.enrolled_at)
        })
    }

    pub(super) fn renew(&self, id: AgentId, renewal: Renewal) -> Result<(), StoreError> {
        self.update_agent(id, |agent| {
            agent.renewed_spki_sha256 =
                (renewal.spki_sha256 != agent.spki_sha256).then_some(renewal.spki_sha256);
            agent.fingerprint = renewal.fingerprint;
            agent.not_after = renewal.not_after;
        })
    }

    pub(super) fn confirm_key(&self, id: AgentId, key: [u8; 32]) -> Result<(), StoreError> {
        self.update_agent(id, |agent| {
            if agent.renewed_spki_sha256 == Some(key) {
                agent.spki_sha256 = key;
                agent.renewed_spki_sha256 = None;
            }
        })
    }

    pub(super) fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.all(AGENTS)
    }

    pub(super) fn delete_agent(&self, id: AgentId) -> Result<bool, StoreError> {
        self.change(|agents, _| {
            let removed = agents.remove(id.0.as_bytes()).map_err(self.failed())?;
            Ok(removed.is_some())
        })
    }

    pub(super) fn record_token(&self, now: u64, token: &TokenRecord) -> Result<(), StoreError> {
        self.write(|_, tokens| {
            self.put(tokens, token.jti, token)?;
            self.prune(tokens, now)
        })
    }

    pub(super) fn tokens(&self, now: u64) -> Result<Vec<TokenRecord>, StoreError> {
        let mut tokens = self.all::<TokenRecord>(TOKENS)?;
        tokens.retain(|token| !has_expired(token, now));
        Ok(tokens)
    }

    pub(super) fn revoke_token(&self, jti: Uuid) -> Result<bool, StoreError> {
        self.write(|_, tokens| {
            let Some(mut token) = self.get::<TokenRecord>(tokens, jti)? else {
                return Ok(false);
            };
            if token.state != TokenState::Issued {
                return Ok(false);
            }
            token.state = TokenState::Revoked;
            self.put(tokens, jti, &token)?;
            Ok(true)
        })
    }

    fn check_unused(
        &self,
        tokens: &impl ReadableTable<&'static [u8; 16], &'static [u8]>,
        jti: Uuid,
    ) -> Result<(), StoreError> {
        match self.get::<TokenRecord>(tokens, jti)?.map(|t| t.state) {
            None | Some(TokenState::Issued) => Ok(()),
            Some(TokenState::Used { .. }) => Err(StoreError::TokenUsed),
            Some(TokenState::Revoked) => Err(StoreError::TokenRevoked),
        }
    }

    fn update_agent(
        &self,
        id: AgentId,
        update: impl FnOnce(&mut AgentRecord),
    ) -> Result<(), StoreError> {
        self.change(|agents, _| {
            let mut agent = self
                .get::<AgentRecord>(agents, id.0)?
                .ok_or(StoreError::UnknownAgent)?;
            update(&mut agent);
            self.put(agents, id.0, &agent)
        })
    }

    /// Writes, then swaps the snapshot: admission never runs ahead of the disk.
    fn change<T>(
        &self,
        act: impl FnOnce(&mut Rows<'_>, &mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = self.write(act)?;
        self.publish()?;
        Ok(result)
    }

    /// Runs `act` in one transaction, on disk when this returns; an error undoes all of it.
    fn write<T>(
        &self,
        act: impl FnOnce(&mut Rows<'_>, &mut Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction: WriteTransaction = self.database.begin_write().map_err(self.failed())?;
        let result = {
            let mut agents = transaction.open_table(AGENTS).map_err(self.failed())?;
            let mut tokens = transaction.open_table(TOKENS).map_err(self.failed())?;
            act(&mut agents, &mut tokens)?
        };
        transaction.commit().map_err(self.failed())?;
        Ok(result)
    }

    fn publish(&self) -> Result<(), StoreError> {
        let agents = self.agents()?;
        self.directory.swap(
            agents
                .into_iter()
                .map(|agent| {
                    let keys = Keys {
                        current: agent.spki_sha256,
                        renewed: agent.renewed_spki_sha256,
                    };
                    (agent.id, keys)
                })
                .collect::<Snapshot>(),
        );
        Ok(())
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
                    .is_none_or(|token| !has_expired(&token, now))
            })
            .map_err(self.failed())
    }

    fn failed<E: Into<redb::Error>>(&self) -> impl Fn(E) -> StoreError + use<E> {
        let path = self.path.clone();
        move |e| StoreError::Unreadable {
            path: path.clone(),
            cause: Box::new(e.into()),
        }
    }

    fn bad_record(&self) -> StoreError {
        StoreError::BadRecord {
            path: self.path.clone(),
        }
    }
}

/// A token stays known for as long as its signature could still be taken.
fn has_expired(token: &TokenRecord, now: u64) -> bool {
    token.expires_at.saturating_add(LEEWAY_S) < now
}

type Rows<'a> = Table<'a, &'static [u8; 16], &'static [u8]>;
type Definition = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;

const AGENTS: Definition = TableDefinition::new("agents");
const TOKENS: Definition = TableDefinition::new("tokens");
