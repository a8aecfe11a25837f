//! Certificates of gateways that end soon: nothing renews them by itself, so that operators have to be told in time.

use std::{collections::BTreeMap, mem, sync::Arc};

use adit_proto_core::peer::NodeId;

use crate::live::Live;

/// The number of this gateway and the end of the certificate that it shows its peers, in seconds of Unix time; none where
/// nobody proves anything.
pub type Own = Arc<Live<Option<(NodeId, i64)>>>;

/// Says of which certificates the log is to tell: of each that ends within 30 days, once a day.
#[derive(Debug, Default)]
pub struct Ends {
    /// When each ends, and when that was told last.
    told: BTreeMap<Shown, (i64, i64)>,
}

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// This gateway.
    Here,
    /// A peer, on the connection to it.
    By(NodeId),
}

impl Ends {
    /// Takes all certificates that are in use, each with its end; gives those to tell of. All times are seconds of Unix
    /// time. A clock that was set back is no reason to be silent.
    pub fn due(
        &mut self,
        now: i64,
        certificates: impl IntoIterator<Item = (Shown, i64)>,
    ) -> Vec<(Shown, i64)> {
        let before = mem::take(&mut self.told);
        let mut due = Vec::new();
        for (whose, end) in certificates {
            if end.saturating_sub(now) > SOON_S {
                continue;
            }
            let is_recent = |(of, at): &&(i64, i64)| {
                *of == end && (*at..at.saturating_add(AGAIN_S)).contains(&now)
            };
            let told = before.get(&whose).filter(is_recent);
            if told.is_none() {
                due.push((whose, end));
            }
            self.told.insert(whose, told.copied().unwrap_or((end, now)));
        }
        due
    }

    /// Tells of all of them at the next look, as after a changed configuration.
    pub fn forget(&mut self) {
        self.told.clear();
    }
}

/// Writes the line of one certificate.
pub fn tell(now: i64, whose: Shown, not_after_unix_s: i64) {
    let days = not_after_unix_s.saturating_sub(now).max(0) / DAY_S;
    match (whose, not_after_unix_s > now) {
        (Shown::Here, true) => tracing::warn!(
            not_after_unix_s,
            days,
            "the certificate that this gateway shows its peers ends soon; make the next one with `adit peers issue --force`, and reload"
        ),
        (Shown::Here, false) => tracing::error!(
            not_after_unix_s,
            "the certificate that this gateway shows its peers has ended, and no new connection is taken by it; make the next one with `adit peers issue --force`, and reload"
        ),
        (Shown::By(peer), true) => tracing::warn!(
            %peer,
            not_after_unix_s,
            days,
            "the certificate of a peer ends soon"
        ),
        (Shown::By(peer), false) => tracing::error!(
            %peer,
            not_after_unix_s,
            "the certificate of a peer has ended; its connection is the last one"
        ),
    }
}

const DAY_S: i64 = 86_400;
/// As long as the agents' certificates have left when they are renewed.
const SOON_S: i64 = 30 * DAY_S;
const AGAIN_S: i64 = DAY_S;

#[cfg(test)]
mod tests {
    use super::*;

    const END: i64 = 1_790_000_000;
    const TWO: Shown = Shown::By(NodeId(2));

    #[test]
    fn an_end_is_told_30_days_before_and_then_once_a_day() {
        let mut ends = Ends::default();
        let mut told = |now| !ends.due(now, [(Shown::Here, END)]).is_empty();
        let first = END - 30 * DAY_S;
        for (now, expected) in [
            (0, false),
            (first - 1, false),
            (first, true),
            (first + 3_600, false),
            (first + DAY_S - 1, false),
            (first + DAY_S, true),
            // The clock is set back, and told of again.
            (first + DAY_S - 1, true),
            (END + DAY_S, true),
            (END + DAY_S + 1, false),
        ] {
            assert_eq!(told(now), expected, "{}", now - first);
        }
    }

    #[test]
    fn each_certificate_is_told_of_by_itself() {
        let mut ends = Ends::default();
        let now = END - DAY_S;
        let both = [(Shown::Here, END), (TWO, END + 1)];
        assert_eq!(ends.due(now, both), both);
        // Another one that ends soon, too.
        assert_eq!(
            ends.due(now, [(Shown::Here, END), (TWO, END)]),
            [(TWO, END)]
        );
        ends.forget();
        assert_eq!(ends.due(now, both), both);
        // One that has come back, and one that was renewed.
        assert_eq!(ends.due(now, [(TWO, END + 1)]), []);
        let renewed = [(Shown::Here, END + 40 * DAY_S), (TWO, END + 1)];
        assert_eq!(ends.due(now, renewed), []);
        assert_eq!(ends.due(now, both), [(Shown::Here, END)]);
    }

    #[test]
    fn times_at_the_ends_of_the_range_are_no_fault() {
        let mut ends = Ends::default();
        let all = [(Shown::Here, i64::MIN), (TWO, i64::MAX)];
        for now in [i64::MIN, 0, i64::MAX] {
            for (whose, end) in ends.due(now, all) {
                tell(now, whose, end);
            }
        }
    }
}
