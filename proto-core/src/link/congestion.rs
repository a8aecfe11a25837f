//! CUBIC that also counts what was acknowledged, and does not take every loss for its own doing.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, Cubic, CubicConfig},
};

use super::losses::Losses;

/// Builds [`AckCounter`]s.
#[derive(Debug, Default)]
pub(crate) struct AckCounterFactory(Arc<CubicConfig>);

impl ControllerFactory for AckCounterFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(AckCounter {
            cubic: Cubic::new(Arc::clone(&self.0), now, current_mtu),
            losses: Losses::new(current_mtu),
            acked: 0,
            pass: Arc::default(),
        })
    }
}

/// CUBIC with a count of acknowledged packets: the only place where the QUIC engine tells that a packet of ours was
/// newly acknowledged, which is what path liveness rests on (design 8.3). A received ACK frame alone proves less: it
/// may repeat an old range.
#[derive(Clone, Debug)]
pub(crate) struct AckCounter {
    cubic: Cubic,
    losses: Losses,
    /// Packets acknowledged on this path.
    pub(crate) acked: u64,
    /// The next packet may leave whatever the window and the pacing say. The engine blocks pings, and even pure
    /// acknowledgements, behind bulk data that may not leave, and then is silent for its own backoff of seconds: too long
    /// for path liveness (design 8.3). Shared with the clone by which the link reaches the engine's controller; one
    /// connection's, so never touched by two threads.
    pub(crate) pass: Arc<AtomicBool>,
}

impl Controller for AckCounter {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.pass.store(false, Relaxed);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.acked = self.acked.wrapping_add(1);
        self.losses.on_ack(now, bytes, rtt);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        persistent: bool,
        lost_bytes: u64,
    ) {
        // Without a lost byte it is the path's own mark of congestion (ECN).
        let full = self.losses.is_congestion(lost_bytes) || lost_bytes == 0;
        if full || persistent {
            self.cubic
                .on_congestion_event(now, sent, persistent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.losses.set_mtu(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.pass.load(Relaxed) {
            true => u64::MAX,
            false => self.cubic.window(),
        }
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
