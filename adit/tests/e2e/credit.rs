//! More users than an agent grants streams: a reference agent grants a hundred (agent-tunnel 2), and one that a target
//! waiting for the end of its input never gives back is lost to it (agent-tunnel 11.2).

use std::{
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_socks::tcp::Socks5Stream;

use crate::harness::{
    RUNTIME, SOON, alone, block_on, many_files,
    reference_agent::ReferenceAgent,
    site::{Agent, Gateway, PROXIES, Site},
    targets::{GREETING, echo, greeter, ping, reset},
    until,
    users::socks,
};

#[test]
fn a_thousand_users_at_once_are_all_served() {
    let _machine = alone();
    let bed = Bed::new();
    let _reference = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    let target = greeter();
    let start = Instant::now();
    let users = bed.users(1_000, target, async |mut tcp| {
        let mut got = [0; GREETING.len()];
        tcp.read_exact(&mut got).await.unwrap();
        assert_eq!(got, GREETING);
    });
    for user in users {
        block_on(user).unwrap().unwrap();
    }
    eprintln!("1,000 users over a hundred streams: {:?}", start.elapsed());
    bed.gateway.sessions_are(0);
}

#[test]
fn users_who_wait_are_refused_when_the_agent_goes_and_served_by_the_next_one() {
    let _machine = alone();
    let bed = Bed::new();
    let reference = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    let (target, held) = bed.take_all_streams();
    let waiting = bed.users(900, target, async |_tcp| ());
    bed.opening_is(1_000);

    reference.connection.close(0u32.into(), b"shutting down");
    let gone = Instant::now();
    for (n, user) in waiting.into_iter().enumerate() {
        let refused = block_on(user).unwrap().unwrap_err();
        assert_eq!(refused, [Refused::Socks(1), Refused::Http(502)][n % 2]);
    }
    let took = gone.elapsed();
    eprintln!("900 users were refused {took:?} after the agent had gone");
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(held);
    let _next = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    ping(
        &socks(bed.socks, &target.to_string()).unwrap(),
        b"served again",
    );
}

#[test]
fn users_who_wait_are_taken_over_by_an_agent_that_comes() {
    let _machine = alone();
    let bed = Bed::new();
    let _reference = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    let (target, held) = bed.take_all_streams();
    let waiting = bed.users(300, target, async |mut tcp| {
        tcp.write_all(b"taken over").await.unwrap();
        let mut got = [0; 10];
        tcp.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"taken over");
    });
    bed.opening_is(400);
    let wanted = Instant::now();
    until("the race between agents is over", SOON, || {
        (wanted.elapsed() > Duration::from_secs(1)).then_some(())
    });

    let second = bed.site.serving("second", &bed.gateway, "127.0.0.1/32");
    let came = Instant::now();
    for user in waiting {
        block_on(user).unwrap().unwrap();
    }
    let took = came.elapsed();
    eprintln!("300 users were served {took:?} after another agent had come");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for tcp in &held {
        ping(tcp, b"still there");
    }
    assert_eq!(second.process().count("session refused"), 0);
}

#[test]
fn users_who_leave_while_they_wait_take_no_stream() {
    let _machine = alone();
    let bed = Bed::new();
    let reference = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    let (target, held) = bed.take_all_streams();
    let waiting = bed.users(900, target, async |_tcp| ());
    bed.opening_is(1_000);
    for user in waiting {
        user.abort();
    }
    bed.opening_is(100);
    ping(&held[0], b"still there");
    assert_eq!(
        reference.asked.load(std::sync::atomic::Ordering::Relaxed),
        100
    );
}

#[test]
fn an_agent_that_has_lost_all_its_streams_is_sent_away_to_have_them_again() {
    let _machine = alone();
    let bed = Bed::new();
    let reference = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    let (target, held) = bed.take_all_streams();
    // The users are gone for good, but the agent waits for the target, which waits for the agent.
    held.into_iter().for_each(reset);
    bed.gateway.sessions_are(0);
    let start = Instant::now();
    let waiting = bed.users(50, target, async |_tcp| ());
    let closed = block_on(reference.connection.closed());
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}");
    };
    assert_eq!(close.error_code, 3u32.into());
    for user in waiting {
        assert!(block_on(user).unwrap().is_err());
    }
    let took = start.elapsed();
    eprintln!("the agent was sent away after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    let _next = ReferenceAgent::connect(&bed.agent, &bed.gateway);
    ping(
        &socks(bed.socks, &target.to_string()).unwrap(),
        b"served again",
    );
}

/// A gateway with its proxies, and the enrolment of an agent.
struct Bed {
    site: Site,
    gateway: Gateway,
    agent: Agent,
    socks: SocketAddr,
    connect: SocketAddr,
}

/// What a user was told.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// By the reply field.
    Socks(u8),
    /// By the status.
    Http(u16),
}

impl Bed {
    fn new() -> Self {
        many_files();
        let site = Site::new();
        let gateway = site.gateway("gw", PROXIES);
        Self {
            agent: site.enrol("reference", &gateway, ""),
            socks: gateway.ingress("socks5"),
            connect: gateway.ingress("connect"),
            site,
            gateway,
        }
    }

    /// Opens a hundred sessions to a target that waits for the end of its input.
    fn take_all_streams(&self) -> (SocketAddr, Vec<std::net::TcpStream>) {
        let target = echo();
        let open = || {
            let tcp = socks(self.socks, &target.to_string()).unwrap();
            ping(&tcp, b"held");
            tcp
        };
        (target, (0..100).map(|_| open()).collect())
    }

    /// Starts so many users at once, by one proxy and the other in turn; each uses its session.
    fn users<F>(
        &self,
        count: usize,
        target: SocketAddr,
        use_it: impl Fn(TcpStream) -> F + Copy + Send + 'static,
    ) -> Vec<JoinHandle<Result<(), Refused>>>
    where
        F: Future<Output = ()> + Send,
    {
        let (socks, connect) = (self.socks, self.connect);
        let user = |n: usize| {
            RUNTIME.spawn(async move {
                let tcp = match n % 2 {
                    0 => by_socks(socks, target).await?,
                    _ => by_connect(connect, target).await?,
                };
                use_it(tcp).await;
                Ok(())
            })
        };
        (0..count).map(user).collect()
    }

    /// Waits until so many sessions are open or being opened.
    fn opening_is(&self, count: u64) {
        until(&format!("{count} sessions are wanted"), SOON, || {
            (self.gateway.agents()[0]["sessions"] == count).then_some(())
        });
    }
}

async fn by_socks(proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream, Refused> {
    match Socks5Stream::connect(proxy, target).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(tokio_socks::Error::GeneralSocksServerFailure) => Err(Refused::Socks(1)),
        Err(tokio_socks::Error::TtlExpired) => Err(Refused::Socks(6)),
        Err(error) => panic!("{error}"),
    }
}

async fn by_connect(proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream, Refused> {
    let mut tcp = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    match head.split(' ').nth(1).unwrap().parse().unwrap() {
        200 => Ok(tcp),
        status => Err(Refused::Http(status)),
    }
}
