//! Grants: routes the operator added for a while. They are asked only where the plan's own routes say no, so a grant
//! can take nothing away; and it ends by the clock on the wall, whether somebody reads files at that moment or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bottle_plan::policy as doc;
use bottle_plan::request::{self, Scope};
use time::OffsetDateTime;

use super::Policy;
use super::load::compile;
use crate::credential::Slots;
use crate::reason::Reason;

/// A grant as the policy holds it.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) id: Arc<str>,
    span: Option<Range<OffsetDateTime>>,
    uses: Option<Arc<Uses>>,
}

impl Grant {
    /// From its document; `uses` is how often it may be used and has been.
    pub(crate) fn new(document: &request::Grant, uses: Option<Arc<Uses>>) -> Self {
        Self {
            id: document.id.as_str().into(),
            span: document.span(),
            uses,
        }
    }

    /// Whether it still allows anything.
    pub(crate) fn is_live(&self) -> bool {
        let now = OffsetDateTime::now_utc();
        let in_time = self.span.as_ref().is_none_or(|span| span.contains(&now));
        in_time && self.uses.as_ref().is_none_or(|uses| uses.left() > 0)
    }

    /// Takes one use.
    pub(crate) fn take(&self) -> Result<(), Reason> {
        if !self.is_live() {
            return Err(Reason::GrantOver);
        }
        self.uses.as_ref().map_or(Ok(()), |uses| uses.take())
    }
}

/// How often a grant may be used, and has been: one byte a use in a file that only grows, on the disk before the
/// request leaves. Whatever dies when, no use is had twice.
pub(crate) struct Uses {
    granted: u64,
    spent: Mutex<(File, u64)>,
}

impl Uses {
    /// Opens (or makes) the file and counts what is in it.
    pub(crate) fn open(path: &Path, granted: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let spent = file.metadata()?.len();
        Ok(Self {
            granted,
            spent: Mutex::new((file, spent)),
        })
    }

    pub(crate) fn left(&self) -> u64 {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        self.granted.saturating_sub(spent.1)
    }

    fn take(&self) -> Result<(), Reason> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, count) = &mut *spent;
        if *count >= self.granted {
            return Err(Reason::GrantOver);
        }
        // Counted also when it cannot be written down: whether the byte arrived is not known then.
        *count += 1;
        // This waits for the disk on a worker. It is a millisecond, and uses are few.
        let written = file.write_all(b".").and_then(|()| file.sync_data());
        written.map_err(|_| Reason::AuditUnavailable)
    }
}

impl Policy {
    /// Adds what was granted. Says of each grant that cannot be applied why not.
    pub(crate) fn grant(
        &mut self,
        grants: impl IntoIterator<Item = (request::Grant, Grant)>,
        slots: &Slots<'_>,
        before: Option<&Self>,
    ) -> Vec<(Arc<str>, String)> {
        let mut refused = Vec::new();
        for (document, grant) in grants {
            let Scope::Egress { route } = document.scope else {
                // Pushes are git-gate's.
                continue;
            };
            let id = grant.id.clone();
            if let Err(problem) = self.grant_one(route, grant, slots, before) {
                refused.push((id, problem));
            }
        }
        refused
    }

    fn grant_one(
        &mut self,
        mut route: doc::Route,
        grant: Grant,
        slots: &Slots<'_>,
        before: Option<&Self>,
    ) -> Result<(), String> {
        if route.host.starts_with("*.") {
            return Err("a grant is for one host".into());
        }
        if route.tls == doc::Tls::Passthrough {
            return Err("a grant does not pass TLS through unseen".into());
        }
        let known = || {
            self.routes_of(&route.host)
                .iter()
                .map(|&at| &self.routes[at])
        };
        if let Some(auth) = &route.auth
            && !known().any(|known| known.document.auth.as_ref() == Some(auth))
        {
            return Err(
                "a grant brings no credential that the plan does not have for this host".into(),
            );
        }
        // Where a host leads is the plan's to say, also for what nobody has looked at.
        let same_place = known().find(|known| known.is_at(&route));
        let private = same_place.map(|known| known.document.private.clone());
        if same_place.is_some_and(|known| known.document.tls != route.tls) {
            return Err("the plan passes the TLS of this host through".into());
        }
        if let Some(private) = private {
            if !route.private.is_empty() && route.private != private {
                return Err("the plan has other `private` for this host".into());
            }
            route.private = private;
        }
        let id = grant.id.clone();
        let mut compiled = compile(route, &id, slots, before)?;
        compiled.grant = Some(grant);
        let at = self.routes.len();
        let host = compiled.document.host.as_str().into();
        self.routes.push(compiled);
        self.granted.entry(host).or_default().push(at);
        Ok(())
    }

    /// The live grants for a host.
    pub(super) fn granted_to(&self, host: &str) -> impl Iterator<Item = usize> {
        let routes = self.granted.get(host).map(Vec::as_slice);
        let is_live = |at: &usize| self.routes[*at].grant.as_ref().is_some_and(Grant::is_live);
        routes.unwrap_or_default().iter().copied().filter(is_live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_had_once_also_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        let uses = Uses::open(&path, 2).unwrap();
        assert_eq!(uses.take(), Ok(()));
        let again = Uses::open(&path, 2).unwrap();
        assert_eq!(again.left(), 1);
        assert_eq!(again.take(), Ok(()));
        assert_eq!(again.take(), Err(Reason::GrantOver));
        assert_eq!(Uses::open(&path, 2).unwrap().left(), 0);
    }
}
