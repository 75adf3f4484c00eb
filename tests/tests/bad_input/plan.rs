use std::fs;

use bottle_tests::{Call, Home};

use crate::checker::{Bad, Checker, complaints};
use crate::{GOOD, INVALID, NOT_FOUND, REFUSED};

#[test]
fn plan_arguments() {
    let mut checker = Checker::new("bottle-plan");
    let home = Home::new();
    home.bottle("web", GOOD);
    home.agent("homeless", "prompt: hello\n");
    let folder = home.cwd().display().to_string();
    let long = "x".repeat(41);
    checker.check(
        || home.tool("bottle-plan"),
        &[
            (&[], INVALID, "no agent or bottle is named"),
            (&["nobody"], NOT_FOUND, "nobody"),
            (&["wbe"], NOT_FOUND, "web"),
            (&["../web"], INVALID, "../web"),
            (&["Web"], INVALID, "Web"),
            (&["web", "another"], INVALID, "another"),
            (&["web", "--nonsense"], INVALID, "--nonsense"),
            (&["web", "--slug"], INVALID, "--slug"),
            (&["web", "--slug", ""], INVALID, "slug"),
            (&["web", "--slug", "../x"], INVALID, "../x"),
            (&["web", "--slug", "Web"], INVALID, "Web"),
            (&["web", "--slug", "a_b"], INVALID, "a_b"),
            (&["web", "--slug", &long], INVALID, "slug"),
            (&["web", "--subnets", "nonsense"], INVALID, "nonsense"),
            (&["web", "--subnets", "8.8.0.0/16"], INVALID, "8.8.0.0/16"),
            (&["web", "--subnets", "10.0.0.0/30"], INVALID, "10.0.0.0/30"),
            (&["web", "--bottle", "nobody"], NOT_FOUND, "nobody"),
            (&["homeless"], INVALID, "names no bottle"),
            (&["web", "--manifest", "x.yaml"], INVALID, "--manifest"),
            (
                &["--manifest", "/nowhere/x.yaml"],
                NOT_FOUND,
                "/nowhere/x.yaml",
            ),
            (&["web", "--workspace", "/nowhere"], NOT_FOUND, "/nowhere"),
            (&["web", "--workspace", "/"], REFUSED, "workspace"),
            (&["web", "--cwd", "/nowhere"], NOT_FOUND, "/nowhere"),
            (&["web", "--home", &folder], NOT_FOUND, "web"),
            (&["schema", "nonsense"], INVALID, "nonsense"),
        ],
    );
    checker.report();
}

/// Manifests that are wrong in one place each.
const MANIFESTS: &[(&str, i32, &str)] = &[
    ("egres: {}\nimage: x\n", INVALID, "egress"),
    ("image: [\n", INVALID, "bad.yaml"),
    ("- a list\n", INVALID, "bad.yaml"),
    ("image: x\nimage: y\n", INVALID, "image"),
    (
        "schema: bottle.manifest/v9\nimage: x\n",
        INVALID,
        "bottle.manifest/v9",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, push: {review: true}}}}\n",
        INVALID,
        "`push.review` needs a way to ask you",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, push: {hold: 2h}}}}\n",
        INVALID,
        "push.hold is from 1s to 1h",
    ),
    (
        "image: x\ngit-gate: {repos: {a: {url: 'git@h:o/r', host_key: 'ssh-ed25519 AAAA', key: {provider: static, path: /k}, sign: gpg}}}\n",
        INVALID,
        "gpg",
    ),
    ("extends: bad\nimage: x\n", INVALID, "bad -> bad"),
    ("extends: nobody\nimage: x\n", NOT_FOUND, "nobody"),
    ("image: -rm\n", INVALID, "-rm"),
    (
        "image: x\ndockerfile: /nowhere/Dockerfile\n",
        INVALID,
        "image",
    ),
    (
        "dockerfile: /nowhere/Dockerfile\n",
        NOT_FOUND,
        "/nowhere/Dockerfile",
    ),
    ("agent_provider: {template: nobody}\n", NOT_FOUND, "nobody"),
    ("image: x\nenv: {HTTP_PROXY: x}\n", INVALID, "HTTP_PROXY"),
    ("image: x\nenv: {A-B: x}\n", INVALID, "A-B"),
    ("image: x\nenv: {A: '${B-C}'}\n", INVALID, "B-C"),
    ("image: x\nskills: [nobody]\n", NOT_FOUND, "nobody"),
    ("image: x\nskills: [../x]\n", INVALID, "../x"),
    ("image: x\nresources: {memory: 1k}\n", INVALID, "memory"),
    ("image: x\nresources: {memory: lots}\n", INVALID, "lots"),
    ("image: x\nresources: {cpus: 0}\n", INVALID, "cpus"),
    ("image: x\nresources: {pids: 1}\n", INVALID, "pids"),
    ("image: x\nruntime: nonsense\n", INVALID, "nonsense"),
    (
        "image: x\nhardening: {cap_add: [NET_RAW]}\n",
        REFUSED,
        "NET_RAW",
    ),
    (
        "image: x\nhardening: {cap_add: [SYS_ADMIN]}\n",
        REFUSED,
        "SYS_ADMIN",
    ),
    (
        "image: x\nworkspace: {workdir: /etc/x}\n",
        INVALID,
        "/etc/x",
    ),
    ("image: x\nworkspace: {workdir: ../x}\n", INVALID, "../x"),
    (
        "image: x\nworkspace: {from: /nowhere}\n",
        NOT_FOUND,
        "/nowhere",
    ),
    ("image: x\nworkspace: {from: /}\n", REFUSED, "workspace"),
    ("image: x\negress: {log: 9}\n", INVALID, "log"),
    (
        "image: x\negress: {upstream_ca: nobody.pem}\n",
        NOT_FOUND,
        "nobody.pem",
    ),
    (
        "image: x\negress: {routes: [{host: '*.com'}]}\n",
        INVALID,
        "*.com",
    ),
    (
        "image: x\negress: {routes: [{host: '*'}]}\n",
        INVALID,
        "wildcard",
    ),
    (
        "image: x\negress: {routes: [{host: 'a.*.example.com'}]}\n",
        INVALID,
        "wildcard",
    ),
    (
        "image: x\negress: {routes: [{host: 10.0.0.1}]}\n",
        INVALID,
        "address",
    ),
    (
        "image: x\negress: {routes: [{host: '0x7f.1'}]}\n",
        INVALID,
        "address",
    ),
    (
        "image: x\negress: {routes: [{host: 'https://a.example.com'}]}\n",
        INVALID,
        "https://a.example.com",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, ports: [0]}]}\n",
        INVALID,
        "port",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, ports: [99999]}]}\n",
        INVALID,
        "99999",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com}, {host: a.example.com}]}\n",
        INVALID,
        "already has a route",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, private: [nonsense]}]}\n",
        INVALID,
        "nonsense",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, matches: [{methods: [TRACE]}]}]}\n",
        INVALID,
        "TRACE",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, matches: [{paths: [x]}]}]}\n",
        INVALID,
        "x",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, tls: passthrough, matches: [{methods: [GET]}]}]}\n",
        INVALID,
        "passthrough",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, scheme: http, auth: {scheme: Bearer, token_ref: T}}]}\n",
        INVALID,
        "plain http",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Magic, token_ref: T}}]}\n",
        INVALID,
        "Magic",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: header, token_ref: T}}]}\n",
        INVALID,
        "header",
    ),
    (
        "image: x\negress: {routes: [{host: a.example.com, auth: {scheme: Bearer, token_ref: 'sk-secret'}}]}\n",
        INVALID,
        "token_ref",
    ),
    ("image: x\nsupervise: perhaps\n", INVALID, "perhaps"),
];

#[test]
fn plan_manifests() {
    let mut wrong = Vec::new();
    for (yaml, code, says) in MANIFESTS {
        let home = Home::new();
        home.bottle("bad", yaml);
        let found = complaints(
            "bottle-plan",
            || home.tool("bottle-plan"),
            &(&["bad"], *code, says),
        );
        wrong.extend(
            found
                .into_iter()
                .map(|complaint| format!("{yaml:?}: {complaint}")),
        );
        let state = home.path().join("state");
        if fs::read_dir(&state)
            .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()))
        {
            wrong.push(format!("{yaml:?}: something is reserved"));
        }
    }
    Checker {
        tool: "bottle-plan",
        wrong,
    }
    .report();
}

#[test]
fn plan_places() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut checker = Checker::new("bottle-plan");
    let mut check = |home: &Home, call: &dyn Fn() -> Call, bad: Bad<'_>| {
        home.bottle("web", GOOD);
        checker.check(call, &[bad]);
    };
    let home = Home::new();
    home.write("bottles/latin.yaml", b"image: \xe9\n");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["latin"], INVALID, "UTF-8"),
    );

    let home = Home::new();
    home.bottle("huge", &"# nothing\n".repeat(200_000));
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["huge"], INVALID, "bytes long"),
    );

    let home = Home::new();
    fs::create_dir(home.path().join("state")).expect("a folder");
    fs::set_permissions(home.path().join("state"), fs::Permissions::from_mode(0o777))
        .expect("chmod");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["web"], INVALID, "777"),
    );

    let home = Home::new();
    std::os::unix::fs::symlink("/tmp", home.path().join("state")).expect("a link");
    check(
        &home,
        &|| home.tool("bottle-plan"),
        (&["web"], INVALID, "symbolic link"),
    );

    let home = Home::new();
    home.bottle("web", GOOD);
    let nowhere = || Call::new(bottle_tests::tools::tool("bottle-plan")).cwd(home.cwd());
    check(
        &home,
        &nowhere,
        (&["web"], INVALID, "neither HOME nor BOTTLE_HOME"),
    );
    checker.report();
}
