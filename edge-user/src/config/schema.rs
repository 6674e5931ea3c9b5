//! All keys and their defaults.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use edge_ebpf::frame::Tags;
use serde::Deserialize;

use super::source::{ConfigError, Source};
use super::value::{self, Arena, Bind, Hugepages, LogFormat, OriginUrl, Sender, XdpMode};
use crate::terminal::one_line;

/// Most service addresses; each has its own socket.
pub const LISTEN_COUNT_MAX: usize = 8;
/// The length of a cookie secret.
pub const SECRET_BYTES: RangeInclusive<usize> = 32..=4096;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub service: Service,
    pub xdp: Xdp,
    pub cookie: Cookie,
    pub store: Store,
    #[serde(rename = "origin")]
    pub origins: Vec<Origin>,
    pub admin: Admin,
    pub log: Log,
    #[serde(skip)]
    pub(super) source: Source,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// Not empty, without duplicates.
    pub interfaces: Vec<String>,
    /// Not empty, all on one port, no wildcard.
    #[serde(deserialize_with = "value::listen")]
    pub listen: Vec<SocketAddr>,
    #[serde(deserialize_with = "value::segment_bytes")]
    pub segment_bytes: u16,
    #[serde(deserialize_with = "value::max_burst")]
    pub max_burst: u8,
    pub sender: Sender,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xdp {
    pub mode: XdpMode,
    pub bind: Bind,
    /// Empty: those of the interfaces that have the service addresses.
    #[serde(deserialize_with = "value::vlans")]
    pub vlans: Vec<Tags>,
    /// Whether workers poll without sleeping.
    pub busy_poll: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// `None`: a secret is generated at startup and kept in memory.
    #[serde(deserialize_with = "value::optional_path")]
    pub secret_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub arena: Arena,
    #[serde(rename = "size", deserialize_with = "value::store_size")]
    pub size_bytes: u64,
    pub hugepages: Hugepages,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    pub url: OriginUrl,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    #[serde(deserialize_with = "value::socket_path")]
    pub socket: PathBuf,
    /// `None`: no metrics and health listener.
    #[serde(deserialize_with = "value::optional_address")]
    pub metrics: Option<SocketAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// In the syntax of `RUST_LOG`.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            listen: Vec::new(),
            segment_bytes: 1216,
            max_burst: 53,
            sender: Sender::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            arena: Arena::default(),
            size_bytes: 1 << 30,
            hugepages: Hugepages::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/sealedge/admin.sock"),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9347))),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: String::from("info"),
            format: LogFormat::default(),
        }
    }
}

impl Config {
    /// An error about a key, such as `service.listen[0]`, with the line or variable that set it.
    pub fn error(&self, key: &str, message: &str) -> ConfigError {
        self.source.error(key, message)
    }

    /// Variables with our prefix that name no section, probably misspelt.
    pub fn ignored_variables(&self) -> &[String] {
        self.source.ignored_variables()
    }

    /// What `edged --check` prints for a valid configuration.
    pub fn summary(&self) -> String {
        let listen: Vec<_> = self
            .service
            .listen
            .iter()
            .map(ToString::to_string)
            .collect();
        let origins: Vec<_> = self
            .origins
            .iter()
            .map(|origin| origin.url.to_string())
            .collect();
        one_line(&format!(
            "{} on {}, xdp {}, bind {}, sender {}, store {} MiB {}, hugepages {}, origin {}",
            listen.join(" "),
            self.service.interfaces.join(" "),
            self.xdp.mode,
            self.xdp.bind,
            self.service.sender,
            self.store.size_bytes >> 20,
            self.store.arena,
            self.store.hugepages,
            origins.join(" "),
        ))
    }
}
