//! What agents find behind them: targets, and a resolver.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_proto_core::agent::dial::{ConnectErrorKind, ResolveError};

use crate::{At, facts::NodeId};

/// How an address answers a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It accepts after a while.
    Accept(At),
    /// It refuses after a while.
    Refuse(At),
    /// There is no way to it, which is told after a while.
    Unreachable(At),
    /// It never answers.
    BlackHole,
}

/// How the resolver answers a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// With addresses, after a while.
    Found(Vec<IpAddr>, At),
    /// That there is no such name, after a while.
    NotFound(At),
    /// Not at all.
    Silent,
}

/// What is wrong behind one node only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// No target answers it.
    Targets,
    /// Its resolver is silent.
    Resolver,
    /// Its resolver says of every name that there is none.
    Names,
}

/// Targets and names. What is not listed accepts at once; names that are not listed do not exist.
#[derive(Clone, Debug, Default)]
pub struct Internet {
    /// By address.
    pub hosts: BTreeMap<IpAddr, Answer>,
    /// By name, in lower case.
    pub names: BTreeMap<Box<str>, Resolution>,
    /// Nodes behind which something is wrong that is right behind the others.
    pub ailing: BTreeMap<NodeId, Ailment>,
    calm: bool,
}

impl Internet {
    /// Every target accepts and every name that exists is found from here on.
    pub fn calm(&mut self) {
        self.calm = true;
    }

    /// Gives how a node's connection to an address ends, and when; none where it never does.
    #[must_use]
    pub fn connect(
        &self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Option<(At, Result<(), ConnectErrorKind>)> {
        if self.ails(node, Ailment::Targets) {
            return None;
        }
        match self.hosts.get(&addr.ip()) {
            _ if self.calm => Some((QUICK, Ok(()))),
            None => Some((QUICK, Ok(()))),
            Some(Answer::Accept(after)) => Some((*after, Ok(()))),
            Some(Answer::Refuse(after)) => Some((*after, Err(ConnectErrorKind::Refused))),
            Some(Answer::Unreachable(after)) => Some((*after, Err(ConnectErrorKind::Unreachable))),
            Some(Answer::BlackHole) => None,
        }
    }

    /// Gives what a node's resolver says of a name, and when; none where it never answers.
    #[must_use]
    pub fn resolve(
        &self,
        node: NodeId,
        name: &str,
    ) -> Option<(At, Result<Vec<IpAddr>, ResolveError>)> {
        if self.ails(node, Ailment::Resolver) {
            return None;
        }
        if self.ails(node, Ailment::Names) {
            return Some((QUICK, Err(ResolveError::NotFound)));
        }
        match self.names.get(name) {
            Some(Resolution::Found(found, _)) if self.calm => Some((QUICK, Ok(found.clone()))),
            Some(Resolution::Found(found, after)) => Some((*after, Ok(found.clone()))),
            Some(Resolution::NotFound(after)) if !self.calm => {
                Some((*after, Err(ResolveError::NotFound)))
            }
            Some(Resolution::Silent) if !self.calm => None,
            Some(Resolution::NotFound(_) | Resolution::Silent) | None => {
                Some((QUICK, Err(ResolveError::NotFound)))
            }
        }
    }

    fn ails(&self, node: NodeId, what: Ailment) -> bool {
        !self.calm && self.ailing.get(&node) == Some(&what)
    }
}

const QUICK: At = Duration::from_micros(300);

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: At = Duration::from_secs(3);

    const NODE: NodeId = NodeId(1);

    fn internet() -> Internet {
        let hosts = [
            ("10.0.0.1", Answer::Accept(SLOW)),
            ("10.0.0.2", Answer::Refuse(SLOW)),
            ("10.0.0.3", Answer::Unreachable(SLOW)),
            ("10.0.0.4", Answer::BlackHole),
        ];
        let found = vec![[10, 0, 0, 1].into()];
        let names = [
            ("slow.x", Resolution::Found(found, SLOW)),
            ("none.x", Resolution::NotFound(SLOW)),
            ("mute.x", Resolution::Silent),
        ];
        Internet {
            hosts: hosts
                .map(|(ip, answer)| (ip.parse().unwrap(), answer))
                .into(),
            names: names.map(|(name, answer)| (name.into(), answer)).into(),
            ..Internet::default()
        }
    }

    #[test]
    fn targets_answer_as_they_are_listed() {
        let internet = internet();
        let connect = |ip: [u8; 4]| internet.connect(NODE, (ip, 80).into());
        assert_eq!(connect([10, 0, 0, 1]), Some((SLOW, Ok(()))));
        assert_eq!(
            connect([10, 0, 0, 2]),
            Some((SLOW, Err(ConnectErrorKind::Refused)))
        );
        assert_eq!(
            connect([10, 0, 0, 3]),
            Some((SLOW, Err(ConnectErrorKind::Unreachable)))
        );
        assert_eq!(connect([10, 0, 0, 4]), None);
        assert_eq!(connect([10, 0, 0, 5]), Some((QUICK, Ok(()))));
    }

    #[test]
    fn names_resolve_as_they_are_listed() {
        let internet = internet();
        let found = vec![[10, 0, 0, 1].into()];
        assert_eq!(internet.resolve(NODE, "slow.x"), Some((SLOW, Ok(found))));
        assert_eq!(
            internet.resolve(NODE, "none.x"),
            Some((SLOW, Err(ResolveError::NotFound)))
        );
        assert_eq!(internet.resolve(NODE, "mute.x"), None);
        assert_eq!(
            internet.resolve(NODE, "other.x"),
            Some((QUICK, Err(ResolveError::NotFound)))
        );
    }

    #[test]
    fn in_the_calm_everything_answers_at_once() {
        let mut internet = internet();
        internet.calm();
        for last in 1..6 {
            let addr = ([10, 0, 0, last], 80).into();
            assert_eq!(internet.connect(NODE, addr), Some((QUICK, Ok(()))));
        }
        let found = vec![[10, 0, 0, 1].into()];
        assert_eq!(internet.resolve(NODE, "slow.x"), Some((QUICK, Ok(found))));
        for name in ["none.x", "mute.x", "other.x"] {
            let answer = Some((QUICK, Err(ResolveError::NotFound)));
            assert_eq!(internet.resolve(NODE, name), answer, "{name}");
        }
    }
}
