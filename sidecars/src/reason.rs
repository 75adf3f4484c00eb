//! Why something was allowed, refused or failed. The codes are part of the audit format and of the answer
//! the agent gets: they never change their meaning.

use crate::address::Class;
use hyper::StatusCode;

macro_rules! reasons {
    ($($variant:ident, $code:literal, $status:ident, $text:literal;)*) => {
        /// The outcome of a decision, with a stable code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        // One list of all codes, whoever gives them; egress gives none of the gate's.
        #[cfg_attr(not(feature = "services"), allow(dead_code))]
        pub(crate) enum Reason {
            $(#[doc = $text] $variant,)*
        }

        impl Reason {
            /// Every reason there is.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The status of the answer to the agent.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// One sentence for a person.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    Allowed, "allowed", OK, "a route allows it";

    HostInvalid, "host_invalid", FORBIDDEN, "the host is not a plain host name";
    IpLiteral, "ip_literal", FORBIDDEN, "addresses cannot be asked for, only names";
    HostNotAllowed, "host_not_allowed", FORBIDDEN, "no route names this host";
    SchemeNotAllowed, "scheme_not_allowed", FORBIDDEN, "no route of this host has this scheme";
    PortNotAllowed, "port_not_allowed", FORBIDDEN, "no route of this host has this port";
    MethodRefused, "method_refused", FORBIDDEN, "this method is never let through";
    MethodNotAllowed, "method_not_allowed", FORBIDDEN, "no route of this host allows this method here";
    PathNotAllowed, "path_not_allowed", FORBIDDEN, "no route of this host allows this path";
    PathAmbiguous, "path_ambiguous", FORBIDDEN, "the path can be read in more than one way";
    HeaderNotMatched, "header_not_matched", FORBIDDEN, "a header this route requires is missing or different";
    GitPushRefused, "git_push_refused", FORBIDDEN, "pushing goes through git-gate, never through HTTPS";
    GitFetchNotAllowed, "git_fetch_not_allowed", FORBIDDEN, "no route of this host allows git fetch";
    GitLfsRefused, "git_lfs_refused", FORBIDDEN, "git LFS can write as well as read and is not let through";
    TunnelOnly, "tunnel_only", FORBIDDEN, "the TLS of this host is passed through, so only CONNECT reaches it";

    RequestMalformed, "request_malformed", BAD_REQUEST, "the request is not well formed";
    UpgradeRefused, "upgrade_refused", BAD_REQUEST, "only a WebSocket upgrade is let through";
    AuthorityMismatch, "authority_mismatch", MISDIRECTED_REQUEST, "the tunnel, the TLS server name and the Host header name different destinations";
    SniMissing, "sni_missing", MISDIRECTED_REQUEST, "the TLS client named no server";
    SniHidden, "sni_hidden", MISDIRECTED_REQUEST, "the TLS client may mean another server than it names (Encrypted Client Hello), and nothing but the name is known of a tunnel that is passed through";
    NotTls, "not_tls", BAD_REQUEST, "a tunnel carries TLS and nothing else";
    TlsHandshakeFailed, "tls_handshake_failed", BAD_REQUEST, "the client did not finish the TLS handshake, perhaps because it does not trust the bottle's CA";
    ClientTimeout, "client_timeout", REQUEST_TIMEOUT, "the client took too long";
    TooManyConnections, "too_many_connections", SERVICE_UNAVAILABLE, "too many connections at once";

    IpLoopback, "ip_loopback", FORBIDDEN, "the name points at a loopback address";
    IpUnspecified, "ip_unspecified", FORBIDDEN, "the name points at an unspecified address";
    IpLinkLocal, "ip_link_local", FORBIDDEN, "the name points at a link-local address";
    IpMulticast, "ip_multicast", FORBIDDEN, "the name points at a multicast address";
    IpBroadcast, "ip_broadcast", FORBIDDEN, "the name points at the broadcast address";
    IpMetadata, "ip_metadata", FORBIDDEN, "the name points at a metadata service";
    IpMapped, "ip_mapped", FORBIDDEN, "the name points at an address that hides another";
    IpPrivate, "ip_private", FORBIDDEN, "the name points into a private network the route does not list";
    IpShared, "ip_shared", FORBIDDEN, "the name points into a shared address range the route does not list";
    IpReserved, "ip_reserved", FORBIDDEN, "the name points into a reserved address range";
    IpOwnNetwork, "ip_own_network", FORBIDDEN, "the name points back into the bottle";
    DnsMixed, "dns_mixed", FORBIDDEN, "the name points at allowed and forbidden addresses at once";
    DnsFailed, "dns_failed", BAD_GATEWAY, "the name could not be resolved";
    DnsRefused, "dns_refused", FORBIDDEN, "only names on the allow-list are answered";
    UpstreamUnreachable, "upstream_unreachable", BAD_GATEWAY, "the destination could not be reached";
    UpstreamTls, "upstream_tls", BAD_GATEWAY, "the destination's TLS certificate or handshake was not accepted";
    UpstreamFailed, "upstream_failed", BAD_GATEWAY, "the destination broke off or answered something that is not HTTP";
    UpstreamTimeout, "upstream_timeout", GATEWAY_TIMEOUT, "the destination took too long";

    CredentialUnavailable, "credential_unavailable", BAD_GATEWAY, "the credential of this route is not set or not usable";
    ForeignCredential, "foreign_credential", FORBIDDEN, "this route has its own credential; send the placeholder or nothing";
    PlaceholderMisuse, "placeholder_misuse", FORBIDDEN, "a placeholder was sent somewhere it does not belong";
    SecretLeak, "secret_leak", FORBIDDEN, "the request holds one of the bottle's secrets";
    EncodedResponse, "encoded_response", BAD_GATEWAY, "the destination compressed its answer although told not to, or wrote it in characters that are not read here, so it cannot be checked";
    PartialResponse, "partial_response", BAD_GATEWAY, "the destination sent a part of a text, in which the route's credential could not be seen; ask for all of it, without Range";
    CredentialReflected, "credential_reflected", OK, "the destination sent the credential back; it was blacked out";

    CredentialMinted, "credential_minted", OK, "a token was in the answer to the route's credential; it was blacked out";

    DlpMatch, "dlp_match", FORBIDDEN, "the request holds what looks like a secret; leave it out";
    DlpSupervise, "dlp_supervise", FORBIDDEN, "the request holds what looks like a secret, and this route has an operator decide; there is no way to ask one yet, so it is refused";
    DlpEncoded, "dlp_encoded", FORBIDDEN, "the body's Content-Encoding cannot be looked through; send it as it is, or as gzip";

    RouteSuspended, "route_suspended", FORBIDDEN, "the destination of this route sent the credential back again and again, so the route is closed until the operator has looked at it";
    LimitRequests, "limit_requests", TOO_MANY_REQUESTS, "the route's budget of requests is used up";
    LimitBytes, "limit_bytes_out", TOO_MANY_REQUESTS, "the route's budget of bytes is used up";
    RequestTooLarge, "request_too_large", PAYLOAD_TOO_LARGE, "one request may be so large only where the route's `limits.bytes_out` says so";
    ResponseTooLarge, "response_too_large", BAD_GATEWAY, "the destination's answer is larger than any file";
    AuditUnavailable, "audit_unavailable", SERVICE_UNAVAILABLE, "nothing is let through while it cannot be recorded";
    AuditClosed, "audit_closed", OK, "the sidecar ended; what comes after was written by another run";
    AuditDropped, "audit_dropped", OK, "the audit had reached its size and its oldest file was removed";
    AuditLost, "audit_lost", OK, "so many records could not be written; what they stood for was let through, as `audit.on_full: allow` says";
    GrantOver, "grant_over", FORBIDDEN, "what the operator granted has been used up or has ended";
    GrantBegun, "grant_begun", OK, "the operator granted something, and it is in force";
    GrantEnded, "grant_ended", OK, "a grant was used up, was taken back, or its time was over";
    GitUnknownRepo, "git_unknown_repo", FORBIDDEN, "no repository of this name is behind the gate, or it cannot be asked for in this way";
    GitRefInvalid, "git_ref_invalid", FORBIDDEN, "only plainly named branches and tags can be pushed";
    GitRefNotAllowed, "git_ref_not_allowed", FORBIDDEN, "this ref may not be pushed";
    GitDelete, "git_delete", FORBIDDEN, "nothing is deleted through the gate";
    GitForce, "git_force", FORBIDDEN, "history is not rewritten through the gate";
    GitTooManyRefs, "git_too_many_refs", FORBIDDEN, "too many refs in one push";
    GitTooManyCommits, "git_too_many_commits", FORBIDDEN, "too many new commits in one push";
    GitTooLarge, "git_too_large", FORBIDDEN, "the push is too large";
    GitPackRefused, "git_pack_refused", FORBIDDEN, "git itself refused what was pushed: it is damaged, too large, or not well formed";
    GitObjectInvalid, "git_object_invalid", FORBIDDEN, "what is pushed is no plain history of files";
    GitPathInvalid, "git_path_invalid", FORBIDDEN, "a file name has characters that could do harm where it is checked out";
    GitProtectedPath, "git_protected_path", FORBIDDEN, "a commit changes a path that is protected";
    GitLfsPointer, "git_lfs_pointer", FORBIDDEN, "a file is a git LFS pointer, and what it points at cannot come through the gate";
    GitSecret, "git_secret", FORBIDDEN, "what is pushed holds what looks like a secret";
    GitScanFailed, "git_scan_failed", BAD_GATEWAY, "the search for secrets did not work, so nothing goes on";
    GitStale, "git_stale", CONFLICT, "the ref was changed by somebody else in the meantime; fetch, and push again";
    GitUpstreamRefused, "git_upstream_refused", BAD_GATEWAY, "the upstream refused the push";
    GitHeld, "git_held", OK, "a push passed the checks and waits for the operator";
    GitReviewPending, "git_review_pending", FORBIDDEN, "the operator looks at each push to this repository, and has not answered yet";
    GitReviewDenied, "git_review_denied", FORBIDDEN, "the operator looked at the push and said no";
    PolicyChanged, "policy_changed", FORBIDDEN, "the policy changed and no longer allows it";
}

impl Reason {
    /// The reason an address of this class is refused; `None` for public ones.
    pub(crate) fn of_class(class: Class) -> Option<Self> {
        Some(match class {
            Class::Public => return None,
            Class::Loopback => Self::IpLoopback,
            Class::Unspecified => Self::IpUnspecified,
            Class::LinkLocal => Self::IpLinkLocal,
            Class::Multicast => Self::IpMulticast,
            Class::Broadcast => Self::IpBroadcast,
            Class::Metadata => Self::IpMetadata,
            Class::Mapped => Self::IpMapped,
            Class::Private => Self::IpPrivate,
            Class::Shared => Self::IpShared,
            Class::Reserved => Self::IpReserved,
        })
    }

    /// At which step towards the destination it went wrong, if that is what happened.
    pub(crate) fn step(self) -> Option<&'static str> {
        match self {
            Self::DnsFailed => Some("dns"),
            Self::UpstreamUnreachable => Some("connect"),
            Self::UpstreamTls => Some("tls"),
            Self::UpstreamTimeout => Some("timeout"),
            Self::UpstreamFailed
            | Self::EncodedResponse
            | Self::PartialResponse
            | Self::ResponseTooLarge => Some("answer"),
            _ => None,
        }
    }

    /// Whether one more route would have let it through.
    pub(crate) fn can_be_granted(self) -> bool {
        matches!(
            self,
            Self::HostNotAllowed
                | Self::SchemeNotAllowed
                | Self::PortNotAllowed
                | Self::MethodNotAllowed
                | Self::PathNotAllowed
                | Self::GitFetchNotAllowed
                | Self::GrantOver
        )
    }

    /// Whether the policy said no, as against something that went wrong.
    pub(crate) fn is_denial(self) -> bool {
        matches!(
            self.status(),
            StatusCode::FORBIDDEN
                | StatusCode::MISDIRECTED_REQUEST
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::BAD_REQUEST
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_failure_is_the_destinations_or_our_own() {
        for reason in Reason::ALL {
            let own = [
                Reason::CredentialUnavailable,
                Reason::TooManyConnections,
                Reason::AuditUnavailable,
                // git's own words say at which step.
                Reason::GitScanFailed,
                Reason::GitUpstreamRefused,
            ];
            let is_failure = reason.status().is_server_error();
            assert_eq!(
                reason.step().is_some() || own.contains(reason),
                is_failure,
                "{reason:?}"
            );
            assert!(!(is_failure && reason.is_denial()), "{reason:?}");
        }
    }

    #[test]
    fn codes_are_snake_case_and_unique() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{code}"
            );
            assert!(seen.insert(code), "{code}");
        }
    }
}
