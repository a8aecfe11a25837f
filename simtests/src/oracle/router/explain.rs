//! What a gateway tells of its candidates for a target is what the reference router would try, in its order.

use adit_proto_core::{
    gateway::info::{Candidate, Explanation, Fallback},
    id::AgentId,
    target::Target,
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
            && told.candidates.iter().zip(&wanted).all(is_same)
            && has_rungs(&told.candidates, &wanted)
            && (told.fallback == Fallback::Direct) == dials;
        (!right).then(|| format!("{target} is explained by {told:?}; it would be {wanted:?}"))
    }
}

fn is_same((told, (way, fit)): (&Candidate, &(&Way, Option<Specificity>))) -> bool {
    let suffix = told.route.strip_prefix("*.");
    let route = match fit {
        None => told.route == "pinned",
        Some(Specificity::Prefix(len)) => {
            let net: Option<IpNet> = told.route.parse().ok();
            net.is_some_and(|net| net.prefix_len() == *len)
        }
        Some(Specificity::Suffix(len)) => suffix.is_some_and(|suffix| suffix.len() == *len),
        Some(Specificity::Exact) => suffix.is_none(),
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
