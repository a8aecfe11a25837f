//! Whatever the message and whatever the bytes.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself_whatever_follows(
        message in message(),
        behind in vec(any::<u8>(), 0..9),
    ) {
        let frame = message.encode().unwrap();
        let payload = [&frame[4..], &behind].concat();
        prop_assert_eq!(ControlMessage::decode(&payload), Ok(message));
    }

    #[test]
    fn a_message_that_is_cut_is_truncated(message in message(), cut: Index) {
        let frame = message.encode().unwrap();
        let payload = &frame[4..];
        let decoded = ControlMessage::decode(&payload[..cut.index(payload.len())]);
        prop_assert!(matches!(decoded, Err(DecodeError::Truncated { .. })), "{:?}", decoded);
    }

    #[test]
    fn bytes_are_a_message_that_is_a_fixed_point_or_an_error_of_decoding(payload in payload()) {
        match ControlMessage::decode(&payload) {
            Ok(message) => {
                let frame = message.encode().unwrap();
                prop_assert!(frame.len() <= payload.len() + 4);
                prop_assert_eq!(ControlMessage::decode(&frame[4..]), Ok(message));
            }
            Err(DecodeError::InvalidField { field, .. }) => {
                prop_assert!(["string", "subnet", "domain"].contains(&&*field));
            }
            Err(DecodeError::Truncated { .. } | DecodeError::UnknownTag { .. }) => {}
            Err(other) => prop_assert!(false, "not an error of a payload: {}", other),
        }
    }
}

/// Payloads from small bytes, and good ones of which a few bytes are changed.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let small = (1_u8..6, vec(0_u8..7, 0..40)).prop_map(|(tag, body)| [&[tag], &body[..]].concat());
    let changes = vec((any::<Index>(), any::<u8>()), 1..4);
    let changed = (message(), changes).prop_map(|(message, changes)| {
        let mut payload = message.encode().unwrap()[4..].to_vec();
        for (at, byte) in changes {
            let len = payload.len();
            payload[at.index(len)] = byte;
        }
        payload
    });
    prop_oneof![small, changed]
}

fn message() -> impl Strategy<Value = ControlMessage> {
    let domain = (
        "(\\*\\.)?[a-z0-9é ]{1,8}(\\.[a-z-]{1,8}){0,3}",
        any::<bool>(),
    );
    let domain = domain.prop_map(|(name, auto_detected)| DomainRoute {
        pattern: DomainPattern::parse(&name).unwrap(),
        auto_detected,
    });
    let subnet = (any::<Ipv4Addr>(), 0_u8..=32)
        .prop_map(|(addr, prefix)| Ipv4Net::new(addr, prefix).unwrap());
    let version = any::<u16>;
    prop_oneof![
        (
            version(),
            any::<u64>(),
            vec(subnet, 0..9),
            vec(domain, 0..9)
        )
            .prop_map(|(version, epoch, subnets, domains)| {
                ControlMessage::RouteAdvertise(RouteAdvertise {
                    version,
                    epoch,
                    subnets,
                    domains,
                })
            }),
        (version(), any::<u64>(), any::<u32>()).prop_map(|(version, timestamp_ms, count)| {
            ControlMessage::Heartbeat {
                version,
                timestamp_ms,
                active_stream_count: count,
            }
        }),
        (version(), any::<u64>()).prop_map(|(version, timestamp_ms)| {
            ControlMessage::HeartbeatAck {
                version,
                timestamp_ms,
            }
        }),
        (version(), any::<String>()).prop_map(|(version, csr_pem)| {
            ControlMessage::CertRenewalRequest { version, csr_pem }
        }),
        (version(), renewal_result()).prop_map(|(version, result)| {
            ControlMessage::CertRenewalResponse { version, result }
        }),
    ]
}

fn renewal_result() -> impl Strategy<Value = RenewalResult> {
    prop_oneof![
        any::<(String, String)>().prop_map(|(client, ca)| RenewalResult::Granted {
            client_cert_pem: client,
            gateway_ca_cert_pem: ca,
        }),
        any::<String>().prop_map(|reason| RenewalResult::Refused { reason }),
    ]
}
