//! What an approval binds to: a hash of everything in a plan that gives authority, and of nothing else.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Result};
use crate::manifest::load::hex;
use crate::plan::Plan;

/// Left out: which bottle it is, where it lies on this host, when its CA ends.
const NOT_AUTHORITY: [&str; 9] = [
    "digest", "slug", "project", "state", "networks", "labels", "sidecar", "schema", "resume",
];

/// `sha256:` and the digest of `plan`: the same for every bottle made from the same manifests.
///
/// # Errors
/// Never in practice; a plan can always be written as JSON.
pub fn of(plan: &Plan) -> Result<String> {
    // serde_json keeps the keys of an object sorted, so this text is canonical.
    let text = authority(plan)?.to_string();
    Ok(format!("sha256:{}", hex(&Sha256::digest(text))))
}

/// What of `plan` the digest is made of.
///
/// # Errors
/// As [`of`].
pub(crate) fn authority(plan: &Plan) -> Result<Value> {
    let mut value = serde_json::to_value(plan)
        .map_err(|error| Failure::failed("cannot write the plan as JSON").because(error))?;
    if let Some(top) = value.as_object_mut() {
        for key in NOT_AUTHORITY {
            top.remove(key);
        }
    }
    remove(&mut value, "/egress", "ca");
    // The folder of a built-in Dockerfile is the bottle's; what is in it is among the sources.
    remove(&mut value, "/agent/image", "build");
    for source in list(&mut value, "/sources") {
        remove(source, "", "path");
    }
    for route in list(&mut value, "/egress/routes") {
        remove(route, "", "source");
        remove(route, "/auth", "placeholder");
    }
    for variable in list(&mut value, "/agent/env") {
        if variable["name"] == "BOTTLE_SLUG" {
            remove(variable, "", "from");
        }
    }
    Ok(value)
}

/// Sixteen hexadecimal digits that stand for `text`.
#[must_use]
pub fn short(text: &str) -> String {
    hex(&Sha256::digest(text)[..8])
}

fn remove(value: &mut Value, pointer: &str, key: &str) {
    if let Some(object) = value.pointer_mut(pointer).and_then(Value::as_object_mut) {
        object.remove(key);
    }
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use crate::resolve::fixture::planned;

    fn digest(manifest: &str, slug: &str) -> String {
        planned(manifest, slug).digest
    }

    const ONE: &str = "image: x\negress: {routes: [{host: a.example.com}]}\n";

    #[test]
    fn slug_and_place_do_not_count() {
        assert_eq!(digest(ONE, "one"), digest(ONE, "two"));
    }

    #[test]
    fn everything_that_grants_something_counts() {
        let one = digest(ONE, "s");
        for other in [
            "image: y\negress: {routes: [{host: a.example.com}]}\n",
            "image: x\negress: {routes: [{host: b.example.com}]}\n",
            "image: x\negress: {routes: [{host: a.example.com, private: [10.0.0.0/8]}]}\n",
            "image: x\negress: {routes: [{host: a.example.com, matches: [{methods: [GET]}]}]}\n",
            "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: T}}]}\n",
            "image: x\nenv: {A: '${T}'}\negress: {routes: [{host: a.example.com}]}\n",
            "image: x\nhardening: {cap_add: [CHOWN]}\negress: {routes: [{host: a.example.com}]}\n",
            "image: x\nsupervise: true\negress: {routes: [{host: a.example.com}]}\n",
        ] {
            assert_ne!(one, digest(other, "s"), "{other}");
        }
    }
}
