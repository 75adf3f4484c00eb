//! Package managers against a registry stand-in with one package of each kind.

use bottle_tests::Internet;

use super::{Fixture, REGISTRY, REGISTRY_TOKEN, assert_paid_with};

/// Makes the packages and the pages that lead to them. Paths without an ending are pages.
pub(crate) fn serve(internet: &Internet) {
    let script = r#"
import base64, hashlib, io, json, os, tarfile, zipfile

root = "/served/files"
os.makedirs(root + "/simple/quince"), os.makedirs(root + "/npm/-")

info = "quince-1.0.dist-info/"
files = {
    "quince.py": "print('hello from quince')\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: quince\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
files[info + "RECORD"] = "".join(f"{name},,\n" for name in [*files, info + "RECORD"])
name = "quince-1.0-py3-none-any.whl"
with zipfile.ZipFile(f"{root}/simple/quince/{name}", "w") as wheel:
    for path, text in files.items():
        wheel.writestr(path, text)
digest = hashlib.sha256(open(f"{root}/simple/quince/{name}", "rb").read()).hexdigest()
open(root + "/simple/quince/index", "w").write(f'<a href="{name}#sha256={digest}">{name}</a>')

package = {"name": "quince", "version": "1.0.0", "main": "index.js"}
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as tar:
    for path, text in {"package.json": json.dumps(package), "index.js": "console.log('hello from quince');\n"}.items():
        entry = tarfile.TarInfo("package/" + path)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
packed = packed.getvalue()
open(root + "/npm/-/quince-1.0.0.tgz", "wb").write(packed)
sha512 = base64.b64encode(hashlib.sha512(packed).digest()).decode()
dist = {"tarball": "https://registry.example.com/npm/-/quince-1.0.0.tgz", "integrity": "sha512-" + sha512}
index = {"name": "quince", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**package, "dist": dist}}}
open(root + "/npm/quince", "w").write(json.dumps(index))
"#;
    let _ = internet.exec(&["python3", "-c", script]).ok();
}

fn installs(f: &Fixture, ending: &str, install: &str, run: &str) {
    for (way, done) in [
        ("proxy", f.sh(&install.replace("WAY", "proxy"))),
        ("direct", f.sh_direct(&install.replace("WAY", "direct"))),
    ] {
        assert_eq!(done.code(), 0, "{way}: {}{}", done.stdout, done.stderr);
        let said = f.sh(&run.replace("WAY", way)).ok();
        assert_eq!(said, "hello from quince\n");
    }
    let arrived = f.arrived_at(REGISTRY, "/");
    let fetched = arrived.iter().filter(|request| {
        let path = request["path"].as_str();
        path.is_some_and(|path| path.ends_with(ending))
    });
    assert_eq!(
        fetched.count(),
        2,
        "each came from the registry: {arrived:?}"
    );
    for request in &arrived {
        assert_paid_with(request, REGISTRY_TOKEN);
    }
}

pub(crate) fn pip_installs(f: &Fixture) {
    installs(
        f,
        ".whl",
        "pip install --quiet --no-cache-dir --break-system-packages --disable-pip-version-check \
         --index-url https://registry.example.com/simple/ --target /tmp/pip-WAY quince",
        "PYTHONPATH=/tmp/pip-WAY python3 -m quince",
    );
}

pub(crate) fn npm_installs(f: &Fixture) {
    installs(
        f,
        ".tgz",
        "mkdir -p /tmp/npm-WAY && cd /tmp/npm-WAY && npm install --silent --no-audit --no-fund --no-update-notifier \
         --cache /tmp/npm-cache-WAY --registry https://registry.example.com/npm/ quince",
        "node /tmp/npm-WAY/node_modules/quince",
    );
}
