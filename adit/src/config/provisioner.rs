//! The section `[provisioner]`: whose tokens are taken beside the gateway's own.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{
    file::Kind,
    parse,
    reader::{Reader, Sourced},
};
use crate::token::{ProvisionerKey, RevocationList};

/// Whose tokens are taken, and which are not.
#[derive(Clone, Debug, Default)]
pub struct ProvisionerConfig {
    /// Key of an external console; none: only the gateway's own tokens are taken.
    pub public_key: Option<ProvisionerKey>,
    /// This gateway's id as the console knows it; tokens that name another one are refused.
    pub gateway_id: Option<Uuid>,
    /// Claims whose tokens are refused, whoever signed them.
    pub revoked: RevocationList,
}

/// Reads the section, and the files that it names.
pub(super) fn provisioner(r: &mut Reader<'_>) -> Option<ProvisionerConfig> {
    let key = r.optional("provisioner.public_key_file", Kind::Text, parse::path);
    let gateway_id = r.optional("provisioner.gateway_id", Kind::Text, gateway_id);
    let revoked = r.optional("provisioner.revocation_list", Kind::Text, parse::path);
    let public_key = content(r, key?, |path| {
        ProvisionerKey::read(path).map_err(|e| e.to_string())
    });
    let revoked = content(r, revoked?, |path| {
        RevocationList::read(path).map_err(|e| e.to_string())
    });
    Some(ProvisionerConfig {
        public_key: public_key?,
        gateway_id: gateway_id?.map(|id| id.value),
        revoked: revoked?.unwrap_or_default(),
    })
}

/// The outer option is none after a problem.
#[allow(
    clippy::option_option,
    reason = "a problem and an absence are two things"
)]
fn content<T>(
    r: &mut Reader<'_>,
    file: Option<Sourced<PathBuf>>,
    read: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<Option<T>> {
    let Some(file) = file.filter(|_| r.reads_named_files()) else {
        return Some(None);
    };
    match read(&file.value) {
        Ok(value) => Some(Some(value)),
        Err(message) => {
            r.problem(file.source, message);
            None
        }
    }
}

fn gateway_id(text: &str) -> Result<Uuid, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no UUID; the console shows the gateway's id"))
}
