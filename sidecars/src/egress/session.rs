//! From a request to an answer: the one pipeline every way in ends in.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Body;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderValue, TE};
use hyper::http::request::Parts;
use hyper::http::uri;
use hyper::{Request, Response, StatusCode, Uri, Version};

use super::body::{Answer, Progress};
use super::grant::{Grant, Watch};
use super::heads::BadHead;
use super::relay::{MAX_ANSWER, Relay, Scrub};
use super::upload::Upload;
use super::upstream::{self, Lease, Wanted};
use super::websocket::{Handshake, Joined};
use super::{Egress, Local, answer, denial};
use crate::audit::{Entry, Record, Way};
use crate::authority::Authority;
use crate::credential::{Credential, check_head};
use crate::dlp::{self, Found, Kind};
use crate::headers;
use crate::policy::{Question, Route, Scheme, Tls};
use crate::reason::Reason;

/// What a connection's requests can be for.
pub(crate) enum Target {
    /// The end of a TLS tunnel and nothing else.
    Tunnel(Arc<Authority>),
    /// Whatever the `Host` header says, on this port: a connection that was led here.
    Led(u16),
    /// Whatever the absolute URL says: an explicit proxy.
    Asked,
}

/// One client connection.
pub(crate) struct Session {
    local: Arc<Local>,
    way: Way,
    target: Target,
    /// The record of the tunnel, until a request in it has one of its own.
    opened: Mutex<Option<Entry>>,
}

/// An allowed request on its way.
struct Exchange {
    grant: Arc<Grant>,
    handshake: Option<Handshake>,
    progress: Arc<Progress>,
    found: Arc<Found>,
}

impl Exchange {
    fn route(&self) -> &Route {
        &self.grant.policy.routes[self.grant.route]
    }

    fn credential(&self) -> Option<&Credential> {
        self.route().credential.as_ref()
    }
}

impl Session {
    pub(crate) fn new(local: Arc<Local>, way: Way, target: Target) -> Arc<Self> {
        Arc::new(Self {
            local,
            way,
            target,
            opened: Mutex::default(),
        })
    }

    /// Takes the record of a tunnel over. Through the explicit proxy its destination was looked up and reached, which
    /// stays on record if nothing is ever asked of it; a connection that was led here has reached nobody yet.
    pub(crate) fn set_opened(&self, entry: &mut Entry) {
        if self.way == Way::Proxy {
            self.replace_opened(Some(entry.hand_over()));
        } else {
            entry.cancel();
        }
    }

    fn replace_opened(&self, entry: Option<Entry>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut before) = std::mem::replace(&mut *opened, entry) {
            before.cancel();
        }
    }

    pub(crate) fn egress(&self) -> &Egress {
        &self.local.egress
    }

    /// Records what was no request; the HTTP library has answered it.
    pub(crate) async fn record_malformed(&self, is_too_large: bool) {
        let Ok(mut entry) = self.local.egress.audit.begin(self.way).await else {
            return;
        };
        self.replace_opened(None);
        let record = entry.record();
        self.note_target(record);
        record.reason = Reason::RequestMalformed;
        record.status = Some(if is_too_large { 431 } else { 400 });
    }

    /// Answers one request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let mut entry = match self.local.egress.audit.begin(self.way).await {
            Ok(entry) => entry,
            Err(reason) => return Ok(denial::unrecorded(reason)),
        };
        self.replace_opened(None);
        Ok(match self.exchange(request, &mut entry).await {
            Ok((exchange, response, lease)) => relay(&self.local, exchange, response, lease, entry),
            Err(reason) => refuse(reason, &mut entry),
        })
    }

    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        entry: &mut Entry,
    ) -> Result<(Exchange, Response<Incoming>, Lease), Reason> {
        let record = entry.record();
        let policy = self.local.egress.policy();
        record.method = Some(policy.clean_method(request.method()));
        record.path = Some(policy.clean(request.uri().path()).to_owned());
        if request.extensions().get::<BadHead>().is_some() {
            self.note_target(record);
            return Err(Reason::RequestMalformed);
        }
        headers::check_request(request.headers())?;
        let scheme = self.scheme();
        record.plain_http = scheme == Scheme::Http;
        let to = self.authority(&request)?;
        record.host = Some(policy.clean(to.host.as_str()).into());
        record.port = Some(to.port);

        let decision = policy.decide(&Question {
            scheme,
            host: to.host.as_str(),
            port: to.port,
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        });
        record.rule = decision
            .route
            .map(|route| policy.routes[route].rule.clone());
        let route = match decision.route {
            Some(route) if decision.is_allowed() => route,
            _ => return Err(decision.reason),
        };
        if policy.routes[route].tls() == Tls::Passthrough {
            return Err(Reason::TunnelOnly);
        }
        policy.check_host(route, to.host.as_str())?;
        policy.routes[route].suspension.check()?;
        if let Some(grant) = &policy.routes[route].grant {
            grant.take()?;
        }
        if request.body().size_hint().lower() > policy.routes[route].request_cap() {
            return Err(Reason::RequestTooLarge);
        }
        if let Some(budget) = &policy.routes[route].budget {
            record.budget = Some(budget.clone());
            budget.take_request()?;
        }
        let handshake = Handshake::of(&mut request)?;
        let exchange = Exchange {
            grant: Arc::new(Grant {
                policy,
                route,
                scheme,
                to,
                method: request.method().clone(),
                target: request.uri().clone(),
            }),
            handshake,
            progress: Arc::default(),
            found: record.dlp.clone(),
        };
        if let Some(credential) = exchange.credential() {
            record.slot = Some(credential.slot().clone());
        }

        let h2 = request.version() == Version::HTTP_2;
        let (mut parts, body) = request.into_parts();
        rewrite(&mut parts, &exchange)?;
        let body = Upload::new(
            body,
            &parts.headers,
            &exchange.found,
            &exchange.progress,
            || Watch::new(&self.local.egress.policy, exchange.grant.clone()),
        )?;
        let wanted = Wanted {
            policy: &exchange.grant.policy,
            route,
            scheme,
            to: &exchange.grant.to,
            h2,
        };
        let sent = upstream::send(
            &self.local,
            &wanted,
            Request::from_parts(parts, body),
            &exchange.progress,
        )
        .await;
        // A body that was stopped on its way breaks the connection; what stopped it is the better answer.
        let (response, lease) =
            sent.map_err(|reason| exchange.progress.stopped().unwrap_or(reason))?;
        exchange.progress.set_answered();
        if exchange.credential().is_some() && !response.body().is_end_stream() {
            answer::check_readable(&response)?;
        }
        if response.body().size_hint().lower() > MAX_ANSWER {
            return Err(Reason::ResponseTooLarge);
        }
        Ok((exchange, response, lease))
    }

    /// What is known of a request's destination before it is read.
    fn note_target(&self, record: &mut Record) {
        record.plain_http = self.scheme() == Scheme::Http;
        if let Target::Tunnel(to) = &self.target {
            let policy = self.local.egress.policy();
            record.host = Some(policy.clean(to.host.as_str()).into());
            record.port = Some(to.port);
        }
    }

    fn scheme(&self) -> Scheme {
        match self.target {
            Target::Tunnel(_) => Scheme::Https,
            Target::Led(_) | Target::Asked => Scheme::Http,
        }
    }

    /// The one destination of a request: everything that names it must name the same.
    fn authority(&self, request: &Request<Incoming>) -> Result<Arc<Authority>, Reason> {
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
        let uri = request.uri();
        match &self.target {
            Target::Tunnel(to) => {
                // In HTTP/2 `:authority` takes the place of `Host`, which may be there too.
                let named = uri.authority().map(|name| name.as_str().as_bytes());
                let named = named.filter(|_| request.version() == Version::HTTP_2);
                let host = host.or(named).ok_or(Reason::RequestMalformed)?;
                let agrees = |name: &uri::Authority| {
                    uri.scheme() == Some(&uri::Scheme::HTTPS)
                        && to.agrees_with(name.as_str().as_bytes(), 443)
                };
                let same = to.agrees_with(host, 443) && uri.authority().is_none_or(agrees);
                if same {
                    Ok(to.clone())
                } else {
                    Err(Reason::AuthorityMismatch)
                }
            }
            Target::Led(port) => {
                let host = host.ok_or(Reason::RequestMalformed)?;
                let to = Authority::parse(host, Some(80))?;
                let agrees = |name: &uri::Authority| to.agrees_with(name.as_str().as_bytes(), 80);
                let same = to.port == *port && uri.authority().is_none_or(agrees);
                if same {
                    Ok(Arc::new(to))
                } else {
                    Err(Reason::AuthorityMismatch)
                }
            }
            Target::Asked => {
                let name = uri.authority().ok_or(Reason::RequestMalformed)?;
                if uri.scheme() != Some(&uri::Scheme::HTTP) {
                    return Err(Reason::RequestMalformed);
                }
                let to = Authority::parse(name.as_str().as_bytes(), Some(80))?;
                let same = host.is_none_or(|host| to.agrees_with(host, 80));
                if same {
                    Ok(Arc::new(to))
                } else {
                    Err(Reason::AuthorityMismatch)
                }
            }
        }
    }
}

/// Makes the head that goes out: our own view of the destination, nothing that belongs to this connection, no
/// secret where none belongs, and last of all the credential.
fn rewrite(parts: &mut Parts, exchange: &Exchange) -> Result<(), Reason> {
    // The one hop-by-hop field that asks for something we hand on; gRPC servers insist on it.
    let trailers = parts.version == Version::HTTP_2
        && parts.headers.get(TE).is_some_and(|te| te == "trailers");
    headers::clean_request(&mut parts.headers);
    headers::join_cookies(&mut parts.headers);
    if trailers {
        let value = HeaderValue::from_static("trailers");
        parts.headers.insert(TE, value);
    }
    check_head(parts, &exchange.grant.policy.needles, exchange.credential())?;
    let rules = &exchange.route().dlp;
    let host = exchange.grant.to.host.as_str();
    dlp::check_head(rules, &exchange.found, host, parts)?;
    if parts.uri.authority().is_some() {
        let target = parts
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(uri::PathAndQuery::from_static("/"));
        parts.uri = Uri::from(target);
    }
    parts.version = Version::HTTP_11;
    parts.headers.insert(HOST, host_header(exchange)?);
    if let Some(credential) = exchange.credential() {
        credential.inject(parts)?;
    }
    if exchange.credential().is_some() || rules.looks_in() {
        // A compressed answer could not be looked through.
        parts
            .headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Some(handshake) = &exchange.handshake {
        handshake.ask(&mut parts.headers);
    }
    Ok(())
}

fn host_header(exchange: &Exchange) -> Result<HeaderValue, Reason> {
    let Authority { host, port } = &*exchange.grant.to;
    let default = match exchange.grant.scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    };
    let value = if *port == default {
        HeaderValue::from_str(host.as_str())
    } else {
        HeaderValue::try_from(exchange.grant.to.to_string())
    };
    value.map_err(|_| Reason::HostInvalid)
}

/// The destination's answer, made fit for the agent.
fn relay(
    local: &Local,
    exchange: Exchange,
    mut response: Response<Incoming>,
    lease: Lease,
    mut entry: Entry,
) -> Response<Answer> {
    // Nothing of the answer has gone on, so it can still be a refusal.
    let watch = match Watch::new(&local.egress.policy, exchange.grant.clone()) {
        Ok(watch) => watch,
        Err(reason) => return refuse(reason, &mut entry),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match exchange.handshake {
            Some(handshake) if handshake.is_accepted(&response) => handshake.join(
                response,
                Joined {
                    watch,
                    place: lease.into_place(),
                },
                entry,
            ),
            _ => refuse(Reason::UpstreamFailed, &mut entry),
        };
    }
    let mut reason = Reason::Allowed;
    let mut scrub = None;
    headers::clean_response(response.headers_mut());
    let route = exchange.route();
    if let Some(needles) = exchange.credential().and_then(Credential::needles) {
        if headers::clean_credentialed_response(response.headers_mut(), needles) > 0 {
            reason = Reason::CredentialReflected;
            route.suspension.count();
        }
        // A reason phrase of the destination's own words is one more place to write a secret into.
        response.extensions_mut().clear();
        scrub = Some(Scrub::new(needles.clone(), route.suspension.clone()));
    }
    entry.record().status = Some(response.status().as_u16());
    *response.version_mut() = Version::HTTP_11;
    let progress = exchange.progress.clone();
    let mut inbound = route.dlp.inbound(&exchange.found);
    if let Some(inbound) = &mut inbound {
        if answer::check_readable(&response) == Err(Reason::EncodedResponse) {
            exchange.found.add(Kind::NotScanned);
        }
        inbound.head(response.headers_mut());
        if inbound.has_hits() && reason == Reason::Allowed {
            reason = Reason::CredentialMinted;
        }
    }
    response.map(|body| {
        let relay = Relay::new(
            body,
            entry,
            progress,
            scrub,
            inbound,
            (lease, watch),
            reason,
        );
        Answer::Relay(relay)
    })
}

/// Our own answer. The record is finished with it.
pub(crate) fn refuse(reason: Reason, entry: &mut Entry) -> Response<Answer> {
    let record = entry.record();
    record.reason = reason;
    record.status = Some(reason.status().as_u16());
    denial::answer(record)
}
