//! What was allowed, kept as long as it is made use of: a policy that is read again takes it away, or not.

use std::sync::Arc;

use hyper::{Method, Uri};
use tokio::sync::watch;

use crate::authority::Authority;
use crate::policy::{Policy, Question, Route, Scheme, usual_headers};
use crate::reason::Reason;

/// One allowed request.
pub(crate) struct Grant {
    pub(crate) policy: Arc<Policy>,
    pub(crate) route: usize,
    pub(crate) scheme: Scheme,
    pub(crate) to: Arc<Authority>,
    pub(crate) method: Method,
    pub(crate) target: Uri,
}

impl Grant {
    /// Whether it would be given again. The request's headers are not kept: where they decide, only a route in the
    /// same words does.
    fn holds_under(&self, policy: &Policy) -> bool {
        let route = &self.policy.routes[self.route];
        let is_kept = || policy.routes.iter().any(|other| other.is_same(route));
        let is_given = || {
            let question = Question {
                scheme: self.scheme,
                host: self.to.host.as_str(),
                port: self.to.port,
                method: &self.method,
                path: self.target.path(),
                query: self.target.query(),
                headers: &usual_headers(self.target.path()),
            };
            policy.decide(&question).is_allowed()
        };
        std::ptr::eq(policy, &*self.policy) || is_kept() || is_given()
    }
}

/// A grant and the news about it.
#[derive(Clone)]
pub(crate) struct Watch {
    grant: Arc<Grant>,
    policies: watch::Receiver<Arc<Policy>>,
}

impl Watch {
    /// Refuses if the policy has changed already, since the request was decided.
    pub(crate) fn new(
        policies: &watch::Sender<Arc<Policy>>,
        grant: Arc<Grant>,
    ) -> Result<Self, Reason> {
        let mut policies = policies.subscribe();
        let holds = grant.holds_under(&policies.borrow_and_update());
        holds
            .then_some(Self { grant, policies })
            .ok_or(Reason::PolicyChanged)
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.grant.policy
    }

    pub(crate) fn route(&self) -> &Route {
        &self.grant.policy.routes[self.grant.route]
    }

    /// Looks whether there is news, which costs nothing when there is none.
    pub(crate) fn check(&mut self) -> Result<(), Reason> {
        // An error means that the proxy is going down, which ends everything by itself.
        if !self.policies.has_changed().unwrap_or(false)
            || self.grant.holds_under(&self.policies.borrow_and_update())
        {
            return Ok(());
        }
        Err(Reason::PolicyChanged)
    }

    /// Waits for the end of it.
    pub(crate) async fn revoked(&mut self) {
        let Self { grant, policies } = self;
        if policies
            .wait_for(|policy| !grant.holds_under(policy))
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}
