//! Sessions of a peer's users that go to this gateway's agents.

use std::{io, net::SocketAddr};

use adit_io_common::{
    commands::Commands,
    gateway::{Forwarded, FromPeers, GatewayHandle, Place},
    lines::Lines,
    peers::PeerCommand,
    replica::Link,
    socket::Carried,
};
use adit_proto_core::{
    limits::{FORWARD_HEADER_TIMEOUT, OPEN_TIMEOUT},
    peer::{
        NodeId,
        forward::{Answer, Forward, Status},
    },
    session_timer::SessionBounds,
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{
    link::{self, LinkLeg, finish, hear, say},
    node_of,
    report::Asked,
    session::{Controls, Word, carry},
};

/// One session, from its link to its end.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) gateway: GatewayHandle,
    pub(super) place: Place,
    /// This node.
    pub(super) local: NodeId,
    /// The way of the gateway's answer.
    pub(super) commands: Commands<PeerCommand>,
    pub(super) odd: Lines,
}

impl Taking {
    /// Takes what the peer asks for, and carries it. Whatever is wrong with the header closes the link, unanswered.
    pub(super) async fn run(self, link: Link, mut controls: Controls) {
        let (peer, remote) = (node_of(link.replica()), link.peer_addr());
        let begun = match link::register(link) {
            Ok(leg) => self.header(leg, peer).await,
            Err(error) => Err(error.to_string()),
        };
        let (leg, forward) = match begun {
            Ok(Some(begun)) => begun,
            Ok(None) => return,
            Err(error) => {
                if self.odd.allow() {
                    tracing::warn!(%peer, %remote, error, "{ODD}");
                }
                return;
            }
        };
        self.ask(forward, remote);
        let asked = Asked::new(self.gateway.clone(), self.place);
        let Some((leg, word)) = self.decision(leg, &mut controls).await else {
            return;
        };
        asked.decided();
        if let Some((leg, pipe)) = answered(leg, word).await {
            // The time of the session is judged at the agent's end of the pipe.
            let bounds = SessionBounds::default();
            // Bytes are counted where they leave to the agent.
            carry(pipe, Bytes::new(), bounds, leg, &mut controls, |_, _| {}).await;
        }
    }

    /// Reads what the peer asks for; none where it only looked whether this gateway is there.
    pub(super) async fn header(
        &self,
        mut leg: LinkLeg,
        peer: NodeId,
    ) -> Result<Option<(LinkLeg, Forward)>, String> {
        let heard = timeout(FORWARD_HEADER_TIMEOUT, hear(&mut leg)).await;
        let record = heard.map_err(|_| "no header came in time".to_owned())?;
        let record = record.map_err(|error| error.to_string())?;
        if record.is_empty() {
            return Ok(None);
        }
        let forward = Forward::from_record(&record, peer, self.local);
        Ok(Some((leg, forward.map_err(|error| error.to_string())?)))
    }

    fn ask(&self, forward: Forward, remote: SocketAddr) {
        self.gateway.told_by_peers(FromPeers::Forwarded(Forwarded {
            place: self.place,
            forward: Box::new(forward),
            remote: SocketAddr::new(remote.ip().to_canonical(), remote.port()),
            commands: self.commands.clone(),
        }));
    }

    /// Waits for what the gateway decides; none where the peer has gone before, or is not wanted.
    async fn decision(&self, mut leg: LinkLeg, controls: &mut Controls) -> Option<(LinkLeg, Word)> {
        let word = tokio::select! {
            word = controls.word() => word.ok()?,
            // Nothing may come before the answer, so the peer has gone.
            _gone = hear(&mut leg) => return None,
            () = tokio::time::sleep(OPEN_TIMEOUT) => {
                refuse(&mut leg, Status::TimedOut, "the gateway did not decide").await;
                return None;
            }
        };
        Some((leg, word))
    }
}

/// Tells the peer what was decided; gives what is to be carried. A session that is not any more drops the pipe, and so is
/// reset with the agent.
pub(super) async fn answered(mut leg: LinkLeg, word: Word) -> Option<(LinkLeg, Carried)> {
    match word {
        Word::Accept(pipe) => {
            let answer = Answer::to_record(Status::Open, "");
            in_time(say(&mut leg, &answer)).await.ok()?;
            Some((leg, pipe))
        }
        Word::Refuse(status, reason) => {
            refuse(&mut leg, status, &reason).await;
            None
        }
        Word::Attach(..) => None,
    }
}

/// Answers, and ends the link. Whether the peer hears of it or not, nobody waits any more.
async fn refuse(leg: &mut LinkLeg, status: Status, reason: &str) {
    let told = async {
        say(leg, &Answer::to_record(status, reason)).await?;
        finish(leg).await
    };
    let _heard = in_time(told).await;
}

/// A peer that does not read its answer keeps its place for so long.
async fn in_time(told: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let told = timeout(FORWARD_HEADER_TIMEOUT, told).await;
    told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) const ODD: &str = "a session over a replica link is not taken";
