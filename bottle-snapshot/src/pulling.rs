//! Pulls under way: a snapshot's documents are an image of the engine before it is known which bottle they are for.
//!
//! `state/.pulling/image` has that image's name, and a lock beside it is held meanwhile, by the engine's client too. Where the
//! lock is free, the pull and its client are dead. The image itself cannot say whose it is: its label was made where the
//! snapshot was pushed, and other homes use the same engine.

use std::fs;
use std::path::{Path, PathBuf};

use bottle_plan::failure::{PathContext as _, Result};
use bottle_plan::state::{self, StateHome};
use bottle_run::engine::Engine;
use bottle_run::lock::BottleLock;

use crate::engine;

const FOLDER: &str = ".pulling";
const NAME: &str = "image";

/// A pull of documents; a home has one at a time.
#[derive(Debug)]
pub struct Pulling {
    folder: PathBuf,
    _lock: BottleLock,
}

impl Pulling {
    /// Writes down that the image `name` is about to be pulled, after what a killed pull left was removed.
    ///
    /// # Errors
    /// A conflict, when another pull does not end; failed, when it cannot be written: then nothing may be pulled.
    pub fn begin(
        engine: &Engine,
        home: &StateHome,
        name: &str,
        say: &dyn Fn(&str),
    ) -> Result<Self> {
        let folder = home.path().join(FOLDER);
        state::private_dir(home.path())?;
        state::private_dir(&folder)?;
        let lock = BottleLock::wait(&folder, name, || say("waiting for another pull"))?;
        remove(engine, &folder)?;
        state::write_atomic(&folder.join(NAME), name.as_bytes(), 0o600)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Removes the image, which was only needed to be read.
    ///
    /// # Errors
    /// When the engine refuses; the next pull and the next `gc` try again.
    pub fn end(self, engine: &Engine) -> Result<()> {
        remove(engine, &self.folder)
    }
}

/// Removes what a killed pull left.
///
/// # Errors
/// When the engine refuses, or a file cannot be read or removed.
pub fn sweep(engine: &Engine, home: &StateHome) -> Result<()> {
    let folder = home.path().join(FOLDER);
    if !folder.exists() {
        return Ok(());
    }
    match BottleLock::attempt(&folder)? {
        Some(_lock) => remove(engine, &folder),
        None => Ok(()),
    }
}

fn remove(engine: &Engine, folder: &Path) -> Result<()> {
    let path = folder.join(NAME);
    match fs::read_to_string(&path) {
        Ok(name) => engine::remove_image(engine, &name)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("read", &path),
    }
    fs::remove_file(&path).at("remove", &path)
}
