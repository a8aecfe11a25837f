//! Enrolment strings, signed and recorded.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;

use super::GatewayState;
use crate::{
    admin::{TokenCreated, TokenMaker, TokenRequest},
    process::unix_now,
    store::{TokenRecord, TokenState},
    token::NewToken,
};

pub(super) fn maker(state: &GatewayState, url: String, pin: Option<[u8; 32]>) -> TokenMaker {
    let (key, store) = (Arc::clone(&state.tokens), state.store.clone());
    Arc::new(move |request: TokenRequest| {
        let (key, store, url) = (Arc::clone(&key), store.clone(), url.clone());
        Box::pin(async move {
            let now = unix_now();
            let gateway_url = request.url.unwrap_or(url);
            let issued = key
                .issue(
                    now,
                    &NewToken {
                        gateway_url: gateway_url.clone(),
                        agent_name: request.name.clone(),
                        lifetime: Duration::from_secs(request.lifetime_s),
                        https_spki_sha256: pin,
                    },
                )
                .map_err(|error| error.to_string())?;
            let record = TokenRecord {
                jti: issued.jti,
                name: request.name.clone(),
                expires_at: issued.expires_at,
                state: TokenState::Issued,
            };
            store
                .record_token(now.as_secs(), record)
                .await
                .map_err(|error| error.to_string())?;
            Ok(TokenCreated {
                token: issued.text.expose_secret().to_owned(),
                jti: issued.jti,
                name: request.name,
                url: gateway_url,
                expires_unix_s: issued.expires_at,
            })
        })
    })
}
