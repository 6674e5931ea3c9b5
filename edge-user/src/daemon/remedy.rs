//! What an error number of the kernel means for what was tried, and what to do about it.

use std::fmt;
use std::io;

use libc::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, EEXIST, EINVAL, EMFILE,
    ENETDOWN, ENFILE, ENOBUFS, ENODEV, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, ERANGE,
};

/// What was tried.
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
    /// Something every Linux has.
    Other,
}

/// As in docs/OPERATING.md, "Exit codes".
const FAILURE: u8 = 1;
const AGAIN: u8 = 75;
const RIGHTS: u8 = 77;
const CONFIGURATION: u8 = 78;

/// Operation and error number, exit code, and the sentence, in which {} is what it was tried on.
type Row = (Operation, i32, u8, &'static str);

const TABLE: &[Row] = {
    use Operation::{AttachGeneric, AttachNative, IoUring, Listen, Thread, Xsk};
    const OCCUPIED: &str = "an XDP program is already attached to {} (`ip link show {}` names it); \
                            stop its owner first";
    const FORBIDDEN: &str = "an XDP program may not be attached to {}: run as root or with \
                             CAP_NET_ADMIN and CAP_BPF, or set xdp.mode = \"off\"";
    const GONE: &str = "{} was removed meanwhile; start again when it is back (`ip link`)";
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
            "{} is not an address of this host; give it to an interface (`ip address add …`) or change service.listen",
        ),
        (
            Listen,
            EACCES,
            RIGHTS,
            "{} has a port that only CAP_NET_BIND_SERVICE may use (net.ipv4.ip_unprivileged_port_start); add that right, or change service.listen",
        ),
        (
            Listen,
            EPERM,
            RIGHTS,
            "a security module or a program of the control group forbids to listen on {}; allow it there",
        ),
        (
            Listen,
            EAFNOSUPPORT,
            CONFIGURATION,
            "{} has an address family that this host has switched off (ipv6.disable, or RestrictAddressFamilies= of the systemd unit); allow it, or change service.listen",
        ),
        (
            Listen,
            ENODEV,
            AGAIN,
            "the interface of {} was removed meanwhile; start again when it is back (`ip link`)",
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
            "the MTU of {}, or of the other end of a veth pair, is too large for native XDP, which wants a packet in one page: set one below about 3500 (`ip link set {} mtu 3000`), or xdp.mode = \"generic\"",
        ),
        (
            AttachNative,
            EINVAL,
            CONFIGURATION,
            "the driver of {} refuses native XDP as it is set up (`dmesg` may have its reason): the usual ones are an MTU above about 3500, LRO (`ethtool -K {} lro off`) and too many queues (`ethtool -L {} combined N`); or set xdp.mode = \"generic\"",
        ),
        (
            AttachNative,
            ENOSPC,
            CONFIGURATION,
            "the card of {} has no queues left to send by; use fewer (`ethtool -L {} combined N`), or set xdp.mode = \"generic\"",
        ),
        (AttachNative, EBUSY, AGAIN, OCCUPIED),
        (AttachNative, EEXIST, AGAIN, OCCUPIED),
        (AttachNative, EPERM, RIGHTS, FORBIDDEN),
        (AttachNative, ENODEV, AGAIN, GONE),
        (
            AttachGeneric,
            EOPNOTSUPP,
            CONFIGURATION,
            "{} takes no XDP program, not even a generic one; set xdp.mode = \"off\"",
        ),
        (AttachGeneric, EBUSY, AGAIN, OCCUPIED),
        (AttachGeneric, EEXIST, AGAIN, OCCUPIED),
        (AttachGeneric, EPERM, RIGHTS, FORBIDDEN),
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
            "the driver takes no AF_XDP socket on {}; set xdp.mode = \"generic\" or \"off\"",
        ),
        (
            Xsk,
            EINVAL,
            CONFIGURATION,
            "the driver takes no AF_XDP socket on {} as it is set up: see docs/OPERATING.md, \"Queues\", and `ethtool -l`; or set xdp.mode = \"generic\"",
        ),
        (
            Xsk,
            EPERM,
            RIGHTS,
            "an AF_XDP socket on {} takes CAP_NET_RAW, which this process lacks; run as root, or set xdp.mode = \"off\"",
        ),
        (
            Xsk,
            EAFNOSUPPORT,
            CONFIGURATION,
            "there is no AF_XDP for {}: a kernel without CONFIG_XDP_SOCKETS, or RestrictAddressFamilies= of the systemd unit; allow AF_XDP, or set xdp.mode = \"off\"",
        ),
        (
            Xsk,
            ENOBUFS,
            RIGHTS,
            "RLIMIT_MEMLOCK is too low for the memory of {}; raise it (LimitMEMLOCK=infinity of the systemd unit), or add CAP_IPC_LOCK",
        ),
        (
            Xsk,
            ENETDOWN,
            AGAIN,
            "the interface is down, so there is no AF_XDP socket on {}; `ip link set … up` it",
        ),
        (
            Xsk,
            ENODEV,
            AGAIN,
            "there is no AF_XDP socket on {}: the interface was removed meanwhile; start again when it is back (`ip link`)",
        ),
        (
            IoUring,
            EPERM,
            RIGHTS,
            "this process may not use io_uring: set kernel.io_uring_disabled to 0, or to 1 with CAP_SYS_ADMIN or the group kernel.io_uring_group, and let seccomp filters (SystemCallFilter=, container profiles) pass io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (
            IoUring,
            ENOSYS,
            CONFIGURATION,
            "there is no io_uring: a kernel without CONFIG_IO_URING, or a seccomp filter that hides it (container profiles, gVisor); let it pass io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (
            IoUring,
            ENOMEM,
            AGAIN,
            "there is no memory for io_uring; raise RLIMIT_MEMLOCK (LimitMEMLOCK=infinity of the systemd unit) or the memory limit of the control group",
        ),
        (
            Thread,
            EAGAIN,
            AGAIN,
            "there may be no more threads for {}; raise pids.max of the control group (TasksMax= of the systemd unit), RLIMIT_NPROC or kernel.threads-max",
        ),
    ]
};

/// What is the same whatever was tried.
const COMMON: &[(i32, u8, &str)] = &[
    (
        EMFILE,
        CONFIGURATION,
        "RLIMIT_NOFILE allows this process no more descriptors, for {}; raise it (LimitNOFILE= of the systemd unit)",
    ),
    (
        ENFILE,
        AGAIN,
        "this host has no more descriptors, for {}; raise fs.file-max",
    ),
    (ENOMEM, AGAIN, "this host has no memory left for {}"),
    (ENOBUFS, AGAIN, "this host has no memory left for {}"),
    (
        EPERM,
        RIGHTS,
        "this process has no right to {}; run as root, or see docs/OPERATING.md, \"Privileges\"",
    ),
    (
        EACCES,
        RIGHTS,
        "this process has no right to {}; run as root, or see docs/OPERATING.md, \"Privileges\"",
    ),
];

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    pub operation: Operation,
    /// What it was tried on: an address, an interface, a queue.
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
            Operation::Xsk => "no AF_XDP socket on",
            Operation::IoUring => "io_uring cannot be set up for",
            Operation::Thread => "no thread for",
            Operation::Other => "there is no",
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
            let said = refused.to_string();
            assert!(said.starts_with(&text.replace("{}", "eth7")), "{said}");
            assert!(!said.contains("{}") && said.lines().count() == 1, "{said}");
            // A sentence that ends with the fault has no remedy.
            assert!(text.contains("; ") || text.contains(": "), "{text}");
            assert!([AGAIN, RIGHTS, CONFIGURATION].contains(code), "{text}");
        }
        for (errno, code, _) in COMMON {
            assert_eq!(refused(Operation::Other, *errno).exit_code(), *code);
        }
    }

    #[test]
    fn state_that_passes_is_worth_another_try_and_what_must_be_changed_is_not() {
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
    fn an_error_nobody_foresaw_is_shown_as_it_is() {
        let strange = refused(Operation::Xsk, libc::EXDEV);
        assert_eq!(strange.exit_code(), 1);
        assert!(
            strange
                .to_string()
                .starts_with("no AF_XDP socket on eth7: ")
        );
    }
}
