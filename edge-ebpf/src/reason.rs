//! The reasons in which packets end. Each stage counts every packet under exactly one reason.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// How a packet ended at one stage: the XDP program, the socket front, or a worker.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, in numerical order.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in counters and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    // Passed to the kernel, unchanged.
    /// Shorter than its headers.
    ShortFrame = "short_frame",
    /// To another MAC address, a group or broadcast.
    OtherMac = "other_mac",
    /// More than two VLAN tags.
    VlanDepth = "vlan_depth",
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// Not UDP.
    NotUdp = "not_udp",
    /// Not the service's address and port.
    NotOurs = "not_ours",
    /// To the service, under VLAN tags that the service does not use.
    OtherVlan = "other_vlan",
    /// To the service, and dropped by the kernel: the IPv4 header checksum is wrong, or UDP over
    /// IPv6 has no checksum.
    BadChecksum = "bad_checksum",
    /// To the service, possibly several datagrams that the kernel coalesced into one frame; the
    /// socket front answers each.
    Coalesced = "coalesced",
    /// To the service, with IPv4 options; the socket front answers.
    IpOptions = "ip_options",
    /// To the service, with IPv6 extension headers; the socket front answers.
    Ipv6Extension = "ipv6_extension",
    /// To the service, fragmented; the kernel reassembles it and the socket front answers.
    Fragment = "fragment",
    /// A GET with a valid cookie for a chunk that is not resident.
    Miss = "miss",
    /// A hit on a queue without an AF_XDP socket.
    NoSocket = "no_socket",
    /// A hit, but the driver leaves no room for metadata.
    NoMetadata = "no_metadata",
    /// The program has no settings, or settings of another ABI version.
    NotServing = "not_serving",

    // To the service, and dropped.
    /// From an address that cannot be answered.
    BadSource = "bad_source",
    /// The lengths of IP and UDP contradict each other or the frame.
    BadLength = "bad_length",
    /// Does not begin like a datagram of the protocol.
    BadMagic = "bad_magic",
    /// Another protocol version.
    BadVersion = "bad_version",
    /// A kind that clients do not send.
    BadKind = "bad_kind",
    /// A reserved byte that is not zero.
    BadReserved = "bad_reserved",
    /// A HELLO that is too short or too long.
    HelloSize = "hello_size",
    /// A GET that is not 64 bytes.
    GetSize = "get_size",
    /// The kernel refused to resize the packet for its answer.
    ResizeFailed = "resize_failed",

    // Answered in place.
    /// A HELLO answered with a cookie.
    Welcome = "welcome",
    /// A HELLO of another version, answered without a cookie.
    WelcomeVersion = "welcome_version",
    /// A GET without a valid cookie.
    NackCookie = "nack_cookie",

    // A GET with a valid cookie.
    /// Redirected to the worker of its queue.
    Steered = "steered",
    /// Answered with DATA.
    Served = "served",
    /// Answered with part of the DATA: the send queue was full, or the client has not been reached
    /// yet.
    ServedPartly = "served_partly",
    /// Steered, but the slot no longer holds the chunk: bounced to the socket front.
    Bounced = "bounced",
    /// As `Bounced`, but the bounce queue is full.
    InboxFull = "inbox_full",
    /// None of the wanted segments exists.
    NackRange = "nack_range",
    /// Started a fetch from the origin.
    FetchStarted = "fetch_started",
    /// Joined a fetch in progress.
    Joined = "joined",
    /// A recent fetch found that no origin has the chunk.
    Negative = "negative",
    /// A recent fetch failed, or returned wrong bytes.
    OriginFailed = "origin_failed",
    /// A table or queue of the socket front is full.
    Busy = "busy",
    /// No send could be queued.
    SendQueueFull = "send_queue_full",
    /// Not answered: the last datagram to the client still waits for address resolution.
    Unreached = "unreached",
    /// Invalid data from the kernel: a steered frame that does not parse, a descriptor outside the
    /// umem, a datagram without a source.
    BadDescriptor = "bad_descriptor",
}

impl Reason {
    pub const COUNT: u32 = {
        let count = Self::ALL.len();
        assert!(count <= 64, "counters are laid out for at most 64 reasons");
        #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
        let count = count as u32;
        count
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_list_and_labels_are_unique() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            let twins = Reason::ALL
                .iter()
                .filter(|other| other.label() == reason.label())
                .count();
            assert_eq!(twins, 1, "{}", reason.label());
        }
    }
}
