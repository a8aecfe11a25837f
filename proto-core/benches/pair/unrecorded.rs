//! A benchmark takes nothing down.

use std::time::Instant;

use adit_proto_core::endpoint::Endpoint;

pub(crate) struct Kept;

impl Kept {
    pub(crate) fn new(_begun: Instant) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as the tests' own")]
    pub(crate) fn record(&self, _endpoint: &mut Endpoint) {}

    #[expect(clippy::unused_self, reason = "as the tests' own")]
    pub(crate) fn replay(&self) {}
}
