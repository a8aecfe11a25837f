//! Does a certificate belong to the node that it speaks for (peer-rpc 1.4, 6.2, 6.3).
//!
//! Two sets of rules stand here: those of the reference, which the golden vectors record and nothing else uses, and ours.

use super::{
    NodeId,
    identity::{BadLeaf, IdentityStore, Leaf, NodeRecord, SpkiPin},
};

/// Why a message's sender may be taken for the node that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accepted {
    /// Its SPIFFE id is the record's, which pins no key.
    Spiffe,
    /// Its key is one of the record's, and its SPIFFE id, where the record has one, is the record's.
    Spki,
    /// Its record pins nothing, and the operator has opened the bootstrap window.
    Bootstrap,
    /// It has no record, asks to join, and its key is pre-authorised.
    Enrolled,
    /// It is this node itself.
    Own,
    /// Nobody proves anything: the insecure mode (peer-rpc 1.2).
    Insecure,
}

/// Why it may not. All but [`IdentityError::JoinRefused`] and [`IdentityError::Unknown`] say that somebody uses a name
/// that is not theirs, or that a record is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The connection has no certificate of the peer's.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate was revoked, is out of its dates, or its CA is none of the cluster's any more.
    #[error("the peer's certificate is not good any more")]
    NotVouched,
    /// The certificate does not parse.
    #[error(transparent)]
    BadLeaf(#[from] BadLeaf),
    /// The topology has no such node, and this is no enrolment.
    #[error("the node is not known")]
    Unknown,
    /// The record pins nothing, and the bootstrap window is not open.
    #[error("the node's record has no pins")]
    NoPins,
    /// The key is none of the record's.
    #[error("the certificate's key is not the node's")]
    WrongKey,
    /// The SPIFFE id is not the record's.
    #[error("the certificate's SPIFFE id is not the node's")]
    WrongSpiffe,
    /// The key belongs to another node.
    #[error("the certificate's key belongs to {owner}")]
    OwnedBy {
        /// Which one.
        owner: NodeId,
    },
    /// The connection belongs to another node since its first message.
    #[error("the connection belongs to {bound}")]
    BoundTo {
        /// Which one.
        bound: NodeId,
    },
    /// A foreign certificate claims to be this node.
    #[error("the peer claims to be this node")]
    ClaimsToBeUs,
    /// The key may join, and what the request says is not what the certificate says.
    #[error("the join request does not fit its certificate")]
    JoinRefused,
}

/// What identities are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// This node.
    pub local: NodeId,
    /// Key of this node's certificate.
    pub own_spki: SpkiPin,
    /// The topology.
    pub store: &'a dyn IdentityStore,
    /// Until when records without pins are accepted, in milliseconds of Unix time; 0 is never, which is the default.
    pub bootstrap_until: u64,
    /// Unix time, in milliseconds.
    pub unix_ms: u64,
}

impl Judge<'_> {
    /// Judges a message whose tag is good, before any state is touched.
    ///
    /// `bound` is the node that the connection belongs to since its first accepted message. `joins` is asked only of a
    /// node without a record whose key may join: is this a join request, and does what it says fit the certificate? It
    /// may have no side effects.
    ///
    /// # Errors
    /// [`IdentityError`]; the connection is to be closed.
    pub fn message(
        &self,
        from: NodeId,
        bound: Option<NodeId>,
        leaf: Option<&Result<Leaf, BadLeaf>>,
        joins: impl FnOnce(&Leaf) -> bool,
    ) -> Result<Accepted, IdentityError> {
        let bound_to_another = bound.filter(|bound| *bound != from);
        if self.store.is_insecure() {
            return match bound_to_another {
                Some(bound) => Err(IdentityError::BoundTo { bound }),
                None => Ok(Accepted::Insecure),
            };
        }
        let leaf = leaf.ok_or(IdentityError::NoCertificate)?.as_ref();
        let leaf = leaf.map_err(|bad| *bad)?;
        if let Some(bound) = bound_to_another {
            return Err(IdentityError::BoundTo { bound });
        }
        match (from == self.local, leaf.spki == self.own_spki) {
            (true, true) => return Ok(Accepted::Own),
            (true, false) => return Err(IdentityError::ClaimsToBeUs),
            (false, _) => {}
        }
        match self.store.by_node(from) {
            Some(record) => self.member(&record, leaf),
            None => self.enrolment(leaf, joins),
        }
    }

    /// Judges the server of a connection that was dialled for a known node, right after the handshake (peer-rpc 1.4).
    ///
    /// # Errors
    /// [`IdentityError`]; the connection is to be closed.
    pub fn dialled(
        &self,
        node: NodeId,
        leaf: Option<&Result<Leaf, BadLeaf>>,
    ) -> Result<Accepted, IdentityError> {
        self.message(node, None, leaf, |_| false)
    }

    /// Judges the other end of a connection once more, after records were exchanged: that of `node`, or, where nobody has
    /// said yet which node it is, the certificate alone. `has_joined` is that a join request of it may have been accepted
    /// on this connection.
    ///
    /// # Errors
    /// [`IdentityError`]; the connection is to be closed.
    pub fn standing(
        &self,
        node: Option<NodeId>,
        leaf: Option<&Result<Leaf, BadLeaf>>,
        has_joined: bool,
    ) -> Result<(), IdentityError> {
        if self.store.is_insecure() {
            return Ok(());
        }
        let Some(node) = node else {
            let leaf = leaf.ok_or(IdentityError::NoCertificate)?.as_ref();
            return self.certificate(leaf.map_err(|bad| *bad)?);
        };
        match self.message(node, None, leaf, |_| has_joined) {
            Ok(_) => Ok(()),
            // A node that joins has no topology yet.
            Err(IdentityError::Unknown) if self.store.is_empty() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Judges a certificate in the TLS handshake, when nobody has said yet which node it is (peer-rpc 1.4, rows 1 to 5).
    /// One that nobody claims is let in only while this node has no topology, while its key may join, or while the
    /// bootstrap window is open.
    ///
    /// # Errors
    /// [`IdentityError`]; the handshake is to fail.
    pub fn certificate(&self, leaf: &Leaf) -> Result<(), IdentityError> {
        match reference_certificate(Some(leaf), self.store) {
            ReferenceCertificate::Accept => Ok(()),
            ReferenceCertificate::Reject => Err(IdentityError::WrongKey),
            ReferenceCertificate::Bootstrap => {
                let is_own = leaf.spki == self.own_spki;
                let may_join = self.may_join(leaf);
                let open = self.store.is_empty() || self.bootstrap_is_open();
                match is_own || may_join || open {
                    true => Ok(()),
                    false => Err(IdentityError::Unknown),
                }
            }
        }
    }

    /// Every pin that is set must match (peer-rpc 6.3).
    fn member(&self, record: &NodeRecord, leaf: &Leaf) -> Result<Accepted, IdentityError> {
        let pins = &record.spki_pins;
        match (pins.is_empty(), &record.spiffe_id) {
            (true, None) if self.bootstrap_is_open() => Ok(Accepted::Bootstrap),
            (true, None) => Err(IdentityError::NoPins),
            (false, _) if !pins.holds(&leaf.spki) => Err(IdentityError::WrongKey),
            (_, Some(_)) if record.spiffe_id != leaf.spiffe_id => Err(IdentityError::WrongSpiffe),
            (true, Some(_)) => Ok(Accepted::Spiffe),
            (false, _) => Ok(Accepted::Spki),
        }
    }

    fn enrolment(
        &self,
        leaf: &Leaf,
        joins: impl FnOnce(&Leaf) -> bool,
    ) -> Result<Accepted, IdentityError> {
        if let Some(owner) = self.store.by_spki(&leaf.spki) {
            return Err(IdentityError::OwnedBy { owner: owner.node });
        }
        if !self.may_join(leaf) {
            return Err(IdentityError::Unknown);
        }
        match joins(leaf) {
            true => Ok(Accepted::Enrolled),
            false => Err(IdentityError::JoinRefused),
        }
    }

    fn may_join(&self, leaf: &Leaf) -> bool {
        let until = self.store.enrolment(&leaf.spki);
        until.is_some_and(|until| self.unix_ms < until)
    }

    fn bootstrap_is_open(&self) -> bool {
        self.unix_ms < self.bootstrap_until
    }
}

/// The reference's verdict on a message (peer-rpc 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceMessage {
    /// No record: continues.
    BootstrapNoRecord,
    /// A record without pins: continues.
    BootstrapNoPins,
    /// Accepted by its SPIFFE id, whatever its key.
    AcceptedSpiffe,
    /// Accepted by its key, whatever its SPIFFE id.
    AcceptedSpki,
    /// Refused.
    Rejected,
}

/// What the reference does with a message. A leaf that does not parse is none.
#[must_use]
pub fn reference_message(record: Option<&NodeRecord>, leaf: Option<&Leaf>) -> ReferenceMessage {
    let Some(record) = record else {
        return ReferenceMessage::BootstrapNoRecord;
    };
    let pins = &record.spki_pins;
    if pins.is_empty() && record.spiffe_id.is_none() {
        return ReferenceMessage::BootstrapNoPins;
    }
    let has_id = |leaf: &&Leaf| record.spiffe_id.is_some() && leaf.spiffe_id == record.spiffe_id;
    if leaf.as_ref().is_some_and(has_id) {
        return ReferenceMessage::AcceptedSpiffe;
    }
    match leaf.is_some_and(|leaf| pins.holds(&leaf.spki)) {
        true => ReferenceMessage::AcceptedSpki,
        false => ReferenceMessage::Rejected,
    }
}

/// The reference's verdict on a certificate in the TLS handshake (peer-rpc 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceCertificate {
    /// Rows 2, 3 and 5: somebody in the topology has it.
    Accept,
    /// Row 6: nobody in the topology claims it.
    Bootstrap,
    /// Rows 1 and 4: it does not parse, or has a node's SPIFFE id with another key.
    Reject,
}

/// What the reference does with a certificate. A leaf that does not parse is none.
#[must_use]
pub fn reference_certificate(
    leaf: Option<&Leaf>,
    store: &dyn IdentityStore,
) -> ReferenceCertificate {
    let Some(leaf) = leaf else {
        return ReferenceCertificate::Reject;
    };
    let named = leaf.spiffe_id.as_ref().and_then(|id| store.by_spiffe(id));
    if let Some(record) = named {
        let pins = &record.spki_pins;
        return match pins.is_empty() || pins.holds(&leaf.spki) {
            true => ReferenceCertificate::Accept,
            false => ReferenceCertificate::Reject,
        };
    }
    match store.by_spki(&leaf.spki) {
        Some(_) => ReferenceCertificate::Accept,
        None => ReferenceCertificate::Bootstrap,
    }
}

#[cfg(test)]
mod tests;
