//! Going on from a snapshot: which image the agent gets, and what of its old bottle must not stay in it.

use bottle_plan::failure::Result;
use bottle_plan::plan::Plan;

use crate::engine::Engine;
use crate::images;

/// The image the agent goes on from: the first of the plan's that the engine still has.
///
/// # Errors
/// When the engine does not answer.
pub fn image(engine: &Engine, plan: &Plan, say: &dyn Fn(&str)) -> Result<Option<String>> {
    let Some(resume) = &plan.resume else {
        return Ok(None);
    };
    for candidate in &resume.images {
        let named = format!("{}@{}", resume.slug, candidate.number);
        // By its id: the name may be another image's by now.
        if images::inspect(engine, &candidate.image, "{{.Id}}")?.is_some() {
            say(&format!("going on from the snapshot {named}"));
            return Ok(Some(candidate.image.clone()));
        }
        say(&format!(
            "the engine does not have the snapshot {named} any more"
        ));
    }
    say(&format!(
        "no snapshot of `{}` is left: beginning from {} again",
        resume.slug, plan.agent.image.reference
    ));
    Ok(None)
}

/// `bundle` without the certificate `old`, which another start of the bottle (or the one it was forked from) put there.
#[must_use]
pub fn without_certificate(mut bundle: Vec<u8>, old: &str) -> Vec<u8> {
    let old = old.trim().as_bytes();
    if old.is_empty() {
        return bundle;
    }
    while let Some(at) = bundle.windows(old.len()).position(|window| window == old) {
        let end = at + old.len();
        let end = end
            + bundle[end..]
                .iter()
                .take_while(|byte| **byte == b'\n')
                .count();
        bundle.drain(at..end);
    }
    bundle
}

#[cfg(test)]
mod tests {
    use super::without_certificate;

    #[test]
    fn an_old_certificate_goes_and_the_others_stay() {
        let bundle = b"one\nOLD\nCA\ntwo\nOLD\nCA\n".to_vec();
        assert_eq!(without_certificate(bundle, "OLD\nCA\n"), b"one\ntwo\n");
        assert_eq!(without_certificate(b"one\n".to_vec(), ""), b"one\n");
        assert_eq!(without_certificate(b"one\n".to_vec(), "OLD"), b"one\n");
    }
}
