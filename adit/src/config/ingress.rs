//! The ways in for users, `[[forward]]`, `[[socks5]]` and `[[http_connect]]`, and what `[[user]]` says of users.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use adit_proto_core::{gateway::dispatch::DirectRule, id::AgentId, target::Target};

use super::{
    Entrance, Users, UsersError, entrance,
    file::Kind,
    gateway::on_loopback,
    parse,
    reader::{Reader, Source, Sourced},
    taken::Taken,
};

/// A fixed forward.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Where its sessions go.
    pub target: Target,
    /// The agent that must carry them; none: the routing table decides.
    pub agent: Option<AgentId>,
    /// Who may come in, and what the target is told of them.
    pub entrance: Entrance,
}

/// A listener of a proxy protocol.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Its name in logs and listings.
    pub name: Box<str>,
    /// TCP address to listen on; on loopback where `users` is none.
    pub listen: SocketAddr,
    /// Who may use it; none: everybody on this machine.
    pub users: Option<Users>,
    /// Who may come in, and what targets are told of them.
    pub entrance: Entrance,
}

/// The ways in, in the order of the file.
pub(super) struct WaysIn {
    pub(super) forwards: Vec<ForwardConfig>,
    pub(super) socks5: Vec<ProxyConfig>,
    pub(super) http_connect: Vec<ProxyConfig>,
}

/// Reads all of them.
pub(super) fn ways_in(r: &mut Reader<'_>, taken: &mut Taken) -> Option<WaysIn> {
    let mut rules = TargetRules::read(r);
    let forwards = forwards(r, taken);
    let socks5 = proxies(r, taken, &mut rules, "socks5");
    let http_connect = proxies(r, taken, &mut rules, "http_connect");
    rules.finish(r);
    Some(WaysIn {
        forwards: forwards?,
        socks5: socks5?,
        http_connect: http_connect?,
    })
}

/// What users may open, by their names: the entries of `[[user]]`.
struct TargetRules {
    of: BTreeMap<String, TargetRule>,
    /// A users file was not read, so nobody knows whom it names.
    unread: bool,
}

struct TargetRule {
    targets: Arc<[DirectRule]>,
    source: Source,
    /// A users file has the name.
    met: bool,
}

impl TargetRules {
    fn read(r: &mut Reader<'_>) -> Self {
        let mut all = BTreeMap::new();
        for (prefix, entry) in r.entries("user") {
            let own = |text: &str| Ok(text.to_owned());
            let name = r.required(&format!("{prefix}name"), Kind::Text, &entry, own);
            let key = format!("{prefix}targets");
            let targets = r.list(&key, parse::target_rule);
            let (Some(name), Some(targets)) = (name, targets) else {
                continue;
            };
            if targets.is_empty() {
                let message = format!(
                    "`{key}` is missing or empty; say what the user may open, or remove the entry to allow everything"
                );
                r.problem(entry.clone(), message);
            }
            let rule = TargetRule {
                targets: targets.into_iter().map(|rule| rule.value).collect(),
                source: name.source.clone(),
                met: false,
            };
            if all.insert(name.value.clone(), rule).is_some() {
                let message = format!("the user `{}` has two entries; join them", name.value);
                r.problem(name.source, message);
            }
        }
        Self {
            of: all,
            unread: false,
        }
    }

    /// Restricts those of a users file who have an entry.
    fn apply(&mut self, mut users: Users) -> Users {
        for (name, rule) in &mut self.of {
            rule.met |= users.restrict(name, &rule.targets);
        }
        users
    }

    /// A rule for nobody is a slip of the pen, and whoever was meant could open everything.
    fn finish(self, r: &mut Reader<'_>) {
        for (name, rule) in self.of {
            if !rule.met && !self.unread {
                let message = format!("no users file that is used has a user `{name}`");
                r.problem(rule.source, message);
            }
        }
    }
}

fn forwards(r: &mut Reader<'_>, taken: &mut Taken) -> Option<Vec<ForwardConfig>> {
    let mut all = Some(Vec::new());
    for (prefix, entry) in r.entries("forward") {
        let one = forward(r, taken, &prefix, &entry);
        all = all.zip(one).map(|(mut list, one)| {
            list.push(one);
            list
        });
    }
    all
}

fn forward(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    prefix: &str,
    entry: &Source,
) -> Option<ForwardConfig> {
    let (name, listen) = place(r, taken, prefix, entry);
    let target = r.required(&format!("{prefix}target"), Kind::Text, entry, parse::target);
    let agent = r.optional(&format!("{prefix}agent"), Kind::Text, parse::agent_id);
    let public = r.scalar(
        &format!("{prefix}public"),
        Kind::Switch,
        "false",
        parse::switch,
    );
    let entrance = entrance::entrance(r, prefix);
    let (name, listen, public) = (name?, listen?, public?);
    if !public.value && !on_loopback(listen.value) {
        let message = format!(
            "forward `{}` listens on {}, where others can reach its target without credentials; listen on \
             127.0.0.1 or [::1], or set `public = true` if they may",
            name.value, listen.value
        );
        r.problem(listen.source, message);
        return None;
    }
    Some(ForwardConfig {
        name: name.value,
        listen: listen.value,
        target: target?.value,
        agent: agent?.map(|a| a.value),
        entrance: entrance?,
    })
}

fn proxies(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    rules: &mut TargetRules,
    kind: &str,
) -> Option<Vec<ProxyConfig>> {
    let mut all = Some(Vec::new());
    for (prefix, entry) in r.entries(kind) {
        let one = proxy(r, taken, rules, kind, &prefix, &entry);
        all = all.zip(one).map(|(mut list, one)| {
            list.push(one);
            list
        });
    }
    all
}

fn proxy(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    rules: &mut TargetRules,
    kind: &str,
    prefix: &str,
    entry: &Source,
) -> Option<ProxyConfig> {
    let (name, listen) = place(r, taken, prefix, entry);
    let entrance = entrance::entrance(r, prefix);
    let file = r.optional(&format!("{prefix}users_file"), Kind::Text, parse::path);
    let users = match file? {
        None => None,
        Some(_) if !r.reads_named_files() => {
            rules.unread = true;
            Some(Users::default())
        }
        Some(file) => {
            let users = users(r, file);
            rules.unread |= users.is_none();
            Some(rules.apply(users?))
        }
    };
    let (name, listen) = (name?, listen?);
    if users.is_none() && !on_loopback(listen.value) {
        let message = format!(
            "{kind} `{}` would be an open proxy on {}; set `users_file`, or listen on 127.0.0.1 or [::1]",
            name.value, listen.value
        );
        r.problem(listen.source, message);
        return None;
    }
    Some(ProxyConfig {
        name: name.value,
        listen: listen.value,
        users,
        entrance: entrance?,
    })
}

fn users(r: &mut Reader<'_>, file: Sourced<PathBuf>) -> Option<Users> {
    match Users::read(&file.value) {
        Ok(users) => Some(users),
        Err(UsersError::Line(line, message)) => {
            r.problem(Source::File(file.value.into(), line), message.to_owned());
            None
        }
        Err(error) => {
            r.problem(
                file.source,
                format!("users file {}: {error}", file.value.display()),
            );
            None
        }
    }
}

/// What every ingress has: a name and an address, both its own.
fn place(
    r: &mut Reader<'_>,
    taken: &mut Taken,
    prefix: &str,
    entry: &Source,
) -> (Option<Sourced<Box<str>>>, Option<Sourced<SocketAddr>>) {
    let name = r.required(&format!("{prefix}name"), Kind::Text, entry, parse::label);
    let listen = r.required(
        &format!("{prefix}listen"),
        Kind::Text,
        entry,
        parse::address,
    );
    if let Some(name) = &name {
        taken.name(r, name);
    }
    if let (Some(name), Some(listen)) = (&name, &listen) {
        taken.listener(r, &name.value, listen);
    }
    (name, listen)
}
