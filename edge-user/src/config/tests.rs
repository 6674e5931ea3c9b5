use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/edged.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("edged.toml", text, &[])
}

fn parse_with(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    Config::parse("edged.toml", EXAMPLE, &variables)
}

/// The example with the line of one key replaced, and the number of that line.
fn example_with(key: &str, line: &str) -> (String, usize) {
    let mut lines: Vec<_> = EXAMPLE.lines().collect();
    let is_key = |text: &&str| {
        text.split('=')
            .next()
            .is_some_and(|name| name.trim() == key)
    };
    let number = lines
        .iter()
        .position(is_key)
        .unwrap_or_else(|| panic!("no line sets {key}"));
    lines[number] = line;
    (lines.join("\n"), number + 1)
}

#[test]
fn the_example_is_the_defaults() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.service.interfaces, ["eth0"]);
    assert_eq!(config.service.listen.len(), 2);
    assert_eq!(config.origins.len(), 1);
    let least = "service = { interfaces = ['eth0'], listen = ['192.0.2.10:7347', \
                 '[2001:db8::10]:7347'] }\norigin = [{ url = 'file:///srv/sealedge/origin' }]";
    let mut shortest = parse(least).unwrap();
    shortest.source = config.source.clone();
    assert_eq!(format!("{shortest:?}"), format!("{config:?}"));
}

/// The key to replace, the line to write instead, the key and the text that the message must have.
#[rustfmt::skip]
const BAD_VALUES: &[(&str, &str, &str, &str)] = &[
    ("interfaces", "interfaces = []", "service.interfaces", "list the interfaces"),
    ("interfaces", "interfaces = ['a', 'b', 'a']", "service.interfaces[2]", "listed twice"),
    ("interfaces", "interfaces = ['a', '']", "service.interfaces[1]", "ip link"),
    ("interfaces", "interfaces = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i']", "service.interfaces", "use 8 at most"),
    ("interfaces", "interfaces = ['../x']", "service.interfaces[0]", "ip link"),
    ("interfaces", "interfaces = ['sixteen-bytes-xx']", "service.interfaces", "ip link"),
    ("interfaces", "interfaces = 'eth0'", "service.interfaces", "sequence"),
    ("listen", "listen = []", "service.listen", "192.0.2.10:7347"),
    ("listen", "listen = ['192.0.2.10']", "service.listen[0]", "192.0.2.10:7347 or"),
    ("listen", "listen = ['0.0.0.0:7347']", "service.listen[0]", "wildcard"),
    ("listen", "listen = ['[::]:7347']", "service.listen[0]", "wildcard"),
    ("listen", "listen = ['224.0.0.1:7347']", "service.listen[0]", "unicast"),
    ("listen", "listen = ['255.255.255.255:7347']", "service.listen[0]", "unicast"),
    ("listen", "listen = ['[ff02::1]:7347']", "service.listen[0]", "unicast"),
    ("listen", "listen = ['[::ffff:10.0.0.1]:7347']", "service.listen[0]", "as IPv4"),
    ("listen", "listen = ['10.0.0.1:0']", "service.listen[0]", "7347"),
    ("listen", "listen = ['10.0.0.1:1', '10.0.0.2:2']", "service.listen[1]", "same port"),
    ("listen", "listen = ['10.0.0.1:1', '10.0.0.1:1']", "service.listen[1]", "twice"),
    ("vlans", "vlans = ['0']", "xdp.vlans[0]", "1 to 4094"),
    ("vlans", "vlans = ['untagged', '4095']", "xdp.vlans[1]", "1 to 4094"),
    ("vlans", "vlans = ['7.']", "xdp.vlans[0]", "802.1ad"),
    ("vlans", "vlans = ['7.8.9']", "xdp.vlans[0]", "802.1ad"),
    ("vlans", "vlans = ['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17']", "xdp.vlans", "16 at most"),
    ("segment_bytes", "segment_bytes = 1023", "service.segment_bytes", "1024 to 1440"),
    ("segment_bytes", "segment_bytes = 1441", "service.segment_bytes", "1024 to 1440"),
    ("segment_bytes", "segment_bytes = 70000", "service.segment_bytes", "1024 to 1440"),
    ("segment_bytes", "segment_bytes = '1216'", "service.segment_bytes", "invalid type"),
    ("max_burst", "max_burst = 0", "service.max_burst", "1 to 128"),
    ("max_burst", "max_burst = 129", "service.max_burst", "1 to 128"),
    ("max_burst", "max_burst = -1", "service.max_burst", "1 to 128"),
    ("sender", "sender = 'auto'", "service.sender", "not supported in this version; use \"gso\""),
    ("sender", "sender = 'udp'", "service.sender", "use \"gso\""),
    ("mode", "mode = 'skb'", "xdp.mode", "\"native\" or \"generic\" or \"off\""),
    ("bind", "bind = 'zerocopy'", "xdp.bind", "not supported"),
    ("bind", "bind = 'zero'", "xdp.bind", "\"copy\" or \"auto\""),
    ("busy_poll", "busy_poll = 1", "xdp.busy_poll", "boolean"),
    ("secret_file", "secret_file = 'secret'", "cookie.secret_file", "absolute"),
    ("arena", "arena = 'file:/dev/hugepages/x'", "store.arena", "not supported"),
    ("arena", "arena = 'disk'", "store.arena", "use \"memory\""),
    ("size", "size = '1GB'", "store.size", "1GiB"),
    ("size", "size = 1073741824", "store.size", "invalid type"),
    ("size", "size = '15MiB'", "store.size", "16MiB or more"),
    ("hugepages", "hugepages = true", "store.hugepages", "invalid type"),
    ("url", "url = '/srv/origin'", "origin[0].url", "file:///absolute/path"),
    ("url", "url = 'file://srv/origin'", "origin[0].url", "no absolute path"),
    ("url", "url = 's3://bucket'", "origin[0].url", "not supported"),
    ("url", "urls = 'file:///x'", "origin[0].urls", "unknown field"),
    ("socket", "socket = ''", "admin.socket", "absolute"),
    ("socket", "socket = 'admin.sock'", "admin.socket", "absolute"),
    ("metrics", "metrics = '9347'", "admin.metrics", "127.0.0.1:9347"),
    ("filter", "filter = 'edge=loud'", "log.filter", "such as"),
    ("format", "format = 'xml'", "log.format", "\"text\" or \"json\""),
    ("mode", "mdoe = 'native'", "xdp.mdoe", "expected one of `mode`, `bind`, `vlans`, `busy_poll`"),
    ("mode", "mode = native", "not TOML", ""),
    ("bind", "mode = 'off'", "not TOML", "duplicate"),
];

#[test]
fn a_bad_value_is_one_line_with_file_line_key_and_remedy() {
    for (key, instead, named, words) in BAD_VALUES {
        let (text, line) = example_with(key, instead);
        let message = parse(&text).expect_err(instead).to_string();
        let place = format!("edged.toml:{line}: {named}");
        assert!(
            message.starts_with(&place),
            "{instead}: {message} does not begin {place}"
        );
        assert!(
            message.contains(words),
            "{instead}: {message} does not contain {words}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn too_many_addresses_and_too_long_paths_are_refused() {
    let addresses: Vec<_> = (1..=9)
        .map(|last| format!("'10.0.0.{last}:7347'"))
        .collect();
    let (text, _) = example_with("listen", &format!("listen = [{}]", addresses.join(",")));
    assert!(
        parse(&text)
            .unwrap_err()
            .to_string()
            .contains("use 8 at most")
    );
    let (text, _) = example_with("socket", &format!("socket = '/{}'", "x".repeat(107)));
    assert!(
        parse(&text)
            .unwrap_err()
            .to_string()
            .contains("use 107 at most")
    );
}

#[test]
fn a_missing_or_unknown_section_is_named() {
    let missing = parse("").unwrap_err().to_string();
    assert!(
        missing.starts_with("edged.toml: service.interfaces: missing"),
        "{missing}"
    );
    let no_origin = EXAMPLE.split("[[origin]]").next().unwrap();
    let missing = parse(no_origin).unwrap_err().to_string();
    assert!(missing.starts_with("edged.toml: origin: "), "{missing}");
    let nine = format!(
        "{no_origin}{}",
        "[[origin]]\nurl = 'file:///srv/a'\n".repeat(9)
    );
    let many = parse(&nine).unwrap_err().to_string();
    assert!(many.contains("9 origins are too many; use 8"), "{many}");
    let unknown = parse("\n[servcie]\n").unwrap_err().to_string();
    assert!(
        unknown.starts_with("edged.toml:2: servcie: unknown field"),
        "{unknown}"
    );
    let twice = parse("service = 3").unwrap_err().to_string();
    assert!(
        twice.starts_with("edged.toml:1: service: invalid type"),
        "{twice}"
    );
    let unnamed = parse(&format!("{EXAMPLE}\n[[origin]]\n"))
        .unwrap_err()
        .to_string();
    assert!(
        unnamed.contains("origin[1]: missing field `url`"),
        "{unnamed}"
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let config = parse_with(&[
        ("SEALEDGE_XDP__MODE", "off"),
        ("SEALEDGE_XDP__BUSY_POLL", "true"),
        ("SEALEDGE_SERVICE__LISTEN", "10.0.0.1:9, [fe00::1]:9"),
        ("SEALEDGE_SERVICE__MAX_BURST", "7"),
        ("SEALEDGE_ORIGIN__URL", "file:///a,file:///b"),
        ("SEALEDGE_ADMIN__METRICS", ""),
        ("SEALEDGE_LOG__FILTER", "warn,edge_user=debug"),
        ("SEALEDGE_COMMIT", "not ours to read"),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!(config.xdp.mode, XdpMode::Off);
    assert!(config.xdp.busy_poll);
    assert_eq!(config.service.listen.len(), 2);
    assert_eq!(config.service.max_burst, 7);
    assert_eq!(
        config.origins[1].url,
        OriginUrl::Directory(PathBuf::from("/b"))
    );
    assert_eq!(config.admin.metrics, None);
    assert_eq!(config.log.filter, "warn,edge_user=debug");
    assert!(config.ignored_variables().is_empty());
}

#[test]
fn a_bad_variable_is_named_instead_of_a_line() {
    let rows = [
        (
            "SEALEDGE_XDP__MDOE",
            "off",
            "SEALEDGE_XDP__MDOE: [xdp] has no key `mdoe`",
        ),
        ("SEALEDGE_XDP__MODE", "on", "SEALEDGE_XDP__MODE: xdp.mode: "),
        (
            "SEALEDGE_XDP__BUSY_POLL",
            "yes",
            "SEALEDGE_XDP__BUSY_POLL: xdp.busy_poll: ",
        ),
        (
            "SEALEDGE_SERVICE__MAX_BURST",
            "many",
            "SEALEDGE_SERVICE__MAX_BURST: service.max_burst",
        ),
        (
            "SEALEDGE_SERVICE__LISTEN",
            "",
            "SEALEDGE_SERVICE__LISTEN: service.listen: missing",
        ),
        (
            "SEALEDGE_SERVICE__LISTEN",
            "[::]:1",
            "SEALEDGE_SERVICE__LISTEN: service.listen[0]: ",
        ),
        (
            "SEALEDGE_ORIGIN__URL",
            "/x",
            "SEALEDGE_ORIGIN__URL: origin[0].url: ",
        ),
    ];
    for (name, value, expected) in rows {
        let message = parse_with(&[(name, value)]).unwrap_err().to_string();
        assert!(
            message.starts_with(expected),
            "{message} does not begin {expected}"
        );
    }
    let misspelt = parse_with(&[("SEALEDGE_XPD__MODE", "off")]).unwrap();
    assert_eq!(misspelt.ignored_variables(), ["SEALEDGE_XPD__MODE"]);
}

#[test]
fn what_the_file_names_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("origin");
    let secret = folder.path().join("secret");
    let url = format!("file://{}", origin.display());
    let socket = folder.path().join("new/admin.sock").display().to_string();
    let config = |interface: &str, secret: &str, socket: &str| {
        parse_with(&[
            ("SEALEDGE_SERVICE__INTERFACES", interface),
            ("SEALEDGE_ORIGIN__URL", &url),
            ("SEALEDGE_COOKIE__SECRET_FILE", secret),
            ("SEALEDGE_ADMIN__SOCKET", socket),
        ])
        .unwrap()
    };
    let refused = |config: Config| config.check_environment().unwrap_err().to_string();

    assert!(refused(config("nowhere0", "", &socket)).contains("no interface \"nowhere0\""));
    assert!(refused(config("lo", "", &socket)).contains("origin[0].url"));
    fs::create_dir(&origin).unwrap();
    config("lo", "", &socket).check_environment().unwrap();

    let secret_file = secret.to_str().unwrap();
    assert!(refused(config("lo", secret_file, &socket)).contains("cannot be read"));
    fs::write(&secret, [7; 32]).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&secret, Permissions::from_mode(mode)).unwrap();
        let refused = refused(config("lo", secret_file, &socket));
        assert!(refused.contains("chmod 0600"), "{refused}");
    }
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    for bad in [&[7; 31][..], &[0; 64]] {
        fs::write(&secret, bad).unwrap();
        let refused = refused(config("lo", secret_file, &socket));
        assert!(refused.contains("32 to 4096 random bytes"), "{refused}");
    }
    fs::write(&secret, [7; 32]).unwrap();
    config("lo", secret_file, &socket)
        .check_environment()
        .unwrap();
    let read = config("lo", secret_file, &socket).read_secret().unwrap();
    assert_eq!(read.unwrap()[..], [7; 32]);

    let in_a_file = secret.join("admin.sock").display().to_string();
    assert!(refused(config("lo", "", &in_a_file)).contains("admin.socket"));
}

/// Control characters that colour the terminal, move the cursor, end the line or change the
/// direction of text.
const ACTING: &str = "a\u{1b}[31mb\rc\u{7f}\u{9b}2J\u{85}\u{2028}\u{2029}\u{202e}\u{2066}d";

#[test]
fn control_characters_in_errors_are_escaped() {
    let escaped = "a\\u{1b}[31mb\\rc\\u{7f}\\u{9b}2J\\u{85}\\u{2028}\\u{2029}\\u{202e}\\u{2066}d";
    let quoted = "a\\u001b[31mb\\rc\\u007f\\u009b2J\\u0085\\u2028\\u2029\\u202e\\u2066d";
    for text in [
        format!("[xdp]\nmode = \"{quoted}\"\n"),
        format!("[service]\ninterfaces = [\"{quoted}\"]\n"),
        format!("[xdp]\n\"{quoted}\" = 1\n"),
        format!("\"{quoted}\" = 1\n"),
    ] {
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.contains(escaped), "{text}: {message:?}");
    }
    let variable = format!("SEALEDGE_XDP__{ACTING}");
    for (name, value) in [("SEALEDGE_XDP__MODE", ACTING), (variable.as_str(), "off")] {
        let message = parse_with(&[(name, value)]).unwrap_err().to_string();
        assert!(message.contains("\\u{1b}["), "{message:?}");
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(!message.contains(['\u{2028}', '\u{202e}']), "{message:?}");
    }
    let named = Config::parse(&format!("{ACTING}.toml"), "?", &[]).unwrap_err();
    assert!(named.to_string().starts_with(escaped), "{named}");
    let unread = Config::load(Path::new(&format!("/{ACTING}"))).unwrap_err();
    assert!(unread.to_string().contains(escaped), "{unread}");
    let strange = format!("SEALEDGE_{ACTING}__X");
    let config = parse_with(&[
        (&strange, "1"),
        ("SEALEDGE_ORIGIN__URL", "file:///a\u{1b}b"),
    ]);
    let config = config.unwrap();
    assert!(!config.ignored_variables()[0].contains(char::is_control));
    assert!(config.summary().contains("file:///a\\u{1b}b"));
}

#[test]
fn a_missing_file_is_one_line() {
    let error = Config::load(Path::new("/nowhere/edged.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("/nowhere/edged.toml: cannot be read: "),
        "{error}"
    );
    assert!(error.contains("--config"), "{error}");
}
