//! Sealed files, and how they are fetched.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use edge_ebpf::wire::ChunkId;
use edge_testbed::client::chunk_id;
use edge_testbed::objects::files;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest, Sha256};

use crate::testbed::{Side, Testbed, program};
use crate::wait;

/// A file of this size is fetched within this time, or something is wrong.
const FETCH_TIME_MAX: Duration = Duration::from_mins(1);
const BLOCK_BYTES: usize = 1 << 20;

pub(crate) struct Object {
    name: String,
    ticket: PathBuf,
    sha256: [u8; 32],
    /// Files of this object at the origin.
    pub(crate) chunks: Vec<PathBuf>,
}

impl Object {
    /// Makes a file of noise and seals it to the testbed's origin; the file itself is gone then.
    pub(crate) fn seal(testbed: &Testbed, name: &str, size_bytes: usize) -> Self {
        let file = testbed.folder().join(name);
        let sha256 = noise(&file, name, size_bytes);
        let ticket = testbed.folder().join(format!("{name}.ticket"));
        let origin = testbed.folder().join("origin");
        fs::create_dir_all(&origin).unwrap();
        let before = chunk_files(&origin);
        let mut command = Command::new(program("edge"));
        command.arg("seal").arg(&file).arg("--origin").arg(&origin);
        command.arg("--ticket-out").arg(&ticket).arg("--json");
        let output = wait::ended(command, FETCH_TIME_MAX);
        assert!(output.status.success(), "{}", wait::said(&output));
        fs::remove_file(file).unwrap();
        let mut chunks = chunk_files(&origin);
        chunks.retain(|path| !before.contains(path));
        Self {
            name: name.to_owned(),
            ticket,
            sha256,
            chunks,
        }
    }

    /// `edge get` on the reader's side; `copy` tells several at a time apart.
    pub(crate) fn get(&self, testbed: &Testbed, edge: SocketAddr, copy: u32) -> Command {
        self.get_by(&testbed.reader, testbed, edge, copy)
    }

    /// The same by a reader elsewhere.
    fn get_by(&self, reader: &Side, testbed: &Testbed, edge: SocketAddr, copy: u32) -> Command {
        let mut ticket = std::ffi::OsString::from("@");
        ticket.push(&self.ticket);
        let mut command = reader.inside(program("edge"));
        command
            .arg("get")
            .arg(ticket)
            .args(["--json", "--edge", &edge.to_string()]);
        command.arg("-o").arg(self.out(testbed, copy));
        command
    }

    fn out(&self, testbed: &Testbed, copy: u32) -> PathBuf {
        testbed.folder().join(format!("{}.{copy}.out", self.name))
    }

    /// Fetches the object and compares it with the file that was sealed.
    pub(crate) fn fetch(&self, testbed: &Testbed, edge: SocketAddr) {
        let output = wait::ended(self.get(testbed, edge, 0), FETCH_TIME_MAX);
        self.check(testbed, 0, &output);
    }

    /// The same by a reader elsewhere.
    pub(crate) fn fetch_by(&self, reader: &Side, testbed: &Testbed, edge: SocketAddr) {
        let output = wait::ended(self.get_by(reader, testbed, edge, 0), FETCH_TIME_MAX);
        self.check(testbed, 0, &output);
    }

    /// The same, and what `edge get` reports of it.
    pub(crate) fn fetch_reported(&self, testbed: &Testbed, edge: SocketAddr) -> serde_json::Value {
        let output = wait::ended(self.get(testbed, edge, 0), FETCH_TIME_MAX);
        self.check(testbed, 0, &output);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// So many readers at once, half of them over IPv6.
    pub(crate) fn fetch_by_many(&self, testbed: &Testbed, readers: u32) {
        std::thread::scope(|scope| {
            for copy in 0..readers {
                scope.spawn(move || {
                    let v6 = copy % 2 == 1;
                    let edge = if v6 {
                        testbed.service_v6()
                    } else {
                        testbed.service_v4()
                    };
                    let output = wait::ended(self.get(testbed, edge, copy), FETCH_TIME_MAX);
                    self.check(testbed, copy, &output);
                });
            }
        });
    }

    fn check(&self, testbed: &Testbed, copy: u32, output: &Output) {
        assert!(
            output.status.success(),
            "{}: {}",
            self.name,
            wait::said(output)
        );
        let out = self.out(testbed, copy);
        assert_eq!(hash(&out), self.sha256, "{} came altered", self.name);
        fs::remove_file(out).unwrap();
    }

    /// The fetch must fail, with this code and these words, and leave no file.
    pub(crate) fn assert_not_to_be_had(
        &self,
        testbed: &Testbed,
        edge: SocketAddr,
        code: i32,
        words: &[&str],
    ) {
        let output = wait::ended(self.get(testbed, edge, 0), wait::ANSWER_TIME_MAX);
        wait::assert_refused(&output, code, words);
        assert!(!self.out(testbed, 0).exists(), "half a file is no file");
    }

    pub(crate) fn ticket_text(&self) -> String {
        fs::read_to_string(&self.ticket).unwrap().trim().to_owned()
    }

    /// Name of one of its chunks.
    pub(crate) fn chunk_id(&self) -> ChunkId {
        chunk_id(&self.chunks[0]).unwrap()
    }
}

/// Every chunk file of an origin.
pub(crate) fn chunk_files(origin: &Path) -> Vec<PathBuf> {
    let mut files = files::under(&origin.join("chunks")).unwrap_or_default();
    files.sort_unstable();
    files
}

/// Writes noise in which no two blocks are the same; gives its hash.
pub(crate) fn noise(path: &Path, name: &str, size_bytes: usize) -> [u8; 32] {
    let mut rng = SmallRng::from_seed(Sha256::digest(name).into());
    let mut block = vec![0; BLOCK_BYTES];
    let mut file = File::create(path).unwrap();
    let mut hash = Sha256::new();
    let mut left = size_bytes;
    while left > 0 {
        let part = &mut block[..left.min(BLOCK_BYTES)];
        rng.fill_bytes(part);
        hash.update(&*part);
        file.write_all(part).unwrap();
        left -= part.len();
    }
    hash.finalize().into()
}

fn hash(path: &Path) -> [u8; 32] {
    let mut file = File::open(path).unwrap();
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let length = file.read(&mut block).unwrap();
        if length == 0 {
            return hash.finalize().into();
        }
        hash.update(&block[..length]);
    }
}
