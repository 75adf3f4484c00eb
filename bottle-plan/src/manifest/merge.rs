//! How a bottle builds on others.
//!
//! A child over its parent: what it declares wins; `env` and the git identity are laid over key by key; `egress`,
//! `git-gate.repos` and `supervise` are replaced whole. Between the parents of a list the later wins, but
//! repositories are united by name and routes are put one after another.

use super::{Bottle, Egress, GitGate, GitUser, Route};

/// `child` over what it extends.
#[must_use]
pub fn child_over(parent: Bottle, child: Bottle) -> Bottle {
    let git_gate = match (parent.git_gate.clone(), child.git_gate.clone()) {
        (Some(below), Some(above)) => Some(GitGate {
            user: git_user(below.user, above.user),
            repos: above.repos.or(below.repos),
        }),
        (below, above) => above.or(below),
    };
    Bottle {
        egress: child.egress.clone().or(parent.egress.clone()),
        git_gate,
        ..common(parent, child)
    }
}

/// The next of several parents over the ones before it.
#[must_use]
pub fn fold_parents(before: Bottle, next: Bottle) -> Bottle {
    let egress = match (before.egress.clone(), next.egress.clone()) {
        (Some(below), Some(above)) => Some(Egress {
            log: above.log.or(below.log),
            upstream_ca: above.upstream_ca.or(below.upstream_ca),
            upstream_proxy: above.upstream_proxy.or(below.upstream_proxy),
            audit: above.audit.or(below.audit),
            mode: above.mode.or(below.mode),
            routes: append_new(below.routes, above.routes),
        }),
        (below, above) => above.or(below),
    };
    let git_gate = match (before.git_gate.clone(), next.git_gate.clone()) {
        (Some(below), Some(above)) => Some(GitGate {
            user: git_user(below.user, above.user),
            repos: match (below.repos, above.repos) {
                (Some(mut below), Some(above)) => {
                    below.extend(above);
                    Some(below)
                }
                (below, above) => above.or(below),
            },
        }),
        (below, above) => above.or(below),
    };
    Bottle {
        egress,
        git_gate,
        ..common(before, next)
    }
}

/// `above` laid over `below`, field by field.
#[must_use]
pub fn git_user(below: Option<GitUser>, above: Option<GitUser>) -> Option<GitUser> {
    match (below, above) {
        (Some(below), Some(above)) => Some(GitUser {
            name: above.name.or(below.name),
            email: above.email.or(below.email),
        }),
        (below, above) => above.or(below),
    }
}

/// What merges alike in both cases.
fn common(below: Bottle, above: Bottle) -> Bottle {
    let mut env = below.env;
    env.extend(above.env);
    // An image, a Dockerfile and a provider answer one question: whoever answers it, answers it whole.
    let says_image = above.image.is_some() || above.dockerfile.is_some();
    let (image, dockerfile) = if says_image {
        (above.image, above.dockerfile)
    } else {
        (below.image, below.dockerfile)
    };
    Bottle {
        schema: above.schema.or(below.schema),
        extends: None,
        image,
        dockerfile,
        agent_provider: above.agent_provider.or(below.agent_provider),
        command: above.command.or(below.command),
        env,
        egress: None,
        git_gate: None,
        supervise: above.supervise.or(below.supervise),
        workspace: above.workspace.or(below.workspace),
        skills: above.skills.or(below.skills),
        resources: above.resources.or(below.resources),
        runtime: above.runtime.or(below.runtime),
        hardening: above.hardening.or(below.hardening),
        isolation: above.isolation.or(below.isolation),
    }
}

/// Two parents with a common ancestor bring its routes twice; once is meant. Where a route was written makes no other
/// route of it.
fn append_new(mut list: Vec<Route>, more: Vec<Route>) -> Vec<Route> {
    for route in more {
        let same = |known: &Route| {
            Route {
                written_at: route.written_at.clone(),
                ..known.clone()
            } == route
        };
        if !list.iter().any(same) {
            list.push(route);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bottle(yaml: &str) -> Bottle {
        serde_yaml::from_str(yaml).expect("valid manifest")
    }

    #[test]
    fn a_child_replaces_egress_whole_and_lays_env_over() {
        let parent =
            bottle("{env: {A: '1', B: '1'}, egress: {log: 2, routes: [{host: a.example.com}]}}");
        let child = bottle("{env: {B: '2'}, egress: {routes: []}}");
        let merged = child_over(parent, child);
        assert_eq!(merged.env["A"], "1");
        assert_eq!(merged.env["B"], "2");
        let egress = merged.egress.expect("declared");
        assert!(egress.routes.is_empty() && egress.log.is_none());
    }

    #[test]
    fn a_child_that_is_silent_inherits() {
        let parent =
            bottle("{supervise: true, image: x, egress: {routes: [{host: a.example.com}]}}");
        let merged = child_over(parent.clone(), bottle("{env: {A: '1'}}"));
        assert_eq!(merged.egress, parent.egress);
        assert_eq!(merged.supervise, parent.supervise);
        assert_eq!(merged.image.as_deref(), Some("x"));
    }

    #[test]
    fn a_dockerfile_of_the_child_displaces_the_image_of_the_parent() {
        let merged = child_over(bottle("{image: x}"), bottle("{dockerfile: Dockerfile}"));
        assert_eq!(
            (merged.image, merged.dockerfile.as_deref()),
            (None, Some("Dockerfile"))
        );
    }

    #[test]
    fn parents_are_united_and_a_diamond_counts_once() {
        let base = bottle("{egress: {routes: [{host: base.example.com}]}}");
        let left = child_over(base.clone(), bottle("{env: {A: l}}"));
        let right = bottle(
            "{env: {A: r}, egress: {routes: [{host: base.example.com}, {host: r.example.com}]}}",
        );
        let merged = fold_parents(left, right);
        assert_eq!(merged.env["A"], "r");
        let hosts: Vec<_> = merged
            .egress
            .expect("declared")
            .routes
            .into_iter()
            .map(|r| r.host)
            .collect();
        assert_eq!(hosts, ["base.example.com", "r.example.com"]);
    }
}
