//! What an agent advertises: from its configuration, from its enrolment, or by what the machine says.

use std::{fs, path::Path};

use adit_proto_core::{
    domain::DomainPattern,
    route::{DomainRoute, RouteSet},
};

use crate::{
    config::AgentConfig,
    enroll::{files::FilesError, routes::stored_routes},
    state::StateDir,
};

/// What the configuration says, else what `agent up` was given; with the machine's own domain where that is wanted and
/// no other is named (agent-tunnel 16.1).
///
/// # Errors
/// [`FilesError`], naming the file where it is damaged.
pub(super) fn advertised(
    config: &AgentConfig,
    dir: &StateDir,
    resolver: &Path,
) -> Result<RouteSet, FilesError> {
    let mut routes = if config.advertise.is_empty() {
        stored_routes(dir)?.unwrap_or_default()
    } else {
        config.advertise.clone()
    };
    if config.detect_domain && routes.domains.is_empty() {
        // A file that cannot be read names no domain.
        let text = fs::read_to_string(resolver).unwrap_or_default();
        routes
            .domains
            .extend(search_domain(&text).map(|pattern| DomainRoute {
                pattern,
                auto_detected: true,
            }));
    }
    Ok(routes)
}

/// The routes as text.
pub(super) fn shown(routes: &RouteSet) -> Vec<String> {
    let subnets = routes.subnets.iter().map(ToString::to_string);
    let domains = routes.domains.iter().map(|route| route.pattern.to_string());
    subnets.chain(domains).collect()
}

/// The first word of the first `search` or `domain` line, as a wildcard (agent-tunnel 16.1).
fn search_domain(text: &str) -> Option<DomainPattern> {
    let word = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let keyword = words.next()?;
        matches!(keyword, "search" | "domain").then(|| words.next().unwrap_or_default())
    })?;
    let domain = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
    // One label would take every name of a whole top level.
    let labels = domain.split('.').count();
    (labels >= 2).then(|| DomainPattern::parse(&format!("*.{domain}")).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_search_or_domain_line_counts() {
        for (text, domain) in [
            (
                "nameserver 10.0.0.1\nsearch Corp.Local. other.x\n",
                Some("*.corp.local"),
            ),
            ("domain a.b\nsearch c.d\n", Some("*.a.b")),
            ("# search x.y\n  search\ta.b.c\n", Some("*.a.b.c")),
            ("search local\nsearch a.b\n", None),
            ("search\n", None),
            ("search .\n", None),
            ("search a..b\n", None),
            ("searching a.b\n", None),
            ("", None),
        ] {
            let found = search_domain(text).map(|pattern| pattern.to_string());
            assert_eq!(found.as_deref(), domain, "{text:?}");
        }
    }

    #[test]
    fn a_named_domain_stands_above_a_detected_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path().join("s")).unwrap();
        let resolver = root.path().join("resolv.conf");
        fs::write(&resolver, "search corp.local\n").unwrap();
        let routes = |text: &str| {
            let file = root.path().join("agent.toml");
            fs::write(&file, text).unwrap();
            let around = crate::config::Surroundings::new([("HOME", "/home/u")], false);
            let loaded = AgentConfig::load(Some((file, true)), &[], &around).unwrap();
            shown(&advertised(&loaded.config, &dir, &resolver).unwrap())
        };
        let detect = "[advertise]\ndetect_domain = true\n";
        assert_eq!(routes(detect), ["*.corp.local"]);
        assert_eq!(routes(&format!("{detect}domains = [\"a.b\"]\n")), ["a.b"]);
        assert_eq!(
            routes("[advertise]\nsubnets = [\"10.0.0.0/8\"]\n"),
            ["10.0.0.0/8"]
        );
        fs::remove_file(&resolver).unwrap();
        assert_eq!(routes(detect), [""; 0]);
    }
}
