//! Explains the kernel's errors by operation, and suggests remedies.

use std::fmt;
use std::io;

use libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, EEXIST, EINVAL, EMFILE,
    ENETDOWN, ENFILE, ENOBUFS, ENODEV, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, ERANGE,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A socket on a service address.
    Listen,
    AttachNative,
    AttachGeneric,
    /// An AF_XDP socket on a queue.
    Xsk,
    IoUring,
    Thread,
    /// Any operation without a row of its own.
    Other,
}

/// As in docs/OPERATING.md, "Exit codes".
const FAILURE: u8 = 1;
const AGAIN: u8 = 75;
const PRIVILEGES: u8 = 77;
const CONFIGURATION: u8 = 78;

/// Operation, `errno`, exit code, and message, in which {} is the subject.
type Row = (Operation, i32, u8, &'static str);

const TABLE: &[Row] = {
    use Operation::{AttachGeneric, AttachNative, IoUring, Listen, Thread, Xsk};
    const OCCUPIED: &str = "an XDP program is already attached to {} (`ip link show {}` names it); \
                            stop its owner first";
    const FORBIDDEN: &str = "this process lacks the privileges to attach an XDP program to {}: run \
                             as root or with CAP_NET_ADMIN and CAP_BPF, or set xdp.mode = \"off\"";
    const GONE: &str = "{} was removed during startup; start again when it is restored (`ip link`)";
    &[
        (
            Listen,
            EADDRINUSE,
            AGAIN,
            "{} is taken by another program (`ss -lunp` names it); stop it first",
        ),
        (
            Listen,
            EADDRNOTAVAIL,
            CONFIGURATION,
            "{} is not an address of this host; assign it to an interface (`ip address add …`) or change service.listen",
        ),
        (
            Listen,
            EACCES,
            PRIVILEGES,
            "the port of {} requires CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start); add that capability, or change service.listen",
        ),
        (
            Listen,
            EPERM,
            PRIVILEGES,
            "a security module or a BPF program of the control group forbids listening on {}; allow it there",
        ),
        (
            Listen,
            EAFNOSUPPORT,
            CONFIGURATION,
            "the address family of {} is disabled (ipv6.disable, or RestrictAddressFamilies= of the systemd unit); allow it, or change service.listen",
        ),
        (
            Listen,
            ENODEV,
            AGAIN,
            "the interface of {} was removed during startup; start again when it is restored (`ip link`)",
        ),
        (
            AttachNative,
            EOPNOTSUPP,
            CONFIGURATION,
            "the driver of {} has no native XDP; set xdp.mode = \"generic\" or \"off\"",
        ),
        (
            AttachNative,
            ERANGE,
            CONFIGURATION,
            "the MTU of {}, or of the other end of a veth pair, is too large for native XDP, which needs each packet in one page: set an MTU below about 3500 (`ip link set {} mtu 3000`), or xdp.mode = \"generic\"",
        ),
        (
            AttachNative,
            EINVAL,
            CONFIGURATION,
            "the driver of {} refuses native XDP in its current configuration (`dmesg` may show why): the usual reasons are an MTU above about 3500, LRO (`ethtool -K {} lro off`) and too many queues (`ethtool -L {} combined N`); or set xdp.mode = \"generic\"",
        ),
        (
            AttachNative,
            ENOSPC,
            CONFIGURATION,
            "the device {} has no TX queues left for XDP; use fewer (`ethtool -L {} combined N`), or set xdp.mode = \"generic\"",
        ),
        (AttachNative, EBUSY, AGAIN, OCCUPIED),
        (AttachNative, EEXIST, AGAIN, OCCUPIED),
        (AttachNative, EPERM, PRIVILEGES, FORBIDDEN),
        (AttachNative, ENODEV, AGAIN, GONE),
        (
            AttachGeneric,
            EOPNOTSUPP,
            CONFIGURATION,
            "{} supports no XDP program, not even in generic mode; set xdp.mode = \"off\"",
        ),
        (AttachGeneric, EBUSY, AGAIN, OCCUPIED),
        (AttachGeneric, EEXIST, AGAIN, OCCUPIED),
        (AttachGeneric, EPERM, PRIVILEGES, FORBIDDEN),
        (AttachGeneric, ENODEV, AGAIN, GONE),
        (
            Xsk,
            EBUSY,
            AGAIN,
            "{} is taken by an AF_XDP socket of another program (`ss -p --xdp` names it); stop it first",
        ),
        (
            Xsk,
            EOPNOTSUPP,
            CONFIGURATION,
            "the driver supports no AF_XDP socket on {}; set xdp.mode = \"generic\" or \"off\"",
        ),
        (
            Xsk,
            EINVAL,
            CONFIGURATION,
            "the driver supports no AF_XDP socket on {} in its current configuration: see docs/OPERATING.md, \"Queues\", and `ethtool -l`; or set xdp.mode = \"generic\"",
        ),
        (
            Xsk,
            EPERM,
            PRIVILEGES,
            "an AF_XDP socket on {} requires CAP_NET_RAW, which this process lacks; run as root, or set xdp.mode = \"off\"",
        ),
        (
            Xsk,
            EAFNOSUPPORT,
            CONFIGURATION,
            "AF_XDP is not available for {}: the kernel lacks CONFIG_XDP_SOCKETS, or RestrictAddressFamilies= of the systemd unit forbids it; allow AF_XDP, or set xdp.mode = \"off\"",
        ),
        (
            Xsk,
            ENOBUFS,
            PRIVILEGES,
            "RLIMIT_MEMLOCK is too low for the memory of {}; raise it (LimitMEMLOCK=infinity of the systemd unit), or add CAP_IPC_LOCK",
        ),
        (
            Xsk,
            ENETDOWN,
            AGAIN,
            "cannot open an AF_XDP socket on {}: the interface is down; bring it up (`ip link set … up`)",
        ),
        (
            Xsk,
            ENODEV,
            AGAIN,
            "cannot open an AF_XDP socket on {}: the interface was removed during startup; start again when it is restored (`ip link`)",
        ),
        (
            IoUring,
            EPERM,
            PRIVILEGES,
            "io_uring is forbidden: set kernel.io_uring_disabled to 0, or to 1 with CAP_SYS_ADMIN or the group kernel.io_uring_group, and allow io_uring_setup, io_uring_enter and io_uring_register in seccomp filters (SystemCallFilter=, container profiles)",
        ),
        (
            IoUring,
            ENOSYS,
            CONFIGURATION,
            "io_uring is not available: the kernel lacks CONFIG_IO_URING, or a seccomp filter hides it (container profiles, gVisor); allow io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (
            IoUring,
            ENOMEM,
            AGAIN,
            "not enough memory for io_uring; raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity of the systemd unit) or the memory limit of the control group",
        ),
        (
            Thread,
            EAGAIN,
            AGAIN,
            "cannot start a thread for {}; raise pids.max of the control group (TasksMax= of the systemd unit), RLIMIT_NPROC or kernel.threads-max",
        ),
    ]
};

/// Rows for all operations.
const COMMON: &[(i32, u8, &str)] = &[
    (
        EMFILE,
        CONFIGURATION,
        "RLIMIT_NOFILE leaves no file descriptor for {}; raise it (LimitNOFILE= of the systemd unit)",
    ),
    (
        ENFILE,
        AGAIN,
        "this host has no file descriptor left for {}; raise fs.file-max",
    ),
    (ENOMEM, AGAIN, "this host has no memory left for {}"),
    (ENOBUFS, AGAIN, "this host has no memory left for {}"),
    (
        EPERM,
        PRIVILEGES,
        "this process lacks the privileges for {}; run as root, or see docs/OPERATING.md, \"Privileges\"",
    ),
    (
        EACCES,
        PRIVILEGES,
        "this process lacks the privileges for {}; run as root, or see docs/OPERATING.md, \"Privileges\"",
    ),
];

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    pub operation: Operation,
    /// What the operation was applied to: an address, an interface, a queue.
    pub subject: String,
    pub error: io::Error,
}

impl Refused {
    fn row(&self) -> Option<(u8, &'static str)> {
        let number = self.error.raw_os_error()?;
        let own = TABLE
            .iter()
            .find(|(operation, errno, ..)| *operation == self.operation && *errno == number);
        let common = || COMMON.iter().find(|(errno, ..)| *errno == number);
        own.map(|(_, _, code, text)| (*code, *text))
            .or_else(|| common().map(|(_, code, text)| (*code, *text)))
    }

    pub fn exit_code(&self) -> u8 {
        self.row().map_or(FAILURE, |(code, _)| code)
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, text)) = self.row() {
            return write!(
                out,
                "{} ({})",
                text.replace("{}", &self.subject),
                self.error
            );
        }
        let tried = match self.operation {
            Operation::Listen => "cannot listen on",
            Operation::AttachNative | Operation::AttachGeneric => {
                "the XDP program cannot be attached to"
            }
            Operation::Xsk => "cannot open an AF_XDP socket on",
            Operation::IoUring => "io_uring cannot be set up for",
            Operation::Thread => "cannot start a thread for",
            Operation::Other => "cannot get",
        };
        write!(out, "{tried} {}: {}", self.subject, self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn refused(operation: Operation, errno: i32) -> Refused {
        Refused {
            operation,
            subject: "eth7".to_owned(),
            error: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn each_row_names_a_remedy_and_is_found() {
        let mut seen = BTreeSet::new();
        for (operation, errno, code, text) in TABLE {
            assert!(
                seen.insert((format!("{operation:?}"), errno)),
                "twice: {text}"
            );
            let refused = refused(*operation, *errno);
            assert_eq!(refused.exit_code(), *code, "{text}");
            let message = refused.to_string();
            assert!(
                message.starts_with(&text.replace("{}", "eth7")),
                "{message}"
            );
            assert!(
                !message.contains("{}") && message.lines().count() == 1,
                "{message}"
            );
            // The remedy comes after the fault.
            assert!(text.contains("; ") || text.contains(": "), "{text}");
            assert!([AGAIN, PRIVILEGES, CONFIGURATION].contains(code), "{text}");
        }
        for (errno, code, _) in COMMON {
            assert_eq!(refused(Operation::Other, *errno).exit_code(), *code);
        }
    }

    #[test]
    fn the_exit_code_tells_temporary_conditions_from_permanent_ones() {
        let rows = [
            (Operation::Listen, EADDRINUSE, 75),
            (Operation::Listen, EADDRNOTAVAIL, 78),
            (Operation::AttachNative, ERANGE, 78),
            (Operation::AttachNative, EBUSY, 75),
            (Operation::Xsk, ENETDOWN, 75),
            (Operation::IoUring, EPERM, 77),
            (Operation::IoUring, ENOSYS, 78),
            (Operation::Thread, EAGAIN, 75),
            (Operation::Other, ENFILE, 75),
            (Operation::Other, EMFILE, 78),
        ];
        for (operation, errno, code) in rows {
            assert_eq!(
                refused(operation, errno).exit_code(),
                code,
                "{operation:?} {errno}"
            );
        }
    }

    #[test]
    fn an_error_without_a_row_is_shown_as_it_is() {
        let unknown = refused(Operation::Xsk, libc::EXDEV);
        assert_eq!(unknown.exit_code(), 1);
        let message = unknown.to_string();
        assert!(message.starts_with("cannot open an AF_XDP socket on eth7: "));
    }
}
