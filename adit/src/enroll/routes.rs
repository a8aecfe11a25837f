//! What `agent up` was told to advertise, kept beside the enrolment.

use adit_proto_core::{
    domain::DomainPattern,
    route::{DomainRoute, RouteSet},
};
use serde::{Deserialize, Serialize};

use super::files::FilesError;
use crate::state::StateDir;

#[derive(Serialize, Deserialize)]
struct Record {
    subnets: Vec<String>,
    domains: Vec<String>,
}

/// Keeps the routes; the former ones are replaced (agent-tunnel 16.2).
///
/// # Errors
/// [`FilesError::State`].
pub fn store_routes(dir: &StateDir, routes: &RouteSet) -> Result<(), FilesError> {
    let record = Record {
        subnets: routes.subnets.iter().map(ToString::to_string).collect(),
        domains: routes
            .domains
            .iter()
            .map(|route| route.pattern.to_string())
            .collect(),
    };
    let json = serde_json::to_vec_pretty(&record).map_err(|_| FilesError::Damaged(ROUTES_FILE))?;
    Ok(dir.write(ROUTES_FILE, &json)?)
}

/// Reads them back; none where there are none.
///
/// # Errors
/// [`FilesError`], naming the file where it is damaged.
pub fn stored_routes(dir: &StateDir) -> Result<Option<RouteSet>, FilesError> {
    let Some(json) = dir.read_text(ROUTES_FILE)? else {
        return Ok(None);
    };
    let damaged = || FilesError::Damaged(ROUTES_FILE);
    let record: Record = serde_json::from_str(&json).map_err(|_| damaged())?;
    let subnets = record
        .subnets
        .iter()
        .map(|text| text.parse().map_err(|_| damaged()));
    let domains = record.domains.iter().map(|text| {
        let pattern = DomainPattern::parse(text).map_err(|_| damaged())?;
        Ok(DomainRoute {
            pattern,
            auto_detected: false,
        })
    });
    Ok(Some(RouteSet {
        subnets: subnets.collect::<Result<_, _>>()?,
        domains: domains.collect::<Result<_, FilesError>>()?,
    }))
}

pub(super) const ROUTES_FILE: &str = "routes.json";
