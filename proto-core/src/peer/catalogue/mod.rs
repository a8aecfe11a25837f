//! Which gateway holds which agents and routes: told by each for itself, and forgotten soon (docs/protocol-peer.md,
//! "Catalogue").

mod known;
mod link;
mod message;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub use self::message::{Announcement, Holding, News, Received, Stamp};
use self::{known::Known, link::Link};
use super::{
    NodeId,
    body::{Body, BodyError},
};
use crate::limits::{CATALOGUE_COALESCE, EPOCH_LIFT_MAX, PEERS_MAX};

/// Tells peers what this gateway holds, and keeps what they tell.
///
/// Every peer is told the whole at first and after each change, and once in [`CATALOGUE_REFRESH`](crate::limits::CATALOGUE_REFRESH) that what it knows still
/// holds, also while a later whole is on its way.
/// What a peer says counts for [`CATALOGUE_LIFETIME`](crate::limits::CATALOGUE_LIFETIME), then it is gone. After any
/// call that takes `&mut self`, poll outputs until there is none.
#[derive(Debug)]
pub struct Catalogue {
    local: NodeId,
    /// The count of starts that it began with.
    begun: u64,
    stamp: Stamp,
    /// What is told, and as its payload.
    holding: Arc<Holding>,
    whole: Bytes,
    /// When what is held is asked for, after a change.
    collect_at: Option<Instant>,
    collected_at: Option<Instant>,
    peers: BTreeMap<NodeId, Peer>,
    outputs: VecDeque<CatalogueOutput>,
    is_stopped: bool,
}

#[derive(Debug)]
struct Peer {
    link: Link,
    known: Known,
}

/// What a [`Catalogue`] wants done, or has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueOutput {
    /// Say what this gateway holds, by [`Catalogue::set_local`].
    Collect,
    /// Send this to a peer, in a call of the kind `Catalogue`; to be answered by [`Catalogue::handle_answer`] or
    /// [`Catalogue::handle_unanswered`]. One call of each lane is to be under way at a time; of what waits the latest counts.
    Tell {
        /// The peer.
        peer: NodeId,
        /// Beside what it goes.
        lane: Lane,
        /// The payload.
        payload: Bytes,
    },
    /// What a peer holds is another set; see [`Catalogue::held_by`].
    Changed {
        /// The peer.
        peer: NodeId,
    },
    /// So much of what this gateway holds is beyond what may be told, and peers route nothing to it.
    LeftOut {
        /// Agents and routes.
        count: usize,
    },
    /// A peer knows of a later start of this gateway, or of a later change: the count of starts was lost. Nothing that is told counts there
    /// before [`Catalogue::set_epoch`] with a higher one.
    EpochLost {
        /// The peer.
        peer: NodeId,
        /// The latest start that it knows of; less than [`EPOCH_LIFT_MAX`] beyond that which this process was counted as,
        /// whatever all peers say.
        epoch: u64,
    },
}

/// What is told of one kind goes one after the other, and beside the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// All that is held, up to [`CATALOGUE_LEN_MAX`](crate::limits::CATALOGUE_LEN_MAX): it may take seconds.
    Whole,
    /// A few bytes.
    Brief,
}

/// An announcement that was not taken: the peer's fault. What it held before stays for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// No payload of its kind.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It speaks for another gateway than the one that sent it.
    #[error("node {peer} speaks for node {node}")]
    Foreign {
        /// Who sent it.
        peer: NodeId,
        /// Whom it names.
        node: NodeId,
    },
    /// The sender is no peer of this gateway.
    #[error("node {0} is no peer")]
    Unknown(NodeId),
    /// It names a start of this gateway that is not to be believed: the peer's fault, or this gateway's count of starts was
    /// lost long ago.
    #[error(
        "node {peer} knows of start {epoch} of this gateway, which began as {begun}: no peer lifts the count by {EPOCH_LIFT_MAX} or more; where that start is right, raise the durable count and start again"
    )]
    TooFar {
        /// Who says so.
        peer: NodeId,
        /// The start that it names.
        epoch: u64,
        /// The start that this process was counted as.
        begun: u64,
    },
    /// It holds a later change than the latest that it knows of.
    #[error("node {0} holds more of this gateway than it knows of")]
    Impossible(NodeId),
    /// It tells the whole again and again: the peer's fault. Another attempt is worth while after `wait`.
    #[error("node {peer} tells all that it holds too often")]
    TooSoon {
        /// Who sent it.
        peer: NodeId,
        /// For how long no further one is read.
        wait: Duration,
    },
    /// What it lists is out of order, twice, or too much.
    #[error("the holding of node {0} is out of order")]
    Untidy(NodeId),
}

impl Catalogue {
    /// Begins without peers. `epoch` counts the starts of this gateway and is durable (peer-rpc 7.3).
    #[must_use]
    pub fn new(local: NodeId, epoch: u64) -> Self {
        let mut catalogue = Self {
            local,
            begun: epoch,
            stamp: Stamp { epoch, version: 0 },
            holding: Arc::default(),
            whole: Bytes::new(),
            collect_at: None,
            collected_at: None,
            peers: BTreeMap::new(),
            outputs: VecDeque::new(),
            is_stopped: false,
        };
        catalogue.whole = catalogue.payload(News::Whole(Holding::default()));
        catalogue
    }

    /// Takes a node of the configuration as a peer. Tells whether it is one: there are at most [`PEERS_MAX`], and this
    /// gateway is none.
    pub fn add_peer(&mut self, peer: NodeId) -> bool {
        if peer == self.local || self.peers.len() >= PEERS_MAX {
            return self.peers.contains_key(&peer);
        }
        self.peers.entry(peer).or_insert_with(|| Peer {
            link: Link::Down,
            known: Known::default(),
        });
        true
    }

    /// Takes a peer out, and what it holds with it.
    pub fn remove_peer(&mut self, peer: NodeId) {
        let gone = self.peers.remove(&peer);
        if gone.is_some_and(|gone| gone.known.holding().is_some()) {
            self.emit(CatalogueOutput::Changed { peer });
        }
    }

    /// Notes that calls reach a peer: it is told everything.
    pub fn handle_up(&mut self, now: Instant, peer: NodeId) {
        if let Some(Peer { link, .. }) = self.peers.get_mut(&peer) {
            *link = Link::Up {
                holds: None,
                told: None,
                waits_until: None,
                tell_at: now,
            };
        }
        self.tell(now);
    }

    /// Notes that calls do not reach a peer, as its connection ended or is suspect. What it holds counts for the rest of
    /// its time.
    pub fn handle_down(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.link = Link::Down;
        }
    }

    /// Notes that a peer closed its connection in order to stop: what it holds is gone at once.
    pub fn handle_goodbye(&mut self, peer: NodeId) {
        self.handle_down(peer);
        let gone = self.peers.get_mut(&peer).map(|peer| peer.known.clear());
        if gone == Some(true) {
            self.emit(CatalogueOutput::Changed { peer });
        }
    }

    /// Notes that what this gateway holds may have changed. It is asked for at once, or, after a change just before,
    /// within [`CATALOGUE_COALESCE`].
    pub fn handle_changed(&mut self, now: Instant) {
        let at = self.collected_at.map(|at| later(at, CATALOGUE_COALESCE));
        let at = at.map_or(now, |at| at.max(now));
        self.collect_at.get_or_insert(at);
        self.collect(now);
    }

    /// Takes what this gateway holds itself; what peers hold is no part of it.
    pub fn set_local(&mut self, now: Instant, mut holding: Holding) {
        let count = holding.tidy();
        if holding == *self.holding {
            return;
        }
        if count > 0 {
            self.emit(CatalogueOutput::LeftOut { count });
        }
        self.holding = Arc::new(holding);
        self.stamp.version = self.stamp.version.saturating_add(1);
        self.whole = self.payload(News::Whole((*self.holding).clone()));
        self.tell(now);
    }

    /// Goes on under a higher count of starts, where that was lost. A lower one changes nothing.
    pub fn set_epoch(&mut self, now: Instant, epoch: u64) {
        if epoch > self.stamp.epoch {
            self.stamp = Stamp { epoch, version: 0 };
            self.whole = self.payload(News::Whole((*self.holding).clone()));
            self.tell(now);
        }
    }

    /// Says goodbye to every peer that calls reach, and tells nothing after it; a second time changes nothing.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        self.stamp.version = self.stamp.version.saturating_add(1);
        let payload = self.payload(News::Goodbye);
        let up = |(id, peer): (&NodeId, &Peer)| matches!(peer.link, Link::Up { .. }).then_some(*id);
        for peer in self.peers.iter().filter_map(up).collect::<Vec<_>>() {
            let payload = payload.clone();
            let lane = Lane::Brief;
            self.emit(CatalogueOutput::Tell {
                peer,
                lane,
                payload,
            });
        }
    }

    /// Takes the payload of a call of the kind `Catalogue`, whose sender was proved, and gives that of its answer.
    ///
    /// # Errors
    /// [`CatalogueError`]: the call gets no answer.
    pub fn handle_told(
        &mut self,
        now: Instant,
        peer: NodeId,
        payload: &[u8],
    ) -> Result<Bytes, CatalogueError> {
        let entry = self.peers.get_mut(&peer);
        let known = &mut entry.ok_or(CatalogueError::Unknown(peer))?.known;
        // Before it is read, as that is what costs.
        if Announcement::is_whole(payload)
            && let Some(wait) = known.pace(now)
        {
            return Err(CatalogueError::TooSoon { peer, wait });
        }
        let Announcement { node, stamp, news } = Announcement::decode(payload)?;
        if node != peer {
            return Err(CatalogueError::Foreign { peer, node });
        }
        if let News::Whole(holding) = &news
            && !holding.is_tidy()
        {
            return Err(CatalogueError::Untidy(peer));
        }
        let is_changed = known.take(now, stamp, news);
        let answer = known.received().encode()?;
        if is_changed {
            self.emit(CatalogueOutput::Changed { peer });
        }
        Ok(answer)
    }

    /// Takes the answer to a [`CatalogueOutput::Tell`]. Late and repeated ones are allowed: each says what the peer holds.
    ///
    /// # Errors
    /// [`CatalogueError::Body`], [`CatalogueError::Unknown`] and [`CatalogueError::Impossible`]; nothing has changed then.
    /// [`CatalogueError::TooFar`]: the count of starts is not lifted.
    pub fn handle_answer(
        &mut self,
        now: Instant,
        peer: NodeId,
        payload: &[u8],
    ) -> Result<(), CatalogueError> {
        let Received { held, highest } = Received::decode(payload)?;
        let stamp = self.stamp;
        let entry = self.peers.get_mut(&peer);
        let Peer { link, .. } = entry.ok_or(CatalogueError::Unknown(peer))?;
        if held > Some(highest) {
            return Err(CatalogueError::Impossible(peer));
        }
        if let Link::Up {
            holds,
            told,
            waits_until,
            ..
        } = link
        {
            // What it has of a former start is not what this one will tell under the same stamp.
            *holds = held.filter(|held| *held <= stamp);
            // An answer to something earlier leaves what is under way under way.
            if *told <= Some(highest) {
                *waits_until = None;
            }
        }
        if highest > stamp {
            let (epoch, begun) = (highest.epoch, self.begun);
            if epoch.saturating_sub(begun) >= EPOCH_LIFT_MAX {
                return Err(CatalogueError::TooFar { peer, epoch, begun });
            }
            self.emit(CatalogueOutput::EpochLost { peer, epoch });
            return Ok(());
        }
        self.tell(now);
        Ok(())
    }

    /// Notes that a [`CatalogueOutput::Tell`] came to nothing. The whole is told again with the next refresh.
    pub fn handle_unanswered(&mut self, peer: NodeId, lane: Lane) {
        if lane == Lane::Whole
            && let Some(Peer {
                link: Link::Up { waits_until, .. },
                ..
            }) = self.peers.get_mut(&peer)
        {
            *waits_until = None;
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let expired = |(id, peer): (&NodeId, &mut Peer)| peer.known.expire(now).then_some(*id);
        let gone: Vec<_> = self.peers.iter_mut().filter_map(expired).collect();
        for peer in gone {
            self.emit(CatalogueOutput::Changed { peer });
        }
        self.collect(now);
        self.tell(now);
    }

    /// When [`Catalogue::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tell_at = |peer: &Peer| match peer.link {
            Link::Up { tell_at, .. } if !self.is_stopped => Some(tell_at),
            Link::Up { .. } | Link::Down => None,
        };
        let of_peer = |peer: &Peer| tell_at(peer).into_iter().chain(peer.known.until()).min();
        let peers = self.peers.values().filter_map(of_peer);
        peers.chain(self.collect_at).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<CatalogueOutput> {
        self.outputs.pop_front()
    }

    /// What a peer holds; none where it said nothing, or not for a while.
    #[must_use]
    pub fn held_by(&self, peer: NodeId) -> Option<&Arc<Holding>> {
        self.peers.get(&peer)?.known.holding()
    }

    /// The stamp under which a peer's holding is known, for listings.
    #[must_use]
    pub fn stamp_of(&self, peer: NodeId) -> Option<Stamp> {
        self.peers.get(&peer)?.known.received().held
    }

    fn collect(&mut self, now: Instant) {
        if self.collect_at.is_some_and(|at| at <= now) {
            self.collect_at = None;
            self.collected_at = Some(now);
            self.emit(CatalogueOutput::Collect);
        }
    }

    /// Tells every peer that is up what is due.
    fn tell(&mut self, now: Instant) {
        if self.is_stopped {
            return;
        }
        let (node, stamp) = (self.local, self.stamp);
        for (&peer, Peer { link, .. }) in &mut self.peers {
            let due = link.due(now, stamp);
            if let Some(held) = due.unchanged {
                self.outputs.push_back(CatalogueOutput::Tell {
                    peer,
                    lane: Lane::Brief,
                    payload: payload(node, held, News::Unchanged),
                });
            }
            if due.is_whole {
                self.outputs.push_back(CatalogueOutput::Tell {
                    peer,
                    lane: Lane::Whole,
                    payload: self.whole.clone(),
                });
            }
        }
    }

    fn payload(&self, news: News) -> Bytes {
        payload(self.local, self.stamp, news)
    }

    fn emit(&mut self, output: CatalogueOutput) {
        self.outputs.push_back(output);
    }
}

/// A moment that no clock reaches is none to wait for.
fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

/// A holding that is tidy fits; anything else is a few bytes.
fn payload(node: NodeId, stamp: Stamp, news: News) -> Bytes {
    let encoded = Announcement { node, stamp, news }.encode();
    debug_assert!(encoded.is_ok(), "a tidy holding that does not fit");
    encoded.unwrap_or_default()
}
