//! What a gateway needs to be a peer of others: the cluster's key, a CA of their own, the ends of its certificates, and
//! the count of its starts.

pub mod authority;
pub mod boot_epoch;
pub mod ends;
pub mod key;
pub mod node;
