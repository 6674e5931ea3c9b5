//! What a request came to, in the words that metrics use.

use edge_ebpf::reason::Reason;

/// The words of `result`. All are there from the start, or the first miss would be no increase.
pub(super) const RESULTS: [&str; 7] = [
    "hit", "bounce", "miss", "joined", "negative", "limited", "error",
];

/// What a request came to. Each is counted once: a bounced one on the path it came by, not again
/// where the socket front ends it. What is no request with a good cookie has no result.
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
    fn each_result_is_a_listed_word_and_each_word_a_result_of_something() {
        let results: Vec<_> = Reason::ALL
            .iter()
            .filter_map(|reason| result_of(*reason))
            .collect();
        assert!(results.iter().all(|result| RESULTS.contains(result)));
        assert!(RESULTS.iter().all(|word| results.contains(word)));
    }
}
