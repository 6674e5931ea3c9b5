//! Parses a steered packet and decides on the answer.

use edge_ebpf::cursor::Packet;
use edge_ebpf::frame::{Frame, Parsed, parse};
use edge_ebpf::maps::Resident;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{GET_BYTES, Get};

use crate::cache::lease::CacheView;
use crate::serve::peer::Listeners;
use crate::serve::{Decision, Request, decide};
use crate::sys::epochs::Reader;

/// A request, its headers and the answer.
#[derive(Clone, Debug)]
pub struct Steered<'pin> {
    pub frame: Frame,
    pub request: Request,
    pub decision: Decision<'pin>,
}

#[derive(Clone, Copy, Debug)]
pub struct Classifier<'a> {
    pub view: &'a CacheView,
    pub listeners: &'a Listeners,
    pub max_burst: u8,
}

impl Classifier<'_> {
    /// Parses the packet again and confirms the program's hint (I5). The cookie is not checked
    /// again, because only the program writes to this ring. Fails for packets that the program does
    /// not steer.
    #[inline]
    pub fn classify<'pin>(
        &self,
        pin: &'pin Reader,
        packet: &[u8],
        hint: Option<Resident>,
    ) -> Result<Steered<'pin>, Reason> {
        let (frame, request) = self.read(packet).ok_or(Reason::BadDescriptor)?;
        let lease = hint.and_then(|hint| self.view.confirm(pin, hint, &request.get.id));
        Ok(Steered {
            frame,
            request,
            decision: decide(&request, lease, self.max_burst),
        })
    }

    #[inline]
    fn read(&self, packet: &[u8]) -> Option<(Frame, Request)> {
        let Parsed::Udp(frame) = parse(packet) else {
            return None;
        };
        let peer = self
            .listeners
            .peer(&frame.source, &frame.destination, frame.family)?;
        let get = Get::decode(packet.at::<GET_BYTES>(frame.payload_at())?).ok()?;
        Some((frame, Request { peer, get }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::layout::Layout;
    use crate::cache::store::holding;
    use edge_ebpf::golden::{self, Expect};
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;

    #[test]
    fn only_packets_that_the_program_steers_are_answered() {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let (store, _) = holding(b"another chunk", layout, 1);
        let mut reader = store.view().reader(0);
        reader.quiescent();
        let listen = ["192.0.2.10:7347", "[2001:db8::10]:7347"];
        let classifier = Classifier {
            view: store.view(),
            listeners: &Listeners::new(&listen.map(|address| address.parse().unwrap()), 1),
            max_burst: 53,
        };
        let mut read = 0;
        for case in golden::all() {
            // The chunk is not resident, so even the program's own hint must not be trusted (I5).
            let hint = Some(case.world.resident);
            match classifier.classify(&reader, &case.frame, hint) {
                Ok(Steered {
                    request, decision, ..
                }) => {
                    read += 1;
                    assert_eq!(request.peer.client.is_ipv4(), request.peer.socket == 0);
                    assert!(matches!(decision, Decision::Miss), "{}", case.name);
                }
                Err(reason) => {
                    assert_eq!(reason, Reason::BadDescriptor);
                    assert!(!matches!(case.expect, Expect::Steer(_)), "{}", case.name);
                }
            }
        }
        assert!(read > 5);
    }
}
