//! Parses single values. Each error states what is valid.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use edge_ebpf::frame::Tags;
use edge_ebpf::maps::TAGS_MAX;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Payload of a full DATA datagram (docs/WIRE.md).
pub const SEGMENT_BYTES: RangeInclusive<u16> = 1024..=1440;
/// Most segments sent for one GET.
pub const MAX_BURST: RangeInclusive<u8> = 1..=128;
/// Below this the arena has too few slots (of about 132 KiB) to be useful.
pub const STORE_SIZE_BYTES_MIN: u64 = 16 << 20;
/// The longest path of a unix socket (`sun_path`, without its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An enum whose variants are words in the file, the first being the default. Words of later
/// versions are refused with a message of their own.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+ $name:ident { $first:ident = $first_word:literal $(, $variant:ident = $word:literal)* }
        $(later { $($later:literal => $sentence:literal),+ })?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name {
            #[default]
            $first,
            $($variant,)*
        }

        impl $name {
            /// The word in the file.
            pub const fn label(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                match text.as_str() {
                    $first_word => Ok(Self::$first),
                    $($word => Ok(Self::$variant),)*
                    $($($later => Err(format!("\"{}\" {}", $later, $sentence)),)+)?
                    _ => Err(unknown_word(&text, &[$first_word $(, $word)*])),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.label())
            }
        }
    };
}

words! {
    /// How the XDP program is attached, without a fallback.
    XdpMode { Native = "native", Generic = "generic", Off = "off" }
}
words! {
    /// How the `AF_XDP` sockets are bound; `auto` uses the best mode available.
    Bind { Copy = "copy", Auto = "auto" }
    later { "zerocopy" => "is not supported in this version; use \"copy\" or \"auto\"" }
}
words! {
    /// How workers send DATA.
    Sender { Gso = "gso", Xsk = "xsk" }
    later { "auto" => "is not supported in this version; use \"gso\" or \"xsk\"" }
}
words! {
    /// Whether the arena must lie in hugepages.
    Hugepages { Require = "require", Prefer = "prefer", Off = "off" }
}
words! {
    /// One line of text or one JSON object for each event.
    LogFormat { Text = "text", Json = "json" }
}

fn unknown_word(text: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("\"{text}\" is unknown; use {}", words.join(" or "))
}

/// Where the arena is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Arena {
    /// Anonymous memory, lost when the process ends.
    #[default]
    Memory,
}

impl TryFrom<String> for Arena {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("file:") {
            return Err(format!(
                "\"{text}\" is not supported in this version; use \"memory\""
            ));
        }
        if text == "memory" {
            Ok(Self::Memory)
        } else {
            Err(unknown_word(&text, &["memory"]))
        }
    }
}

impl fmt::Display for Arena {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => formatter.write_str("memory"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OriginUrl {
    /// `file://` and an absolute path, without percent-decoding: `%20` is not a space.
    Directory(PathBuf),
}

impl TryFrom<String> for OriginUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!(
                "\"{text}\" is not a URL; use file:///absolute/path"
            ));
        };
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Directory(PathBuf::from(rest))),
            "file" => Err(format!(
                "\"{text}\" has no absolute path; use file:///absolute/path"
            )),
            _ => Err(format!(
                "\"{scheme}://\" is not supported in this version; use file:///absolute/path"
            )),
        }
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(formatter, "file://{}", path.display()),
        }
    }
}

pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    Ok(Vec::deserialize(from)?
        .into_iter()
        .map(|ListenAddress(address)| address)
        .collect())
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ListenAddress(SocketAddr);

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse().map_err(|error: AddrParseError| {
            format!("\"{text}\": {error}; use 192.0.2.10:7347 or [2001:db8::10]:7347")
        });
        address.map(Self)
    }
}

/// VLANs, at most as many as the program has room for.
pub(super) fn vlans<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Tags>, D::Error> {
    let vlans: Vec<Vlan> = Vec::deserialize(from)?;
    if vlans.len() > TAGS_MAX {
        let count = vlans.len();
        return Err(Error::custom(format!(
            "{count} VLANs are too many; use {TAGS_MAX} at most"
        )));
    }
    Ok(vlans.into_iter().map(|Vlan(tags)| tags).collect())
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Vlan(Tags);

impl TryFrom<String> for Vlan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a VLAN; use \"untagged\", an id from 1 to 4094 such as \"100\", or \
                 \"7.100\" for 802.1Q id 100 inside 802.1ad id 7"
            )
        };
        if text == "untagged" {
            return Ok(Self(Tags::UNTAGGED));
        }
        let id = |text: &str| text.parse().ok().filter(|id| (1..=4094).contains(id));
        let (service, customer) = match text.split_once('.') {
            Some((service, customer)) => (Some(id(service).ok_or_else(wrong)?), customer),
            None => (None, text.as_str()),
        };
        let outer = service.map_or(Tags::UNTAGGED, |id| Tags::UNTAGGED.around(true, id));
        let customer = id(customer).ok_or_else(wrong)?;
        Ok(Self(outer.around(false, customer)))
    }
}

pub(super) fn segment_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    within(from, SEGMENT_BYTES)
}

pub(super) fn max_burst<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    within(from, MAX_BURST)
}

fn within<'de, D, T>(from: D, range: RangeInclusive<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64> + PartialOrd + fmt::Display,
{
    let number = i64::deserialize(from)?;
    T::try_from(number)
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Error::custom(format!("{number} is out of range; use {least} to {most}"))
        })
}

pub(super) fn store_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let size_bytes = parse_size(&text).map_err(Error::custom)?;
    if size_bytes < STORE_SIZE_BYTES_MIN {
        let least = STORE_SIZE_BYTES_MIN >> 20;
        return Err(Error::custom(format!(
            "\"{text}\" is too small; use {least}MiB or more"
        )));
    }
    Ok(size_bytes)
}

/// Strict on purpose: `1GB`, `1G` and `1.5GiB` are ambiguous.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let wrong =
        || format!("\"{text}\" is not a size; use a whole number with a unit, such as 1GiB");
    let (number, shift) = UNITS
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number, shift)))
        .ok_or_else(wrong)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(1 << shift))
        .ok_or_else(wrong)
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    absolute(path).map(Some).map_err(Error::custom)
}

pub(super) fn socket_path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)
        .map(absolute)?
        .map_err(Error::custom)?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Err(Error::custom(format!(
            "{length} bytes are too long for a socket path; use {SOCKET_PATH_BYTES_MAX} at most"
        )));
    }
    Ok(path)
}

fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!(
            "\"{}\" is not an absolute path; start it with /",
            path.display()
        ))
    }
}

pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: AddrParseError| {
        Error::custom(format!(
            "\"{text}\": {error}; use 127.0.0.1:9347, or \"\" to disable"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_binary_unit() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        assert_eq!(parse_size("3TiB"), Ok(3 << 40));
        for wrong in [
            "", "1", "GiB", "1GB", "1G", "1.5GiB", "-1GiB", "+1GiB", "1 GiB", "1gib",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert!(parse_size("16777216TiB").is_err(), "2^64 bytes do not fit");
    }

    #[test]
    fn an_origin_path_is_taken_as_written() {
        let url = OriginUrl::try_from(String::from("file:///a b/%20")).unwrap();
        assert_eq!(url, OriginUrl::Directory(PathBuf::from("/a b/%20")));
        assert_eq!(url.to_string(), "file:///a b/%20");
    }

    #[test]
    fn the_first_word_is_the_default() {
        assert_eq!(XdpMode::default().label(), "native");
        assert_eq!(Bind::default().label(), "copy");
        assert_eq!(Sender::default().label(), "gso");
        assert_eq!(Hugepages::default().label(), "require");
        assert_eq!(LogFormat::default().label(), "text");
    }
}
