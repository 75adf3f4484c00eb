//! The policy document: what the egress sidecar enforces, and nothing it does not need to know.
//!
//! `bottle-run` writes it as `egress/policy.json` in the state folder; the sidecar reads it at start and
//! again on SIGHUP. It names token *slots* (environment variables of the sidecar), never values.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The schema tag of [`Policy`].
pub const POLICY_SCHEMA: &str = "bottle.policy/v1";

/// The methods a rule can allow; no other is ever let through.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What one bottle's egress sidecar lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always `bottle.policy/v1`.
    #[cfg_attr(feature = "manifest", schemars(extend("const" = POLICY_SCHEMA)))]
    pub schema: String,
    /// The bottle's slug; goes into every audit record.
    pub bottle: String,
    /// Digest of the plan this policy came from.
    pub plan_digest: String,
    /// The sidecar's address on the internal network; every listener binds to it alone.
    pub listen: IpAddr,
    /// Networks of the bottle itself (CIDR). Never dialled, whatever a route says.
    #[serde(default)]
    pub own_networks: Vec<String>,
    /// 0 nothing but failures, 1 denials, 2 every request: what goes to the sidecar's own log. The audit is always complete.
    #[serde(default)]
    pub log: u8,
    /// What becomes of a destination that no route serves.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
    /// How much is kept of the record, and what happens when it cannot be written.
    #[serde(default, skip_serializing_if = "AuditRules::is_usual")]
    pub audit: AuditRules,
    /// The only destinations there are, unless `mode` says otherwise.
    pub routes: Vec<Route>,
}

/// How much is kept of the record of a bottle, and what happens when it cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditRules {
    /// Bytes of all its files together; the oldest file goes, on record, when there would be more.
    pub max_bytes: u64,
    /// In so many files.
    pub files: u32,
    /// What happens to requests while the record cannot be written.
    pub on_full: OnFull,
}

impl Default for AuditRules {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            files: 4,
            on_full: OnFull::Deny,
        }
    }
}

impl AuditRules {
    /// Whether these are the usual ones, which are not written.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to requests while the record cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// They are refused.
    #[default]
    Deny,
    /// They go on as the rules say; what is not on record is counted, and the count is recorded.
    Allow,
}

/// What becomes of a destination that no route serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is let through if it is public, without a credential, and recorded: to find out what rules are needed.
    Observe,
}

impl Mode {
    /// Whether this is the usual mode, which is not written.
    #[must_use]
    pub fn is_enforce(&self) -> bool {
        *self == Self::Enforce
    }
}

/// What records name as the rule that let a request through only because it was to be observed.
pub const OBSERVED_RULE: &str = "egress.mode: observe";

/// One destination and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where the route was written, `file:line` or `provider:NAME`; named in records and in `why`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A lower-case host name, or `*.` and a name of at least two labels (one or more labels before it; never the name itself).
    pub host: String,
    /// `https` unless written otherwise; `http` never carries a credential.
    #[serde(default)]
    pub scheme: Scheme,
    /// Ports; `[443]` for https and `[80]` for http when not written.
    pub ports: Vec<u16>,
    /// Any one entry must match. Empty: every path and every method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// The credential put in, after the agent's own was taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Whether TLS is opened (`inspect`) or only its SNI is checked (`passthrough`).
    #[serde(default)]
    pub tls: Tls,
    /// Address ranges (CIDR) this route may reach although they are not public.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<String>,
    /// Git over HTTPS.
    #[serde(default, skip_serializing_if = "GitAccess::is_default")]
    pub git: GitAccess,
    /// Content checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dlp: Option<Dlp>,
    /// Budgets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Scheme of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// TLS to the destination, its certificate verified.
    #[default]
    Https,
    /// Plain text.
    Http,
}

/// What happens to the TLS of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Opened with the bottle's CA: paths, methods and credentials work.
    #[default]
    Inspect,
    /// Left closed for clients that pin; only host and port are checked.
    Passthrough,
}

/// All that is written here must hold (AND); entries of a list are alternatives (OR).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Alternatives for the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathMatch>,
    /// Alternatives for the method, upper case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Headers that must all be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// A path rule, matched against the normalised path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PathMatch {
    /// How `value` is compared.
    #[serde(default, rename = "type")]
    pub kind: PathKind,
    /// The path, beginning with `/`; for `regex` an expression that must match all of it.
    pub value: String,
}

/// As in the Gateway API's HTTPRoute; `prefix` ends at a path segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// The same path.
    Exact,
    /// The path or one below it.
    #[default]
    Prefix,
    /// A regular expression, anchored at both ends.
    Regex,
}

/// A header that must be present with this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Name, compared without regard to case.
    pub name: String,
    /// Value, compared exactly.
    pub value: String,
}

/// A credential of a route: where it goes and which slot holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// How the value is written.
    pub scheme: AuthScheme,
    /// The header it goes into (lower case), or for `query` the key.
    pub header: String,
    /// The sidecar's environment variable that holds the value, `EGRESS_TOKEN_<n>`.
    pub slot: String,
    /// The user name for `basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the agent holds instead. It is replaced nowhere else, and refused anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
}

/// How a credential is written into its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AuthScheme {
    /// `Bearer VALUE`.
    Bearer,
    /// `token VALUE`.
    Token,
    /// `Basic base64(user:VALUE)`.
    Basic,
    /// The value alone, in the named header.
    Header,
    /// The value as a query parameter, only because the manifest asked for it.
    Query,
}

/// Git over HTTPS on a route. Pushes are always refused: they go through git-gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GitAccess {
    /// Allow clone and fetch.
    #[serde(default)]
    pub fetch: bool,
}

impl GitAccess {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Content checks of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dlp {
    /// Detectors on the way out: `known_secrets`, `token_patterns`, `entropy`. `false` or an empty list: none but the bottle's own secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_detectors: Option<Detectors>,
    /// Detectors on the way in: `injection`, and `token_patterns`, which is on where a route has a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_detectors: Option<Detectors>,
    /// What a match does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_on_match: Option<OnMatch>,
}

/// A list of detectors, or `false` for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Detectors {
    /// `false`: none; `true`: all.
    Switch(bool),
    /// Just these.
    Named(Vec<String>),
}

/// What happens when a detector matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnMatch {
    /// The request is refused.
    Block,
    /// The match is replaced.
    Redact,
    /// The request goes on and the record says so.
    Warn,
    /// The request waits for the operator.
    Supervise,
}

/// Budgets of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of request bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The window in seconds after which both begin again; without it they hold for the bottle's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<u64>,
}
