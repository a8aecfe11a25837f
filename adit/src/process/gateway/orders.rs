//! What operators ask of the process by the socket.

use super::{ConfigSource, GatewayProcess};
use crate::admin::{CaOrder, GatewayOrder};

impl GatewayProcess {
    pub(super) async fn take(&mut self, order: GatewayOrder, source: &ConfigSource) {
        // Whoever asked may have gone; what was asked for is done.
        match order {
            GatewayOrder::Reload(reply) => drop(reply.send(self.reload(source).await)),
            GatewayOrder::Ca(by, order, reply) => {
                let certificates = &mut self.certificates;
                let outcome = match order {
                    CaOrder::Show => certificates.view().await,
                    CaOrder::Rotate => certificates.rotate(by).await,
                    CaOrder::Retire { force } => certificates.retire(by, force).await,
                };
                drop(reply.send(outcome.map_err(|error| error.to_string())));
            }
        }
    }
}
