//! What the reference's pings and their answers carry, as its golden vectors record them (peer-rpc 5.3): two numbers of 64
//! bits, little-endian. The first names the node that sends, the second its state of the topology.

use bytes::{BufMut, Bytes, BytesMut};

use super::NodeId;

/// The body of the answer to a ping, from a node that keeps no topology of the reference's: it has what the ping says.
/// None where the body is no ping's.
#[must_use]
pub fn pong(local: NodeId, ping: &[u8]) -> Option<Bytes> {
    let (_sender, topology) = ping.split_first_chunk::<8>()?;
    let topology: [u8; 8] = topology.try_into().ok()?;
    let mut pong = BytesMut::with_capacity(PONG_LEN);
    pong.put_u64_le(local.0);
    pong.put_slice(&topology);
    Some(pong.freeze())
}

const PONG_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_names_its_node_and_repeats_the_topology() {
        // Node 7, at 42.
        let ping = [7, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0];
        let pong = pong(NodeId(9), &ping);
        let expected = [9, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(pong.as_deref(), Some(&expected[..]));
    }

    #[test]
    fn what_is_no_ping_has_no_pong() {
        for len in [0, 7, 8, 15, 17] {
            assert_eq!(pong(NodeId(9), &vec![0; len]), None);
        }
    }
}
