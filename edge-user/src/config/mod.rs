//! The configuration and its defaults: `edged.toml`, overridden by the environment.
//!
//! Only values that this version supports parse. Values of later versions (other senders, arenas,
//! origins) are refused with a message that states what to use instead.

use std::fs;
use std::path::Path;

use crate::sys::undumped::Undumped;

/// All keys and their defaults.
mod schema;
/// Where each value was set, for error messages.
mod source;
/// Parses single values: words, sizes, paths, addresses.
mod value;
/// Required values, and constraints between values.
mod rules;
/// Checks that this machine has what the file names.
mod host;

pub use self::schema::{
    Admin, Config, Cookie, LISTEN_COUNT_MAX, Log, Origin, SECRET_BYTES, Service, Store, Xdp,
};
pub use self::source::ConfigError;
pub use self::value::{
    Arena, Bind, Hugepages, LogFormat, MAX_BURST, OriginUrl, SEGMENT_BYTES, STORE_SIZE_BYTES_MIN,
    Sender, XdpMode,
};

use self::source::Source;

/// The file that `edged` reads without `--config`.
pub const DEFAULT_PATH: &str = "/etc/sealedge/edged.toml";

impl Config {
    /// Reads the file, applies this process's environment and checks the result.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| {
            let message = format!(
                "cannot be read: {error}; set another file with --config, or start from \
                 edged.example.toml"
            );
            ConfigError::new(&name, &message)
        })?;
        Self::parse(&name, &text, &source::environment()?)
    }

    /// Like `load`, from memory. `name` is the file's name in errors; in `environment`, variables
    /// named `SEALEDGE_SECTION__KEY` apply.
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

    /// Checks that this machine has what the file names.
    pub fn check_environment(&self) -> Result<(), ConfigError> {
        host::check(self)
    }

    /// The shared cookie secret, if one is configured.
    pub fn read_secret(&self) -> Result<Option<Undumped<u8>>, ConfigError> {
        host::read_secret(self)
    }
}

#[cfg(test)]
mod tests;
