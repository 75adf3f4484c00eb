//! What each command does. Returns what goes to stdout and stderr instead of writing it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use bottle_ca::{
    Authority, CERT_FILE, FILTER_HINT, KEY_FILE, Outcome, Request, Scope, ensure, fill, read,
    request_from_plan, rfc3339,
};
use bottle_plan::explain::counted;
use bottle_plan::failure::{Failure, Result, printable};
use bottle_plan::tool;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cli::{Cli, Command, Mint, Verify};

/// A command's result.
pub(crate) struct Report {
    /// The whole product for stdout; may be empty.
    pub(crate) product: String,
    /// One line for a person.
    pub(crate) note: String,
}

pub(crate) fn run(cli: &Cli) -> Result<Report> {
    let now = OffsetDateTime::now_utc();
    match &cli.command {
        None => filter(cli.renew, now),
        Some(Command::Mint(options)) => mint(options, cli.renew, cli.flags.json, now),
        Some(_) if cli.renew => Err(Failure::invalid(
            "--renew goes with mint, or with a plan on stdin",
        )),
        Some(Command::Show(folder)) => show(&folder.dir, cli.flags.json),
        Some(Command::Verify(options)) => verify(options, now),
        // They need no CA: `main` answers them.
        Some(Command::Common(_)) => Ok(Report {
            product: String::new(),
            note: String::new(),
        }),
    }
}

fn filter(renew: bool, now: OffsetDateTime) -> Result<Report> {
    let text = tool::read_stdin("a plan", FILTER_HINT)?;
    let mut plan = serde_json::from_slice(&text).map_err(|error| {
        Failure::invalid("stdin is not JSON")
            .because(error)
            .hint(FILTER_HINT)
    })?;
    let request = request_from_plan(&plan)?;
    let (authority, outcome) = ensure(&request, renew, now)?;
    fill(&mut plan, &authority)?;
    Ok(Report {
        product: pretty(&plan)?,
        note: note(&request.dir, &authority, outcome),
    })
}

fn mint(options: &Mint, renew: bool, as_json: bool, now: OffsetDateTime) -> Result<Report> {
    let request = Request {
        dir: options.folder.dir.clone(),
        common_name: options.name.clone(),
        hosts: options.hosts.clone(),
        any_host: false,
        addresses: options.addresses.clone(),
        days: options.days,
    };
    let (authority, outcome) = ensure(&request, renew || options.renew, now)?;
    let product = if as_json {
        pretty(&describe(&request.dir, &authority))?
    } else {
        String::new()
    };
    Ok(Report {
        product,
        note: note(&request.dir, &authority, outcome),
    })
}

fn show(dir: &Path, as_json: bool) -> Result<Report> {
    let authority = read(dir)?;
    let product = if as_json {
        pretty(&describe(dir, &authority))?
    } else {
        table(dir, &authority)
    };
    Ok(Report {
        product,
        note: String::new(),
    })
}

fn verify(options: &Verify, now: OffsetDateTime) -> Result<Report> {
    let dir = &options.folder.dir;
    let authority = read(dir)?;
    authority.check_valid_at(now)?;
    let mut note = format!(
        "{} is in order, valid until {}",
        dir.display(),
        rfc3339(authority.not_after())
    );
    if let Some(host) = &options.host {
        if host.parse::<IpAddr>().is_err() {
            // For its error: "not permitted" would hide that this is no name at all.
            Scope::new(std::slice::from_ref(host), &[])?;
        }
        if !authority.scope().permits(host) {
            return Err(
                Failure::refused(format!("no client would accept {host} from this CA")).hint(
                    format!(
                        "bottle-ca show --dir {} lists what it may sign",
                        dir.display()
                    ),
                ),
            );
        }
        let _ = write!(note, "; {host} is permitted");
    }
    Ok(Report {
        product: String::new(),
        note,
    })
}

fn note(dir: &Path, authority: &Authority, outcome: Outcome) -> String {
    let did = match outcome {
        Outcome::Kept => "kept",
        Outcome::Minted => "minted",
        Outcome::Renewed => "renewed",
    };
    let hosts = match authority.scope().hosts().count() {
        0 => "no host".to_owned(),
        _ if authority.scope().is_any_host() => "every host".to_owned(),
        many => counted(many as u64, "host"),
    };
    format!(
        "{did} {} for {hosts}, valid until {}",
        dir.display(),
        rfc3339(authority.not_after())
    )
}

fn describe(dir: &Path, authority: &Authority) -> Value {
    let addresses: Vec<_> = authority
        .scope()
        .addresses()
        .map(|range| range.to_string())
        .collect();
    json!({
        "schema": "bottle.ca/v1",
        "certificate": dir.join(CERT_FILE),
        "key": dir.join(KEY_FILE),
        "common_name": authority.common_name(),
        "fingerprint": authority.fingerprint(),
        "serial": authority.serial(),
        "not_before": rfc3339(authority.not_before()),
        "not_after": rfc3339(authority.not_after()),
        "hosts": authority.scope().hosts().collect::<Vec<_>>(),
        "addresses": addresses,
    })
}

fn table(dir: &Path, authority: &Authority) -> String {
    let mut names: Vec<_> = authority
        .scope()
        .hosts()
        .map(|host| match host {
            "" => "every host".to_owned(),
            host => format!("{host} and below"),
        })
        .collect();
    names.extend(authority.scope().addresses().map(|range| range.to_string()));
    if names.is_empty() {
        names.push("nothing".to_owned());
    }
    let mut rows = vec![
        ("certificate", dir.join(CERT_FILE).display().to_string()),
        ("name", authority.common_name().to_owned()),
        ("fingerprint", authority.fingerprint()),
        ("serial", authority.serial().to_owned()),
        ("valid from", rfc3339(authority.not_before())),
        ("valid until", rfc3339(authority.not_after())),
    ];
    let labels = std::iter::once("may sign").chain(std::iter::repeat(""));
    rows.extend(labels.zip(names));
    let mut text = String::new();
    for (label, value) in rows {
        let _ = writeln!(text, "{label:<12} {}", printable(&value));
    }
    text
}

fn pretty(document: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(document);
    Ok(text.map_err(|error| Failure::failed("cannot write JSON").because(error))? + "\n")
}
