//! Repositories and files, where the container has any: `/git/NAME.git` by git's own `http-backend`, and everything below
//! [`FILES`] as it lies there, which is all that a package registry needs.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::http::{Request, whole};

/// The folder of the repositories.
pub(super) const REPOSITORIES: &str = "/served/git";
/// The folder of the files.
pub(super) const FILES: &str = "/served/files";

pub(super) fn is_for(path: &str) -> bool {
    path.starts_with("/git/") && Path::new(REPOSITORIES).is_dir()
}

/// Asks git, as a web server does (RFC 3875).
pub(super) fn answer(out: &mut impl Write, request: &Request) -> io::Result<()> {
    let header = |name| request.header(name).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", REPOSITORIES)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", request.path.trim_start_matches("/git"))
        .env("REQUEST_METHOD", &request.method)
        .env("QUERY_STRING", &request.raw_query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "somebody")
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Git answers some requests without reading them.
        let _ = stdin.write_all(&request.body);
    }
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said)?;
    }
    child.wait()?;
    let end = said.windows(4).position(|end| end == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("git http-backend has no head"))?;
    let head = String::from_utf8_lossy(&said[..end]).into_owned();
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let (status, headers): (Vec<_>, Vec<_>) = fields.partition(|(name, _)| *name == "Status");
    let status = status.first().map_or("200 OK", |(_, value)| value);
    whole(out, status, &headers, &said[end + 4..])
}

/// The file of a path; of a folder its index. A path with dots in it names nothing here.
fn found(path: &str) -> Option<PathBuf> {
    let file = Path::new(FILES).join(path.trim_start_matches('/'));
    let file = if file.is_dir() {
        file.join("index")
    } else {
        file
    };
    (!path.contains("..") && file.is_file()).then_some(file)
}

pub(super) fn has_file(path: &str) -> bool {
    found(path).is_some()
}

pub(super) fn file(out: &mut impl Write, path: &str) -> io::Result<()> {
    let file = found(path).ok_or(io::ErrorKind::NotFound)?;
    let kind = match file.extension().and_then(|ending| ending.to_str()) {
        None => "text/html",
        Some("json") => "application/json",
        Some(_) => "application/octet-stream",
    };
    whole(
        out,
        "200 OK",
        &[("content-type", kind)],
        &std::fs::read(&file)?,
    )
}
