use std::{net::IpAddr, time::Duration};

use super::*;
use crate::choices::Choices;

#[test]
fn a_datagram_arrives_after_the_delay_with_all_it_carries() {
    let (mut net, a, b) = pair(1);
    let fate = net.send(MS, a, addr(1), addr(2), Some(2), b"hello");
    assert_eq!(
        fate,
        Fate::OnTheWay {
            copies: 1,
            spoilt: 0
        }
    );
    let due = MS * 11 + Duration::from_nanos(40);
    assert_eq!(net.next_at(), Some(due));
    assert_eq!(net.pop(due - Duration::from_nanos(1)), None);
    let arrival = net.pop(due).unwrap();
    let expected = Arrival {
        from: a,
        to: b,
        src: addr(1),
        dst: addr(2),
        ecn: Some(2),
        data: BytesMut::from(&b"hello"[..]),
        sent: MS,
    };
    assert_eq!(arrival, expected);
    assert_eq!((net.pop(FOREVER), net.in_flight()), (None, 0));
}

#[test]
fn what_nobody_can_send_or_receive_is_lost() {
    let (mut net, a, _) = pair(1);
    let v6 = "[2001:db8::1]:1".parse().unwrap();
    let mut fate = |src, dst| net.send(MS, a, src, dst, None, b"x");
    assert_eq!(fate(addr(1), addr(9)), Fate::Lost(LossCause::NoHost));
    assert_eq!(fate(addr(2), addr(2)), Fate::Lost(LossCause::BadSource));
    assert_eq!(fate(addr(1), v6), Fate::Lost(LossCause::BadSource));
    assert_eq!(net.lost(LossCause::NoHost), 1);
    assert_eq!(net.lost(LossCause::BadSource), 2);
    assert_eq!(net.next_at(), None);
}

#[test]
#[should_panic(expected = "belongs to two hosts")]
fn no_two_hosts_have_one_address() {
    let (mut net, ..) = pair(1);
    net.add_host(vec![addr(2).ip()]);
}

#[test]
fn what_arrives_together_comes_in_the_order_of_sending() {
    let (mut net, a, b) = pair(1);
    let jumpy = Path {
        jitter: MS * 50,
        ..Path::clean()
    };
    net.set_path(a, b, jumpy);
    send_numbers(&mut net, a, 100);
    assert_eq!(numbers(&mut net), (0..100).collect::<Vec<_>>());
}

#[test]
fn duplicates_come_as_often_as_the_path_says() {
    let (mut net, a, b) = pair(2);
    let path = Path {
        duplicate_ppm: 100_000,
        ..Path::clean()
    };
    net.set_path(a, b, path);
    send_numbers(&mut net, a, 10_000);
    let mut numbers = numbers(&mut net);
    let doubled = numbers.len() - 10_000;
    assert!((900..1_100).contains(&doubled), "{doubled}");
    numbers.dedup();
    assert_eq!(numbers, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn what_is_held_back_is_overtaken() {
    let (mut net, a, b) = pair(3);
    let path = Path {
        reorder_ppm: 50_000,
        ..Path::clean()
    };
    net.set_path(a, b, path);
    send_numbers(&mut net, a, 10_000);
    let numbers = numbers(&mut net);
    let mut latest = 0;
    let late = numbers.iter().filter(|number| {
        latest = latest.max(**number);
        **number < latest
    });
    let late = late.count();
    assert!((400..600).contains(&late), "{late}");
    assert_eq!(numbers.len(), 10_000);
}

#[test]
fn corruption_flips_one_bit() {
    let (mut net, a, b) = pair(4);
    let path = Path {
        corrupt_ppm: 500_000,
        ..Path::clean()
    };
    net.set_path(a, b, path);
    for n in 0..1_000 {
        net.send(MS * n, a, addr(1), addr(2), None, &[0; 100]);
    }
    let flipped = |arrival: Arrival| arrival.data.iter().map(|byte| byte.count_ones()).sum();
    let flipped: Vec<u32> = std::iter::from_fn(|| net.pop(FOREVER))
        .map(flipped)
        .collect();
    assert_eq!(flipped.len(), 1_000);
    assert!(flipped.iter().all(|bits| *bits <= 1));
    let corrupt: u32 = flipped.iter().sum();
    assert!((430..570).contains(&corrupt), "{corrupt}");
    net.send(MS * 1_000, a, addr(1), addr(2), None, &[]);
    assert_eq!(net.pop(FOREVER).unwrap().data.len(), 0);
}

#[test]
fn only_ecn_capable_datagrams_are_marked() {
    for (sent, arrives) in [
        (None, None),
        (Some(0), Some(0)),
        (Some(1), Some(3)),
        (Some(2), Some(3)),
        (Some(3), Some(3)),
    ] {
        let (mut net, a, b) = pair(5);
        let path = Path {
            queue_bytes: 0,
            ecn: true,
            ..Path::clean()
        };
        net.set_path(a, b, path);
        net.send(MS, a, addr(1), addr(2), sent, b"x");
        assert_eq!(net.pop(FOREVER).unwrap().ecn, arrives);
    }
}

#[test]
fn a_cut_acts_one_way_on_what_is_sent_and_on_what_arrives() {
    let (mut net, a, b) = pair(6);
    net.send(MS, a, addr(1), addr(2), None, b"under way");
    net.cut(a, b);
    let fate = net.send(MS, a, addr(1), addr(2), None, b"sent");
    assert_eq!(fate, Fate::Lost(LossCause::Partition));
    net.send(MS, b, addr(2), addr(1), None, b"back");
    assert_eq!(&net.pop(FOREVER).unwrap().data[..], b"back");
    assert_eq!(net.pop(FOREVER), None);
    assert_eq!(net.lost(LossCause::Partition), 2);

    net.set_path(a, b, Path::clean());
    let fate = net.send(MS, a, addr(1), addr(2), None, b"a new path");
    assert_eq!(fate, Fate::Lost(LossCause::Partition));
    net.mend(a, b);
    net.send(MS, a, addr(1), addr(2), None, b"mended");
    assert_eq!(&net.pop(FOREVER).unwrap().data[..], b"mended");
}

#[test]
fn a_block_acts_both_ways_on_what_is_sent_and_on_what_arrives() {
    let (mut net, a, b) = pair(7);
    net.send(MS, a, addr(1), addr(2), None, b"under way");
    net.send(MS, b, addr(2), addr(1), None, b"under way");
    net.block(b);
    let blocked = Fate::Lost(LossCause::Blocked);
    assert_eq!(net.send(MS, a, addr(1), addr(2), None, b"to"), blocked);
    assert_eq!(net.send(MS, b, addr(2), addr(1), None, b"from"), blocked);
    assert_eq!(net.pop(FOREVER), None);
    assert_eq!(net.lost(LossCause::Blocked), 4);
    net.unblock(b);
    net.send(MS, a, addr(1), addr(2), None, b"open");
    assert_eq!(&net.pop(FOREVER).unwrap().data[..], b"open");
}

#[test]
fn calm_ends_all_trouble_and_keeps_what_travels() {
    let (mut net, a, b) = pair(8);
    net.send(MS, a, addr(1), addr(2), None, b"under way");
    net.cut(a, b);
    net.block(b);
    let path = Path {
        loss_ppm: 1_000_000,
        ..Path::clean()
    };
    net.set_path(b, a, path);
    assert_ne!(net.path(b, a), &Path::clean());
    net.calm();
    assert_eq!(net.path(b, a), &Path::clean());
    net.send(MS, a, addr(1), addr(2), None, b"to");
    net.send(MS, b, addr(2), addr(1), None, b"from");
    assert_eq!(std::iter::from_fn(|| net.pop(FOREVER)).count(), 3);
}

#[test]
fn a_nat_translates_both_ways_until_it_forgets() {
    let (mut net, a, gateway) = behind_nat(false);
    net.send(MS, a, INNER, addr(2), None, b"out");
    let arrival = net.pop(FOREVER).unwrap();
    let outer = arrival.src;
    assert_eq!((arrival.to, outer.ip()), (gateway, addr(1).ip()));
    net.send(MS * 20, gateway, addr(2), outer, None, b"in");
    let arrival = net.pop(FOREVER).unwrap();
    assert_eq!((arrival.to, arrival.dst), (a, INNER));

    // It leaves before the mapping ends, and arrives when it has ended.
    let late = MS * 1_001 - MS * 5;
    let fate = net.send(late, gateway, addr(2), outer, None, b"in");
    assert_eq!(
        fate,
        Fate::OnTheWay {
            copies: 1,
            spoilt: 0
        }
    );
    assert_eq!(net.pop(FOREVER), None);
    assert_eq!(net.lost(LossCause::NoMapping), 1);

    net.send(MS * 2_000, a, INNER, addr(2), None, b"out");
    let second = net.pop(FOREVER).unwrap().src;
    assert_ne!(second, outer);
    net.rebind(a);
    net.send(MS * 2_000, gateway, addr(2), second, None, b"in");
    assert_eq!(net.pop(FOREVER), None);
    net.send(MS * 2_000, a, INNER, addr(2), None, b"out");
    assert_ne!(net.pop(FOREVER).unwrap().src, second);
    let inside = net.send(MS, gateway, addr(2), INNER, None, b"in");
    assert_eq!(inside, Fate::Lost(LossCause::NoHost));
}

#[test]
fn an_endpoint_dependent_nat_keeps_others_out() {
    for endpoint_dependent in [false, true] {
        let (mut net, a, gateway) = behind_nat(endpoint_dependent);
        let other = net.add_host(vec![addr(3).ip()]);
        net.send(MS, a, INNER, addr(2), None, b"out");
        let outer = net.pop(FOREVER).unwrap().src;
        net.send(MS * 20, other, addr(3), outer, None, b"in");
        assert_eq!(net.pop(FOREVER).is_some(), !endpoint_dependent);
        net.send(MS * 20, gateway, addr(2), outer, None, b"in");
        assert!(net.pop(FOREVER).is_some());
    }
}

#[test]
fn equal_seeds_and_calls_give_equal_arrivals() {
    let run = |seed| {
        let mut choices = Choices::from_seed(seed);
        let mut net = Network::new(choices.fork("net"));
        let hosts: Vec<HostId> = (0..6).map(|n| net.add_host(vec![addr(n).ip()])).collect();
        for (from, to) in hosts.iter().zip(hosts.iter().rev()) {
            net.set_path(*from, *to, Path::draw(&mut choices));
        }
        let mut seen = Vec::new();
        for n in 0..2_000 {
            let (from, to) = (choices.index(6), choices.index(6));
            let ends = [from, to].map(|n| addr(u8::try_from(n).unwrap()));
            let len = choices.index(1_400);
            let fate = net.send(MS * n, hosts[from], ends[0], ends[1], None, &vec![7; len]);
            seen.push((Some(fate), net.next_at(), net.pop(MS * n)));
        }
        while let Some(at) = net.next_at() {
            seen.push((None, Some(at), net.pop(at)));
        }
        seen
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

const MS: Duration = Duration::from_millis(1);
const FOREVER: At = At::MAX;
const INNER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::new([192, 0, 2, last].into(), 4_433)
}

fn pair(seed: u64) -> (Network, HostId, HostId) {
    let mut net = Network::new(Choices::from_seed(seed));
    let a = net.add_host(vec![addr(1).ip()]);
    let b = net.add_host(vec![addr(2).ip()]);
    (net, a, b)
}

/// A host whose NAT forgets after a second, and one in the open.
fn behind_nat(endpoint_dependent: bool) -> (Network, HostId, HostId) {
    let mut net = Network::new(Choices::from_seed(9));
    let nat = NatConfig {
        outer: vec![addr(1).ip()],
        idle_timeout: MS * 1_000,
        endpoint_dependent,
        inbound_refreshes: false,
    };
    let a = net.add_host_behind_nat(vec![INNER.ip()], nat);
    let b = net.add_host(vec![addr(2).ip()]);
    (net, a, b)
}

/// Sends so many numbered datagrams to the second host of a pair, one each tenth of a millisecond.
fn send_numbers(net: &mut Network, from: HostId, count: u32) {
    for n in 0..count {
        net.send(MS / 10 * n, from, addr(1), addr(2), None, &n.to_le_bytes());
    }
}

fn numbers(net: &mut Network) -> Vec<u32> {
    std::iter::from_fn(|| net.pop(FOREVER))
        .map(|arrival| u32::from_le_bytes(arrival.data[..].try_into().unwrap()))
        .collect()
}
