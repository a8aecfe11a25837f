//! Fixed forwards: the target is known before the user says anything.

use adit_proto_core::{id::AgentId, target::Target};

use super::establish::Wanted;

pub(super) fn wanted(target: &Target, agent: Option<AgentId>) -> Wanted {
    Wanted {
        target: target.clone(),
        agent,
        account: None,
        early: bytes::BytesMut::new(),
    }
}
