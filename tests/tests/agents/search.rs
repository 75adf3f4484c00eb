//! A search through everything in a bottle: environments, memory, files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What was found where: `secret`, `placeholder`.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) environment: BTreeSet<&'static str>,
    pub(crate) memory: BTreeSet<&'static str>,
    pub(crate) files: BTreeSet<&'static str>,
}

impl Found {
    /// From the host, where root sees through containers: a search inside would bring the secret in.
    pub(crate) fn everywhere(
        pids: &[String],
        program: &str,
        secret: &str,
        placeholder: &str,
    ) -> std::io::Result<Self> {
        let needles = Needles::new(secret, placeholder);
        let mut found = Self::default();
        let mut searched = false;
        for pid in pids {
            let proc = Path::new("/proc").join(pid);
            let environment = match fs::read(proc.join("environ")) {
                Ok(environment) => environment,
                // It was a short one, and is gone.
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(error),
            };
            found
                .environment
                .extend(needles.in_stream(|out| out.write_all(&environment))?);
            let command = fs::read(proc.join("cmdline")).unwrap_or_default();
            found
                .environment
                .extend(needles.in_stream(|out| out.write_all(&command))?);
            if String::from_utf8_lossy(&command).contains(program) {
                searched = true;
                found
                    .memory
                    .extend(needles.in_stream(|out| pour_memory(&proc, out))?);
            }
        }
        assert!(searched, "there is no {program} among the processes");
        // All of them have the same root, the memory-backed folders included.
        let root = Path::new("/proc")
            .join(pids.first().expect("a process"))
            .join("root/");
        found.files = needles.in_files(&root)?;
        Ok(found)
    }
}

fn gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// The texts that are searched for, in a file: on a command line they would be searched for in themselves.
struct Needles {
    file: tempfile::NamedTempFile,
    placeholder: String,
}

impl Needles {
    fn new(secret: &str, placeholder: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let texts = [
            secret.to_owned(),
            STANDARD.encode(secret),
            placeholder.to_owned(),
        ];
        writeln!(file, "{}", texts.join("\n")).expect("the file can be written");
        Self {
            file,
            placeholder: placeholder.to_owned(),
        }
    }

    fn grep(&self) -> Command {
        let mut grep = Command::new("grep");
        grep.env("LC_ALL", "C").args([
            "--text",
            "--only-matching",
            "--no-filename",
            "--fixed-strings",
        ]);
        grep.arg("--file").arg(self.file.path());
        grep.stdout(Stdio::piped()).stderr(Stdio::null());
        grep
    }

    fn in_stream(
        &self,
        pour: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()> + Send,
    ) -> std::io::Result<BTreeSet<&'static str>> {
        let mut child = self.grep().stdin(Stdio::piped()).spawn()?;
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let mut text = String::new();
        let mut out = child.stdout.take().expect("stdout is piped");
        let poured = thread::scope(|scope| {
            let pouring = scope.spawn(move || pour(&mut pipe));
            let read = out.read_to_string(&mut text);
            pouring
                .join()
                .expect("pouring does not panic")
                .and(read.map(drop))
        });
        child.wait()?;
        poured.map(|()| self.kinds(&text))
    }

    fn in_files(&self, root: &Path) -> std::io::Result<BTreeSet<&'static str>> {
        let mut grep = self.grep();
        grep.args(["--recursive", "--devices=skip"]);
        let kernel = ["proc", "sys", "dev"];
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if !kernel.iter().any(|name| entry.file_name() == *name)
                && !entry.file_type()?.is_symlink()
            {
                grep.arg(entry.path());
            }
        }
        grep.arg(root.join("dev/shm"));
        let output = grep.output()?;
        Ok(self.kinds(&String::from_utf8_lossy(&output.stdout)))
    }

    fn kinds(&self, matches: &str) -> BTreeSet<&'static str> {
        let kind = |line| {
            if line == self.placeholder {
                "placeholder"
            } else {
                "secret"
            }
        };
        matches.lines().map(kind).collect()
    }
}

/// Every page of a process that is in memory or swapped out. What is only reserved is left alone: it would be made by
/// looking at it.
fn pour_memory(proc: &Path, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    const PAGE: u64 = 4096;
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    let maps = fs::read_to_string(proc.join("maps"))?;
    let (memory, pagemap) = (
        File::open(proc.join("mem"))?,
        File::open(proc.join("pagemap"))?,
    );
    let mut page = [0; PAGE as usize];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let range = words.next().and_then(|range| range.split_once('-'));
        let readable = words.next().is_some_and(|rights| rights.starts_with('r'));
        let Some((start, end)) = range.filter(|_| readable && !line.ends_with("[vvar]")) else {
            continue;
        };
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(std::io::Error::other);
        let (first, last) = (number(start)? / PAGE, number(end)? / PAGE);
        let mut entries =
            vec![0; usize::try_from(last - first).map_err(std::io::Error::other)? * 8];
        // The pages the kernel maps for itself at the end have no entries.
        if pagemap.read_exact_at(&mut entries, first * 8).is_err() {
            continue;
        }
        for (number, entry) in (first..last).zip(entries.chunks_exact(8)) {
            let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
            // A page may go while we look.
            if entry & PRESENT_OR_SWAPPED != 0
                && memory.read_exact_at(&mut page, number * PAGE).is_ok()
            {
                out.write_all(&page)?;
            }
        }
    }
    Ok(())
}
