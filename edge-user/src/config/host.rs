//! Checks that this machine has what the file names, before anything is changed, so that a typo
//! does not take a link down.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::schema::{Config, SECRET_BYTES};
use super::source::ConfigError;
use super::value::OriginUrl;
use crate::network::Network;
use crate::sys::undumped::Undumped;

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    for (index, name) in config.service.interfaces.iter().enumerate() {
        check_interface(name)
            .map_err(|message| config.error(&format!("service.interfaces[{index}]"), &message))?;
    }
    for (index, origin) in config.origins.iter().enumerate() {
        let OriginUrl::Directory(path) = &origin.url;
        check_directory(path)
            .map_err(|message| config.error(&format!("origin[{index}].url"), &message))?;
    }
    read_secret(config)?;
    check_socket_parent(&config.admin.socket)
        .map_err(|message| config.error("admin.socket", &message))
}

fn check_interface(name: &str) -> Result<(), String> {
    match Network::open().and_then(|network| network.interface(name)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!(
            "this host has no interface \"{name}\"; see `ip link`"
        )),
        Err(error) => Err(format!(
            "cannot query interfaces: {error}; allow AF_NETLINK sockets"
        )),
    }
}

fn check_directory(path: &Path) -> Result<(), String> {
    // Listing it verifies that it is a readable directory.
    fs::read_dir(path).map(drop).map_err(|error| {
        format!(
            "{} cannot be listed: {error}; create it, or choose another directory",
            path.display()
        )
    })
}

pub(super) fn read_secret(config: &Config) -> Result<Option<Undumped<u8>>, ConfigError> {
    let Some(path) = &config.cookie.secret_file else {
        return Ok(None);
    };
    let refuse = |message: String| config.error("cookie.secret_file", &message);
    let (least, most) = (*SECRET_BYTES.start(), *SECRET_BYTES.end());
    let name = path.display();
    let unreadable = |error| refuse(format!("{name} cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refuse(format!(
            "{name} has mode {mode:04o}, so other users can forge cookies: chmod 0600 it, and \
             create a new secret if they may have read it"
        )));
    }
    let secret = read_undumped(file, most + 1).map_err(unreadable)?;
    if !SECRET_BYTES.contains(&secret.len()) || secret.iter().all(|byte| *byte == 0) {
        return Err(refuse(format!(
            "{name} must contain {least} to {most} random bytes, not all zero; \
             create one with: (umask 077; head -c {least} /dev/urandom > {name})"
        )));
    }
    Ok(Some(secret))
}

/// Reads up to `most_bytes` without a copy elsewhere.
fn read_undumped(mut file: File, most_bytes: usize) -> io::Result<Undumped<u8>> {
    let mut bytes = Undumped::new(most_bytes)?;
    let mut len = 0;
    while len < most_bytes {
        match file.read(&mut bytes[len..])? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// The directory may be missing, as `edged` creates it; those above it must be directories.
fn check_socket_parent(socket: &Path) -> Result<(), String> {
    let existing = socket.ancestors().skip(1).find(|path| path.exists());
    match existing {
        Some(path) if path.is_dir() => Ok(()),
        _ => Err(format!(
            "{} is not in a directory; choose another path",
            socket.display()
        )),
    }
}
