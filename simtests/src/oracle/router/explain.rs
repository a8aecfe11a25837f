//! What a gateway tells of its candidates for a target is what the reference router would try, in its order.

use adit_proto_core::{
    gateway::info::{Candidate, Explanation, Fallback},
    id::AgentId,
    target::{Host, Target},
};
use ipnet::IpNet;

use super::{Gateway, Way};
use crate::{
    At,
    model::router::{self, Specificity},
};

impl Gateway {
    pub(super) fn explained(
        &self,
        at: At,
        target: &Target,
        pinned: Option<AgentId>,
        told: &Explanation,
    ) -> Option<String> {
        let ways = match pinned {
            Some(agent) => {
                let newest = self.newest(agent).and_then(|conn| self.way(conn));
                newest.into_iter().cloned().collect()
            }
            None => self.online(at),
        };
        let wanted: Vec<(&Way, Option<Specificity>)> = match pinned {
            Some(_) => ways.iter().map(|way| (way, None)).collect(),
            None => router::order(&ways, &target.host)
                .into_iter()
                .map(|(way, fit)| (way, Some(fit)))
                .collect(),
        };
        let dials = pinned.is_none() && self.may_dial(target) && !self.is_advertised(&target.host);
        let right = told.candidates.len() == wanted.len()
            && told
                .candidates
                .iter()
                .zip(&wanted)
                .all(|(told, way)| is_same(&target.host, told, way))
            && has_rungs(&told.candidates, &wanted)
            && (told.fallback == Fallback::Direct) == dials;
        (!right).then(|| format!("{target} is explained by {told:?}; it would be {wanted:?}"))
    }
}

/// The route covers the host, and as closely as it should.
fn is_same(host: &Host, told: &Candidate, (way, fit): &(&Way, Option<Specificity>)) -> bool {
    let route = match (fit, host) {
        (None, _) => told.route == "pinned",
        (Some(Specificity::Prefix(len)), Host::Ip(ip)) => {
            let net: Option<IpNet> = told.route.parse().ok();
            net.is_some_and(|net| net.prefix_len() == *len && net.contains(ip))
        }
        (Some(Specificity::Suffix(len)), Host::Name(name)) => {
            let suffix = told.route.strip_prefix('*').unwrap_or_default();
            suffix.len() == 1 + len && suffix.starts_with('.') && name.ends_with(suffix)
        }
        (Some(Specificity::Exact), Host::Name(name)) => told.route == **name,
        (Some(_), _) => false,
    };
    route && told.agent == way.agent && told.sessions == way.load
}

/// Two candidates have the same rung where their routes are equally specific.
fn has_rungs(told: &[Candidate], wanted: &[(&Way, Option<Specificity>)]) -> bool {
    let rungs = told.windows(2).map(|pair| (pair[0].rung, pair[1].rung));
    let fits = wanted.windows(2).map(|pair| pair[0].1 == pair[1].1);
    rungs.zip(fits).all(|((first, second), same)| match same {
        true => first == second,
        false => first < second,
    })
}
