//! What an operator can set, with its defaults: `edged.toml`, and the environment over it.
//!
//! A value that parsed is a value this version can run with. What comes later (other senders,
//! arenas, origins) has no variant yet and is refused with a sentence that says what to use.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use edge_ebpf::frame::Tags;
use serde::Deserialize;

use crate::sys::undumped::Undumped;
use crate::terminal::one_line;

/// Where each value came from, so that an error can point at it.
mod source;
/// One value at a time: words, sizes, paths, addresses.
mod value;
/// What values must be to each other.
mod rules;
/// What must be there on this machine.
mod host;

pub use self::source::ConfigError;
pub use self::value::{Arena, Bind, Hugepages, LogFormat, OriginUrl, Sender, XdpMode};

use self::source::Source;

/// Where `edged` looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/sealedge/edged.toml";
/// Payload bytes of a full DATA datagram (docs/WIRE.md).
pub const SEGMENT_BYTES: RangeInclusive<u16> = 1024..=1440;
/// Segments one GET is answered with.
pub const MAX_BURST: RangeInclusive<u8> = 1..=128;
/// Below this the arena has too few slots (of about 132 KiB) to be worth serving from.
pub const STORE_SIZE_BYTES_MIN: u64 = 16 << 20;
/// Service addresses; each has a socket of its own.
pub const LISTEN_COUNT_MAX: usize = 8;
/// Length of a cookie secret.
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
    source: Source,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// Exactly one in this version.
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
    /// Empty: those of the interfaces that have the service's addresses.
    #[serde(deserialize_with = "value::vlans")]
    pub vlans: Vec<Tags>,
    /// Workers poll without ever sleeping.
    pub busy_poll: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// `None`: a secret is made at start and kept in memory.
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
    /// As in `RUST_LOG`.
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
    /// Reads the file, lays this process's environment over it and checks the result.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| {
            let message = format!(
                "cannot be read: {error}; name another file with --config, or start from \
                 edged.example.toml"
            );
            ConfigError::new(&name, &message)
        })?;
        Self::parse(&name, &text, &source::environment()?)
    }

    /// The same from values: `name` stands for the file in errors; of `environment`, the variables
    /// `SEALEDGE_SECTION__KEY` count.
    pub fn parse(
        name: &str,
        text: &str,
        environment: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let (table, source) = Source::read(name, text, environment)?;
        let mut config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let key = error.path().to_string();
            source.error(&key, error.into_inner().message())
        })?;
        config.source = source;
        rules::check(&config)?;
        Ok(config)
    }

    /// Checks what the file cannot know: that this machine has what it names.
    pub fn check_environment(&self) -> Result<(), ConfigError> {
        host::check(self)
    }

    /// The shared cookie secret, if a file holds one.
    pub fn read_secret(&self) -> Result<Option<Undumped<u8>>, ConfigError> {
        host::read_secret(self)
    }

    /// An error about one key (`service.listen[0]`), pointing at the line or variable that set it.
    pub fn error(&self, key: &str, message: &str) -> ConfigError {
        self.source.error(key, message)
    }

    /// Variables that look like ours but name no section: probably misspelt.
    pub fn ignored_variables(&self) -> &[String] {
        self.source.ignored_variables()
    }

    /// What `edged --check` says about a good one.
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

#[cfg(test)]
mod tests;
