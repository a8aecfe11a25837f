//! What a call is answered with is what the node that was called made of this very request.

use super::super::{facts::Fact, member::answer_to};

pub(super) fn observe(fact: &Fact<'_>) -> Option<String> {
    let Fact::Outcome {
        serial,
        to,
        kind,
        outcome: Ok(body),
    } = fact
    else {
        return None;
    };
    let wanted = answer_to(*serial, *kind, *to);
    (*body != wanted).then(|| format!("{serial:?} to {to} was answered with {body:?}"))
}
