//! A text that may be a configuration. What is accepted is what this version can run with; what is
//! refused is refused in one line that says where.
//!
//! Input: the text of `edged.toml`, in which a line `#$ NAME=VALUE` also sets a variable of the
//! environment; or 255, which no text begins with, and a choice of a value for each key.

use std::collections::BTreeSet;

use edge_user::config::{Config, LISTEN_COUNT_MAX, MAX_BURST, SEGMENT_BYTES, STORE_SIZE_BYTES_MIN};
use edge_user::terminal::one_line;

use crate::input::Input;

const FILE: &str = "edged.toml";

/// Values by key, good ones and those at the edges; none of them leaves the key out.
#[rustfmt::skip] // one key a line
const VALUES: &[(&str, &[&str])] = &[
    ("[service]\ninterfaces", &["['eth0']", "[]", "['a', 'b']", "['a', 'a']", "['../x']", "['sixteen-bytes-xx']", "''"]),
    ("segment_bytes", &["1024", "1440", "1023", "1441", "0", "-1", "66560", "'1216'"]),
    ("max_burst", &["1", "128", "0", "129", "-1", "257", "1.5"]),
    ("sender", &["'gso'", "'xsk'", "'auto'", "''"]),
    ("[xdp]\nmode", &["'native'", "'generic'", "'off'", "'skb'"]),
    ("bind", &["'copy'", "'auto'", "'zerocopy'"]),
    ("busy_poll", &["true", "false", "1"]),
    ("[cookie]\nsecret_file", &["''", "'/s'", "'s'", "7"]),
    ("[store]\nsize", &["'16MiB'", "'15MiB'", "'16777216TiB'", "'1GB'", "'-1GiB'", "1"]),
    ("hugepages", &["'require'", "'prefer'", "'off'", "true"]),
    ("[[origin]]\nurl", &["'file:///a'", "'file://a'", "'s3://a'", "'://'", "''"]),
    ("[admin]\nsocket", &["'/a'", "'a'", "''", "[]"]),
    ("metrics", &["''", "'127.0.0.1:1'", "'1'", "'[::1]:65536'"]),
    ("[log]\nfilter", &["'info'", "''", "'edge=loud'", "'a[b'", "'\u{1f980}=trace'"]),
    ("format", &["'text'", "'json'", "'xml'"]),
];
#[rustfmt::skip] // two lines of values
const ADDRESSES: &[&str] = &["192.0.2.10", "[2001:db8::10]", "0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255", "[ff02::1]", "[::ffff:192.0.2.1]", "a"];
const PORTS: &[&str] = &["7347", "0", "7348", "65535", "65536", ""];

pub(crate) fn run(data: &[u8]) {
    if let Some((0xff, choices)) = data.split_first() {
        parse(&composed(Input::new(choices)));
    } else if let Ok(text) = str::from_utf8(data) {
        // A file that is not UTF-8 is refused when it is read.
        parse(text);
    }
}

/// A text of known keys, one after the other, each with a value that the input chooses.
fn composed(mut input: Input<'_>) -> String {
    let mut pick = |from: &[&'static str]| from[usize::from(input.byte()) % from.len()];
    let mut text = String::new();
    for (key, values) in VALUES {
        text.extend([*key, " = ", pick(values), "\n"]);
        if key.ends_with("interfaces") {
            let count = pick(&["1", "2", "3", "0", "9"]).parse().expect("a number");
            let listen: Vec<_> = (0..count)
                .map(|_| format!("'{}:{}'", pick(ADDRESSES), pick(PORTS)))
                .collect();
            text.extend(["listen = [", &listen.join(", "), "]\n"]);
        }
    }
    text
}

fn parse(text: &str) {
    let variables: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#$ ")?.split_once('='))
        .map(|(name, value)| (String::from(name), String::from(value)))
        .collect();
    match Config::parse(FILE, text, &variables) {
        Ok(config) => accepted(&config),
        Err(error) => refused(&error.to_string(), text, &variables),
    }
}

fn accepted(config: &Config) {
    assert!((1..=8).contains(&config.service.interfaces.len()));
    let listen = &config.service.listen;
    assert!((1..=LISTEN_COUNT_MAX).contains(&listen.len()));
    assert_eq!(listen.iter().collect::<BTreeSet<_>>().len(), listen.len());
    for address in listen {
        assert_eq!(address.port(), listen[0].port());
        assert!(address.port() != 0 && !address.ip().is_unspecified());
        assert!(!address.ip().is_multicast());
    }
    assert!(SEGMENT_BYTES.contains(&config.service.segment_bytes));
    assert!(MAX_BURST.contains(&config.service.max_burst));
    assert!(config.store.size_bytes >= STORE_SIZE_BYTES_MIN);
    assert!(!config.origins.is_empty());
    assert!(config.admin.socket.is_absolute());
    assert!(config.admin.socket.as_os_str().len() <= 107);
    let secret = config.cookie.secret_file.as_ref();
    assert!(secret.is_none_or(|path| path.is_absolute()));
    let summary = config.summary();
    assert!(!summary.is_empty());
}

fn refused(message: &str, text: &str, variables: &[(String, String)]) {
    let acts = |char: char| {
        char.is_control()
            || matches!(char, '\u{2028}'..='\u{202e}' | '\u{200e}'..='\u{200f}' | '\u{2066}'..='\u{2069}')
    };
    assert!(
        !message.is_empty() && !message.contains(acts),
        "{message:?}"
    );
    // What acts on a terminal is written out, in six bytes for one, and may be quoted twice.
    assert!(message.len() < 2000 + 12 * text.len(), "{message:?}");
    if variables
        .iter()
        .any(|(name, _)| message.starts_with(&one_line(name)))
    {
        return;
    }
    let place = message.strip_prefix(FILE).expect("the file is named");
    if let Some(place) = place.strip_prefix(": ") {
        // No line, so nothing that was written is at fault: something is missing.
        let missing = place.split([':', '.', '[']).next().unwrap_or_default();
        let written = text
            .parse::<toml::Table>()
            .expect("TOML, or there would be a line");
        assert!(!written.contains_key(missing), "no line in {message:?}");
        return;
    }
    let (line, rest) = place[1..].split_once(": ").expect("a line and a reason");
    let line: usize = line.parse().expect("the number of a line");
    let lines = text.matches('\n').count() + 1;
    assert!((1..=lines).contains(&line), "line {line} of {lines}");
    assert!(!rest.is_empty());
}
