use super::*;

/// Random characters, always the same ones.
fn random(alphabet: &str, length: usize) -> String {
    let letters = alphabet.as_bytes();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(letters[(state % letters.len() as u64) as usize])
        })
        .collect()
}

const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HEX: &str = "0123456789abcdef";

/// A token of every kind, none of which was ever valid. Put together here, so that no scanner of repositories
/// finds one.
pub(in crate::dlp) fn examples() -> Vec<(Kind, String)> {
    let join = |parts: &[&str]| parts.concat();
    let sixty_two = |length| random(BASE62, length);
    let jwt = join(&[
        "eyJhbGciOiJIUzI1NiJ9.eyJ",
        &sixty_two(30),
        ".",
        &sixty_two(43),
    ]);
    let pem = join(&[
        "-----BEGIN RSA ",
        "PRIVATE KEY-----\\n",
        &sixty_two(64),
        "\\n",
        &sixty_two(64),
    ]);
    vec![
        (Kind::Aws, join(&["AKIA", &random(BASE32, 16)])),
        (
            Kind::Github,
            join(&["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"]),
        ),
        (
            Kind::Github,
            join(&["github_pat_", &sixty_two(22), "_", &sixty_two(59)]),
        ),
        (Kind::Gitlab, join(&["glpat-", &sixty_two(20)])),
        (
            Kind::Anthropic,
            join(&["sk-ant-", "api03-", &sixty_two(93), "AA"]),
        ),
        (
            Kind::OpenAi,
            join(&["sk-", &sixty_two(20), "T3Blbk", "FJ", &sixty_two(20)]),
        ),
        (
            Kind::OpenAi,
            join(&["sk-proj-", &sixty_two(60), "T3Blbk", "FJ", &sixty_two(60)]),
        ),
        (Kind::Stripe, join(&["sk_live_", &sixty_two(24)])),
        (
            Kind::Slack,
            join(&["xoxb-", "123456789012-", &sixty_two(24)]),
        ),
        (Kind::Google, join(&["AIza", &sixty_two(35)])),
        (Kind::Google, join(&["GOCSPX-", &sixty_two(28)])),
        (Kind::Package, join(&["pypi-AgE", &sixty_two(120)])),
        (Kind::HuggingFace, join(&["hf_", &sixty_two(34)])),
        (Kind::DigitalOcean, join(&["dop_v1_", &random(HEX, 64)])),
        (
            Kind::SendGrid,
            join(&["SG.", &sixty_two(22), ".", &sixty_two(43)]),
        ),
        (Kind::Jwt, jwt),
        (Kind::PrivateKey, pem),
    ]
}

/// A token of GitHub's with its checksum, as one that was just made.
pub(in crate::dlp) fn github(prefix: &str) -> String {
    [prefix, "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat()
}

fn look(text: &str) -> Option<(Kind, usize)> {
    let longest = ALL
        .iter()
        .filter(|pattern| text.starts_with(pattern.prefix))
        .max_by_key(|pattern| pattern.prefix.len())?;
    match longest.look(b"", text.as_bytes(), true) {
        Verdict::Token(length) => Some((longest.kind, length)),
        _ => None,
    }
}

#[test]
fn every_kind_is_recognised() {
    for (kind, token) in examples() {
        assert_eq!(look(&token), Some((kind, token.len())), "{token}");
        // And nothing of it is taken for more than it is.
        let followed = format!("{token}\" and more");
        let (found, length) = look(&followed).unwrap();
        assert_eq!(found, kind);
        assert_eq!(length, token.len(), "{token}");
    }
}

#[test]
fn what_only_looks_like_one_is_let_be() {
    let no = [
        // A wrong checksum, an example in a manual, a word, too short, too long.
        "ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18".to_owned(),
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".into(),
        "glpat-xxxxxxxxxxxxxxxxxxxx".into(),
        "sk-learn-is-a-library-for-machine-learning-in-a-snake-language".into(),
        "sk-ant-api03-...".into(),
        "sk-ant-your-key-here".into(),
        "AKIAIOSFODNN7".into(),
        format!("AKIA{}", random(BASE32, 17)),
        "AKIAXXXXXXXXXXXXXXXX".into(),
        "eyJ0aGlzIjoiaXMganVzdCBKU09OIGluIGJhc2U2NCBhbmQgbm8gdG9rZW4ifQ".into(),
        "xoxb-not-a-token".into(),
        "-----BEGIN CERTIFICATE-----\nMIIB".into(),
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----".into(),
        format!("-----BEGIN PUBLIC KEY-----\n{}", random(BASE62, 200)),
        "SG.is.short".into(),
        format!("dop_v1_{}", "0".repeat(64)),
    ];
    for text in no {
        assert_eq!(look(&text), None, "{text}");
    }
}

#[test]
fn short_prefixes_stand_at_the_beginning_of_a_word() {
    let (_, token) = examples().remove(0);
    let aws = &ALL[0];
    for (before, expected) in [
        (&b""[..], true),
        (b" \"", true),
        (b"x\\n", true),
        (b"=%3D", true),
        (b"abn", false),
        (b"3D", false),
    ] {
        let found = aws.look(before, token.as_bytes(), true) != Verdict::No;
        assert_eq!(found, expected, "{}", before.escape_ascii());
    }
}

#[test]
fn what_may_go_on_is_unfinished() {
    for (_, token) in examples() {
        let pattern = ALL
            .iter()
            .filter(|pattern| token.starts_with(pattern.prefix))
            .max_by_key(|pattern| pattern.prefix.len())
            .unwrap();
        for length in pattern.prefix.len()..=token.len() {
            let verdict = pattern.look(b"", &token.as_bytes()[..length], false);
            assert_eq!(verdict, Verdict::Unfinished, "{}", &token[..length]);
        }
    }
}
