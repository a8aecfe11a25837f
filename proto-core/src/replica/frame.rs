//! The 256-byte frame of every handshake message (replica-handshake 1).

use super::{ClusterId, Conduct, Mac, Profile, ReplicaId};
use crate::limits::REPLICA_MESSAGE_LEN_MAX;

/// One message of the handshake. Fields that no message has are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which message it is.
    pub command: Command,
    /// The cluster that the sender says it is of.
    pub cluster: ClusterId,
    /// Whom the sender says it is.
    pub replica: ReplicaId,
    /// The sender's nonce in a hello and a challenge; zeros stand for none.
    pub nonce: [u8; 32],
    /// The sender's MAC in a challenge and a finish.
    pub mac: Mac,
    /// How the acceptor judges, in a challenge; not under any MAC.
    pub status: u8,
}

/// The command byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 14, `ReplicaHello`: the dialer says who it is.
    Hello,
    /// 15, `ReplicaChallenge`: the acceptor proves itself, or refuses.
    Challenge,
    /// 16, `ReplicaFinish`: the dialer proves itself.
    Finish,
    /// Another that the reference knows, none of the handshake (replica-handshake 1.2).
    Other(u8),
}

/// What an acceptor says in a challenge (replica-handshake 8). Only the first four are ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0: go on.
    Ok,
    /// 1: the first frame was no hello. Bytes of no meaning read as this one.
    UnknownCommand,
    /// 2: the hello is of another cluster.
    ClusterMismatch,
    /// 3: who says hello is not in the roster, or is to be dialled.
    DirectionalRule,
    /// 4: the hello has no nonce.
    AuthRequired,
    /// 5: the finish has a wrong MAC.
    MacMismatch,
}

/// Bytes that are no frame: the peer's fault. It gets no answer, as it most likely speaks another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The size field is not that of a handshake frame.
    #[error("frame of {0} bytes, which is none of the replica handshake: something else connected")]
    Size(u32),
    /// The command byte is of no command.
    #[error("unknown command {0}: something else connected, or a replica of a later version")]
    Command(u8),
}

impl Frame {
    /// A frame of `replica` in `cluster` with nothing else in it.
    #[must_use]
    pub fn new(command: Command, cluster: ClusterId, replica: ReplicaId) -> Self {
        Self {
            command,
            cluster,
            replica,
            nonce: [0; 32],
            mac: Mac([0; 32]),
            status: Status::Ok.byte(),
        }
    }

    /// The frame as it is sent. All that is not listed is zero (replica-handshake 5).
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        put(&mut bytes, CLUSTER, self.cluster.0);
        put(&mut bytes, SIZE, SIZE_SENT.to_le_bytes());
        put(&mut bytes, COMMAND, [self.command.byte()]);
        put(&mut bytes, REPLICA, [self.replica.0]);
        put(&mut bytes, NONCE, self.nonce);
        put(&mut bytes, MAC, self.mac.0);
        put(&mut bytes, STATUS, [self.status]);
        bytes
    }

    fn decode(bytes: &[u8; FRAME_LEN], profile: Profile) -> Result<Self, FrameError> {
        let [command] = take(bytes, COMMAND);
        let [replica] = take(bytes, REPLICA);
        let [status] = take(bytes, STATUS);
        Ok(Self {
            command: Command::of(command, profile)?,
            cluster: ClusterId(take(bytes, CLUSTER)),
            replica: ReplicaId(replica),
            nonce: take(bytes, NONCE),
            mac: Mac(take(bytes, MAC)),
            status,
        })
    }
}

impl Command {
    /// Reads the byte; which ones are known depends on the builds that a profile is of (replica-handshake 1.1).
    fn of(byte: u8, profile: Profile) -> Result<Self, FrameError> {
        let last = match profile {
            Profile::A => 16,
            Profile::B => 29,
        };
        match byte {
            14 => Ok(Self::Hello),
            15 => Ok(Self::Challenge),
            16 => Ok(Self::Finish),
            other if other <= last => Ok(Self::Other(other)),
            unknown => Err(FrameError::Command(unknown)),
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Hello => 14,
            Self::Challenge => 15,
            Self::Finish => 16,
            Self::Other(byte) => byte,
        }
    }
}

impl Status {
    /// Reads the byte of a challenge.
    #[must_use]
    pub fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Ok,
            2 => Self::ClusterMismatch,
            3 => Self::DirectionalRule,
            4 => Self::AuthRequired,
            5 => Self::MacMismatch,
            _ => Self::UnknownCommand,
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::UnknownCommand => 1,
            Self::ClusterMismatch => 2,
            Self::DirectionalRule => 3,
            Self::AuthRequired => 4,
            Self::MacMismatch => 5,
        }
    }

    /// The word that the reference has in its log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UnknownCommand => "unknown_command",
            Self::ClusterMismatch => "cluster_mismatch",
            Self::DirectionalRule => "directional_rule",
            Self::AuthRequired => "auth_required",
            Self::MacMismatch => "mac_mismatch",
        }
    }
}

/// Reads one frame, and no byte behind it.
#[derive(Debug)]
pub struct FrameReader {
    profile: Profile,
    conduct: Conduct,
    header: Collected<FRAME_LEN>,
    /// Bytes of a body that are still to be skipped; none of them is kept.
    body: Option<u32>,
}

impl FrameReader {
    /// Waits for a frame's first byte.
    #[must_use]
    pub fn new(profile: Profile, conduct: Conduct) -> Self {
        Self {
            profile,
            conduct,
            header: Collected::new(),
            body: None,
        }
    }

    /// Bytes that the frame has yet to get. With [`Conduct::Reference`] a body is known only once its header is whole.
    #[must_use]
    pub fn wanted(&self) -> usize {
        match self.body {
            Some(body) => usize::try_from(body).unwrap_or(usize::MAX),
            None => self.header.missing(),
        }
    }

    /// Takes bytes and tells how many; with the last one comes the frame.
    ///
    /// # Errors
    /// If they are no frame; the reader is not to be used again.
    pub fn handle_bytes(&mut self, data: &[u8]) -> (usize, Result<Option<Frame>, FrameError>) {
        let used = self.header.take(data);
        let Some(header) = self.header.whole() else {
            return (used, Ok(None));
        };
        let body = match self.body {
            Some(body) => body,
            None => match body_len(u32::from_le_bytes(take(header, SIZE)), self.conduct) {
                Ok(body) => body,
                Err(error) => return (used, Err(error)),
            },
        };
        let behind = data.len().saturating_sub(used);
        let skipped = u32::try_from(behind).unwrap_or(u32::MAX).min(body);
        let left = body.saturating_sub(skipped);
        self.body = Some(left);
        let used = used.saturating_add(usize::try_from(skipped).unwrap_or(behind));
        match left {
            0 => (used, Frame::decode(header, self.profile).map(Some)),
            _ => (used, Ok(None)),
        }
    }
}

/// How many bytes follow the header (replica-handshake 1.1).
fn body_len(size: u32, conduct: Conduct) -> Result<u32, FrameError> {
    let max = match conduct {
        Conduct::Strict => SIZE_SENT,
        Conduct::Reference => REPLICA_MESSAGE_LEN_MAX,
    };
    match size.checked_sub(SIZE_SENT) {
        Some(body) if size <= max => Ok(body),
        Some(_) | None => Err(FrameError::Size(size)),
    }
}

/// A block of fixed length that comes in pieces.
#[derive(Debug)]
pub(super) struct Collected<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Collected<N> {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    pub(super) fn missing(&self) -> usize {
        N.saturating_sub(self.len)
    }

    /// Takes what is missing from the start of `data` and tells how much that was.
    pub(super) fn take(&mut self, data: &[u8]) -> usize {
        let room = self.bytes.iter_mut().skip(self.len);
        let used = room.zip(data).map(|(to, from)| *to = *from).count();
        self.len = self.len.saturating_add(used);
        used
    }

    pub(super) fn whole(&self) -> Option<&[u8; N]> {
        (self.len == N).then_some(&self.bytes)
    }

    pub(super) fn whole_mut(&mut self) -> Option<&mut [u8; N]> {
        (self.len == N).then_some(&mut self.bytes)
    }
}

fn put<const N: usize>(frame: &mut [u8; FRAME_LEN], at: usize, value: [u8; N]) {
    let field = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    debug_assert!(field.is_some(), "a field outside the frame");
    if let Some(field) = field {
        *field = value;
    }
}

fn take<const N: usize>(frame: &[u8; FRAME_LEN], at: usize) -> [u8; N] {
    let field = frame.get(at..).and_then(|rest| rest.first_chunk());
    debug_assert!(field.is_some(), "a field outside the frame");
    field.copied().unwrap_or([0; N])
}

/// Bytes of a frame.
pub const FRAME_LEN: usize = 256;
/// The size field of every handshake frame.
const SIZE_SENT: u32 = 256;

// Offsets of the fields (replica-handshake 1).
const CLUSTER: usize = 32;
const SIZE: usize = 48;
const COMMAND: usize = 60;
const REPLICA: usize = 61;
const NONCE: usize = 128;
const MAC: usize = 160;
const STATUS: usize = 192;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], conduct: Conduct) -> (usize, Result<Option<Frame>, FrameError>) {
        FrameReader::new(Profile::B, conduct).handle_bytes(bytes)
    }

    fn with_size(size: u32, body: usize) -> Vec<u8> {
        let mut bytes = hello().encode().to_vec();
        bytes[SIZE..SIZE + 4].copy_from_slice(&size.to_le_bytes());
        bytes.resize(FRAME_LEN + body, 0xbb);
        bytes
    }

    fn hello() -> Frame {
        Frame {
            nonce: [7; 32],
            ..Frame::new(Command::Hello, ClusterId::of("c"), ReplicaId(3))
        }
    }

    #[test]
    fn the_strict_size_is_256() {
        for size in [0, 255, 257, 1 << 16, u32::MAX] {
            let got = read(&with_size(size, 4), Conduct::Strict);
            assert_eq!(got, (FRAME_LEN, Err(FrameError::Size(size))));
        }
        let got = read(&with_size(256, 4), Conduct::Strict);
        assert_eq!(got, (FRAME_LEN, Ok(Some(hello()))));
    }

    #[test]
    fn a_body_is_skipped_where_the_reference_skips_it() {
        let got = read(&with_size(260, 9), Conduct::Reference);
        assert_eq!(got, (260, Ok(Some(hello()))));
        for size in [0, 255, REPLICA_MESSAGE_LEN_MAX + 1, u32::MAX] {
            let got = read(&with_size(size, 0), Conduct::Reference);
            assert_eq!(got, (FRAME_LEN, Err(FrameError::Size(size))));
        }
        let mut reader = FrameReader::new(Profile::B, Conduct::Reference);
        let head = with_size(REPLICA_MESSAGE_LEN_MAX, 0);
        assert_eq!(reader.handle_bytes(&head), (FRAME_LEN, Ok(None)));
        assert_eq!(reader.wanted(), (64 << 20) - FRAME_LEN);
    }

    #[test]
    fn known_commands_depend_on_the_profile() {
        for byte in 0..=u8::MAX {
            let mut bytes = hello().encode();
            bytes[COMMAND] = byte;
            for (profile, last) in [(Profile::A, 16), (Profile::B, 29)] {
                let mut reader = FrameReader::new(profile, Conduct::Strict);
                match reader.handle_bytes(&bytes).1 {
                    Ok(frame) => assert_eq!(frame.unwrap().command.byte(), byte),
                    Err(error) => {
                        assert_eq!((error, byte > last), (FrameError::Command(byte), true))
                    }
                }
            }
        }
    }

    #[test]
    fn statuses_without_a_meaning_are_no_success() {
        for byte in 0..=u8::MAX {
            let status = Status::of(byte);
            assert_eq!(status == Status::Ok, byte == 0);
            assert_eq!(status.byte(), if byte > 5 { 1 } else { byte });
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            (command, replica, status) in (0..30_u8, any::<u8>(), any::<u8>()),
            (cluster, nonce, mac) in any::<([u8; 16], [u8; 32], [u8; 32])>(),
        ) {
            let frame = Frame {
                command: Command::of(command, Profile::B).unwrap(),
                cluster: ClusterId(cluster),
                replica: ReplicaId(replica),
                nonce,
                mac: Mac(mac),
                status,
            };
            prop_assert_eq!(read(&frame.encode(), Conduct::Strict), (FRAME_LEN, Ok(Some(frame))));
        }

        #[test]
        fn any_split_gives_the_same_frame(
            cuts in proptest::collection::vec(1..90_usize, 0..20),
            body in 0..300_usize,
        ) {
            let size = u32::try_from(FRAME_LEN + body).unwrap();
            let stream = with_size(size, body + 50);
            let mut reader = FrameReader::new(Profile::B, Conduct::Reference);
            let (mut at, mut got) = (0_usize, None);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let end = at.saturating_add(cut).min(stream.len());
                prop_assert!(reader.wanted() > 0 && reader.wanted() <= FRAME_LEN.max(body));
                let (used, frame) = reader.handle_bytes(&stream[at..end]);
                at += used;
                got = frame.unwrap();
                if got.is_some() {
                    break;
                }
                prop_assert_eq!(at, end);
            }
            prop_assert_eq!((got, at), (Some(hello()), FRAME_LEN + body));
        }
    }
}
