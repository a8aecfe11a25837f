//! Every bound of the core in one place, each with its reason.

use std::time::Duration;

/// Control payload, in bytes (agent-tunnel 5).
pub const CONTROL_LEN_MAX: usize = 1 << 20;
/// Session payload (`ConnectRequest`, `ConnectResponse`), in bytes (agent-tunnel 5).
pub const SESSION_LEN_MAX: usize = 1 << 16;
/// Reason of a refused session, in bytes, as it is written here; a line for a human needs no more (agent-tunnel 7.3).
pub const REASON_LEN_MAX: usize = 1_024;
/// Lowest and highest protocol version spoken here (agent-tunnel 8).
pub const VERSION_MIN: u16 = 1;
/// See [`VERSION_MIN`].
pub const VERSION_MAX: u16 = 1;

/// Sessions that one agent carries at a time: the most stream credit that an agent grants to its gateway. A hundred
/// times what the reference grants.
pub const SESSIONS_PER_AGENT_MAX: u32 = 10_000;
/// Stream credit that an agent grants at first. It doubles whenever half of it is used, because the QUIC engine keeps
/// about 50 bytes for each stream that may come and walks through them all when a connection begins.
pub const SESSIONS_PER_AGENT_FIRST: u32 = 1_024;
/// Subnets and domains of one agent together. A control message could carry 200,000; a gateway of 10,000 agents
/// could not hold that for each.
pub const ROUTES_PER_AGENT_MAX: usize = 10_000;
/// Route sets of one agent that are taken at once: a start and an operator's corrections come in such a burst.
pub const REPLACEMENTS_BURST: u32 = 8;
/// Time per route set beyond the burst: two per second. Each is up to a message of 1 MiB and a change of the whole
/// routing table, so an agent in a loop could otherwise occupy the gateway.
pub const REPLACEMENT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two renewals of one agent's certificate on a connection; a sooner request is refused. Each costs the
/// gateway a signature and a write to disk, and an honest agent asks once in months.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Agents connected to one gateway.
pub const AGENTS_MAX: usize = 20_000;
/// Sessions being opened through one gateway at a time, all agents together.
pub const OPENS_MAX: usize = 20_000;
/// Session opens that wait for stream credit on one connection. An agent's credit grows while they come, so as many may
/// wait as it may carry; a reference agent grants 100 streams in all.
pub const OPENS_WAITING_MAX: usize = 10_000;

/// Agent: time from the opening of a stream to its whole `ConnectRequest` (agent-tunnel 7.3).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Agent: time for version check, policy, resolution and TCP connect together; below the gateway's patience so that
/// the reason arrives (agent-tunnel 7.3).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Gateway: time from the wish to open a session, stream credit included, to the agent's answer (agent-tunnel 7.3).
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Gateway: a connection that carries nothing, on which sessions wait for stream credit for so long, is closed: a
/// reference agent can lose all its streams, and has them again once it has reconnected.
pub const CREDIT_PATIENCE: Duration = Duration::from_secs(5);
/// Gateway: time for all candidates of a session together.
pub const DISPATCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Gateway: the next candidate is tried beside one that has not answered for so long (design 8.8).
pub const DISPATCH_STAGGER: Duration = Duration::from_millis(250);
/// Gateway: while those that were asked are waited for, and none is left to ask, one that has come is looked for so often.
pub const DISPATCH_LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Agent: time between the starts of two connection attempts to addresses of one name (RFC 8305 section 5).
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried; more are dropped.
pub const DIAL_ADDRESSES_MAX: usize = 16;
/// Agent: an address of a name that has not answered for so long leaves the race, as long as another is in it: three
/// repetitions of a TCP SYN, and half of [`DIAL_TIMEOUT`].
pub const DIAL_ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Agent: time between two `RouteAdvertise` (agent-tunnel 9).
pub const ADVERTISE_INTERVAL: Duration = Duration::from_secs(30);
/// Agent: time between two `Heartbeat`. The reference has 60 s (agent-tunnel 9); with [`HEARTBEAT_ACK_TIMEOUT`] this is
/// how long a gateway is kept of which only QUIC lives (design 3.6).
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Agent: a gateway that answers no heartbeat for so long is left (design 3.6). The path works meanwhile, or it would
/// have been given up after [`PATH_DEAD_AFTER`], and control goes before bulk, so an answer takes round trips and not
/// seconds, but for an agent whose changes of routes the gateway puts off (see [`REPLACEMENT_INTERVAL`]). With the longest
/// interval ([`ADVERTISE_INTERVAL_MAX`]) it is less than [`AGENT_SILENT`]: the agent goes before a gateway that hears
/// nothing of it routes past it.
pub const HEARTBEAT_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Agent: bytes of control messages that the slowest useful path takes in a second. What is sent before a heartbeat puts
/// off the end of [`HEARTBEAT_ACK_TIMEOUT`] by its time at that rate: routes are up to [`CONTROL_LEN_MAX`].
pub const CONTROL_PACE_MIN: u32 = 8 << 10;
/// Agent: what a process that stood still has to read the answers that lie in its socket, before it judges.
pub const HEARTBEAT_ACK_GRACE: Duration = Duration::from_secs(1);
/// Agent: longest interval that may be configured for either. A gateway takes an agent for offline after 90 s without a
/// control message (agent-tunnel 9), which leaves a message half a minute to arrive.
pub const ADVERTISE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Agent: heartbeats that wait for their acknowledgement; the oldest is forgotten for one more.
pub const HEARTBEATS_PENDING_MAX: usize = 8;

/// Agent: gateways in its list.
pub const GATEWAYS_MAX: usize = 16;
/// Agent: time for one round to a gateway, from resolution to an established connection over any of its addresses. A
/// handshake of three flights that loses two packets takes 4 s on a path of 300 ms.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Agent: a handshake to which nothing came back is given up after so long, and begun anew: the engine repeats its first
/// flight after 1, 3 and 7 s, and a path that is back at 3.1 s is not to wait for the last of them.
pub const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(4);
/// Agent: nominal waits of the reconnect series after the immediate first attempt; doubling goes on from the last
/// (design 8.4).
pub const BACKOFF_SERIES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
/// Agent: longest wait while a gateway does not answer (design 8.4): trying costs it nothing, and it may be back.
pub const BACKOFF_UNREACHABLE_MAX: Duration = Duration::from_secs(4);
/// Agent: longest wait after refusals for load, and the wait after a refusal of identity (design 8.4).
pub const BACKOFF_REFUSED_MAX: Duration = Duration::from_secs(60);
/// Agent: a connection that was up for longer starts the reconnect series afresh (agent-tunnel 13).
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);
/// Agent: the loss of a connection that was up for at least so long is followed by an attempt at once; a shorter one
/// goes on with the series, so that a gateway that drops every agent at its first message is not stormed.
pub const BACKOFF_STEADY_AFTER: Duration = Duration::from_secs(5);

/// Agent: how long a connection has to last before its key pair counts as accepted. TLS 1.3 lets a client finish before
/// the server has looked at its certificate, and the gateway looks into its store after that (design 8.6).
pub const CREDENTIALS_PROOF_AFTER: Duration = Duration::from_secs(3);
/// Agent: time until a proved key pair that could not be put in its place is tried to be put there again.
pub const ADOPTION_RETRY: Duration = Duration::from_secs(60);
/// Agent: how long a renewed key pair waits for a connection that may not overlap with its successor to carry nothing;
/// the connection is closed then.
pub const SWAP_PATIENCE: Duration = Duration::from_secs(24 * 3_600);
/// Agent: longest time between two looks at the wall clock for a renewal: a clock that is set is noticed by then.
pub const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_secs(3_600);
/// Agent: time for the gateway to answer a renewal request (agent-tunnel 12).
pub const RENEWAL_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Agent: nominal wait after the first renewal that failed; it doubles. Half of it is not below [`RENEWAL_INTERVAL`].
pub const RENEWAL_RETRY_FIRST: Duration = Duration::from_secs(120);
/// Agent: longest nominal wait between two renewals that fail.
pub const RENEWAL_RETRY_MAX: Duration = Duration::from_secs(6 * 3_600);
/// Agent: replaced connections that still have sessions; the oldest is closed for one more. The gateway keeps two
/// connections of an agent at most (design 8.7).
pub const DRAINING_MAX: usize = 2;

/// Time without a session after which a draining connection is closed: requests that were on their way before the peer
/// knew of the newer connection still arrive.
pub const DRAIN_LINGER: Duration = Duration::from_secs(2);

/// Time for the last bytes of sessions that have ended to be acknowledged before a stopping process closes a connection.
pub const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Time between pings while sessions are open or data is unacknowledged (design 8.3).
pub const PING_BUSY: Duration = Duration::from_millis(300);
/// Time between pings of an idle agent (design 8.3).
pub const PING_IDLE_AGENT: Duration = Duration::from_millis(500);
/// An idle gateway pings where it received nothing for so long. An adit agent speaks twice in that time, so only a
/// reference agent, which does not ping, costs the gateway anything.
pub const PING_IDLE_GATEWAY: Duration = Duration::from_secs(1);
/// Pings in a row without an answer after which datagrams are made small again: the path may have narrowed. Early
/// enough for the search for what it carries to end before [`PATH_SUSPECT_AFTER`].
pub const PINGS_LARGE_MAX: u32 = 3;
/// Silence after which a path is suspect (design 8.3).
pub const PATH_SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// Silence after which a connection is closed (design 8.3).
pub const PATH_DEAD_AFTER: Duration = Duration::from_secs(4);

/// Streams that an agent may open at a time. It needs one, for control; others are reset and counted
/// (agent-tunnel 4).
pub const STREAMS_FROM_AGENT_MAX: u32 = 4;
/// QUIC idle timeout of this side, in milliseconds (design 8.3).
pub const IDLE_TIMEOUT_MS: u32 = 30_000;
/// Bytes that a peer may send on one session before we have read them. At 1 Gbit/s and 50 ms 6.25 MB are under way. The
/// engine has one size for all streams of a connection, so this is also the most that one user costs who stops reading.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// Part of the connection's window for sessions whose readers keep up, in bytes: what is under way at 10 Gbit/s and 50 ms.
pub const READERS_WINDOW: u64 = 64 << 20;
/// Part of the connection's window for sessions whose readers do not keep up, in bytes: 64 of them with a whole
/// [`STREAM_WINDOW`] each. It is the memory that they may cost, beside a share for each session.
pub const UNREAD_BUDGET: u64 = 512 << 20;
/// Bytes that those may hold together, on all connections of an endpoint, who have stopped reading.
pub const UNREAD_IN_ALL: u64 = 4 * UNREAD_BUDGET;
/// Least of such a budget: one session's window.
pub const UNREAD_BUDGET_MIN: u64 = STREAM_WINDOW as u64;
/// Highest of such a budget, 16 GiB.
pub const UNREAD_BUDGET_MAX: u64 = 16 << 30;
/// Bytes of one session that may wait unread beside any budget: users who pause in front of a page cost no more, and
/// their sessions are never ended for it.
pub const UNREAD_SHARE: usize = 256 << 10;
/// Bytes of one session that are looked at before it, or another one, is ended for the budget: one that has no more is
/// charged what it has, and any other a whole [`STREAM_WINDOW`].
pub const UNREAD_SAMPLE: usize = 1 << 20;
/// Time between two looks at what is unread, while anything is.
pub const UNREAD_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A session of which less than [`UNREAD_SHARE`] was read for so long, 64 KiB a second, may be ended for a budget: at
/// 1 Gbit/s the connection's whole window takes longer to fill.
pub const UNREAD_PATIENCE: Duration = Duration::from_secs(4);
/// Bytes written to one connection and not yet acknowledged, bulk only: twice what is under way at 1 Gbit/s and 50 ms,
/// since what is repaired waits for another round trip.
pub const SEND_WINDOW: u64 = 16 << 20;
/// Bytes on top of [`SEND_WINDOW`] that only control and set-up messages may use, so that bulk cannot starve them.
pub const SEND_WINDOW_RESERVE: u64 = 4 << 20;
/// Packets that a peer is asked to take without acknowledging them at once, where it knows that extension of QUIC. In the
/// set-up of a session single packets cross; at the usual one every other is answered by an empty packet.
pub const ACK_AFTER: u32 = 4;
/// Bytes of control messages that wait to be sent; above it the peer's control messages are not read, so a peer that
/// asks and never reads stalls itself.
pub const CONTROL_OUT_MAX: usize = 256 << 10;

/// Handshakes in progress on one endpoint; the next one is refused.
pub const HANDSHAKES_MAX: usize = 4_096;
/// Above so many handshakes in progress a client must first prove its address (Retry).
pub const HANDSHAKES_RETRY: usize = 256;
/// Above so many handshakes in progress from one source a client there must first prove its address (Retry): a site's
/// agents start without the extra round trip, and a flood in another's name soon costs only stateless answers.
pub const HANDSHAKES_PER_SOURCE_RETRY: usize = 16;
/// Handshakes in progress from one source that proved its address; the next one is refused. A source is an IPv4
/// address or an IPv6 /64. Ten agents behind one address may start
/// together; a hundred may not hold half of all places.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 256;
/// Bytes buffered for one handshake before it is accepted; ours are accepted at once, so this is never much.
pub const HANDSHAKE_BUFFER_MAX: u64 = 16 << 10;
/// The same for all handshakes together.
pub const HANDSHAKE_BUFFERS_MAX: u64 = 16 << 20;
/// Time for a handshake; then the connection is closed and its place is free again.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Stateless resets per source address and second (design 8.5): an agent needs one to learn of a restart.
pub const RESETS_PER_SOURCE_MAX: u32 = 100;
/// Source addresses whose resets are counted at a time; beyond it all share what is left of the last one's second.
pub const RESET_SOURCES_MAX: usize = 4_096;
/// Agent: what an application that never answers a session request is given beyond [`DIAL_TIMEOUT`].
pub const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Gateway: an agent without a control message for so long gets no sessions unless a user asks for it by id. A
/// reference agent sends one every 30 s: three may be lost (agent-tunnel 9). A path that stalls is noticed sooner.
pub const AGENT_SILENT: Duration = Duration::from_secs(90);
/// Candidates tried for one session. Hundreds of agents may advertise one route; a target that refuses would
/// otherwise be asked by all of them, and the user be told of each.
pub const ATTEMPTS_MAX: usize = 64;
/// Gateway: a failure of an agent for a part of the network is remembered for so long; meanwhile another candidate is
/// asked at once beside it (design 8.8). Long enough for a user's retries, short enough to see a repair.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(10);
/// Failures remembered at a time, about 150 bytes each; the oldest makes room.
pub const FAILURES_MAX: usize = 4_096;

/// Shortest pre-shared key of a cluster, in bytes (replica-handshake 4.1). Whoever sends one frame gets a MAC to search
/// a weak key with, on machines of their own and as fast as they like.
pub const REPLICA_KEY_LEN_MIN: usize = 32;
/// Time for one replica handshake, each end and each connection (replica-handshake 10).
pub const REPLICA_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A replica handshake in which no byte comes for so long ends. An honest peer owes 256 bytes one round trip after it is
/// asked, and TCP repeats what was lost after 1 s; one that connects and says nothing gives its place back soon.
pub const REPLICA_SILENCE_MAX: Duration = Duration::from_secs(3);
/// Replica handshakes in progress at one acceptor (replica-handshake 10); a further connection is closed unread.
pub const REPLICA_HANDSHAKES_MAX: usize = 256;
/// Replica handshakes in progress from one source, an IPv4 address or an IPv6 /64. A replica needs one; many of one
/// machine may start together, and eight sources have to join to take every place.
pub const REPLICA_HANDSHAKES_PER_SOURCE_MAX: usize = 32;
/// Longest frame that the reference reads in its handshake, in bytes (replica-handshake 10). It bounds only what is
/// skipped where the reference is imitated: beyond that a frame has 256 bytes.
pub const REPLICA_MESSAGE_LEN_MAX: u32 = 64 << 20;
/// Bytes that one sealed record of a replica link carries: what TLS has. A reader holds one record.
pub const REPLICA_RECORD_LEN_MAX: usize = 16 << 10;
/// Sealed records under one key, then the next key follows from it. RFC 8446 section 5.5 allows 2^24.5 full ones with
/// AES-GCM.
pub const REPLICA_REKEY_AFTER: u64 = 1 << 24;
/// Sealed records of one direction of a link, after which it refuses: at a million a second eight years.
pub const REPLICA_RECORDS_MAX: u64 = 1 << 48;
/// Peer RPC: inner frame of an envelope, and payload of an inner frame, in bytes (peer-rpc 4.3 and 5.1).
pub const RPC_LEN_MAX: u32 = 64 << 20;
/// Peer RPC: buffer that an envelope gets at first; it doubles as bytes come, up to what the header declares.
pub const ENVELOPE_BUFFER_FIRST: usize = 64 << 10;
/// Peer RPC: bytes that the envelopes of one connection may declare and hold together, until the application lets go of
/// their bodies: two of the largest.
pub const RPC_UNREAD_PER_CONNECTION: u64 = 2 * (RPC_LEN_MAX as u64 + 64);
/// Peer RPC: bytes that may have come, of requests that are not whole, on a connection on which none was accepted: one of the
/// largest.
pub const RPC_UNREAD_UNPROVED: u64 = RPC_LEN_MAX as u64 + 64;
/// Peer RPC: as [`RPC_UNREAD_UNPROVED`] for all connections of a process, half of what requests have: whoever has a certificate
/// and not the cluster's key keeps none of those out who have it but the first requests of their connections, however many
/// connections they make.
pub const RPC_UNREAD_UNPROVED_IN_ALL: u64 = 4 * RPC_UNREAD_UNPROVED;
/// Peer RPC: as [`RPC_UNREAD_PER_CONNECTION`] for all connections of a process, of its requests and of its answers.
pub const RPC_UNREAD_OF_A_KIND: u64 = 4 * RPC_UNREAD_PER_CONNECTION;
/// Peer RPC: the same of both.
pub const RPC_UNREAD_IN_ALL: u64 = 2 * RPC_UNREAD_OF_A_KIND;
/// Peer RPC: version handshake message, in bytes (peer-rpc 3.2).
pub const PEER_HELLO_LEN_MAX: usize = 4_096;
/// Peer RPC: lowest and highest cluster wire version spoken here (peer-rpc 3.3).
pub const PEER_VERSION_MIN: u16 = 1;
/// See [`PEER_VERSION_MIN`].
pub const PEER_VERSION_MAX: u16 = 2;
/// Peer RPC: time from the acceptance of a connection to its whole hello; and from a hello sent to its answer
/// (peer-rpc 3.4).
pub const PEER_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Peer RPC: time from a connection's version handshake to its first request that is accepted: who has a certificate and not
/// the cluster's key keeps no connection by keep-alives.
pub const PEER_PROOF_TIMEOUT: Duration = Duration::from_secs(30);
/// Peer RPC: connections for calls, and as many for forwarded sessions, that one node may have dialled here and keep: the
/// present one, its successor, and two of processes that are gone. All together that are no node's yet have as many. With a
/// further one another is closed, first one on which nothing was accepted, then the oldest.
pub const PEER_INBOUND_MAX: usize = 4;
/// Peer RPC: connections for calls that one node may have dialled here within [`RPC_TIMEOUT`]. The reference dials for each call
/// that finds no connection, and has that call on it whichever of them it keeps (peer-rpc 9.1): as many at once as calls go over
/// one connection.
pub const PEER_INBOUND_BURST: usize = 256;
/// Peer RPC: reason of an application close, in bytes (peer-rpc 2).
pub const PEER_REASON_LEN_MAX: usize = 100;
/// Peer RPC: numbers that a replay window remembers. Sixteen times the streams of a connection, so that none of the
/// requests in flight is taken for stale when it is late (peer-rpc 7.5).
pub const REPLAY_WINDOW: u64 = 4_096;
/// Peer RPC: nodes whose windows are kept. Only a node whose identity was proved gets one.
pub const PEERS_MAX: usize = 1_024;
/// Peer RPC: starts by which the word of peers lifts a node's count of starts while a process runs: more than a gateway has in
/// years, and a 256th of all that there are (peer-rpc 7.3), so that no peer brings the count to its end.
pub const EPOCH_LIFT_MAX: u64 = 4_096;
/// Peer RPC: keys in a ring, the current one included. Each costs a forged message one more hash.
pub const CLUSTER_KEYS_MAX: usize = 4;
/// Peer RPC: public keys of one node that are valid together: the current one, the next one, and one to spare.
pub const PINS_PER_NODE_MAX: usize = 3;
/// Peer RPC: attempts of one call, the first included (peer-rpc 9.3).
pub const RPC_ATTEMPTS_MAX: u32 = 3;
/// Peer RPC: wait before the second attempt at most; it doubles from there (peer-rpc 9.3).
pub const RPC_BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Peer RPC: wait between two attempts at most (peer-rpc 9.3).
pub const RPC_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Peer RPC: failures in a row that open a breaker (peer-rpc 9.3).
pub const BREAKER_THRESHOLD: u32 = 5;
/// Peer RPC: time that a breaker stays open since the last failure (peer-rpc 9.3).
pub const BREAKER_COOLDOWN: Duration = Duration::from_secs(10);
/// Peer RPC: calls of one peer that run, or are read, on a connection at a time: its streams (peer-rpc 1.1 and 8).
pub const RPC_CALLS_PER_CONNECTION: usize = 256;
/// Peer RPC: time for a free stream; from the request's last byte to the whole answer; and from an envelope's first byte
/// to its last (peer-rpc 8 and 9.2).
pub const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Peer RPC: calls to one node that wait for its connection, or for a place on it; a further one is refused.
pub const RPC_CALLS_WAITING_MAX: usize = 1_024;
/// Peer RPC: time for a dial, from the look-up of the name to the end of the version handshake: the two of these have
/// [`RPC_TIMEOUT`] each, and so has the look-up (peer-rpc 9.2).
pub const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Peer RPC: a dial that has had no answer for so long begins anew when its node shows itself: far more than a handshake
/// with a node that is there takes, and the engine's own next attempt is that far away at most before.
pub const PEER_DIAL_PATIENCE: Duration = Duration::from_secs(1);
/// Peer RPC: time that running calls get while a node shuts down, unless configured (peer-rpc 8).
pub const RPC_DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Forwarded sessions: the text of a target, in bytes: a name of 255, a colon and a port.
pub const FORWARD_TARGET_LEN_MAX: usize = 261;
/// Forwarded sessions: what is said of the user, in bytes, for a line of a log; a header is read before it is proved.
pub const FORWARD_ORIGIN_LEN_MAX: usize = 256;
/// Sessions that are forwarded over replica links at once, in each direction; each has a connection of its own.
pub const FORWARD_LINKS_MAX: usize = 16_384;
/// Handshakes with one peer at once for forwarded sessions; those beyond it wait. It is less than the places that the peer
/// has for one source.
pub const FORWARD_HANDSHAKES_MAX: usize = 16;
/// Forwarded sessions: time from the opening of a stream to its whole header.
pub const FORWARD_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Catalogue: time between two announcements to a peer where nothing changes.
pub const CATALOGUE_REFRESH: Duration = Duration::from_secs(1);
/// Catalogue: what a peer announced is forgotten after so long without another word of it: two announcements may be late,
/// and a dead path is suspect by then ([`PATH_SUSPECT_AFTER`]).
pub const CATALOGUE_LIFETIME: Duration = Duration::from_secs(3);
/// Catalogue: changes within this time are told together. The first one after a pause is told at once.
pub const CATALOGUE_COALESCE: Duration = Duration::from_millis(100);
/// Catalogue: between two whole announcements of a peer that are read, on average; the peer has no reason for more than one in
/// [`CATALOGUE_COALESCE`].
pub const CATALOGUE_PACE: Duration = Duration::from_millis(50);
/// Catalogue: whole announcements of a peer that are read at once where none came for a while; those beyond it, and beyond
/// the pace, are refused as overload.
pub const CATALOGUE_BURST: u32 = 20;
/// Catalogue: a whole announcement that was not answered for so long is sent again.
pub const CATALOGUE_ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Catalogue: subnets and names of one gateway together. Equal ones of its agents count once.
pub const CATALOGUE_ROUTES_MAX: usize = 50_000;
/// Catalogue: payload of an announcement, in bytes: all that is allowed, with names of a hundred bytes.
pub const CATALOGUE_LEN_MAX: usize = 6 << 20;
/// Catalogue: payload of an answer, in bytes: five numbers of ten bytes each at most.
pub const CATALOGUE_ANSWER_LEN_MAX: usize = 64;
