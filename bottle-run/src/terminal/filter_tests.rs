use super::*;

fn passed(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    Filter::default().pass(bytes, &mut out);
    // In pieces it must come to the same, wherever the stream is cut.
    for cut in 0..bytes.len() {
        let (mut filter, mut pieces) = (Filter::default(), Vec::new());
        filter.pass(&bytes[..cut], &mut pieces);
        filter.pass(&bytes[cut..], &mut pieces);
        assert_eq!(pieces, out, "cut at {cut}");
    }
    String::from_utf8(out).expect("only UTF-8 comes out")
}

#[test]
fn what_draws_passes_unchanged() {
    for text in [
        "plain\ttext\r\n\x07\x08",
        "żółw 龍 🐢",
        "\x1b[2J\x1b[H\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[4:3m",
        "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?1000;1006h\x1b[?2026h",
        "\x1b[>1u\x1b[<u\x1b[?u\x1b[>4;2m\x1b[c\x1b[>c\x1b[6n\x1b[>q\x1b[?2026$p",
        "\x1b[18t\x1b[22;0t\x1b[23;0t\x1b[2 q\x1b[!p\x1b(0lqk\x1b(B\x1b7\x1b8\x1bM\x1b#8",
        "\x1b]0;a title\x07\x1b]2;żółw\x1b\\\x1b]11;?\x07\x1b]4;1;rgb:ff/00/00\x07\x1b]104\x07",
        "\x1b]8;id=1;https://example.com/a?b\x1b\\link\x1b]8;;\x1b\\",
        "\x1b]9;done\x07\x1b]9;4;1;50\x07\x1b]133;A\x07",
    ] {
        assert_eq!(passed(text.as_bytes()), text);
    }
}

#[test]
fn what_reaches_beyond_the_window_is_left_out() {
    for hostile in [
        "\x1b]52;c;ZXZpbA==\x07", // the clipboard
        "\x1b]52;c;?\x1b\\",      // reading it
        "\x1b[21t",               // the title, typed
        "\x1b[20t",
        "\x1b[3;0;0t", // moving the window
        "\x1b[2;1*y",  // what is on the screen
        "\x1b[1;1;1;1;1;1*y",
        "\x1b[5i", // the printer
        "\x1b[?5i",
        "\x1b[2h",    // the keyboard locked
        "\x1b[61\"p", // 8-bit controls
        "\x1b%@",     // the end of UTF-8
        "\x1b G",
        "\x1bP$q\"p\x1b\\", // settings, typed
        "\x1bP+q544e\x1b\\",
        "\x1bPtmux;\x1b\x1b]52;c;ZXZpbA==\x07\x1b\\",
        "\x1b_Gt=f,f=24;L2V0Yy9wYXNzd2Q=\x1b\\", // a file of the host as a picture
        "\x1b^privacy\x1b\\",
        "\x1bXstring\x1b\\",
        "\x1b]1337;File=name=eA==:AAAA\x07",
        "\x1b]7;file://host/etc\x07",
        "\x1b]50;font\x07",
        "\x1b]9;7;\"cmd.exe\"\x07", // ConEmu starts it
        "\x1b]777;notify;a;b\x07",
        "\x1b]8;;file:///etc/passwd\x07",
        "\x05", // the answerback
        "\x1b[0;1\x1b[",
        "\0\x7f",
    ] {
        let shown = passed(hostile.as_bytes());
        assert!(
            !shown.contains('\x1b') && !shown.contains('\x05'),
            "{hostile:?} → {shown:?}"
        );
        assert!(shown.len() <= "ZXZpbA==".len(), "{hostile:?} → {shown:?}");
    }
}

#[test]
fn eight_bit_controls_are_no_way_around() {
    assert_eq!(passed(b"\x9b21t"), "\u{fffd}21t");
    assert_eq!(
        passed("\u{9b}21t\u{9d}52;c;eA==\u{9c}".as_bytes()),
        "21t52;c;eA=="
    );
    // An overlong ESC, a surrogate, and a character cut off by a real ESC.
    assert!(!passed(b"\xc0\x9b[21t\xed\xa0\x80\xe2\x82\x1b]52;c;eA==\x07").contains('\x1b'));
}

#[test]
fn a_sequence_inside_another_is_not_smuggled_through() {
    assert_eq!(passed(b"\x1b]0;a\x1b]52;c;eA==\x07b"), "b");
    assert_eq!(passed(b"\x1bPq\x1b[21tx"), "x");
    assert_eq!(passed(b"\x1b[1\x1b]52;c;eA==\x07x"), "x");
    let long = [
        b"\x1b]0;".as_slice(),
        &[b'x'; LONGEST_OSC + 10],
        b"\x1b\\end",
    ]
    .concat();
    assert_eq!(passed_once(&long), "end");
    let long = [b"\x1b[".as_slice(), &[b'1'; LONGEST_CSI + 10], b"mend"].concat();
    assert_eq!(passed_once(&long), "end");
}

fn passed_once(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    Filter::default().pass(bytes, &mut out);
    String::from_utf8(out).expect("only UTF-8 comes out")
}

#[test]
fn a_title_is_short_and_plain() {
    let title = "x".repeat(LONGEST_TITLE + 50);
    let shown = passed_once(format!("\x1b]0;{title}\u{9b}\x07").as_bytes());
    assert_eq!(shown, format!("\x1b]0;{}\x07", "x".repeat(LONGEST_TITLE)));
}

#[test]
fn the_terminal_is_brought_back_from_where_it_was_taken() {
    let mut filter = Filter::default();
    let screen = b"\x1b[?1049h\x1b[?1000;1006h\x1b[?25l\x1b[?2004h\x1b[?2004l\x1b[>1u\x1b[>4;2m\x1b=\x1b[2;5r";
    filter.pass(screen, &mut Vec::new());
    let undo = String::from_utf8(filter.restore()).expect("text");
    for sequence in [
        "[?1049l", "[?1000l", "[?1006l", "[?25h", "[<1u", "[>4;0m", "[r", "[0m",
    ] {
        assert!(undo.contains(sequence), "{sequence} in {undo:?}");
    }
    assert!(!undo.contains("2004"), "{undo:?}");
    // A command that cleaned up after itself leaves nothing to undo but colours.
    let mut clean = Filter::default();
    clean.pass(b"\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l", &mut Vec::new());
    assert_eq!(clean.restore(), b"\x0f\x1b(B\x1b[0m");
}

#[test]
fn whatever_comes_only_known_sequences_leave() {
    // A cheap generator: bytes that matter to the parser, in any order.
    let alphabet = b"\x1b\x1b\x1b[]P_;?>0123459 $*\"hltyiumpq\\\x07\x9b\xc2\x9d\xe2\x82\x05abc";
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..24 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.push(alphabet[(seed % alphabet.len() as u64) as usize]);
        }
        let shown = passed_once(&bytes);
        // What has passed once is only made of what passes.
        assert_eq!(passed_once(shown.as_bytes()), shown, "{bytes:?}");
        assert!(
            !shown.contains("\x1bP") && !shown.contains("\x1b_"),
            "{bytes:?}"
        );
    }
}
