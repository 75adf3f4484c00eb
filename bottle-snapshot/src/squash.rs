//! One layer instead of many: what was deleted on the way is gone, and so is what the engine keeps of a container's
//! environment and labels.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bottle_plan::failure::{Failure, Result};
use bottle_run::engine::Engine;

use crate::engine::Image;
use crate::image;

/// An image with the files of `frozen` in one layer and the environment of `from`, the image the container was made
/// from; `frozen` is removed. Gives its id.
///
/// # Errors
/// When the engine cannot give the files out or take them in.
pub fn squash(
    engine: &Engine,
    frozen: &str,
    from: &Image,
    labels: &BTreeMap<&'static str, String>,
) -> Result<String> {
    let container = Scratch::create(engine, frozen, labels)?;
    let mut import = engine.call(["image", "import"]);
    for change in changes(from, labels) {
        import = import.arg(format!("--change={change}"));
    }
    let (failed, why) = mpsc::channel();
    let export = engine
        .call(["container", "export", container.id.as_str()])
        .unlimited();
    let imported = import
        .arg("-")
        .input_from(move |out| pipe(export, out, &failed))
        .unlimited()
        .run();
    let result = why.try_recv().map_or(imported, Err);
    drop(container);
    let image = result
        .map_err(|failure| failure.while_doing("making all layers one"))?
        .text();
    crate::engine::remove_image(engine, frozen)?;
    Ok(image)
}

fn pipe(
    export: bottle_run::engine::Call,
    out: &mut dyn std::io::Write,
    failed: &mpsc::Sender<Failure>,
) -> std::io::Result<()> {
    let (chunks, incoming) = mpsc::sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        let exporting = scope.spawn(move || {
            export.run_read_by(move |stream| {
                let mut buffer = vec![0; crate::scan::BUFFER];
                loop {
                    let count = stream
                        .read(&mut buffer)
                        .map_err(|error| Failure::failed("cannot read the files").because(error))?;
                    if count == 0 || chunks.send(buffer[..count].to_vec()).is_err() {
                        return Ok(());
                    }
                }
            })
        });
        let written = incoming.iter().try_for_each(|chunk| out.write_all(&chunk));
        drop(incoming);
        match exporting.join() {
            Ok(Err(failure)) => {
                let _ = failed.send(failure);
                Err(std::io::Error::other("the files could not be read"))
            }
            _ => written,
        }
    })
}

/// As a Dockerfile writes them.
fn changes(from: &Image, labels: &BTreeMap<&'static str, String>) -> Vec<String> {
    let quoted = |text: &str| {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            if matches!(c, '"' | '\\' | '$') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted + "\""
    };
    let labels = labels
        .iter()
        .map(|(name, value)| format!("LABEL {name}={}", quoted(value)));
    let config = from.config.clone().unwrap_or_default();
    let env = config.env.unwrap_or_default();
    // A line break would end the instruction; an image's own environment has none.
    let env = env
        .iter()
        .filter(|entry| !entry.contains(['\n', '\r']))
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| format!("ENV {name}={}", quoted(value)));
    labels.chain(env).collect()
}

/// A container that never runs, for its files.
pub(crate) struct Scratch {
    engine: Engine,
    pub(crate) id: String,
}

impl Scratch {
    pub(crate) fn create(
        engine: &Engine,
        from: &str,
        labels: &BTreeMap<&'static str, String>,
    ) -> Result<Self> {
        let slug = labels
            .get(image::SLUG)
            .map(String::as_str)
            .unwrap_or_default();
        let created = engine
            .call([
                "container",
                "create",
                "--network=none",
                "--label=bottle.role=snapshot",
            ])
            .arg(format!("--label=bottle.slug={slug}"))
            .args(["--entrypoint=/never-run", "--", from])
            .run()?;
        Ok(Self {
            engine: engine.clone(),
            id: created.text(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it goes with the bottle, whose labels it has.
        let _ = self
            .engine
            .call(["container", "rm", "--force", "--volumes", self.id.as_str()])
            .output();
    }
}
