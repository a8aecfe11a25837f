//! The moments of each session, put together.

use std::collections::BTreeMap;

use adit_proto_core::id::{AgentId, SessionId};

use crate::{
    At,
    observer::{Sight, Sighting},
};

/// One session from the wish on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) wished: At,
    pub(super) pinned: Option<AgentId>,
    /// The agent that was asked first.
    pub(super) asked: Option<AgentId>,
    pub(super) committed: Option<At>,
    pub(super) carrier: Option<AgentId>,
    pub(super) first_byte: Option<At>,
    pub(super) completed: Option<At>,
    /// Refused, or closed hard.
    pub(super) failed: bool,
}

impl Track {
    fn new(wished: At, pinned: Option<AgentId>) -> Self {
        Self {
            wished,
            pinned,
            asked: None,
            committed: None,
            carrier: None,
            first_byte: None,
            completed: None,
            failed: false,
        }
    }

    fn take(&mut self, at: At, what: Sight) {
        match what {
            Sight::Asked(_, agent) => {
                self.asked.get_or_insert(agent);
            }
            Sight::Committed(_, agent) => {
                self.committed = Some(at);
                self.carrier = agent;
            }
            Sight::FirstByte(_) => self.first_byte = Some(at),
            Sight::Completed(_) => self.completed = Some(at),
            Sight::Refused(_) | Sight::Lost(_) => self.failed = true,
            Sight::Wished(..) | Sight::Registered(_) | Sight::Routed(_) => {}
        }
    }

    /// Tells whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.completed.is_some()
    }
}

/// All sessions, in the order of their wishes.
pub(super) fn tracks(sightings: &[Sighting]) -> Vec<Track> {
    let mut places = BTreeMap::new();
    let mut tracks: Vec<Track> = Vec::new();
    for Sighting { at, what } in sightings {
        if let Sight::Wished(session, pinned) = what {
            places.insert(*session, tracks.len());
            tracks.push(Track::new(*at, *pinned));
        } else if let Some(place) = session_of(*what).and_then(|id| places.get(&id)) {
            tracks[*place].take(*at, *what);
        }
    }
    tracks
}

fn session_of(what: Sight) -> Option<SessionId> {
    match what {
        Sight::Wished(session, _)
        | Sight::Asked(session, _)
        | Sight::Committed(session, _)
        | Sight::Refused(session)
        | Sight::FirstByte(session)
        | Sight::Lost(session)
        | Sight::Completed(session) => Some(session),
        Sight::Registered(_) | Sight::Routed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn moments_of_two_sessions_are_kept_apart() {
        let [one, two] = [1, 2].map(|n| SessionId(Uuid::from_u128(n)));
        let agents = [7, 8].map(|n| AgentId(Uuid::from_u128(n)));
        let story = [
            Sight::Wished(one, None),
            Sight::Wished(two, Some(agents[0])),
            Sight::Asked(one, agents[0]),
            Sight::Asked(one, agents[1]),
            Sight::Committed(one, Some(agents[1])),
            Sight::Refused(two),
            Sight::FirstByte(one),
        ];
        let sightings: Vec<Sighting> = (0u64..)
            .zip(story)
            .map(|(s, what)| Sighting {
                at: Duration::from_secs(s),
                what,
            })
            .collect();
        let tracks = tracks(&sightings);
        assert_eq!(tracks.len(), 2);
        assert_eq!(
            (tracks[0].asked, tracks[0].carrier),
            (Some(agents[0]), Some(agents[1]))
        );
        assert_eq!(tracks[0].first_byte, Some(Duration::from_secs(6)));
        assert!(!tracks[0].is_over() && tracks[1].is_over());
    }
}
