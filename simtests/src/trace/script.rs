//! What the script of a run does, in words.

use adit_proto_core::{id::AgentId, target::Target};

use super::words::{self, Names};
use crate::{
    facts::NodeId,
    faults::{Fault, Wish},
    tcp::{Ending, Script},
};

pub(super) fn fault(names: Names, fault: &Fault) -> String {
    let of = |node: &NodeId| names.of(*node);
    match fault {
        Fault::Crash(node) => format!("{} crashes", of(node)),
        Fault::Restore(node) => format!("{} is restored from a backup", of(node)),
        Fault::Stop(node) => format!("{} is stopped", of(node)),
        Fault::Start(node) => format!("{} is started", of(node)),
        Fault::Freeze(node) => format!("{} stands still", of(node)),
        Fault::Thaw(node) => format!("{} goes on", of(node)),
        Fault::Cut(from, to) => format!("nothing gets from {} to {}", of(from), of(to)),
        Fault::Mend(from, to) => format!("datagrams get from {} to {} again", of(from), of(to)),
        Fault::BlockUdp(node) => format!("UDP is blocked at {}", of(node)),
        Fault::UnblockUdp(node) => format!("UDP works at {} again", of(node)),
        Fault::Rebind(node) => format!("the NAT before {} forgets its mappings", of(node)),
        Fault::SetPath(from, to, path) => {
            format!(
                "path from {} to {}: {}",
                of(from),
                of(to),
                words::path(path)
            )
        }
        Fault::WallClock(node, off_ms) => format!("{}'s clock is off by {off_ms} ms", of(node)),
        Fault::BlockSocket(node, time) => format!("{}'s socket is full for {time:?}", of(node)),
        Fault::SetRoutes(node, set, _) => {
            format!("{} is to advertise {}", of(node), words::routes(set))
        }
        Fault::ChangeNetwork(node) => format!("{} has new addresses", of(node)),
        Fault::NewKey(node, ..) => format!("{} has enrolled again", of(node)),
        Fault::Order(node, order) => format!("{} is to do {order:?}", of(node)),
        Fault::Open(wish) => format!("a user comes to {}", self::wish(names, wish)),
    }
}

fn wish(names: Names, wish: &Wish) -> String {
    let patience = wish.patience.map_or_else(String::new, |time| {
        format!(", goes away unless connected within {time:?}")
    });
    format!(
        "{} for {}{}; user: {}; target: {}",
        names.of(wish.gateway),
        through(&wish.target, wish.pinned),
        patience,
        script(&wish.user),
        script(&wish.target_script)
    )
}

pub(super) fn through(target: &Target, pinned: Option<AgentId>) -> String {
    pinned.map_or_else(
        || target.to_string(),
        |agent| format!("{target} through agent {agent}"),
    )
}

fn script(script: &Script) -> String {
    let mut text = format!("writes {}", script.total);
    if script.chunk < script.total {
        text.push_str(&format!(", {} each {:?}", script.chunk, script.gap));
    }
    text.push_str(match script.ending {
        Ending::Fin => ", ends",
        Ending::FinAfterPeer => ", ends after the peer",
        Ending::Hold => ", holds",
    });
    if let Some((after, time)) = script.stall {
        text.push_str(&format!(", stalls after {after} for {time:?}"));
    }
    if let Some(after) = script.reset_after {
        let how = if script.reset_discards {
            " losing what is unread"
        } else {
            ""
        };
        text.push_str(&format!(", resets after {after:?}{how}"));
    }
    text
}
