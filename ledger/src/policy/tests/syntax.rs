//! The text of policies: every rule of the format, and every change of a text.

use proptest::prelude::*;

use super::{TWO_LEVELS, log_key, two_levels, witness_key};
use crate::{
    note::{VerifierKey, VerifierKeyError},
    policy::{
        POLICY_LINES_MAX, POLICY_SIZE_BYTES_MAX, ParsePolicyError, Policy, PolicyBuilder, PolicyDefect, PolicyName,
        Threshold,
    },
};

/// Why a text is refused, and on which line.
fn refused(text: &[u8]) -> (usize, PolicyDefect) {
    let ParsePolicyError { line, defect } = Policy::parse(text).unwrap_err();
    (line, defect)
}

fn log_line(name: &str) -> String {
    format!("log {}\n", log_key(name))
}

fn witness_line(name: &str) -> String {
    format!("witness {name} {}\n", witness_key(name))
}

#[test]
fn the_example_of_the_specification_is_read() {
    let policy = two_levels();
    assert_eq!(policy.logs().len(), 1);
    assert_eq!(policy.logs()[0].key, log_key("example.com/log"));
    assert_eq!(policy.logs()[0].url, PolicyName::new("https://log.example.com/"));
    let names: Vec<String> = policy.witnesses().iter().map(|witness| witness.name.to_string()).collect();
    assert_eq!(names, ["X1", "X2", "X3", "Y1", "Y2", "Y3"]);
    assert_eq!(policy.witnesses()[1].key, witness_key("X2"));
    assert_eq!(policy.quorum(), PolicyName::new("X-and-Y").as_ref());
}

#[test]
fn what_is_built_in_code_is_what_is_read() {
    let mut builder = PolicyBuilder::new();
    builder.log(log_key("example.com/log"), Some(b"https://log.example.com/")).unwrap();
    for name in ["X1", "X2", "X3", "Y1", "Y2", "Y3"] {
        let url = (name == "Y1").then_some(b"https://y1.example/".as_slice());
        builder.witness(name.as_bytes(), witness_key(name), url).unwrap();
    }
    builder.group(b"X-witnesses", Threshold::AtLeast(2), &["X1", "X2", "X3"]).unwrap();
    builder.group(b"Y-witnesses", Threshold::Any, &["Y1", "Y2", "Y3"]).unwrap();
    builder.group(b"X-and-Y", Threshold::All, &["X-witnesses", "Y-witnesses"]).unwrap();
    builder.quorum(b"X-and-Y").unwrap();
    let policy = builder.build().unwrap();
    assert_eq!(policy, two_levels());
    assert_eq!(Policy::parse(&policy.to_bytes()).as_ref(), Ok(&policy));
    assert_eq!(policy.to_string().as_bytes(), policy.to_bytes());
    assert!(policy.to_string().contains("\ngroup X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n"));
}

#[test]
fn spaces_tabs_comments_and_the_order_of_lines_do_not_matter() {
    let (log, x1, x2) = (log_line("l"), witness_line("X1"), witness_line("X2"));
    let plain = Policy::parse(format!("{log}{x1}{x2}quorum X1\n").as_bytes()).unwrap();
    let same = [
        format!("{x1}quorum X1\n{x2}{log}"),
        format!("# quorum X2\n\n \t\n{x1}\t #log\n{x2}#\n{log}#\u{e9}\nquorum X1\n"),
        format!("{x1}{x2}{log}quorum X1\n").replace(' ', " \t "),
        format!("{log}{x1}{x2}quorum X1\n").lines().map(|line| format!("\t {line} \t\n")).collect(),
    ];
    for text in same {
        assert_eq!(Policy::parse(text.as_bytes()).as_ref(), Ok(&plain), "{text:?}");
    }
    assert_ne!(Policy::parse(format!("{log}{x1}{x2}quorum X2\n").as_bytes()), Ok(plain));
}

#[test]
fn names_are_octets() {
    // The letter K, the Kelvin sign that some would fold into it, and octets that are no text at all.
    let names: [&[u8]; 5] = [b"K", b"\xe2\x84\xaa", b"\xff\xfe", b"#", b"quorum"];
    let mut text = Vec::new();
    for (name, seed) in names.iter().zip(["a", "b", "c", "d", "e"]) {
        text.extend(
            [b"witness ".as_slice(), name, b" ", witness_key(seed).to_string().as_bytes(), b" \xc3\n"].concat(),
        );
    }
    text.extend([b"group \xfd all ", names.join(&b' ').as_slice(), b"\nquorum \xfd\n"].concat());
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.to_bytes(), text);
    assert_eq!(policy.witnesses()[2].name.as_bytes(), b"\xff\xfe");
    assert_eq!(policy.witnesses()[2].name.to_string(), "\u{fffd}\u{fffd}");
    assert_eq!(policy.witnesses()[0].url.as_ref().unwrap().as_bytes(), b"\xc3");
}

#[test]
fn every_deviation_from_the_format_is_refused_with_its_line() {
    use PolicyDefect as Defect;
    let (log, x1, x2) = (log_line("l"), witness_line("X1"), witness_line("X2"));
    let key = witness_key("X1");
    let threshold = |threshold: &str, members| Defect::Threshold { threshold: threshold.into(), members };
    let unknown = |name: &str| Defect::UnknownName(format!("{name:?}"));
    let control = Defect::ControlCharacter;
    let group = Defect::Form("group NAME all|any|NUMBER MEMBER...");
    let cases = [
        (String::new(), 1, Defect::NoQuorum),
        (format!("{log}{x1}"), 3, Defect::NoQuorum),
        ("# quorum none\n".into(), 2, Defect::NoQuorum),
        ("quorum none".into(), 1, Defect::NoFinalNewline),
        ("quorum none\n#".into(), 2, Defect::NoFinalNewline),
        ("quorum none\nquorum none\n".into(), 2, Defect::DuplicateQuorum),
        (format!("{x1}quorum none\nquorum X1\n"), 3, Defect::DuplicateQuorum),
        ("quorum none\r\n".into(), 1, control(b'\r')),
        ("#\u{7f}\nquorum none\n".into(), 1, control(0x7f)),
        ("\nquorum\x0bnone\n".into(), 2, control(0x0b)),
        ("# \0\nquorum none\n".into(), 1, control(0)),
        ("quorum\n".into(), 1, Defect::Form("quorum NAME")),
        ("quorum none none\n".into(), 1, Defect::Form("quorum NAME")),
        ("quorum none # comment\n".into(), 1, Defect::Form("quorum NAME")),
        ("quorum X1\n".into(), 1, unknown("X1")),
        (format!("quorum X1\n{x1}"), 1, unknown("X1")),
        (format!("{x1}quorum x1\n"), 2, unknown("x1")),
        (format!("{x1}quorum X1.example/w\n"), 2, unknown("X1.example/w")),
        ("Quorum none\n".into(), 1, Defect::UnknownKind("\"Quorum\"".into())),
        ("quorum\u{a0}none\n".into(), 1, Defect::UnknownKind("\"quorum\\u{a0}none\"".into())),
        ("log\n".into(), 1, Defect::Form("log KEY [URL]")),
        (format!("log {key} url more\n"), 1, Defect::Form("log KEY [URL]")),
        ("witness X1\n".into(), 1, Defect::Form("witness NAME KEY [URL]")),
        (format!("witness X1 {key} url more\n"), 1, Defect::Form("witness NAME KEY [URL]")),
        (format!("{x1}\n{x1}"), 3, Defect::DuplicateName("\"X1\"".into())),
        (format!("{x1}witness X2 {key}\n"), 2, Defect::DuplicateKey("X1.example/w".into())),
        (format!("{log}{log}"), 2, Defect::DuplicateKey("l".into())),
        (format!("witness X1 {}\n", log_key("l")), 1, Defect::NotACosigner("l".into())),
        (format!("witness none {key}\n"), 1, Defect::ReservedName),
        (format!("{x1}group none all X1\n"), 2, Defect::ReservedName),
        (format!("{x1}group g all none\n"), 2, Defect::ReservedName),
        (format!("{x1}group g all\n"), 2, group.clone()),
        (format!("{x1}group g\n"), 2, group.clone()),
        ("group\n".into(), 1, group),
        (format!("{x1}group X1 all X1\n"), 2, Defect::DuplicateName("\"X1\"".into())),
        (format!("{x1}group g all g\n"), 2, unknown("g")),
        (format!("{x1}group g all X2\n{x2}"), 2, unknown("X2")),
        (format!("{x1}group g all X1 X1\n"), 2, Defect::DuplicateMember("\"X1\"".into())),
        (format!("{x1}{x2}group g any X1 X2\ngroup h any X1\n"), 4, Defect::DuplicateMember("\"X1\"".into())),
        (format!("{x1}group g all X1\ngroup h any X1 g\n"), 3, Defect::DuplicateMember("\"X1\"".into())),
        (format!("{x1}group g 0 X1\n"), 2, threshold("\"0\"", 1)),
        (format!("{x1}{x2}group g 3 X1 X2\n"), 3, threshold("\"3\"", 2)),
        (format!("{x1}group g 01 X1\n"), 2, threshold("\"01\"", 1)),
        (format!("{x1}group g +1 X1\n"), 2, threshold("\"+1\"", 1)),
        (format!("{x1}group g -1 X1\n"), 2, threshold("\"-1\"", 1)),
        (format!("{x1}group g ALL X1\n"), 2, threshold("\"ALL\"", 1)),
        (format!("{x1}group g 1x X1\n"), 2, threshold("\"1x\"", 1)),
        (format!("{x1}group g {0} X1\n", "9".repeat(30)), 2, threshold(&format!("\"{}\"", "9".repeat(30)), 1)),
    ];
    for (text, line, defect) in cases {
        assert_eq!(refused(text.as_bytes()), (line, defect), "{text:?}");
    }
}

#[test]
fn keys_are_duplicates_whatever_their_names() {
    let other_name = VerifierKey::ed25519("other", *log_key("l").public_key()).unwrap();
    let text = format!("{}log {other_name}\nquorum none\n", log_line("l"));
    assert_eq!(refused(text.as_bytes()), (2, PolicyDefect::DuplicateKey("other".into())));
    // A log may be a witness of others with the same key: each list has its own keys.
    let as_witness = VerifierKey::cosignature_v1("l", *log_key("l").public_key()).unwrap();
    assert!(Policy::parse(format!("{}witness l {as_witness}\nquorum l\n", log_line("l")).as_bytes()).is_ok());
}

#[test]
fn keys_that_are_not_understood_are_refused() {
    // ML-DSA-44 co-signatures, and a damaged key.
    let unknown = "witness X1 name+00000000+BgABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\nquorum X1\n";
    assert_eq!(refused(unknown.as_bytes()), (1, PolicyDefect::Key(VerifierKeyError::UnknownType(0x06))));
    let damaged = log_line("l").replace("log l+", "log m+");
    assert!(matches!(refused(damaged.as_bytes()), (1, PolicyDefect::Key(VerifierKeyError::WrongId { .. }))));
    let malformed = PolicyDefect::Key(VerifierKeyError::Malformed("\"\u{fffd}\"".into()));
    assert_eq!(refused(b"\nlog \xff\n"), (2, malformed));
}

#[test]
fn size_and_number_of_lines_are_bounded() {
    let lines = |count: usize| [b"#\n".repeat(count - 1).as_slice(), b"quorum none\n"].concat();
    assert!(Policy::parse(&lines(POLICY_LINES_MAX)).is_ok());
    assert_eq!(refused(&lines(POLICY_LINES_MAX + 1)), (POLICY_LINES_MAX + 1, PolicyDefect::TooManyLines));
    let comment = |size: usize| [b"quorum none\n#", vec![b'a'; size - 14].as_slice(), b"\n"].concat();
    assert!(Policy::parse(&comment(POLICY_SIZE_BYTES_MAX)).is_ok());
    assert_eq!(refused(&comment(POLICY_SIZE_BYTES_MAX + 1)), (2, PolicyDefect::TooLarge));
}

#[test]
fn a_hundred_members_fit() {
    let mut builder = PolicyBuilder::new();
    let names: Vec<String> = (0..100).map(|member| format!("hospital-{member}.health.example/ledger")).collect();
    for name in &names {
        builder.log(log_key(&format!("log-of-{name}")), Some(format!("https://{name}/").as_bytes())).unwrap();
        builder.witness(name.as_bytes(), witness_key(name), Some(format!("https://{name}/").as_bytes())).unwrap();
    }
    builder.group(b"members", Threshold::AtLeast(67), &names).unwrap().quorum(b"members").unwrap();
    let policy = builder.build().unwrap();
    assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy));
}

#[test]
fn what_a_builder_refuses_changes_nothing() {
    let mut builder = PolicyBuilder::new();
    builder.witness(b"X1", witness_key("X1"), None).unwrap().witness(b"X2", witness_key("X2"), None).unwrap();
    let before = builder.clone();
    assert!(matches!(builder.group(b"g", Threshold::Any, &["X1", "X3"]), Err(PolicyDefect::UnknownName(_))));
    assert!(matches!(builder.group::<&str>(b"g", Threshold::All, &[]), Err(PolicyDefect::Threshold { .. })));
    assert!(matches!(builder.group(b"a b", Threshold::All, &["X1"]), Err(PolicyDefect::Word(_))));
    assert!(matches!(builder.witness(b"", witness_key("X3"), None), Err(PolicyDefect::Word(_))));
    assert!(matches!(builder.witness(b"X3", witness_key("X3"), Some(b"a\tb")), Err(PolicyDefect::Word(_))));
    assert!(matches!(builder.log(log_key("l"), Some(b"")), Err(PolicyDefect::Word(_))));
    assert!(matches!(builder.quorum(b"g"), Err(PolicyDefect::UnknownName(_))));
    assert_eq!(format!("{builder:?}"), format!("{before:?}"));
    assert_eq!(builder.clone().build(), Err(PolicyDefect::NoQuorum));
    assert!(builder.group(b"g", Threshold::Any, &["X1", "X2"]).is_ok());
}

#[test]
fn what_is_built_is_bounded_like_what_is_read() {
    let with_groups = |count: usize, name: &str| {
        let mut builder = PolicyBuilder::new();
        builder.witness(b"0", witness_key("X1"), None).unwrap();
        for group in 0..count {
            let (outer, inner) = (format!("{name}{}", group + 1), format!("{name}{group}"));
            let inner = if group == 0 { "0" } else { &inner };
            builder.group(outer.as_bytes(), Threshold::Any, &[inner]).unwrap();
        }
        builder.quorum(b"0").unwrap();
        builder.build()
    };
    let largest = with_groups(POLICY_LINES_MAX - 2, "g").unwrap();
    assert_eq!(Policy::parse(&largest.to_bytes()), Ok(largest));
    assert_eq!(with_groups(POLICY_LINES_MAX - 1, "g"), Err(PolicyDefect::TooManyLines));
    assert_eq!(with_groups(300, &"g".repeat(500)), Err(PolicyDefect::TooLarge));
}

#[test]
fn every_changed_bit_of_a_text_is_refused_or_changes_the_policy() {
    let original = two_levels();
    let text = original.to_bytes();
    for bit in 0..text.len() * 8 {
        let mut changed = text.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(Policy::parse(&changed).as_ref(), Ok(&original), "unnoticed with bit {bit} changed");
    }
}

#[test]
fn every_shortened_text_is_refused() {
    for length in 0..TWO_LEVELS.len() {
        assert!(Policy::parse(&TWO_LEVELS[..length]).is_err(), "accepted when cut at {length}");
    }
}

proptest! {
    #[test]
    fn whatever_parses_is_read_from_what_it_writes(
        lines in prop::collection::vec(
            prop_oneof![
                "(group|quorum|log|witness|#)( [abX1]{1,2}| all| any| 1| 2| none){0,4}[ \t]{0,2}",
                Just(witness_line("X1").trim_end().to_owned()),
                Just(witness_line("a").trim_end().to_owned()),
                Just("quorum none".to_owned()),
                Just("group b all X1".to_owned()),
            ],
            0..8
        )
    ) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Ok(policy) = Policy::parse(text.as_bytes()) {
            prop_assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy));
        }
    }

    #[test]
    fn arbitrary_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(policy) = Policy::parse(&octets) {
            prop_assert_eq!(Policy::parse(&policy.to_bytes()), Ok(policy));
        }
    }
}
