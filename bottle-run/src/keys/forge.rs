//! Deploy keys at Gitea and Forgejo, GitHub and GitLab: three dialects of the same three requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bottle_plan::failure::{Failure, Result};
use serde_json::{Value, json};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, http};

use super::record::Record;
use crate::images::host_ca;
use crate::secrets::Secret;

/// How long a forge may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most of an answer that is read.
const MAX_ANSWER: u64 = 8 << 20;

/// Keys on one page, and pages: no repository has more.
const PAGE: usize = 50;
const PAGES: usize = 40;

/// The API of a forge when the manifest names none.
#[must_use]
pub fn default_api(forge: &str, host: &str) -> String {
    match (forge, host) {
        ("github", "github.com") => "https://api.github.com".to_owned(),
        ("github", host) => format!("https://{host}/api/v3"),
        ("gitlab", host) => format!("https://{host}/api/v4"),
        (_, host) => format!("https://{host}/api/v1"),
    }
}

/// A forge and the right to speak with it.
pub struct Client<'a> {
    agent: Agent,
    record: &'a Record,
    token: Secret,
}

impl<'a> Client<'a> {
    /// For the forge of a record.
    ///
    /// # Errors
    /// When the host's certificates cannot be read.
    pub fn new(record: &'a Record, token: Secret) -> Result<Self> {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            // A redirect would take the token along to a place nobody has named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("bottle-run")
            .tls_config(
                TlsConfig::builder()
                    .root_certs(roots(host_ca().as_deref())?)
                    .build(),
            )
            .build();
        Ok(Self {
            agent: config.new_agent(),
            record,
            token,
        })
    }

    /// Makes the key and returns its number.
    ///
    /// # Errors
    /// When the forge does not do it; whether it has made one all the same only [`Client::find`] can say.
    pub fn create(&self, read_only: bool, expires: &str) -> Result<u64> {
        let record = self.record;
        let mut body = json!({"title": record.title, "key": record.public});
        if record.forge == "gitlab" {
            body["can_push"] = (!read_only).into();
            body["expires_at"] = expires.into();
        } else {
            body["read_only"] = read_only.into();
        }
        let (status, answer) = self.send("POST", &self.keys(), Some(&body))?;
        match (status, answer["id"].as_u64()) {
            (200 | 201, Some(id)) => Ok(id),
            _ => Err(self.refused("made no deploy key", status, &answer)),
        }
    }

    /// Removes the key with this number. That it is gone already is as good.
    ///
    /// # Errors
    /// When the forge says anything else.
    pub fn remove(&self, id: u64) -> Result<()> {
        let (status, answer) = self.send("DELETE", &format!("{}/{id}", self.keys()), None)?;
        match status {
            200 | 202 | 204 | 404 => Ok(()),
            _ => Err(self.refused("did not remove the deploy key", status, &answer)),
        }
    }

    /// The numbers of all keys there with the record's public half.
    ///
    /// # Errors
    /// When the forge does not list them. A repository that is gone has none.
    pub fn find(&self) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        for page in 1..=PAGES {
            let size = if self.record.forge == "gitea" {
                "limit"
            } else {
                "per_page"
            };
            let url = format!("{}?{size}={PAGE}&page={page}", self.keys());
            let (status, answer) = self.send("GET", &url, None)?;
            if status == 404 {
                return Ok(found);
            }
            let Some(keys) = answer.as_array().filter(|_| status == 200) else {
                return Err(self.refused("did not list its deploy keys", status, &answer));
            };
            let ours = |key: &&Value| {
                key["key"]
                    .as_str()
                    .is_some_and(|text| same_key(text, &self.record.public))
            };
            found.extend(
                keys.iter()
                    .filter(ours)
                    .filter_map(|key| key["id"].as_u64()),
            );
            if keys.is_empty() {
                return Ok(found);
            }
        }
        Ok(found)
    }

    fn keys(&self) -> String {
        let Record {
            api, path, forge, ..
        } = self.record;
        let api = api.trim_end_matches('/');
        if forge == "gitlab" {
            format!("{api}/projects/{}/deploy_keys", path.replace('/', "%2F"))
        } else {
            format!("{api}/repos/{path}/keys")
        }
    }

    fn send(&self, method: &str, url: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let (name, value) = match self.record.forge.as_str() {
            "gitlab" => ("private-token", self.token.expose().to_owned()),
            "github" => ("authorization", format!("Bearer {}", self.token.expose())),
            _ => ("authorization", format!("token {}", self.token.expose())),
        };
        let accept = match self.record.forge.as_str() {
            "github" => "application/vnd.github+json",
            _ => "application/json",
        };
        let request = http::Request::builder()
            .method(method)
            .uri(url)
            .header(name, zeroize::Zeroizing::new(value).as_str())
            .header("accept", accept)
            .header("content-type", "application/json");
        let text = body.map(Value::to_string).unwrap_or_default();
        let unusable = |error: &dyn std::fmt::Display| {
            Failure::invalid(format!("cannot ask {}: {error}", self.record.api))
                .hint("is `key.api_url` right, and the token one line of visible characters?")
        };
        let request = request.body(text).map_err(|error| unusable(&error))?;
        let response = self.agent.run(request).map_err(|error| {
            Failure::failed(format!("{} does not answer: {error}", self.record.api))
        })?;
        let status = response.status().as_u16();
        Ok((status, read(response)))
    }

    fn refused(&self, what: &str, status: u16, answer: &Value) -> Failure {
        let said = answer["message"]
            .as_str()
            .or_else(|| answer["error"].as_str());
        let said = said.map_or_else(String::new, |text| {
            format!(
                ": {}",
                bottle_plan::failure::printable(&text.chars().take(300).collect::<String>())
            )
        });
        let failure = Failure::failed(format!(
            "{} {what} for {} (status {status}){said}",
            self.record.api, self.record.path
        ));
        match status {
            401 | 403 => failure.hint(format!(
                "the token in {} needs the right to administer {}",
                self.record.token_env, self.record.path
            )),
            404 => failure.hint(format!(
                "is there a repository {}, and may the token in {} administer it?",
                self.record.path, self.record.token_env
            )),
            _ => failure,
        }
    }
}

/// The answer as JSON; what is none is told by its status alone.
fn read(mut response: http::Response<Body>) -> Value {
    let text = response
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER)
        .read_to_string();
    text.ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}

/// The same type and data; forges cut the comment off, or put one of their own.
fn same_key(one: &str, other: &str) -> bool {
    let half = |text: &str| -> Vec<String> {
        text.split_whitespace().take(2).map(str::to_owned).collect()
    };
    half(one).len() == 2 && half(one) == half(other)
}

/// The host's own roots, among which an intercepting proxy's may be; Mozilla's where the host has none.
fn roots(bundle: Option<&Path>) -> Result<RootCerts> {
    let Some(path) = bundle else {
        return Ok(RootCerts::WebPki);
    };
    let pem = std::fs::read(path).map_err(|error| {
        Failure::failed(format!("cannot read {}", path.display())).because(error)
    })?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apis_are_where_the_forges_have_them() {
        assert_eq!(
            default_api("github", "github.com"),
            "https://api.github.com"
        );
        assert_eq!(
            default_api("github", "git.example.com"),
            "https://git.example.com/api/v3"
        );
        assert_eq!(
            default_api("gitlab", "git.example.com"),
            "https://git.example.com/api/v4"
        );
        assert_eq!(
            default_api("gitea", "git.example.com"),
            "https://git.example.com/api/v1"
        );
    }

    #[test]
    fn a_key_is_known_by_its_data() {
        assert!(same_key("ssh-ed25519 AAAA me@host", "ssh-ed25519 AAAA"));
        assert!(!same_key("ssh-ed25519 AAAA", "ssh-ed25519 BBBB"));
        assert!(!same_key("", ""));
    }
}
