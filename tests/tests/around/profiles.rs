//! What the profiles of providers let through.

use bottle_tests::internet::agent_image;
use bottle_tests::raw::Exchange;
use bottle_tests::{Bottle, Home, Internet, need_engine};
use serde_json::{Value, json};

use crate::TOKEN;

/// What each profile of a provider lets through, and what it does not: files, batches and stores that could be fetched from
/// elsewhere, and every endpoint that hands out a token.
const PROFILES: [Profile; 2] = [
    Profile {
        name: "claude",
        host: "api.anthropic.com",
        key: "ANTHROPIC_API_KEY",
        allowed: &[
            "POST /v1/messages",
            "POST /v1/messages/count_tokens",
            "GET /v1/models",
            "GET /v1/models/claude-x",
        ],
        denied: &[
            "GET /v1/messages",
            "POST /v1/messages/batches",
            "GET /v1/messages/batches",
            "POST /v1/files",
            "GET /v1/files",
            "GET /v1/files/file_1/content",
            "DELETE /v1/files/file_1",
            "POST /v1/models",
            "POST /v1/skills",
            "POST /v1/oauth/token",
            "POST /api/oauth/claude_cli/create_api_key",
            "GET /v1/organizations/api_keys",
            "POST /v1/organizations/invites",
            "GET /",
        ],
    },
    Profile {
        name: "codex",
        host: "api.openai.com",
        key: "OPENAI_API_KEY",
        allowed: &[
            "POST /v1/responses",
            "POST /v1/responses/compact",
            "GET /v1/models",
        ],
        denied: &[
            "GET /v1/responses/resp_1",
            "DELETE /v1/responses/resp_1",
            "POST /v1/files",
            "GET /v1/files/file_1/content",
            "POST /v1/uploads",
            "POST /v1/batches",
            "POST /v1/vector_stores",
            "POST /v1/containers",
            "POST /v1/conversations",
            "POST /v1/assistants",
            "POST /v1/realtime/client_secrets",
            "POST /v1/realtime/sessions",
            "POST /v1/organization/admin_api_keys",
            "POST /oauth/token",
            "GET /",
        ],
    },
];

struct Profile {
    name: &'static str,
    host: &'static str,
    key: &'static str,
    allowed: &'static [&'static str],
    denied: &'static [&'static str],
}

/// A destination that can be written to in ways nobody thought of: what a profile allows is a list of endpoints.
#[test]
fn row_49_the_profiles_allow_endpoints_and_not_hosts() {
    if !need_engine("row_49_the_profiles_allow_endpoints_and_not_hosts") {
        return;
    }
    for profile in &PROFILES {
        let home = Home::with_env(&[(profile.key, TOKEN)]);
        let internet = Internet::start(&home, &[profile.host]);
        home.write("bottles/upstream.pem", internet.ca_pem());
        home.bottle(
            "web",
            &format!(
                "agent_provider: {{template: {}}}\negress:\n  upstream_ca: upstream.pem\n  routes:\n    \
                 - {{host: {}, private: [10.213.0.0/16]}}\n",
                profile.name, profile.host
            ),
        );
        let slug = home.slug(profile.name);
        let mut plan: Value = serde_json::from_str(&home.plan("web", &slug)).expect("a plan");
        // The routes are what is asked about; what asks needs no agent.
        plan["agent"]["image"] = json!({"reference": agent_image("debian:trixie-slim")});
        let compose = home.render(&plan.to_string());
        let up = home.tool("bottle-run").args(["up"]).stdin(compose).run();
        let bottle = Bottle::started(&home, &slug, up.json());
        let network = format!("bottle-{slug}-egress");
        internet.join(&network, &[profile.host]);
        let all: Vec<&str> = [profile.allowed, profile.denied].concat();
        let exchanges: Vec<Exchange> = all
            .iter()
            .map(|endpoint| Exchange {
                to: "egress:3128".to_owned(),
                connect: format!("{}:443", profile.host),
                sni: profile.host.to_owned(),
                send: vec![format!(
                    "{endpoint} HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
                    profile.host
                )],
                ..Exchange::default()
            })
            .collect();
        for (number, outcome) in bottle.raw(&exchanges).iter().enumerate() {
            let reasons = outcome.reasons();
            if number < profile.allowed.len() {
                assert!(
                    reasons.is_empty() && outcome.answer.starts_with("HTTP/1.1 "),
                    "{}: {outcome:?}",
                    all[number]
                );
            } else {
                let refused = ["path_not_allowed", "method_not_allowed"];
                assert!(
                    matches!(reasons.as_slice(), [reason] if refused.contains(reason)),
                    "{}: {outcome:?}",
                    all[number]
                );
            }
        }
        internet.leave(&network);
        home.down(&slug);
    }
}
