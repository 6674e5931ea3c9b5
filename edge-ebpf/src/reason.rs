//! How a packet ended. Every stage a packet passes ends it in exactly one of these, and counts it.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// How a packet ended at one stage: in the XDP program, at the socket, or at a worker.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Name in counters and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

reasons! {
    // Left to the kernel, untouched.
    /// Shorter than the headers it announces.
    ShortFrame = "short_frame",
    /// Sent to another station, or to all of them.
    OtherMac = "other_mac",
    /// More VLAN tags than two.
    VlanDepth = "vlan_depth",
    /// Neither IPv4 nor IPv6.
    NotIp = "not_ip",
    /// Not UDP.
    NotUdp = "not_udp",
    /// Not the service's address and port.
    NotOurs = "not_ours",
    /// For the service, under VLAN tags that the host does not have for it.
    OtherVlan = "other_vlan",
    /// For the service, and the kernel drops it: the header checksum of IPv4 is wrong, or UDP over
    /// IPv6 has none.
    BadChecksum = "bad_checksum",
    /// For the service, of a length that no datagram has, where the kernel may have put several
    /// into one frame: the socket front answers each.
    Coalesced = "coalesced",
    /// For the service, with IPv4 options: the socket front answers.
    IpOptions = "ip_options",
    /// For the service, with IPv6 extension headers: the socket front answers.
    Ipv6Extension = "ipv6_extension",
    /// For the service, in pieces: the kernel puts it together and the socket front answers.
    Fragment = "fragment",
    /// A good GET for a chunk that is not resident.
    Miss = "miss",
    /// A good GET for a resident chunk, on a queue without a socket.
    NoSocket = "no_socket",
    /// A good GET for a resident chunk, but the driver leaves no room for metadata.
    NoMetadata = "no_metadata",
    /// The server has not told the program its settings, or speaks another ABI version.
    NotServing = "not_serving",

    // For the service, and dropped.
    /// From an address nobody can be answered at.
    BadSource = "bad_source",
    /// Lengths of IP and UDP that contradict each other or the frame.
    BadLength = "bad_length",
    /// Does not begin like one of our datagrams.
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

    // Answered on the spot.
    /// A HELLO answered with a cookie.
    Welcome = "welcome",
    /// A HELLO of another version, answered without a cookie.
    WelcomeVersion = "welcome_version",
    /// A GET without a good cookie.
    NackCookie = "nack_cookie",

    // A good GET.
    /// Handed to the worker of its queue.
    Steered = "steered",
    /// Answered with DATA.
    Served = "served",
    /// Answered with a part of the DATA: for the rest there was no room, or no sign yet that the
    /// client is reached.
    ServedPartly = "served_partly",
    /// Steered, but the slot no longer holds the chunk: handed to the socket front.
    Bounced = "bounced",
    /// Steered and withdrawn, and the socket front's inbox is full.
    InboxFull = "inbox_full",
    /// None of the wanted segments exists.
    NackRange = "nack_range",
    /// Began a fetch from the origin.
    FetchStarted = "fetch_started",
    /// Joined a fetch that was under way.
    Joined = "joined",
    /// The origin lately said that it does not have the chunk.
    Negative = "negative",
    /// The origin could lately not be reached, or what it gave was wrong.
    OriginFailed = "origin_failed",
    /// A table or queue of the socket front is full.
    Busy = "busy",
    /// No send could be queued.
    SendQueueFull = "send_queue_full",
    /// Not answered: the last datagram to the client waits for its neighbour's address.
    Unreached = "unreached",
    /// What the kernel handed over makes no sense: a steered frame that does not parse again, a
    /// descriptor outside the umem, a datagram without a source.
    BadDescriptor = "bad_descriptor",
}

impl Reason {
    /// How many there are.
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
