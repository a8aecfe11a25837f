use super::*;
use crate::route::DomainRoute;

#[test]
fn literals_must_lie_in_a_subnet() {
    let nets = ["10.1.9.32/16", "2001:db8::/32", "::ffff:192.168.0.0/112"];
    for (ip, allowed) in [
        ("10.1.0.1", true),
        ("10.1.255.255", true),
        ("10.2.0.0", false),
        ("::ffff:10.1.0.1", true),
        ("::ffff:10.2.0.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("192.168.7.7", true),
        ("192.169.0.1", false),
    ] {
        assert_eq!(literal(&nets, ip).is_ok(), allowed, "{ip}");
    }
    assert_eq!(literal(&nets, "::ffff:10.1.0.1"), Ok(ips(&["10.1.0.1"])));
}

#[test]
fn special_ranges_need_a_subnet_within_them() {
    let all = ["0.0.0.0/0", "::/0"];
    for (ip, range, opener) in [
        ("127.0.0.1", SpecialRange::Loopback, "127.0.0.0/8"),
        ("127.0.0.1", SpecialRange::Loopback, "127.0.0.1/32"),
        ("::ffff:127.0.0.1", SpecialRange::Loopback, "127.0.0.1/32"),
        ("::1", SpecialRange::Loopback, "::1/128"),
        (
            "64:ff9b::7f00:1",
            SpecialRange::Loopback,
            "64:ff9b::7f00:0/104",
        ),
        ("169.254.1.1", SpecialRange::LinkLocal, "169.254.0.0/16"),
        ("fe80::1", SpecialRange::LinkLocal, "fe80::/10"),
        ("febf::1", SpecialRange::LinkLocal, "febf::/16"),
        (
            "169.254.169.254",
            SpecialRange::Metadata,
            "169.254.169.254/32",
        ),
        ("fd00:ec2::254", SpecialRange::Metadata, "fd00:ec2::254/128"),
        ("fd20:ce::254", SpecialRange::Metadata, "fd20:ce::254/128"),
        ("fd00:ec2::23", SpecialRange::Metadata, "fd00:ec2::23/128"),
        ("168.63.129.16", SpecialRange::Metadata, "168.63.129.16/32"),
        ("169.254.170.2", SpecialRange::Metadata, "169.254.170.2/32"),
        (
            "169.254.170.23",
            SpecialRange::Metadata,
            "169.254.170.23/32",
        ),
        (
            "100.100.100.200",
            SpecialRange::Metadata,
            "100.100.100.200/32",
        ),
        ("192.0.0.192", SpecialRange::Metadata, "192.0.0.192/32"),
        ("2002:7f00:1::1", SpecialRange::Loopback, "2002:7f00::/24"),
        (
            "64:ff9b:1::a00:1",
            SpecialRange::LocalNat64,
            "64:ff9b:1::/96",
        ),
        (
            "64:ff9b:1:a00:0:100::",
            SpecialRange::LocalNat64,
            "64:ff9b:1::/48",
        ),
        ("0.0.0.0", SpecialRange::Unspecified, "0.0.0.0/32"),
        ("0.1.2.3", SpecialRange::Unspecified, "0.0.0.0/8"),
        ("::", SpecialRange::Unspecified, "::/128"),
        ("239.1.1.1", SpecialRange::Multicast, "224.0.0.0/4"),
        ("ff02::1", SpecialRange::Multicast, "ff00::/8"),
        (
            "255.255.255.255",
            SpecialRange::Broadcast,
            "255.255.255.255/32",
        ),
    ] {
        match literal(&all, ip) {
            Err(PolicyError::Special { range: found, .. }) => assert_eq!(found, range, "{ip}"),
            other => panic!("{ip}: {other:?}"),
        }
        assert!(literal(&["0.0.0.0/0", opener], ip).is_ok(), "{ip}");
    }
}

#[test]
fn wider_subnets_do_not_open_what_is_nested() {
    for (nets, ip) in [
        (["169.254.0.0/16"], "169.254.169.254"),
        (["169.254.0.0/16"], "169.254.170.2"),
        (["169.254.0.0/16"], "169.254.170.23"),
        (["100.64.0.0/10"], "100.100.100.200"),
        (["fd20::/16"], "fd20:ce::254"),
        (["2002::/16"], "2002:a9fe:a9fe::1"),
        (["64:ff9b:1::/48"], "64:ff9b:1:2::7f00:1"),
        (["64:ff9b:1:2::/96"], "64:ff9b:1:2::a9fe:a9fe"),
        (["fd00::/8"], "fd00:ec2::254"),
        (["126.0.0.0/7"], "127.0.0.1"),
        (["127.0.0.2/32"], "127.0.0.1"),
    ] {
        let refused = literal(&nets, ip).unwrap_err();
        assert!(matches!(refused, PolicyError::Special { .. }), "{ip}");
    }
}

#[test]
fn advertised_names_lead_anywhere_but_to_special_ranges() {
    let policy = policy(&["10.0.0.0/8"], &["*.corp.local", "db.other"]);
    let found = ips(&["8.8.8.8", "127.0.0.1", "::ffff:8.8.8.8", "2001:db8::1"]);
    for name in ["a.corp.local", "a.b.corp.local", "db.other"] {
        let allowed = policy.admit(&host(name), &found);
        assert_eq!(allowed, Ok(ips(&["8.8.8.8", "2001:db8::1"])), "{name}");
    }
    let loopback = policy.admit(&host("db.other"), &ips(&["127.0.0.1"]));
    assert!(matches!(loopback, Err(PolicyError::Special { .. })));
}

#[test]
fn other_names_lead_into_subnets_only() {
    let policy = policy(&["10.0.0.0/8", "fd12::/16"], &["*.corp.local"]);
    let found = ips(&["8.8.8.8", "10.1.1.1", "fd12::1", "fd13::1", "10.1.1.1"]);
    let allowed = policy.admit(&host("corp.local"), &found);
    assert_eq!(allowed, Ok(ips(&["10.1.1.1", "fd12::1"])));
    let refused = policy.admit(&host("corp.local"), &ips(&["8.8.8.8"]));
    assert!(matches!(refused, Err(PolicyError::Name { .. })));
    assert!(policy.admit(&host("a.corp.local"), &[]).is_err());
}

#[test]
fn names_that_cannot_be_allowed_are_not_worth_resolving() {
    let names_only = policy(&[], &["*.corp.local"]);
    assert!(names_only.check(&target("a.corp.local")).is_ok());
    assert!(names_only.check(&target("elsewhere.org")).is_err());
    assert!(names_only.check(&target("10.0.0.1")).is_err());
    let with_subnet = policy(&["10.0.0.0/8"], &[]);
    assert!(with_subnet.check(&target("elsewhere.org")).is_ok());
    assert!(with_subnet.check(&target("10.0.0.1")).is_ok());
}

#[test]
fn refusals_say_what_would_help() {
    let agent = policy(&["0.0.0.0/0"], &[]);
    assert_eq!(
        agent.check(&target("127.0.0.1")).unwrap_err().to_string(),
        "not allowed: 127.0.0.1 is a loopback address, which is refused unless a subnet within 127.0.0.0/8 \
         that holds it is advertised by the agent"
    );
    let direct = Policy::direct(&[], Vec::new());
    assert_eq!(
        direct.check(&target("10.0.0.1")).unwrap_err().to_string(),
        "not allowed: 10.0.0.1 is in no subnet that is allowed for direct dialling"
    );
    assert_eq!(
        direct.check(&target("db.local")).unwrap_err().to_string(),
        "not allowed: db.local matches no domain that is allowed for direct dialling, and none of its \
         addresses is in such a subnet"
    );
}

fn policy(nets: &[&str], names: &[&str]) -> Policy {
    let route = |name: &&str| DomainRoute {
        pattern: DomainPattern::parse(name).unwrap(),
        auto_detected: false,
    };
    Policy::new(&RouteSet {
        subnets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        domains: names.iter().map(route).collect(),
    })
}

/// Judges a literal, also one that `Host` would not hold in this form.
fn literal(nets: &[&str], ip: &str) -> Result<Vec<IpAddr>, PolicyError> {
    policy(nets, &[]).admit(&Host::Ip(ip.parse().unwrap()), &[])
}

#[test]
fn only_allowed_ports_are_dialled() {
    let open = policy(&["10.0.0.0/8"], &["a.b"]);
    let few = open.clone().restricted(&Restrictions {
        ports: vec![22..=22, 8_000..=8_999],
        deny: Vec::new(),
    });
    for (port, allowed) in [
        (21, false),
        (22, true),
        (23, false),
        (7_999, false),
        (8_000, true),
        (8_999, true),
        (9_000, false),
    ] {
        for host in ["10.1.1.1", "a.b"] {
            let target = Target {
                host: host.parse().unwrap(),
                port,
            };
            assert_eq!(open.check(&target), Ok(()));
            let wanted = if allowed {
                Ok(())
            } else {
                Err(PolicyError::Port { port })
            };
            assert_eq!(few.check(&target), wanted, "{port}");
        }
    }
}

#[test]
fn what_is_denied_is_denied_however_it_is_reached() {
    let deny = ["10.0.0.7/8", "192.168.1.1/32", "2001:db8::/32"].map(|net| net.parse().unwrap());
    let restrictions = Restrictions {
        ports: Vec::new(),
        deny: deny.into(),
    };
    let all = policy(&["0.0.0.0/0", "::/0"], &["a.b"]).restricted(&restrictions);
    for (ip, allowed) in [
        ("10.200.0.1", false),
        ("11.0.0.1", true),
        ("192.168.1.1", false),
        ("192.168.1.2", true),
        ("::ffff:10.1.1.1", false),
        ("64:ff9b::a01:101", false),
        ("64:ff9b::b01:101", true),
        ("2002:a01:101::5", false),
        ("2002:b01:101::5", true),
        ("2001:db8::5", false),
        ("2001:db9::5", true),
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let literal = all.admit(&Host::Ip(ip), &[]);
        assert_eq!(literal.is_ok(), allowed, "{ip}: {literal:?}");
        let named = all.admit(&host("a.b"), &[ip]);
        assert_eq!(named.is_ok(), allowed, "{ip}: {named:?}");
        let denied = matches!(named, Err(PolicyError::Denied { .. }));
        assert_eq!(denied, !allowed);
    }
    // A name that also leads elsewhere is dialled there.
    let found = ["10.1.1.1", "11.1.1.1"].map(|ip| ip.parse().unwrap());
    assert_eq!(all.admit(&host("a.b"), &found), Ok(vec![found[1]]));
}

fn target(host: &str) -> Target {
    Target {
        host: host.parse().unwrap(),
        port: 80,
    }
}

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}
