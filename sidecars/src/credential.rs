//! Credentials: where one goes, what the agent holds in its place, and how it is put in.
//!
//! The value comes from an environment variable of this process, its *slot*. It is written into exactly one
//! place of requests that fit the route, over verified TLS, after every other credential was taken out.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bottle_plan::policy::{Auth, AuthScheme};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use zeroize::Zeroizing;

use crate::headers;
use crate::needles::{Found, MIN_LENGTH, Needles};
use crate::path::{decode_lossy, query_pairs};
use crate::reason::Reason;

/// Reads a slot; a function so that tests need no environment.
pub type Slots<'a> = dyn Fn(&str) -> Option<Zeroizing<Vec<u8>>> + 'a;

/// Every slot's name begins so; a policy cannot name another variable of this process.
const SLOT_PREFIX: &str = "EGRESS_TOKEN_";

/// A credential of a route.
pub(crate) struct Credential {
    slot: Arc<str>,
    placeholder: Option<Box<str>>,
    place: Place,
    /// `None`: the slot is empty or unusable, and requests fail rather than go without.
    value: Option<Value>,
}

enum Place {
    Header(HeaderName),
    Query(Box<str>),
}

struct Value {
    secret: Zeroizing<Vec<u8>>,
    /// What is written into the place, ready made.
    rendered: HeaderValue,
    /// For the answers.
    needles: Arc<Needles>,
}

impl Credential {
    pub(crate) fn new(auth: &Auth, slots: &Slots<'_>) -> Result<Self, String> {
        let numbered = auth
            .slot
            .strip_prefix(SLOT_PREFIX)
            .is_some_and(|rest| !rest.is_empty());
        if !numbered
            || !auth
                .slot
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err(format!(
                "`{}` is not a slot: its name must be {SLOT_PREFIX}<n>",
                auth.slot
            ));
        }
        if let Some(placeholder) = auth.placeholder.as_deref()
            && (placeholder.len() < MIN_LENGTH
                || !placeholder.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(format!(
                "a placeholder is at least {MIN_LENGTH} visible characters"
            ));
        }
        let place = match auth.scheme {
            AuthScheme::Query if is_query_key(&auth.header) => {
                Place::Query(auth.header.as_str().into())
            }
            AuthScheme::Query => return Err(format!("`{}` is not a plain query key", auth.header)),
            _ => Place::Header(header_for_secret(&auth.header)?),
        };
        let value = slots(&auth.slot).and_then(|secret| Value::new(auth, secret));
        Ok(Self {
            slot: auth.slot.as_str().into(),
            placeholder: auth.placeholder.as_deref().map(Into::into),
            place,
            value,
        })
    }

    /// The slot's name, for records.
    pub(crate) fn slot(&self) -> &Arc<str> {
        &self.slot
    }

    /// Whether the slot holds a usable value.
    pub(crate) fn is_available(&self) -> bool {
        self.value.is_some()
    }

    /// What the agent holds instead.
    pub(crate) fn placeholder(&self) -> Option<&str> {
        self.placeholder.as_deref()
    }

    /// The value, to build needles from.
    pub(crate) fn secret(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|value| value.secret.as_slice())
    }

    /// What to black out in answers.
    pub(crate) fn needles(&self) -> Option<&Arc<Needles>> {
        self.value.as_ref().map(|value| &value.needles)
    }

    /// Takes the agent's own credentials out and puts this one in. The hop-by-hop fields are gone by now, so
    /// nothing after this can take it out again.
    pub(crate) fn inject(&self, parts: &mut Parts) -> Result<(), Reason> {
        let value = self.value.as_ref().ok_or(Reason::CredentialUnavailable)?;
        match &self.place {
            Place::Header(name) => {
                if let Some(placeholder) = self.placeholder() {
                    let sent = parts.headers.get_all(name);
                    if !sent
                        .iter()
                        .all(|sent| holds_only(sent.as_bytes(), placeholder))
                    {
                        return Err(Reason::ForeignCredential);
                    }
                }
                headers::insert_credential(&mut parts.headers, name, value.rendered.clone());
            }
            Place::Query(key) => {
                headers::remove_credentials(&mut parts.headers);
                let target = self.with_query(parts, key, value)?;
                let mut uri = std::mem::take(&mut parts.uri).into_parts();
                uri.path_and_query = Some(target);
                parts.uri = hyper::Uri::from_parts(uri).map_err(|_| Reason::RequestMalformed)?;
            }
        }
        Ok(())
    }

    /// The request target with this key, and no other of its name, holding the value.
    fn with_query(&self, parts: &Parts, key: &str, value: &Value) -> Result<PathAndQuery, Reason> {
        let mut target = Zeroizing::new(String::from(parts.uri.path()));
        let mut separator = '?';
        for (name, sent) in query_pairs(parts.uri.query().unwrap_or_default()) {
            if decode_lossy(name.as_bytes()) == key.as_bytes() {
                let foreign = self.placeholder().is_some_and(|placeholder| {
                    !sent.is_empty() && decode_lossy(sent.as_bytes()) != placeholder.as_bytes()
                });
                if foreign {
                    return Err(Reason::ForeignCredential);
                }
            } else if !name.is_empty() {
                target.push(separator);
                target.push_str(name);
                if !sent.is_empty() {
                    target.push('=');
                    target.push_str(sent);
                }
                separator = '&';
            }
        }
        let rendered = value
            .rendered
            .to_str()
            .map_err(|_| Reason::CredentialUnavailable)?;
        target.push(separator);
        target.push_str(key);
        target.push('=');
        target.push_str(rendered);
        target.parse().map_err(|_| Reason::RequestMalformed)
    }

    /// Whether something found in this header (or, without one, in the target) may be there: the route's own
    /// placeholder in a place that is emptied before the request goes on.
    fn may_hold(&self, found: Found, all: &Needles, header: Option<&HeaderName>) -> bool {
        let Found::Placeholder(number) = found else {
            return false;
        };
        let own = self.placeholder().is_some() && self.placeholder() == all.placeholder(number);
        let emptied = match (header, &self.place) {
            (Some(name), _) => {
                headers::is_credential(name)
                    || matches!(&self.place, Place::Header(own) if own == name)
            }
            (None, Place::Query(_)) => true,
            (None, Place::Header(_)) => false,
        };
        own && emptied
    }
}

/// Looks through the head of a request for what must not leave in it.
pub(crate) fn check_head(
    parts: &Parts,
    all: &Needles,
    own: Option<&Credential>,
) -> Result<(), Reason> {
    if all.is_empty() {
        return Ok(());
    }
    let check = |bytes: &[u8], header: Option<&HeaderName>| {
        let may_hold = |found| own.is_some_and(|own| own.may_hold(found, all, header));
        let stray = all.stray(bytes, may_hold);
        stray.map_or(Ok(()), |found| Err(reason_for(found)))
    };
    if let Some(target) = parts.uri.path_and_query() {
        let target = target.as_str();
        check(target.as_bytes(), None)?;
        if target.contains('%') {
            check(&decode_lossy(target.as_bytes()), None)?;
        }
        // A form writes a space so; in base64 it is a letter.
        if target.contains('+') {
            check(&decode_lossy(target.replace('+', " ").as_bytes()), None)?;
        }
    }
    parts
        .headers
        .iter()
        .try_for_each(|(name, value)| check(value.as_bytes(), Some(name)))
}

/// Whether something found in a body may be there: a route's own placeholder is an ordinary word to its own
/// destination (an agent that reads its environment repeats it in the conversation).
pub(crate) fn body_may_hold(found: Found, all: &Needles, own: Option<&str>) -> bool {
    match found {
        Found::Secret => false,
        Found::Placeholder(number) => own.is_some() && own == all.placeholder(number),
    }
}

/// The reason to refuse a request for what was found in it.
pub(crate) fn reason_for(found: Found) -> Reason {
    match found {
        Found::Secret => Reason::SecretLeak,
        Found::Placeholder(_) => Reason::PlaceholderMisuse,
    }
}

impl Value {
    fn new(auth: &Auth, mut secret: Zeroizing<Vec<u8>>) -> Option<Self> {
        // A file's last newline is no part of a token; any other control character is an accident or an attack.
        if secret.last() == Some(&b'\n') {
            secret.pop();
        }
        if secret.len() < MIN_LENGTH || !secret.iter().all(|b| (b' '..=b'~').contains(b)) {
            return None;
        }
        let text = std::str::from_utf8(&secret).ok()?;
        let rendered = Zeroizing::new(match auth.scheme {
            AuthScheme::Bearer => format!("Bearer {text}"),
            AuthScheme::Token => format!("token {text}"),
            AuthScheme::Basic => {
                let pair = Zeroizing::new(format!(
                    "{}:{text}",
                    auth.user.as_deref().unwrap_or_default()
                ));
                format!("Basic {}", STANDARD.encode(pair.as_bytes()))
            }
            AuthScheme::Header => text.to_owned(),
            AuthScheme::Query => text.bytes().fold(String::new(), |mut out, b| {
                use fmt::Write;
                // Writing to a string does not fail.
                let _ = if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                    out.write_char(char::from(b))
                } else {
                    write!(out, "%{b:02X}")
                };
                out
            }),
        });
        let mut rendered = HeaderValue::from_str(&rendered).ok()?;
        rendered.set_sensitive(true);
        let needles = Arc::new(Needles::of_secret(&secret).ok()?);
        Some(Self {
            secret,
            rendered,
            needles,
        })
    }
}

/// Whether a header value is the placeholder and nothing else, in any of the ways clients write credentials.
fn holds_only(sent: &[u8], placeholder: &str) -> bool {
    let sent = sent.trim_ascii();
    let word = match sent.iter().position(|&b| b == b' ') {
        Some(space) => sent[space..].trim_ascii_start(),
        None => sent,
    };
    if word.is_empty() || word == placeholder.as_bytes() {
        return true;
    }
    let decoded = STANDARD
        .decode(word)
        .map(Zeroizing::new)
        .unwrap_or_default();
    let password = decoded
        .iter()
        .position(|&b| b == b':')
        .map(|colon| &decoded[colon + 1..]);
    password == Some(placeholder.as_bytes())
}

fn is_query_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// A header a secret may be written into: not one that steers the message itself.
fn header_for_secret(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is not a header name"))?;
    let steers = matches!(
        parsed.as_str(),
        "host" | "content-length" | "accept-encoding" | "range"
    );
    if steers || headers::is_hop_by_hop(parsed.as_str()) {
        return Err(format!("`{name}` cannot carry a credential"));
    }
    Ok(parsed)
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
