//! Where a request carries its token.

use axum::http::{HeaderMap, Uri, header::AUTHORIZATION};

/// Finds the token of a request: in its `Authorization` header, else in its query (agent-tunnel 14.1).
pub(crate) fn bearer(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned());
    }
    // A token holds no character that a query would escape.
    uri.query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .map(str::to_owned)
}
