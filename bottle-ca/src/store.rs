//! The two files in their folder. Everything goes through one handle of the folder, taken without following a link
//! and checked once: a path that is exchanged later leads nowhere else.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bottle_plan::failure::{Failure, Kind, PathContext as _, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use rustls_pemfile::Item;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::Request;
use crate::authority::{Authority, mint};

/// Private key, then certificate; mode 0600.
pub const KEY_FILE: &str = "mitmproxy-ca.pem";

/// The certificate alone; mode 0644.
pub const CERT_FILE: &str = "mitmproxy-ca-cert.pem";

/// A file of ours is below 100 KiB even with a thousand hosts; a larger one is not read into memory.
const MAX_FILE: u64 = 1 << 20;

/// What [`ensure`] found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A valid CA for this request was there.
    Kept,
    /// There was none.
    Minted,
    /// What was there has been replaced.
    Renewed,
}

/// Reads and checks the CA in `dir`. Whether it is still valid is for the caller to ask.
pub fn read(dir: &Path) -> Result<Authority> {
    let folder = Folder::open(dir)?;
    // A reader between the two renames of a renewal would see halves of two CAs.
    folder.handle.lock_shared().at("lock", dir)?;
    folder.load()
}

/// Sees to it that `request.dir` holds a valid CA for `request`.
///
/// What is there is kept if it is valid and for the same names, and replaced only if `renew` says so: a running sidecar
/// has loaded the old one and an agent trusts it. Anything else that is there is an error, never a reason to mint.
pub fn ensure(request: &Request, renew: bool, now: OffsetDateTime) -> Result<(Authority, Outcome)> {
    // First, so that a wrong request does not even leave an empty folder.
    let scope = request.scope()?;
    let folder = Folder::open_or_create(&request.dir)?;
    // Two at once: the second waits, then finds the CA of the first and keeps it.
    folder.handle.lock().at("lock", &request.dir)?;

    let present = folder.has(KEY_FILE)? || folder.has(CERT_FILE)?;
    if present && !renew {
        let usable = |authority: Authority| {
            authority.check_valid_at(now)?;
            authority.check_matches(request, &scope)?;
            Ok(authority)
        };
        let authority = folder.load().and_then(usable).map_err(|failure| {
            failure
                .while_doing(format!(
                    "the CA in {} cannot be used",
                    request.dir.display()
                ))
                .hint(
                    "say --renew to replace it; a bottle that runs with it has to be started again",
                )
        })?;
        return Ok((authority, Outcome::Kept));
    }
    let authority = mint(request, now)?;
    folder.store(&authority)?;
    Ok((
        authority,
        if present {
            Outcome::Renewed
        } else {
            Outcome::Minted
        },
    ))
}

/// A folder that nobody else can change.
struct Folder {
    path: PathBuf,
    handle: File,
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        // With a slash at its end a link would be followed in spite of O_NOFOLLOW.
        let path: PathBuf = path.components().collect();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = match nix::fcntl::open(&path, flags, Mode::empty()) {
            Ok(handle) => File::from(handle),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                return Err(Failure::refused(format!(
                    "{} is not a folder, or only a link to one",
                    path.display()
                ))
                .hint("name the folder itself"));
            }
            Err(error) => return Err(io::Error::from(error)).at("open", &path),
        };
        let folder = Self { path, handle };
        folder.check_private()?;
        Ok(folder)
    }

    fn open_or_create(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(failure) if failure.kind() == Kind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .at("create", path)?;
                Self::open(path)
            }
            other => other,
        }
    }

    /// Whoever can write to the folder can exchange the key.
    fn check_private(&self) -> Result<()> {
        let meta = self.handle.metadata().at("look at", &self.path)?;
        let path = self.path.display();
        if meta.mode() & 0o022 != 0 {
            return Err(Failure::refused(format!(
                "{path} can be written to by others (mode {:04o})",
                meta.mode() & 0o7777
            ))
            .hint(format!("chmod go-w {path}")));
        }
        let user = nix::unistd::geteuid().as_raw();
        if meta.uid() != user && meta.uid() != 0 {
            return Err(Failure::refused(format!(
                "{path} belongs to user {}, not to {user}",
                meta.uid()
            ))
            .hint("name a folder of your own"));
        }
        Ok(())
    }

    /// Whether anything of that name is there, a dangling link included.
    fn has(&self, name: &str) -> Result<bool> {
        match nix::sys::stat::fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(io::Error::from(error)).at("look at", &self.path.join(name)),
        }
    }

    fn load(&self) -> Result<Authority> {
        match (self.has(KEY_FILE)?, self.has(CERT_FILE)?) {
            (false, false) => {
                return Err(Failure::not_found(format!(
                    "there is no CA in {}",
                    self.path.display()
                )));
            }
            (true, true) => {}
            (key, _) => {
                let (there, missing) = if key {
                    (KEY_FILE, CERT_FILE)
                } else {
                    (CERT_FILE, KEY_FILE)
                };
                return Err(Failure::failed(format!(
                    "{there} is there but {missing} is not"
                )));
            }
        }
        let key_file = self.items(KEY_FILE, true)?;
        let cert_file = self.items(CERT_FILE, false)?;
        let (Some((key, inner)), Some(outer)) =
            (key_and_certificate(&key_file), only_certificate(&cert_file))
        else {
            return Err(Failure::failed(format!(
                "{KEY_FILE} has to hold a PKCS#8 key and a certificate, and {CERT_FILE} a certificate, each nothing else"
            )));
        };
        if inner != outer {
            return Err(Failure::failed(format!(
                "{KEY_FILE} and {CERT_FILE} hold two different certificates"
            )));
        }
        Authority::from_der(key, outer)
    }

    fn items(&self, name: &str, private: bool) -> Result<Vec<Item>> {
        let path = self.path.join(name);
        // O_NONBLOCK: to open a named pipe that lies there must not wait for its other end.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.handle, name, flags, Mode::empty());
        let file = File::from(file.map_err(io::Error::from).at("open", &path)?);
        let meta = file.metadata().at("look at", &path)?;
        if !meta.is_file() || meta.len() > MAX_FILE {
            return Err(Failure::failed(format!(
                "{} is not a file of ours",
                path.display()
            )));
        }
        if private && meta.mode() & 0o077 != 0 {
            return Err(Failure::refused(format!(
                "{} can be read by others (mode {:04o}): its key is no secret any more",
                path.display(),
                meta.mode() & 0o7777
            )));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_FILE)
            .read_to_end(&mut text)
            .at("read", &path)?;
        rustls_pemfile::read_all(&mut text.as_slice())
            .collect::<io::Result<_>>()
            .at("read", &path)
    }

    /// Puts both files in place of what is there. If that fails, no file is left that was not there before.
    fn store(&self, authority: &Authority) -> Result<()> {
        let certificate = authority.cert_pem();
        let pair = Zeroizing::new(format!("{}{certificate}", authority.key_pem().as_str()));
        let key_staged = self.stage(KEY_FILE, 0o600, pair.as_bytes())?;
        let cert_staged = self.stage(CERT_FILE, 0o644, certificate.as_bytes())?;

        // The key first: a certificate without its key would be handed to an agent that then trusts nobody.
        let key_placed = key_staged.place()?;
        let cert_placed = cert_staged.place()?;
        self.handle.sync_all().at("write to disk", &self.path)?;
        key_placed.keep();
        cert_placed.keep();
        Ok(())
    }

    /// Writes a file beside its place, with its mode from the beginning.
    ///
    /// The name is fixed: only the holder of the lock is here, and so the rest of a run that was killed is swept up.
    fn stage(&self, name: &'static str, mode: u32, content: &[u8]) -> Result<Staged<'_>> {
        let temporary = format!(".{name}.new");
        let path = self.path.join(&temporary);
        match nix::unistd::unlinkat(&self.handle, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(io::Error::from(error)).at("remove", &path),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(
            &self.handle,
            temporary.as_str(),
            flags,
            Mode::from_bits_truncate(mode),
        );
        let mut file = File::from(file.map_err(io::Error::from).at("create", &path)?);
        let staged = Staged {
            folder: self,
            temporary,
            name,
        };
        // The umask may have taken bits the reader of the certificate needs.
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .at("set the mode of", &path)?;
        file.write_all(content).at("write", &path)?;
        file.sync_all().at("write to disk", &path)?;
        Ok(staged)
    }

    fn remove(&self, name: &str) {
        // Part of an undo: what is reported is the failure that led here.
        let _ = nix::unistd::unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir);
    }
}

/// A complete file under its temporary name; removed unless it is put in its place.
struct Staged<'a> {
    folder: &'a Folder,
    temporary: String,
    name: &'static str,
}

impl<'a> Staged<'a> {
    fn place(self) -> Result<Placed<'a>> {
        let folder = self.folder;
        let replaced = folder.has(self.name)?;
        nix::fcntl::renameat(
            &folder.handle,
            self.temporary.as_str(),
            &folder.handle,
            self.name,
        )
        .map_err(io::Error::from)
        .at("put in place", &folder.path.join(self.name))?;
        Ok(Placed {
            folder,
            name: self.name,
            undo: !replaced,
        })
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.folder.remove(&self.temporary);
    }
}

/// A file in its place; removed again unless its partner gets there too. One that replaced another stays: the old
/// content is gone, and a pair that does not match is found by every reader.
struct Placed<'a> {
    folder: &'a Folder,
    name: &'static str,
    undo: bool,
}

impl Placed<'_> {
    fn keep(mut self) {
        self.undo = false;
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if self.undo {
            self.folder.remove(self.name);
        }
    }
}

fn key_and_certificate(
    items: &[Item],
) -> Option<(&rustls_pki_types::PrivatePkcs8KeyDer<'static>, &[u8])> {
    match items {
        [Item::Pkcs8Key(key), Item::X509Certificate(certificate)] => Some((key, certificate)),
        _ => None,
    }
}

fn only_certificate(items: &[Item]) -> Option<&[u8]> {
    match items {
        [Item::X509Certificate(certificate)] => Some(certificate),
        _ => None,
    }
}
