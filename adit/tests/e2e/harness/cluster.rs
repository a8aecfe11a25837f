//! Gateways that are peers of each other.

use std::{fs, net::TcpStream};

use rustix::process::Signal;
use serde_json::Value;

use super::{
    SOON,
    console::METRICS,
    process::Process,
    site::{Agent, Gateway, PROXIES, Ports, Site, free_udp_port},
    targets::Target,
    until,
    users::socks,
};

/// Gateways that are peers of each other, number `n` at `[n - 1]`.
pub(crate) struct Cluster {
    pub(crate) site: Site,
    pub(crate) gateways: Vec<Gateway>,
    /// Where each listens for the others.
    pub(crate) ports: Vec<u16>,
}

impl Cluster {
    /// Gateways with these drivers, of which none runs.
    pub(crate) fn new(drivers: &[&str]) -> Self {
        Self::with(drivers, |_, _, section| section)
    }

    /// The same with the section `[peers]` of gateway `nth` as `change` makes it.
    pub(crate) fn with(drivers: &[&str], change: impl Fn(&Site, usize, String) -> String) -> Self {
        let site = Site::new();
        let mut cluster = Self {
            gateways: Vec::new(),
            ports: drivers.iter().map(|_| free_udp_port()).collect(),
            site,
        };
        let (ca, key) = (cluster.path("peer-ca"), cluster.path("cluster.key"));
        let run = |args: &[&str]| assert_eq!(cluster.site.run(args).code, 0, "{args:?}");
        run(&["peers", "init", &ca]);
        run(&["peers", "genkey", "--out", &key]);
        let issue = |nth: usize| cluster.issue(nth, &format!("node-{}", nth + 1));
        let entries: Vec<String> = (0..drivers.len()).map(issue).collect();
        let gateway = |(nth, driver): (usize, &&str)| {
            let (node, port) = (nth + 1, cluster.ports[nth]);
            let dir = cluster.path(&format!("node-{node}"));
            let others = entries.iter().enumerate().filter(|(one, _)| *one != nth);
            let others: String = others.map(|(_, entry)| entry.as_str()).collect();
            let section = format!(
                "[peers]\nnode = {node}\nlisten = \"127.0.0.1:{port}\"\n\
                 cert = \"{dir}/node-cert.pem\"\nkey = \"{dir}/node-key.pem\"\n\
                 ca = \"{dir}/peer-ca-cert.pem\"\ncluster_key_file = \"{key}\"\n{others}"
            );
            let section = change(&cluster.site, nth, section);
            let rest = format!("{PROXIES}{METRICS}{section}");
            let (head, tunnel) = (format!("driver = \"{driver}\"\n"), free_udp_port());
            let ports = Ports { tunnel, enroll: 0 };
            (cluster.site).gateway_with(&format!("gw-{node}"), &head, ports, &rest)
        };
        cluster.gateways = drivers.iter().enumerate().map(gateway).collect();
        cluster
    }

    /// All run, and the last one has an agent for loopback that the first one knows of.
    pub(crate) fn running(drivers: &[&str]) -> (Self, Agent) {
        Self::new(drivers).run()
    }

    /// The same with gateways that are there.
    pub(crate) fn run(mut self) -> (Self, Agent) {
        let agent = self.start();
        (self, agent)
    }

    /// Starts all, and an agent for loopback at the last one, which the first one knows of then.
    pub(crate) fn start(&mut self) -> Agent {
        self.gateways.iter_mut().for_each(Gateway::start);
        let last = self.gateways.last().unwrap();
        let agent = self.site.serving("site-b", last, "127.0.0.1/32");
        self.sees(0, 1);
        agent
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.site.path(name).to_string_lossy().into_owned()
    }

    /// Makes certificate and key of a gateway in a folder, and gives the entry for the others.
    pub(crate) fn issue(&self, nth: usize, folder: &str) -> String {
        self.issue_with(nth, folder, &[])
    }

    /// Makes the next certificate of the key in a gateway's folder.
    pub(crate) fn renew(&self, nth: usize, folder: &str) {
        self.issue_with(nth, folder, &["--force"]);
    }

    fn issue_with(&self, nth: usize, folder: &str, rest: &[&str]) -> String {
        let (node, port) = ((nth + 1).to_string(), self.ports[nth]);
        let (address, out) = (format!("127.0.0.1:{port}"), self.path(folder));
        let (ca, args) = (self.path("peer-ca"), ["--address", &address, "--out", &out]);
        let command = ["peers", "issue", "--ca", &ca, "--node", &node];
        let ran = self.site.run(&[&command[..], &args, rest].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    }

    /// Changes the configuration of a gateway.
    pub(crate) fn edit(&self, nth: usize, change: impl FnOnce(String) -> String) {
        let config = &self.gateways[nth].config;
        let text = fs::read_to_string(config).unwrap();
        fs::write(config, change(text)).unwrap();
    }

    /// Changes the configuration of a gateway that runs, which takes it over.
    pub(crate) fn reload(&self, nth: usize, change: impl FnOnce(String) -> String) {
        self.edit(nth, change);
        let process = self.process(nth);
        let before = process.count("configuration reloaded");
        process.signal(Signal::HUP);
        process.logged_nth("configuration reloaded", before + 1);
    }

    pub(crate) fn process(&self, nth: usize) -> &Process {
        self.gateways[nth].process()
    }

    /// Waits until a gateway has so many ways to loopback through peers.
    pub(crate) fn sees(&self, nth: usize, ways: usize) {
        until("ways through peers", SOON, || {
            (self.ways(nth, "127.0.0.1:9").len() == ways).then_some(())
        });
    }

    /// The peers that a gateway would ask for a target.
    pub(crate) fn ways(&self, nth: usize, target: &str) -> Vec<Value> {
        let ran = self.gateways[nth].ask(&["route", "explain", target, "--json"]);
        // Nothing is said of peers where there is none.
        ran.json()["peers"].as_array().cloned().unwrap_or_default()
    }

    /// What a gateway tells of one of its peers.
    pub(crate) fn peer(&self, nth: usize, node: u64) -> Value {
        let rows = self.gateways[nth].ask(&["peers", "list", "--json"]).json();
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["id"] == node).cloned().unwrap()
    }

    /// Asks a gateway for a session as a user does.
    pub(crate) fn socks(&self, nth: usize, target: &str) -> Result<TcpStream, tokio_socks::Error> {
        socks(self.gateways[nth].ingress("socks5"), target)
    }

    /// A session of a user of the first gateway.
    pub(crate) fn open(&self, target: &Target) -> TcpStream {
        self.socks(0, &target.addr.to_string()).unwrap()
    }
}
