use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::clock;
use crate::counters::Snapshot;
use crate::counters::{Cause, Fault};
use std::sync::Arc;

/// A directory, a runtime, and a configuration with the socket in that directory.
struct Place {
    folder: TempDir,
    runtime: Runtime,
    config: Config,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut config = Config::default();
    config.admin.socket = folder.path().join("run/admin.sock");
    config.admin.metrics = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Place {
        folder,
        runtime,
        config,
    }
}

impl Place {
    fn open(&self) -> Result<Admin, AdminError> {
        Admin::open(&self.config, self.runtime.handle())
    }

    fn socket(&self) -> &Path {
        &self.config.admin.socket
    }
}

fn ask(mut connection: impl Read + Write, path: &str) -> String {
    write!(connection, "GET {path} HTTP/1.1\r\nhost: edged\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

fn some_source() -> SnapshotSource {
    Arc::new(|| Snapshot {
        uptime_seconds: 42,
        ..Snapshot::default()
    })
}

#[test]
fn both_listeners_report_not_ready_then_the_counters_then_close() {
    let place = place();
    let admin = place.open().unwrap();
    let address = admin.metrics_address().unwrap();
    let tcp = |path: &str| ask(TcpStream::connect(address).unwrap(), path);
    let unix = |path: &str| ask(UnixStream::connect(place.socket()).unwrap(), path);

    assert!(tcp("/live").starts_with("HTTP/1.1 200"));
    assert!(tcp("/ready").starts_with("HTTP/1.1 503"));
    assert!(tcp("/metrics").starts_with("HTTP/1.1 503"));
    assert!(unix("/v1/stat").starts_with("HTTP/1.1 503"));

    let health = Health::of(vec!["eth0".to_owned(), "eth1".to_owned()]);
    admin.ready(some_source(), health.clone());
    assert!(tcp("/ready").starts_with("HTTP/1.1 200"));
    let metrics = tcp("/metrics");
    assert!(
        metrics.contains("content-type: application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nsealedge_uptime_seconds 42\n"),
        "{metrics}"
    );
    assert!(tcp("/nothing").starts_with("HTTP/1.1 404"));
    let stat = unix("/v1/stat");
    let (_, body) = stat.split_once("\r\n\r\n").unwrap();
    let snapshot: Snapshot = serde_json::from_str(body).unwrap();
    assert_eq!(snapshot.uptime_seconds, 42);
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    health.update(vec![Fault {
        cause: Cause::ThreadStalled,
        interface: None,
        subject: "worker-0".to_owned(),
        text: "worker-0 is stalled".to_owned(),
    }]);
    let ready = tcp("/ready");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(
        ready.ends_with("\r\n\r\nnot ready: worker-0 is stalled\n"),
        "{ready}"
    );
    health.update(vec![Fault {
        cause: Cause::LinkDown,
        interface: Some("eth1".to_owned()),
        subject: "eth1".to_owned(),
        text: "eth1 is down".to_owned(),
    }]);
    let ready = tcp("/ready");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(
        ready.ends_with("\r\n\r\nready\ndegraded: eth1 is down\n"),
        "{ready}"
    );
    health.update(Vec::new());
    assert!(tcp("/ready").starts_with("HTTP/1.1 200"));

    admin.closing();
    assert!(tcp("/ready").ends_with("not ready: stopping\n"));
    assert!(tcp("/metrics").starts_with("HTTP/1.1 200"));
    admin.close(place.runtime.handle());
    assert!(!place.socket().exists());
    TcpStream::connect(address).unwrap_err();
}

#[test]
fn a_second_edged_is_refused_and_the_socket_of_a_dead_one_is_replaced() {
    let place = place();
    let first = place.open().unwrap();
    let refused = place.open().unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("another edged answers on /"),
        "{refused}"
    );
    assert_eq!(refused.exit_code(), 75);
    first.close(place.runtime.handle());

    // A socket without a listener, as a killed process leaves it.
    drop(UnixListener::bind(place.socket()).unwrap());
    assert!(place.socket().exists());
    place.open().unwrap().close(place.runtime.handle());
    assert!(!place.socket().exists());
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let place = place();
    fs::create_dir(place.socket().parent().unwrap()).unwrap();
    fs::write(place.socket(), "text").unwrap();
    let refused = place.open().unwrap_err();
    assert!(refused.to_string().contains("is not a socket"), "{refused}");
    assert_eq!(refused.exit_code(), 78);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "text");
}

#[test]
fn a_port_in_use_is_reported_and_leaves_no_socket_behind() {
    let mut place = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    place.config.admin.metrics = Some(taken.local_addr().unwrap());
    let refused = place.open().unwrap_err();
    assert!(
        refused.to_string().contains("choose another port"),
        "{refused}"
    );
    assert_eq!(refused.exit_code(), 75);
    assert!(!place.socket().exists());
}

#[test]
fn a_missing_privilege_is_exit_code_77_and_names_the_remedy() {
    let cause = io::ErrorKind::PermissionDenied.into();
    let error = AdminError::Socket {
        path: PathBuf::from("/run/sealedge/admin.sock"),
        cause,
    };
    assert_eq!(error.exit_code(), 77);
    assert!(error.to_string().contains("run as root"), "{error}");
}

/// Idle connections: as many as are accepted, and as many in the kernel's backlog.
const IDLE: usize = 2 * bounded::CONNECTION_COUNT_MAX;

#[test]
fn idle_connections_delay_no_request() {
    let place = place();
    let admin = place.open().unwrap();
    admin.ready(some_source(), Health::of(vec!["eth0".to_owned()]));
    let address = admin.metrics_address().unwrap();
    let tcp = || TcpStream::connect(address).unwrap();
    let unix = || UnixStream::connect(place.socket()).unwrap();
    let idle: Vec<_> = (0..IDLE).map(|_| (tcp(), unix())).collect();
    let begin = clock::now();
    for path in ["/ready", "/live", "/metrics"] {
        let answer = ask(tcp(), path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let answer = ask(unix(), "/v1/stat");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let took = begin.elapsed();
    assert!(took < bounded::CONNECTION_TIME_MAX, "{took:?}");
    drop(idle);
    admin.close(place.runtime.handle());
    assert!(place.folder.path().exists());
}

#[test]
fn a_connection_without_a_request_ends_soon() {
    let place = place();
    let admin = place.open().unwrap();
    let mut idle = UnixStream::connect(place.socket()).unwrap();
    idle.write_all(b"GET /v1/stat HTTP/1.1\r\n").unwrap();
    // Before the deadline of a connection with a request.
    let soon = 3 * bounded::REQUEST_TIME_MAX;
    idle.set_read_timeout(Some(soon)).unwrap();
    assert_eq!(idle.read(&mut [0; 64]).unwrap(), 0, "it is closed");
    admin.close(place.runtime.handle());
}

#[test]
fn another_user_cannot_prevent_a_start_by_a_lock() {
    let place = place();
    let folder = place.socket().parent().unwrap();
    fs::create_dir(folder).unwrap();
    // All users who can list a directory can lock it.
    let lock = fs::File::open(folder).unwrap();
    lock.try_lock().unwrap();
    place.open().unwrap().close(place.runtime.handle());

    let file = folder.join("admin.sock.lock");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "other users cannot open it");
    let held = fs::File::open(&file).unwrap();
    held.try_lock().unwrap();
    assert_eq!(place.open().unwrap_err().exit_code(), 75);
    drop(held);

    // A link or file put there by another user is neither followed nor trusted.
    let elsewhere = folder.join("elsewhere");
    fs::remove_file(&file).unwrap();
    symlink(&elsewhere, &file).unwrap();
    place.open().unwrap_err();
    assert!(!elsewhere.exists());
    fs::remove_file(&file).unwrap();
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = place.open().unwrap_err();
    assert!(refused.to_string().contains("remove it"), "{refused}");
    assert_eq!(refused.exit_code(), 78);
}
