//! The two places where this tool touches the plan. All else in it passes through unread.

use std::path::Path;

use bottle_plan::failure::{Failure, Result};
use bottle_plan::plan::PLAN_SCHEMA;
use bottle_plan::slug;
use serde_json::{Value, json};

use crate::authority::{Authority, rfc3339};
use crate::{DEFAULT_DAYS, Request};

/// Where a plan comes from.
pub const FILTER_HINT: &str = "bottle-plan NAME | bottle-ca";

/// What the plan asks for: a CA for the hosts whose TLS the sidecar opens.
pub fn request_from_plan(plan: &Value) -> Result<Request> {
    match plan.get("schema").and_then(Value::as_str) {
        Some(PLAN_SCHEMA) => {}
        Some(other) => {
            return Err(Failure::other_document(
                other,
                PLAN_SCHEMA,
                Some(FILTER_HINT),
            ));
        }
        None => {
            return Err(
                Failure::invalid("this is not a plan: it names no schema").hint(FILTER_HINT)
            );
        }
    }
    let slug = text(plan, "/slug")?;
    slug::check(slug)?;
    let dir = Path::new(text(plan, "/egress/ca/dir")?);
    if !dir.is_absolute() {
        return Err(wrong("/egress/ca/dir", "an absolute path"));
    }
    let days = match plan.pointer("/egress/ca/days") {
        None | Some(Value::Null) => DEFAULT_DAYS,
        Some(days) => days
            .as_u64()
            .and_then(|days| u32::try_from(days).ok())
            .ok_or_else(|| wrong("/egress/ca/days", "a whole number"))?,
    };
    let mut hosts = Vec::new();
    match plan.pointer("/egress/routes") {
        None | Some(Value::Null) => {}
        Some(Value::Array(routes)) => {
            for (index, route) in routes.iter().enumerate() {
                let at = format!("/egress/routes/{index}");
                if is_inspected(plan, &at, route)? {
                    hosts.push(text(plan, &format!("{at}/host"))?.to_owned());
                }
            }
        }
        Some(_) => return Err(wrong("/egress/routes", "a list")),
    }
    let askable = askable(plan)?;
    let any_host = is_observing(plan)? || askable.as_ref().is_some_and(Vec::is_empty);
    hosts.extend(askable.unwrap_or_default());
    Ok(Request {
        dir: dir.to_owned(),
        common_name: format!("bottle egress CA {slug}"),
        hosts,
        any_host,
        addresses: Vec::new(),
        days,
    })
}

/// Writes what `authority` is into the plan.
pub fn fill(plan: &mut Value, authority: &Authority) -> Result<()> {
    let ca = plan
        .pointer_mut("/egress/ca")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| wrong("/egress/ca", "an object"))?;
    ca.insert("fingerprint".to_owned(), json!(authority.fingerprint()));
    ca.insert(
        "not_after".to_owned(),
        json!(rfc3339(authority.not_after())),
    );
    Ok(())
}

/// The hosts an operator may grant while the bottle runs, an empty list for all of them: its agent trusts one CA from
/// the beginning to the end.
fn askable(plan: &Value) -> Result<Option<Vec<String>>> {
    if plan.pointer("/supervise").is_none_or(Value::is_null) {
        return Ok(None);
    }
    match plan.pointer("/supervise/hosts") {
        None | Some(Value::Null) => Ok(Some(Vec::new())),
        Some(Value::Array(hosts)) => (0..hosts.len())
            .map(|index| text(plan, &format!("/supervise/hosts/{index}")).map(str::to_owned))
            .collect::<Result<_>>()
            .map(Some),
        Some(_) => Err(wrong("/supervise/hosts", "a list")),
    }
}

/// Whether the way out is open to be observed: then a leaf is needed for whatever host the agent asks for.
fn is_observing(plan: &Value) -> Result<bool> {
    match plan.pointer("/egress/mode") {
        None | Some(Value::Null) => Ok(false),
        Some(mode) => match mode.as_str() {
            Some("enforce") => Ok(false),
            Some("observe") => Ok(true),
            _ => Err(wrong("/egress/mode", "`enforce` or `observe`")),
        },
    }
}

/// Whether the sidecar will need a leaf for this route: its TLS is opened, and it has TLS.
fn is_inspected(plan: &Value, at: &str, route: &Value) -> Result<bool> {
    let choice = |key: &str, default: &'static str| match route.get(key) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(_) => text(plan, &format!("{at}/{key}")).map(str::to_owned),
    };
    let tls = match choice("tls", "inspect")?.as_str() {
        "inspect" => true,
        "passthrough" => false,
        // To guess would be to leave a host out, or to let the CA sign for one too many.
        _ => return Err(wrong(&format!("{at}/tls"), "`inspect` or `passthrough`")),
    };
    Ok(tls && choice("scheme", "https")? != "http")
}

fn text<'a>(plan: &'a Value, pointer: &str) -> Result<&'a str> {
    plan.pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| wrong(pointer, "a text"))
}

fn wrong(pointer: &str, expected: &str) -> Failure {
    Failure::invalid(format!("wrong plan: {pointer} is not {expected}")).hint(FILTER_HINT)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn plan() -> Value {
        json!({
            "schema": "bottle.plan/v1",
            "slug": "demo-x1y2z",
            "egress": {
                "ca": {"dir": "/state/demo/egress", "days": 3, "other": 1},
                "routes": [
                    {"host": "api.example.com"},
                    {"host": "*.example.org", "tls": "inspect", "scheme": "https"},
                    {"host": "opaque.example.net", "tls": "passthrough"},
                    {"host": "plain.example.net", "scheme": "http"},
                ],
            },
        })
    }

    #[test]
    fn the_request_holds_the_inspected_hosts_only() {
        let request = request_from_plan(&plan()).unwrap();
        let expected = Request {
            dir: "/state/demo/egress".into(),
            common_name: "bottle egress CA demo-x1y2z".to_owned(),
            hosts: vec!["api.example.com".to_owned(), "*.example.org".to_owned()],
            any_host: false,
            addresses: vec![],
            days: 3,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn days_and_routes_may_be_absent_or_null() {
        for null in [false, true] {
            let mut plan = plan();
            if null {
                plan["egress"]["ca"]["days"] = Value::Null;
                plan["egress"]["routes"] = Value::Null;
            } else {
                plan["egress"]["ca"].as_object_mut().unwrap().remove("days");
                plan["egress"].as_object_mut().unwrap().remove("routes");
            }
            let request = request_from_plan(&plan).unwrap();
            assert_eq!((request.days, request.hosts.len()), (DEFAULT_DAYS, 0));
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let changes: [(&str, Value); 9] = [
            ("/slug", json!(7)),
            ("/slug", json!("")),
            ("/egress/ca/dir", json!("relative/path")),
            ("/egress/ca/dir", json!(null)),
            ("/egress/ca/days", json!(-1)),
            ("/egress/ca/days", json!("30")),
            ("/egress/routes", json!({})),
            ("/egress/routes/0/host", json!(["a"])),
            ("/egress/routes/1/tls", json!("maybe")),
        ];
        for (pointer, value) in changes {
            let mut plan = plan();
            *plan.pointer_mut(pointer).unwrap() = value;
            let failure = request_from_plan(&plan).unwrap_err();
            assert!(
                failure.chain().contains(pointer),
                "{pointer}: {}",
                failure.chain()
            );
            assert_eq!(failure.kind().code(), 2);
        }
    }

    #[test]
    fn another_schema_is_named_and_a_missing_one_noticed() {
        let mut plan = plan();
        plan["schema"] = json!("bottle.plan/v2");
        assert!(
            request_from_plan(&plan)
                .unwrap_err()
                .chain()
                .contains("bottle.plan/v2")
        );
        for other in [json!({}), json!([]), json!("text"), json!({"schema": 1})] {
            assert!(
                request_from_plan(&other)
                    .unwrap_err()
                    .chain()
                    .contains("names no schema")
            );
        }
    }

    #[test]
    fn filling_adds_two_fields_and_touches_nothing_else() {
        let mut plan = plan();
        let mut request = request_from_plan(&plan).unwrap();
        request.days = 30;
        let authority = crate::mint(&request, datetime!(2026-11-23 12:00 UTC)).unwrap();
        let mut expected = plan.clone();
        fill(&mut plan, &authority).unwrap();
        expected["egress"]["ca"]["fingerprint"] = json!(authority.fingerprint());
        expected["egress"]["ca"]["not_after"] = json!("2026-12-23T12:00:00Z");
        assert_eq!(plan, expected);
        assert!(fill(&mut json!({"egress": {"ca": []}}), &authority).is_err());
    }
}
