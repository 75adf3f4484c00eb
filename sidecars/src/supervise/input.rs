//! From what the agent wrote to a request. Both ways of asking read the same words.

use std::time::Duration;

use bottle_plan::host::Host;
use bottle_plan::policy::{PathKind, PathMatch, Scheme};
use bottle_plan::request::Ask;
use hyper::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::desk::{Desk, Refusal};

/// `request_egress`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Egress {
    denial: Option<String>,
    url: Option<String>,
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    methods: Vec<String>,
    paths: Vec<PathInput>,
    git_fetch: bool,
    reason: String,
    wait: Option<u64>,
}

/// `/prefix`, or what a route has.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PathInput {
    Prefix(String),
    Full(PathMatch),
}

/// `request_push`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    #[serde(default)]
    denial: Option<String>,
    #[serde(default)]
    repo: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    object: Option<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    wait: Option<u64>,
}

/// `ask_operator`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    question: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    wait: Option<u64>,
}

/// `request_status`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    id: String,
    #[serde(default)]
    wait: Option<u64>,
}

/// A request that is on file, and how long its answer is waited for.
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) wait: Duration,
}

/// Hands in what `kind` (`egress`, `push` or `question`) says.
pub(super) async fn hand_in(desk: &Desk, kind: &str, input: Value) -> Result<Waiting, Refusal> {
    let (ask, reason, wait) = match kind {
        "egress" => {
            let input: Egress = parse(input)?;
            let (reason, wait) = (input.reason.clone(), input.wait);
            (egress(desk, input).await?, reason, wait)
        }
        "push" => {
            let input: Push = parse(input)?;
            let (reason, wait) = (input.reason.clone(), input.wait);
            (push(desk, input).await?, reason, wait)
        }
        "question" => {
            let input: Question = parse(input)?;
            let ask = Ask::Question {
                text: input.question,
                options: input.options,
            };
            (ask, String::new(), input.wait)
        }
        _ => {
            return Err(Refusal::Unknown(
                "egress, push or question can be asked".into(),
            ));
        }
    };
    let id = desk.hand_in(ask, &reason)?;
    Ok(Waiting {
        id,
        wait: patience(desk, wait),
    })
}

/// A request that was handed in before.
pub(super) fn known(desk: &Desk, input: Value) -> Result<Waiting, Refusal> {
    let input: Status = parse(input)?;
    Ok(Waiting {
        id: input.id,
        wait: patience(desk, Some(input.wait.unwrap_or(0))),
    })
}

/// Until its deadline, unless it is to be less; a little more, so that the answer is the last word.
fn patience(desk: &Desk, wait: Option<u64>) -> Duration {
    let most = desk.settings.timeout.saturating_add(1);
    Duration::from_secs(wait.map_or(most, |wait| wait.min(most)))
}

fn parse<T: DeserializeOwned>(input: Value) -> Result<T, Refusal> {
    serde_json::from_value(input).map_err(|error| Refusal::Wrong(error.to_string()))
}

/// What the denial says, and what is said outright.
async fn push(desk: &Desk, input: Push) -> Result<Ask, Refusal> {
    let denial = match &input.denial {
        None => None,
        Some(id) => Some(desk.push_denial(id).await.ok_or_else(|| {
            Refusal::Unknown(
                "this denial is not known, or no longer; say `repo`, `ref` and `object`".into(),
            )
        })?),
    };
    let (repo, reference, object) = match denial {
        Some(denial) => (
            Some(denial.repo),
            Some(denial.reference),
            Some(denial.object),
        ),
        None => (None, None, None),
    };
    match (input.repo.or(repo), input.reference.or(reference)) {
        (Some(repo), Some(reference)) => Ok(Ask::Push {
            repo,
            reference,
            object: input.object.or(object),
        }),
        _ => Err(Refusal::Wrong(
            "give `denial`, or `repo`, `ref` and `object`".into(),
        )),
    }
}

/// What the denial says, what the URL says, what is said outright: each says more, or otherwise, than the one before.
async fn egress(desk: &Desk, input: Egress) -> Result<Ask, Refusal> {
    let mut wanted = Wanted::default();
    if let Some(id) = &input.denial {
        wanted.take_denial(desk, id).await?;
    }
    if let Some(url) = &input.url {
        wanted.take_url(url)?;
    }
    let scheme = input.scheme.or(wanted.scheme).unwrap_or_default();
    let host = input.host.or(wanted.host);
    let host = host.ok_or_else(|| Refusal::Wrong("give `denial`, `url` or `host`".into()))?;
    let host = Host::parse(&host).map_err(|error| Refusal::Wrong(format!("`host`: {error}")))?;
    let usual = match scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    };
    let paths: Vec<PathMatch> = input.paths.into_iter().map(PathInput::into_match).collect();
    Ok(Ask::Egress {
        scheme,
        host: host.as_str().to_owned(),
        port: input.port.or(wanted.port).unwrap_or(usual),
        methods: if input.methods.is_empty() {
            wanted.methods
        } else {
            input
                .methods
                .iter()
                .map(|method| method.to_ascii_uppercase())
                .collect()
        },
        paths: if paths.is_empty() {
            wanted.paths
        } else {
            paths
        },
        git_fetch: input.git_fetch || wanted.git_fetch,
        denial: input.denial,
    })
}

impl PathInput {
    fn into_match(self) -> PathMatch {
        match self {
            Self::Prefix(value) => PathMatch {
                kind: PathKind::Prefix,
                value,
            },
            Self::Full(full) => full,
        }
    }
}

#[derive(Default)]
struct Wanted {
    scheme: Option<Scheme>,
    host: Option<String>,
    port: Option<u16>,
    methods: Vec<String>,
    paths: Vec<PathMatch>,
    git_fetch: bool,
}

impl Wanted {
    async fn take_denial(&mut self, desk: &Desk, id: &str) -> Result<(), Refusal> {
        let denial = desk.denial(id).await.ok_or_else(|| {
            Refusal::Unknown(
                "this denial is not known, or no longer; say `url` or `host` instead".into(),
            )
        })?;
        self.scheme = Some(denial.scheme);
        self.host = Some(denial.host);
        self.port = Some(denial.port);
        self.git_fetch = denial.reason == "git_fetch_not_allowed";
        if !self.git_fetch {
            // A refused CONNECT says nothing of what was to come through the tunnel.
            self.methods
                .extend(denial.method.filter(|method| method != "CONNECT"));
            self.paths.extend(denial.path.map(exactly));
        }
        Ok(())
    }

    fn take_url(&mut self, url: &str) -> Result<(), Refusal> {
        let wrong = || Refusal::Wrong("`url` is no http or https URL".to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        self.scheme = Some(match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(wrong()),
        });
        self.host = Some(uri.host().ok_or_else(wrong)?.to_owned());
        self.port = uri.port_u16();
        self.paths = vec![exactly(uri.path().to_owned())];
        Ok(())
    }
}

fn exactly(value: String) -> PathMatch {
    PathMatch {
        kind: PathKind::Exact,
        value,
    }
}
