//! What the command line says.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const USAGE: &str = "usage: load --ca FILE [--proxy HOST:PORT] [--connections N] [--seconds S] [--warm-up S] \
    [--new-connections] [--upload BYTES] [--header NAME:VALUE]… https://HOST/PATH";

/// More than this is no thread a connection any more.
const MOST_CONNECTIONS: usize = 4096;

#[derive(Debug)]
pub(super) struct Options {
    /// What is trusted, PEM.
    pub(super) ca: PathBuf,
    /// The proxy that is asked for a tunnel; without one it goes to the host itself.
    pub(super) proxy: Option<String>,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) headers: Vec<String>,
    pub(super) connections: usize,
    pub(super) duration: Duration,
    pub(super) warm_up: Duration,
    /// A connection, a tunnel and a TLS handshake for every request.
    pub(super) new_connections: bool,
    /// The bytes that each request sends; with none it is a GET.
    pub(super) upload: u64,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> io::Result<Self> {
        let mut options = Self {
            ca: PathBuf::new(),
            proxy: None,
            host: String::new(),
            path: String::new(),
            headers: Vec::new(),
            connections: 1,
            duration: Duration::from_secs(5),
            warm_up: Duration::ZERO,
            new_connections: false,
            upload: 0,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| wrong(arg));
            match arg.as_str() {
                "--ca" => options.ca = value()?.into(),
                "--proxy" => options.proxy = Some(value()?.clone()),
                "--header" => options.headers.push(value()?.clone()),
                "--connections" => options.connections = number(arg, value()?)?,
                "--seconds" => options.duration = seconds(arg, value()?)?,
                "--warm-up" => options.warm_up = seconds(arg, value()?)?,
                "--new-connections" => options.new_connections = true,
                "--upload" => options.upload = number(arg, value()?)?,
                url => {
                    let rest = url.strip_prefix("https://").ok_or_else(|| wrong(url))?;
                    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                    host.clone_into(&mut options.host);
                    options.path = format!("/{path}");
                }
            }
        }
        if options.host.is_empty() {
            return Err(wrong("there is no URL"));
        }
        if !(1..=MOST_CONNECTIONS).contains(&options.connections) {
            return Err(wrong("--connections"));
        }
        Ok(options)
    }
}

fn number<T: FromStr>(name: &str, text: &str) -> io::Result<T> {
    text.parse().map_err(|_| wrong(name))
}

fn seconds(name: &str, text: &str) -> io::Result<Duration> {
    Duration::try_from_secs_f64(number(name, text)?).map_err(|_| wrong(name))
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("{what}: {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> io::Result<Options> {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn a_full_command_line_is_read() {
        let line = "--ca /ca.pem --proxy 10.0.0.2:3128 --connections 32 --seconds 2.5 --warm-up 0.5 \
            --upload 1024 --header A:b https://api.example.com/a/b?c";
        let options = parse(line).expect("valid");
        assert_eq!(options.proxy.as_deref(), Some("10.0.0.2:3128"));
        assert_eq!((options.connections, options.upload), (32, 1024));
        assert_eq!(options.duration, Duration::from_millis(2500));
        assert_eq!(options.warm_up, Duration::from_millis(500));
        assert_eq!(options.headers, ["A:b"]);
        assert_eq!(
            (options.host.as_str(), options.path.as_str()),
            ("api.example.com", "/a/b?c")
        );
        assert!(!options.new_connections);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--connections 0 https://a.example.com/",
            "--connections x https://a.example.com/",
            "--seconds -1 https://a.example.com/",
            "--seconds",
            "--what https://a.example.com/",
            "http://a.example.com/",
            "--new-connections",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
