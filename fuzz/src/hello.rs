//! The version handshake of the peer RPC (peer-rpc 3).

use adit_proto_core::peer::{
    capabilities::Capabilities,
    hello::{Ack, Hello, HelloError, HelloReader, VersionRange},
    negotiate::{Acceptor, Dialler},
};

use crate::input::{Input, pieces, start};

/// Any split of a stream gives the same message as the whole; whatever decodes encodes canonically; what is agreed lies
/// in both ranges, and both sides know the same.
pub fn hello(data: &[u8]) {
    let mut input = Input::new(data);
    let local = VersionRange {
        min: input.byte().into(),
        max: input.byte().into(),
    };
    let seed = input.byte();
    let stream = input.rest();
    let whole = message(std::iter::once(stream));
    let split = message(pieces(stream, seed));
    match (&whole, &split) {
        // How many bytes follow hangs on how they were cut.
        (Err(HelloError::Trailing { .. }), Err(HelloError::Trailing { .. })) => {}
        _ => assert_eq!(whole, split),
    }
    if let Ok(Some(message)) = &whole {
        assert!(message.len() <= stream.len());
        codecs(message);
    }
    codecs(stream);
    negotiation(local, stream, seed);
}

fn message<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<Vec<u8>>, HelloError> {
    let mut reader = HelloReader::default();
    let mut message = None;
    for piece in pieces {
        if let Some(whole) = reader.feed(piece)? {
            assert!(message.replace(whole).is_none(), "two messages");
        }
    }
    assert_eq!(reader.finish().is_ok(), message.is_some());
    Ok(message)
}

fn codecs(message: &[u8]) {
    if let Ok(hello) = Hello::decode(message) {
        let encoded = hello.encode();
        assert!(encoded.len() <= message.len() + 4);
        assert_eq!(Hello::decode(&encoded[4..]), Ok(hello));
    }
    if let Ok(ack) = Ack::decode(message) {
        let encoded = ack.encode();
        assert!(encoded.len() <= message.len() + 4);
        assert_eq!(Ack::decode(&encoded[4..]), Ok(ack));
    }
}

fn negotiation(local: VersionRange, stream: &[u8], seed: u8) {
    let offered = Capabilities::from_bits(seed.into());
    let mut acceptor = Acceptor::new(start(), local, offered);
    let (mut dialler, _) = Dialler::new(start(), local, offered);
    if let Ok(Some(agreed)) = dialler.handle_bytes(stream) {
        assert!(local.holds(agreed.version) && offered.has(agreed.capabilities));
    }
    match acceptor.handle_bytes(stream) {
        Ok(Some((ack, agreed))) => {
            assert!(local.holds(agreed.version) && offered.has(agreed.capabilities));
            let Ok(hello) = Hello::decode(&stream[4..]) else {
                panic!("agreed on what is no hello");
            };
            assert!(hello.versions.holds(agreed.version));
            let (mut dialler, _) = Dialler::new(start(), hello.versions, hello.capabilities);
            assert_eq!(dialler.handle_bytes(&ack), Ok(Some(agreed)));
        }
        Ok(None) => {}
        Err(error) => {
            let close = error.close();
            assert!(close.code() == 1 && close.reason().len() <= 100);
        }
    }
}
