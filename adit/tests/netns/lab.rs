//! A gateway's host, agents' hosts and a router that joins them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    harness::{
        SOON,
        site::{Agent, Gateway, Site},
        targets::Target,
        until,
        users::connect,
    },
    namespace::{Namespace, ip},
};

/// The networks of a test. The gateway's is number 0, the agents' follow; in each the router has address 1 and the host
/// address 2.
pub(crate) struct Lab {
    pub(crate) site: Site,
    pub(crate) router: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) agents: Vec<Namespace>,
}

impl Lab {
    pub(crate) fn new(agents: usize) -> Self {
        let router = Namespace::new("router");
        router.set("ipv4/ip_forward", "1");
        router.set("ipv6/conf/all/forwarding", "1");
        // What comes from where the router would not send to is dropped, so that a black hole swallows both ways.
        router.set("ipv4/conf/all/rp_filter", "1");
        let gateway = Namespace::new("gateway");
        join(&router, &gateway, 0);
        let agent = |n: usize| {
            let agent = Namespace::new(&format!("agent{n}"));
            join(&router, &agent, n + 1);
            agent
        };
        Self {
            site: Site::new(),
            agents: (0..agents).map(agent).collect(),
            router,
            gateway,
        }
    }

    /// Starts a gateway with a forward to [`TARGET`], and these further keys of `[tunnel]`.
    pub(crate) fn start_gateway(&self, tunnel: &str) -> Gateway {
        self.start_gateway_with(tunnel, &[])
    }

    /// The same with these further words on its command line.
    pub(crate) fn start_gateway_with(&self, tunnel: &str, words: &[&str]) -> Gateway {
        let text = format!(
            "[tunnel]\nlisten = \"[::]:{TUNNEL_PORT}\"\nnames = [\"{}\", \"{}\", \"{NAME}\"]\n{tunnel}\n\
             [enroll]\nlisten = \"[::]:7171\"\n\
             [[forward]]\nname = \"target\"\nlisten = \"127.0.0.1:0\"\ntarget = \"{TARGET}\"\n",
            host(0),
            router(0),
        );
        let mut gateway = self.site.gateway_of("gw", &text);
        let with_words = |mut command: Command| {
            command.args(words);
            command
        };
        self.gateway.within(|| gateway.spawn_through(with_words));
        gateway.process().logged("gateway running");
        gateway
    }

    /// Enrols and starts an agent, and waits until the gateway has its routes.
    pub(crate) fn serving(&self, n: usize, gateway: &Gateway) -> Agent {
        let name = format!("site-{n}");
        self.agents[n].within(|| self.site.serving(&name, gateway, "127.0.0.1/32"))
    }

    /// Listens at [`TARGET`] on an agent's host.
    pub(crate) fn target(&self, n: usize) -> Target {
        self.agents[n].within(|| Target::listen_at(TARGET))
    }

    /// A user's connection on the gateway's host.
    pub(crate) fn user(&self, gateway: &Gateway) -> TcpStream {
        self.gateway.within(|| connect(gateway.ingress("target")))
    }

    /// Has the packets to a host vanish in the router, without an error to anybody; over IPv4 those from it, too.
    pub(crate) fn swallow(&self, host: IpAddr) {
        self.router.ip(&format!("route add blackhole {host}"));
    }

    /// Ends that.
    pub(crate) fn let_pass(&self, host: IpAddr) {
        self.router.ip(&format!("route delete blackhole {host}"));
    }
}

fn join(router_space: &Namespace, host_space: &Namespace, n: usize) {
    let port = format!("net{n}");
    ip(&format!(
        "link add {port} netns {} type veth peer name eth0 netns {}",
        router_space.name(),
        host_space.name()
    ));
    for (space, link, v4, v6) in [
        (router_space, &*port, router(n), router6(n)),
        (host_space, "eth0", host(n), host6(n)),
    ] {
        space.ip(&format!("address add {v4}/24 dev {link}"));
        space.ip(&format!("address add {v6}/64 dev {link}"));
        space.ip(&format!("link set {link} up"));
    }
    host_space.ip(&format!("route add default via {}", router(n)));
    host_space.ip(&format!("route add default via {}", router6(n)));
    for to in [IpAddr::from(router(n)), router6(n).into()] {
        until("the link is up", SOON, || {
            passes(host_space, router_space, to, 1).then_some(())
        });
    }
}

/// Tells whether a datagram with so many bytes comes from one place to an address of another.
pub(crate) fn passes(from: &Namespace, to: &Namespace, addr: IpAddr, length: usize) -> bool {
    let there = to.within(|| UdpSocket::bind((addr, 0)).unwrap());
    let patience = Duration::from_millis(200);
    there.set_read_timeout(Some(patience)).unwrap();
    let to = there.local_addr().unwrap();
    from.within(|| {
        let any: IpAddr = match addr {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let here = UdpSocket::bind((any, 0)).unwrap();
        // An error is no datagram either.
        let _lost = here.send_to(&vec![0; length], to);
    });
    there.recv(&mut [0; 1]).is_ok()
}

/// Words that start a program which looks names up in this file.
pub(crate) fn with_hosts(hosts: &Path) -> Vec<String> {
    let bound = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let hosts = hosts.to_str().unwrap();
    let words = ["unshare", "--mount", "sh", "-c", bound, hosts];
    words.map(str::to_owned).to_vec()
}

/// The router's address in a network.
pub(crate) fn router(n: usize) -> Ipv4Addr {
    address(n, 1)
}

/// The host's address in a network.
pub(crate) fn host(n: usize) -> Ipv4Addr {
    address(n, 2)
}

/// The router's IPv6 address in a network.
pub(crate) fn router6(n: usize) -> Ipv6Addr {
    address6(n, 1)
}

/// The host's IPv6 address in a network.
pub(crate) fn host6(n: usize) -> Ipv6Addr {
    address6(n, 2)
}

fn address(n: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, u8::try_from(n).unwrap(), last)
}

fn address6(n: usize, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, u16::try_from(n).unwrap(), 0, 0, 0, last)
}

/// A name of the gateway beside its address.
pub(crate) const NAME: &str = "gw.test";
/// Where the gateway listens for agents.
pub(crate) const TUNNEL_PORT: u16 = 4433;
/// Where sessions lead, on the host of whichever agent carries them.
pub(crate) const TARGET: &str = "127.0.0.1:7000";
