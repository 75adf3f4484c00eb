//! An upstream of a test's own: real OpenSSH and git in a container, which writes down who comes.

use std::net::TcpStream;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::Home;
use crate::engine::{docker, sweep, wait_for};
use crate::internet::make_network;
use crate::run::{Call, Done};

/// What it and the agents that use it are made from. sshd names every connection in its log.
const DOCKERFILE: &str = r#"FROM debian:trixie-slim
RUN --mount=type=secret,id=host_ca,mode=0444 \
    set -eu; \
    ca=/run/secrets/host_ca; \
    if [ -s "$ca" ]; then set -- -o "Acquire::https::CAInfo=$ca"; else set --; fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get "$@" update; \
    apt-get "$@" install -y --no-install-recommends ca-certificates git lighttpd lighttpd-mod-openssl openssh-client \
        openssh-server python3; \
    rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --shell /bin/sh git && usermod -p '*' git && mkdir -p /run/sshd /srv/git && chown git /srv/git && \
    rm -f /etc/ssh/ssh_host_* && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && \
    git config --system init.defaultBranch main && git config --system uploadpack.allowFilter true
"#;

/// A web server before git's own `http-backend`: TLS, a user and a token, and a line for each request.
const WEB: &str = r#"server.modules = ("mod_alias", "mod_auth", "mod_authn_file", "mod_accesslog", "mod_setenv", "mod_cgi", "mod_openssl")
server.document-root = "/srv/web"
server.port = 443
server.username = "git"
server.errorlog = "/srv/web/error.log"
accesslog.filename = "/srv/web/access.log"
ssl.engine = "enable"
ssl.pemfile = "/srv/web/server.pem"
auth.backend = "plain"
auth.backend.plain.userfile = "/srv/web/users"
auth.require = ("/git/" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
alias.url = ("/git" => "/usr/lib/git-core/git-http-backend")
setenv.add-environment = ("GIT_PROJECT_ROOT" => "/srv/git", "GIT_HTTP_EXPORT_ALL" => "1")
cgi.assign = ("git-http-backend" => "")
"#;

/// What a deploy key opens: one repository, and pushes to it or not. As a forge does it, with what git asked for.
const DEPLOY_SHELL: &str = r#"#!/bin/sh
case "$2 $SSH_ORIGINAL_COMMAND" in
"push git-receive-pack '$1.git'" | "push git-upload-pack '$1.git'" | "read git-upload-pack '$1.git'") ;;
*) echo "this deploy key may only $2 $1" >&2; exit 1 ;;
esac
exec git-shell -c "$SSH_ORIGINAL_COMMAND"
"#;

/// The container and its network; both are gone when this is.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    label: String,
    /// The key its users hold; a file of the test's.
    pub key: PathBuf,
    /// Its host key, as in known_hosts without the name.
    pub host_key: String,
}

/// The image with git, OpenSSH and Python: for upstreams, and for agents that work with git.
///
/// # Panics
/// When the engine cannot build it.
#[must_use]
pub fn git_image() -> String {
    let digest: String = Sha256::digest(DOCKERFILE)[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("bottle-test-git:{digest}");
    if docker(["image", "inspect", &tag]).status.success() {
        return tag;
    }
    let ca = "/etc/ssl/certs/ca-certificates.crt";
    let mut args = vec![
        "buildx".to_owned(),
        "build".to_owned(),
        "--load".to_owned(),
        format!("--tag={tag}"),
        "--label=bottle.test=1".to_owned(),
    ];
    if std::path::Path::new(ca).is_file() {
        args.push(format!("--secret=id=host_ca,src={ca}"));
    }
    args.push("-".to_owned());
    let _ = Call::new("docker").args(args).stdin(DOCKERFILE).run().ok();
    tag
}

impl Upstream {
    /// Starts one without a repository.
    ///
    /// # Panics
    /// When the engine does not do what it is asked.
    #[must_use]
    pub fn start(home: &Home) -> Self {
        let image = git_image();
        let name = home.slug("upstream");
        let label = format!("bottle.test={name}");
        let (address, _) = make_network(&name, &label);
        let key = home.path().join("upstream-key");
        let made = Call::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .args([key.as_os_str()])
            .run();
        let _ = made.ok();
        let public =
            std::fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it");
        let script = format!(
            "install -d -o git -m 0700 /home/git/.ssh && printf '%s' '{public}' > /home/git/.ssh/authorized_keys && \
             if [ -e /srv/web/server.pem ]; then lighttpd -f /srv/web/lighttpd.conf; fi && \
             exec /usr/sbin/sshd -D -e -o LogLevel=VERBOSE -o PasswordAuthentication=no -o UsePAM=no \
             -o StrictModes=no -o MaxStartups=100 -o AuthorizedKeysFile='.ssh/authorized_keys .ssh/deploy_keys'"
        );
        let args = [
            "run",
            "--detach",
            "--init",
            &format!("--name={name}"),
            &format!("--network={name}"),
            &format!("--ip={address}"),
            &format!("--label={label}"),
            &image,
            "sh",
            "-c",
            &script,
        ]
        .map(str::to_owned);
        let _ = docker(args).ok();
        let mut upstream = Self {
            host_key: String::new(),
            name,
            label,
            key,
        };
        wait_for("the upstream's sshd", || {
            TcpStream::connect((address, 22)).is_ok()
        });
        let host_key = upstream.sh("cat /etc/ssh/ssh_host_ed25519_key.pub").ok();
        host_key.trim().clone_into(&mut upstream.host_key);
        upstream
    }

    /// The address of a repository on it, for the name it joined under.
    #[must_use]
    pub fn url(&self, host: &str, repo: &str) -> String {
        format!("git@{host}:/srv/git/{repo}.git")
    }

    /// Joins a network under these names.
    ///
    /// # Panics
    /// When the network is not there.
    pub fn join(&self, network: &str, hosts: &[&str]) {
        let mut args = vec!["network".to_owned(), "connect".to_owned()];
        args.extend(hosts.iter().map(|host| format!("--alias={host}")));
        args.extend([network.to_owned(), self.name.clone()]);
        let _ = docker(args).ok();
    }

    /// Leaves it again.
    pub fn leave(&self, network: &str) {
        // It may be gone already, and with it the connection.
        let _ = docker(["network", "disconnect", "--force", network, &self.name]);
    }

    /// Runs a script in it as the owner of the repositories.
    pub fn git(&self, script: &str) -> Done {
        docker([
            "exec",
            "--user=git",
            "--workdir=/srv/git",
            &self.name,
            "sh",
            "-euc",
            script,
        ])
    }

    /// The same with something to read, for what must not be an argument.
    pub fn git_reading(&self, input: &str, script: &str) -> Done {
        Call::new("docker")
            .args(["exec", "--interactive", "--user=git", "--workdir=/srv/git"])
            .args([&self.name, "sh", "-euc", script])
            .stdin(input)
            .run()
    }

    /// Runs a script in it as root.
    pub fn sh(&self, script: &str) -> Done {
        docker(["exec", &self.name, "sh", "-euc", script])
    }

    /// Lets in the keys of a [`Forge`](crate::Forge), each to its own repository, which is at `~git/OWNER/NAME.git` too: gives
    /// what the forge calls with sshd's list of them.
    ///
    /// # Panics
    /// When the container does not do what it is asked.
    pub fn admit(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let name = self.name.clone();
        let write = move |file: &str, text: &str| {
            // Whole or not at all: sshd reads it whenever somebody comes.
            let script = format!("cat > {file}.new; chmod 755 {file}.new; mv {file}.new {file}");
            let _ = Call::new("docker")
                .args(["exec", "--interactive", &name, "sh", "-euc", &script])
                .stdin(text)
                .run()
                .ok();
        };
        write("/srv/deploy-shell", DEPLOY_SHELL);
        move |lines| write("/home/git/.ssh/deploy_keys", lines)
    }

    /// Stops it: whoever comes finds nobody.
    ///
    /// # Panics
    /// When the engine does not do it.
    pub fn stop(&self) {
        let _ = docker(["stop", "--time=0", &self.name]).ok();
    }

    /// Starts it again after [`Self::stop`], with the same keys and repositories.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn start_again(&self) {
        let _ = docker(["start", &self.name]).ok();
        wait_for("the upstream's sshd", || {
            self.sh("ssh-keyscan -T 2 127.0.0.1 | grep -q ed25519")
                .status
                .success()
        });
    }

    /// Holds it, or lets it go on: whoever comes in between waits.
    ///
    /// # Panics
    /// When the engine does not do it.
    pub fn pause(&self, stopped: bool) {
        let what = if stopped { "pause" } else { "unpause" };
        let _ = docker([what, &self.name]).ok();
    }

    /// How often somebody came.
    #[must_use]
    pub fn contacts(&self) -> usize {
        let logs = docker(["logs", &self.name]);
        logs.stderr.matches("Connection from").count()
    }

    /// What a ref of a repository points at; nothing when there is none.
    #[must_use]
    pub fn oid(&self, repo: &str, name: &str) -> String {
        let script = format!("git -C {repo}.git rev-parse --quiet --verify {name} || true");
        self.git(&script).ok().trim().to_owned()
    }

    /// Serves the repositories at `https://HOST/git/NAME.git` too, to whoever has the user and token. The authority that
    /// its certificate comes from, PEM.
    ///
    /// # Panics
    /// When the container does not do what it is asked.
    #[must_use]
    pub fn serve_https(&self, host: &str, user: &str, token: &str) -> String {
        let script = format!(
            "umask 077; mkdir -p /srv/web; cd /srv/web; cat > lighttpd.conf; \
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-ca \
                 -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem 2> /dev/null; \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={host} -keyout key.pem -out csr.pem 2> /dev/null; \
             printf 'subjectAltName=DNS:{host}' > names; \
             openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out leaf.pem 2> /dev/null; \
             cat leaf.pem key.pem > server.pem; rm ca.key; chown -R git .; lighttpd -tt -f lighttpd.conf"
        );
        let _ = Call::new("docker")
            .args(["exec", "--interactive", &self.name, "sh", "-euc", &script])
            .stdin(WEB)
            .run()
            .ok();
        let _ = Call::new("docker")
            .args(["exec", "--interactive", "--user=git", &self.name])
            .args(["sh", "-euc", "umask 077; cat > /srv/web/users"])
            .stdin(format!("{user}:{token}\n"))
            .run()
            .ok();
        let start = [
            "exec",
            "--detach",
            &self.name,
            "lighttpd",
            "-D",
            "-f",
            "/srv/web/lighttpd.conf",
        ];
        let _ = docker(start).ok();
        wait_for("the upstream's web server", || {
            self.sh("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 443))'")
                .status
                .success()
        });
        self.sh("cat /srv/web/ca.pem").ok()
    }

    /// How many requests its web server has answered.
    #[must_use]
    pub fn web_requests(&self) -> usize {
        self.sh("cat /srv/web/access.log").ok().lines().count()
    }

    /// Whether a repository has an object.
    #[must_use]
    pub fn has(&self, repo: &str, oid: &str) -> bool {
        self.git(&format!("git -C {repo}.git cat-file -e {oid}"))
            .status
            .success()
    }

    /// A repository with some commits on `main`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn repository(&self, name: &str) {
        let script = format!(
            "git init -q --bare {name}.git; rm -rf /tmp/{name}; git init -q /tmp/{name}; cd /tmp/{name}; \
             git config user.name Upstream; git config user.email up@example.com; \
             mkdir -p .github/workflows src; echo on: push > .github/workflows/ci.yml; \
             for n in 1 2 3; do echo line $n >> src/main.txt; git add .; git commit -qm \"commit $n\"; done; \
             git tag v1; git push -q /srv/git/{name}.git main v1"
        );
        let _ = self.git(&script).ok();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        sweep(&self.label);
    }
}
