//! What the API is served from in its tests: a real store, and connections as the test wants them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use adit::{
    control::AgentEntry,
    http::{
        HttpCounters, Refusal,
        agents::{self, AgentsParts},
    },
    presence::Presence,
    store::{AgentRecord, Store},
    token::TokenVerifier,
};
use adit_proto_core::gateway::info::AgentInfo;

pub(crate) fn agents_router(
    store: &Store,
    tokens: Arc<TokenVerifier>,
    presence: &Presence,
    live: &Arc<Mutex<Vec<AgentInfo>>>,
    lists: &Arc<AtomicUsize>,
    counters: &Arc<HttpCounters>,
) -> axum::Router {
    let [listed, shown, deleting] = std::array::from_fn(|_| store.clone());
    let (live, of_one, lists) = (Arc::clone(live), Arc::clone(live), Arc::clone(lists));
    agents::router(AgentsParts {
        tokens,
        store: store.clone(),
        presence: presence.clone(),
        agents: Arc::new(move || {
            lists.fetch_add(1, Ordering::Relaxed);
            let (records, live) = (listed.agents(), live.lock().unwrap().clone());
            Box::pin(async move {
                let records = records.await?.into_iter();
                Ok(records.map(|record| entry(record, &live)).collect())
            })
        }),
        agent: Arc::new(move |id| {
            let (record, live) = (shown.agent(id), of_one.lock().unwrap().clone());
            Box::pin(async move {
                let record = record.await?.ok_or(Refusal::UnknownAgent(id))?;
                Ok(entry(record, &live))
            })
        }),
        delete: Arc::new(move |_, id| {
            let deleted = deleting.delete_agent(id);
            Box::pin(async move {
                let record = deleted.await?;
                record.map(drop).ok_or(Refusal::UnknownAgent(id))
            })
        }),
        counters: Arc::clone(counters),
    })
}

fn entry(record: AgentRecord, live: &[AgentInfo]) -> AgentEntry {
    let own = live.iter().filter(|c| c.identity.id == record.id);
    AgentEntry {
        drained: false,
        connections: own.cloned().collect(),
        record,
    }
}
