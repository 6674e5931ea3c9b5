//! The result of a request, from its reason.

use edge_ebpf::reason::Reason;

/// The values of the label `result`. All are exported from the start, so that the first miss shows
/// as an increase.
pub(super) const RESULTS: [&str; 7] = [
    "hit", "bounce", "miss", "joined", "negative", "limited", "error",
];

/// The result of a request with a valid cookie. Each request is counted once: a bounced one on the
/// path that received it, and not again at the socket front.
pub(super) fn result_of(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Served => Some("hit"),
        Reason::Bounced => Some("bounce"),
        Reason::FetchStarted => Some("miss"),
        Reason::Joined => Some("joined"),
        Reason::Negative => Some("negative"),
        Reason::InboxFull
        | Reason::Busy
        | Reason::SendQueueFull
        | Reason::ServedPartly
        | Reason::Unreached => Some("limited"),
        Reason::NackRange | Reason::OriginFailed | Reason::BadDescriptor => Some("error"),
        Reason::ShortFrame
        | Reason::OtherMac
        | Reason::VlanDepth
        | Reason::NotIp
        | Reason::NotUdp
        | Reason::NotOurs
        | Reason::OtherVlan
        | Reason::BadChecksum
        | Reason::Coalesced
        | Reason::IpOptions
        | Reason::Ipv6Extension
        | Reason::Fragment
        | Reason::Miss
        | Reason::NoSocket
        | Reason::NoMetadata
        | Reason::NotServing
        | Reason::BadSource
        | Reason::BadLength
        | Reason::BadMagic
        | Reason::BadVersion
        | Reason::BadKind
        | Reason::BadReserved
        | Reason::HelloSize
        | Reason::GetSize
        | Reason::ResizeFailed
        | Reason::Welcome
        | Reason::WelcomeVersion
        | Reason::NackCookie
        | Reason::Steered => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_listed_and_every_listed_result_occurs() {
        let results: Vec<_> = Reason::ALL
            .iter()
            .filter_map(|reason| result_of(*reason))
            .collect();
        assert!(results.iter().all(|result| RESULTS.contains(result)));
        assert!(RESULTS.iter().all(|word| results.contains(word)));
    }
}
