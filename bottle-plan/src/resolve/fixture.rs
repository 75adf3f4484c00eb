//! Plans for tests, from a manifest alone.

use super::{Inputs, resolve};
use crate::manifest::load::{Places, by_name};
use crate::plan::Plan;

/// The plan of a bottle `web`, in a home that is gone again.
pub(crate) fn planned(manifest: &str, slug: &str) -> Plan {
    let root = tempfile::tempdir().expect("temp dir");
    let home = root.path().join("home");
    std::fs::create_dir_all(home.join("bottles")).expect("mkdir");
    std::fs::write(home.join("bottles/web.yaml"), manifest).expect("write");
    let places = Places {
        home: home.clone(),
        cwd: root.path().to_owned(),
    };
    let manifest = by_name(&places, "web", &[]).expect("valid");
    let inputs = Inputs {
        places: &places,
        user_home: None,
        slug,
        state: home.join("state").join(slug),
        range: "10.213.0.0/27".parse().expect("valid"),
        workspace: None,
        session: None,
    };
    resolve(&manifest, &inputs).expect("resolves").plan
}
