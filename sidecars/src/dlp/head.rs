//! The head of a request: host, path, query, headers.

use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;

use super::scanner::Scanner;
use super::{Found, Rules};
use crate::headers::is_credential;
use crate::path::decode_lossy;
use crate::reason::Reason;

/// Looks through the head, and blacks out what is to be. Fields that are made for credentials are left alone: on a
/// route with a credential of its own they are emptied, and elsewhere what is in them is in its place.
pub(crate) fn check_head(
    rules: &Arc<Rules>,
    found: &Arc<Found>,
    host: &str,
    parts: &mut Parts,
) -> Result<(), Reason> {
    if !rules.looks_out() {
        return Ok(());
    }
    let scanner = |sealed| Scanner::new(rules.clone(), found.clone(), sealed);
    let (mut open, mut sealed) = (scanner(false), scanner(true));
    if sealed.is_curious(host.as_bytes()) {
        // Another host would be another destination, so there is nothing to black out.
        sealed.whole(&mut host.as_bytes().to_vec())?;
    }
    if let Some(target) = parts.uri.path_and_query().map(PathAndQuery::as_str) {
        let mut text = target.as_bytes().to_vec();
        let changed = open.is_curious(&text) && open.whole(&mut text)?;
        if target.contains('%') {
            sealed.whole(&mut decode_lossy(&text).to_vec())?;
        }
        if changed {
            parts.uri = with_target(&parts.uri, &text).ok_or(Reason::DlpMatch)?;
        }
    }
    for (name, value) in &mut parts.headers {
        if is_credential(name) || !open.is_curious(value.as_bytes()) {
            continue;
        }
        let mut text = value.as_bytes().to_vec();
        if open.whole(&mut text)? {
            *value = HeaderValue::from_bytes(&text).map_err(|_| Reason::DlpMatch)?;
        }
    }
    Ok(())
}

fn with_target(uri: &Uri, target: &[u8]) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}
