//! Sessions that are over at one end while their last bytes are under way or unread at the other, and a connection that is
//! closed behind them in an orderly way.

use std::time::Duration;

use super::{Size, flood, renewals, routes, topology};
use crate::{
    choices::Choices,
    facts::NodeId,
    faults::{Fault, Wish},
    net::Path,
    plan::Plan,
    tcp::{Ending, Script},
};

const GATEWAY: NodeId = NodeId(0);
const AGENT: NodeId = NodeId(1);

/// Why the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Stop(NodeId),
    Renewal,
}

/// Draws one gateway, one agent, a clean path between them, and the sessions.
pub(super) fn draw(choices: &mut Choices) -> Plan {
    let size = Size {
        gateways: 1,
        agents: 1,
        users: 0,
        bytes_max: 0,
        faults: 0,
        all_welcome: true,
        safety: Duration::from_secs(20),
    };
    let mut plan = topology::draw(choices, size);
    flood::behave(&mut plan);
    let path = Path {
        rate_bps: match choices.chance(500) {
            true => choices.between(600_000, 1_500_000),
            false => choices.scaled(1_500_000, 50_000_000),
        },
        delay: choices.time(Duration::from_millis(1), Duration::from_millis(20)),
        queue_bytes: 256 << 10,
        ..Path::clean()
    };
    plan.paths = vec![(GATEWAY, AGENT, path.clone()), (AGENT, GATEWAY, path)];
    let closes = [
        Close::Stop(GATEWAY),
        Close::Stop(AGENT),
        Close::Renewal,
        Close::Renewal,
    ];
    match *choices.pick(&closes) {
        Close::Stop(node) => {
            let at = choices.time(Duration::from_secs(1), Duration::from_secs(5));
            plan.script.push((at, Fault::Stop(node)));
            plan.script
                .push((at + Duration::from_secs(4), Fault::Start(node)));
        }
        Close::Renewal => renewals::renew_at(&mut plan, 0, 3),
    }
    // Where all send the same way, all are over at that end while most is under way.
    let user_sends = *choices.pick(&[None, Some(true), Some(false)]);
    for _ in 0..choices.between(3, 9) {
        let at = choices.time(Duration::from_millis(500), Duration::from_millis(1_500));
        let wish = wish(choices, user_sends);
        plan.script.push((at, Fault::Open(Box::new(wish))));
    }
    plan
}

/// One side sends at most what a stream's window takes, and ends at once; the other one does too, and may read late.
fn wish(choices: &mut Choices, user_sends: Option<bool>) -> Wish {
    let total = choices.between(50_000, 250_000);
    let sender = Script {
        ending: Ending::Fin,
        ..Script::short(total)
    };
    let receiver = Script {
        ending: Ending::Fin,
        stall: choices.chance(500).then(|| {
            let time = choices.time(Duration::from_secs(5), Duration::from_secs(15));
            (choices.between(0, 1_000), time)
        }),
        ..Script::short(choices.between(1, 1_000))
    };
    let host = u8::try_from(choices.between(1, 254)).unwrap_or(1);
    let (user, target_script) = match user_sends.unwrap_or_else(|| choices.chance(500)) {
        true => (sender, receiver),
        false => (receiver, sender),
    };
    Wish {
        gateway: GATEWAY,
        target: routes::home_target(0, host),
        pinned: None,
        user,
        target_script,
        promise: None,
        patience: None,
    }
}
