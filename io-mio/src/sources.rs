//! What the loop's poll watches, and whose it is.

use std::{cell::RefCell, fmt, io, rc::Rc};

use adit_io_common::splice::End;
use adit_proto_core::id::{ConnId, SessionId, Slot};
use mio::{Interest, Registry, Token, event::Source};
use slab::Slab;

/// Whose readiness an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The tunnel's UDP socket.
    Udp,
    /// This machine's addresses and routes.
    Network,
    /// A session's socket.
    Leg(ConnId, Slot),
    /// A connection that is being made: the dial's number, and the attempt's within it.
    Dial(u64, usize),
    /// One of the sockets of a session that the gateway carries itself.
    Splice(SessionId, End),
}

/// Registers sources with the poll; clones share it.
#[derive(Clone)]
pub(crate) struct Sources {
    registry: Rc<Registry>,
    owners: Rc<RefCell<Slab<Owner>>>,
}

/// A place among the sources; given back when it is dropped. The source itself leaves the poll with its descriptor.
#[derive(Debug)]
pub(crate) struct Place {
    token: Token,
    owners: Rc<RefCell<Slab<Owner>>>,
}

impl Sources {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry: Rc::new(registry),
            owners: Rc::default(),
        }
    }

    /// Takes a place.
    pub(crate) fn place(&self, owner: Owner) -> Place {
        let key = self.owners.borrow_mut().insert(owner);
        Place {
            token: Token(key),
            owners: Rc::clone(&self.owners),
        }
    }

    /// Watches a source.
    pub(crate) fn watch(
        &self,
        source: &mut impl Source,
        owner: Owner,
        interest: Interest,
    ) -> io::Result<Place> {
        let place = self.place(owner);
        self.registry.register(source, place.token, interest)?;
        Ok(place)
    }

    /// Watches a source for something else from here on.
    pub(crate) fn watch_for(
        &self,
        source: &mut impl Source,
        place: &Place,
        interest: Interest,
    ) -> io::Result<()> {
        self.registry.reregister(source, place.token, interest)
    }

    /// Watches a source no longer.
    pub(crate) fn leave(&self, source: &mut impl Source) -> io::Result<()> {
        self.registry.deregister(source)
    }

    /// Whose an event is; none for one that came late. A place that was given to another meanwhile makes it look for
    /// nothing, which does no harm.
    pub(crate) fn owner(&self, token: Token) -> Option<Owner> {
        self.owners.borrow().get(token.0).copied()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.owners.borrow_mut().try_remove(self.token.0);
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}
