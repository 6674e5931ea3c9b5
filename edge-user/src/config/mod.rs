//! What an operator can set, with its defaults: `edged.toml`, and the environment over it.
//!
//! A value that parsed is a value this version can run with. What comes later (other senders,
//! arenas, origins) has no variant yet and is refused with a sentence that says what to use.

use std::fs;
use std::path::Path;

use crate::sys::undumped::Undumped;

/// The keys there are, with their defaults.
mod schema;
/// Where each value came from, so that an error can point at it.
mod source;
/// One value at a time: words, sizes, paths, addresses.
mod value;
/// What values must be to each other.
mod rules;
/// What must be there on this machine.
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

/// Where `edged` looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/sealedge/edged.toml";
impl Config {
    /// Reads the file, lays this process's environment over it and checks the result.
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
}

#[cfg(test)]
mod tests;
