use super::*;

fn home(files: &[(&str, &str)]) -> (tempfile::TempDir, Places) {
    let root = tempfile::tempdir().expect("temp dir");
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }
    let places = Places {
        home: root.path().join("home"),
        cwd: root.path().join("repo"),
    };
    (root, places)
}

#[test]
fn an_agent_file_gives_prompt_and_bottle() {
    let (_root, places) = home(&[
        (
            "home/agents/dev.md",
            "---\nbottle: web\nname: dev\nmodel: opus\n---\n\nYou fix bugs.\n",
        ),
        ("home/bottles/web.yaml", "image: debian:trixie-slim\n"),
    ]);
    let manifest = by_name(&places, "dev", &[]).expect("valid");
    assert_eq!(manifest.agent.prompt.as_deref(), Some("You fix bugs."));
    assert_eq!(manifest.bottle.image.as_deref(), Some("debian:trixie-slim"));
    assert_eq!(manifest.sources.len(), 2);
}

#[test]
fn a_repository_may_ship_agents_but_its_bottles_are_only_a_warning() {
    let (_root, places) = home(&[
        ("repo/.bottle/agents/dev.md", "---\nbottle: web\n---\nhi"),
        ("repo/.bottle/bottles/web.yaml", "env: {A: '${SECRET}'}\n"),
        ("home/bottles/web.yaml", "image: mine\n"),
    ]);
    let manifest = by_name(&places, "dev", &[]).expect("valid");
    assert_eq!(manifest.bottle.image.as_deref(), Some("mine"));
    assert!(manifest.bottle.env.is_empty());
    assert!(
        manifest.warnings[0].contains("is not read"),
        "{:?}",
        manifest.warnings
    );
}

#[test]
fn a_repository_agent_cannot_bring_repositories() {
    let (_root, places) = home(&[(
        "repo/.bottle/agents/dev.md",
        "---\nbottle: web\ngit-gate:\n  repos: {}\n---\n",
    )]);
    let failure = by_name(&places, "dev", &[]).expect_err("refused");
    assert!(failure.chain().contains("dev.md:4"), "{}", failure.chain());
}

#[test]
fn errors_name_file_line_and_the_likely_key() {
    let (_root, places) = home(&[(
        "home/bottles/web.yaml",
        "image: x\negress:\n  routes:\n    - hots: a.example.com\n",
    )]);
    let failure = by_name(&places, "web", &[]).expect_err("typo");
    assert!(
        failure.chain().contains("web.yaml:4: egress.routes[0]"),
        "{}",
        failure.chain()
    );
    assert_eq!(failure.hint_text(), Some("did you mean `host`?"));
}

#[test]
fn circles_are_seen_and_drawn() {
    let (_root, places) = home(&[
        ("home/bottles/a.yaml", "extends: b\n"),
        ("home/bottles/b.yaml", "extends: [c]\n"),
        ("home/bottles/c.yaml", "extends: a\n"),
    ]);
    let failure = by_name(&places, "a", &[]).expect_err("a circle");
    assert!(
        failure.chain().contains("a -> b -> c -> a"),
        "{}",
        failure.chain()
    );
}

#[test]
fn routes_know_where_they_were_written() {
    let (_root, places) = home(&[(
        "home/bottles/web.md",
        "---\nimage: x\negress:\n  routes:\n  - host: api.example.com\n---\ndocs",
    )]);
    let manifest = by_name(&places, "web", &[]).expect("valid");
    let route = &manifest.bottle.egress.expect("declared").routes[0];
    assert_eq!(route.written_at.as_deref(), Some("web.md:5"));
}

#[test]
fn names_cannot_leave_the_folder() {
    let (_root, places) = home(&[("home/bottles/web.yaml", "image: x\n")]);
    for bad in ["../web", "/etc/passwd", "", "Web", "-x", "web/..", "w\nb"] {
        let failure = by_name(&places, bad, &[]).expect_err("refused");
        assert_eq!(failure.kind().code(), 2, "{bad}");
    }
    let failure = by_name(&places, "wbe", &[]).expect_err("absent");
    assert_eq!(failure.hint_text(), Some("did you mean `web`?"));
}
