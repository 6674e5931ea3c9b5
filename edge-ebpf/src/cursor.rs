//! Bounds-checked windows into a packet.
//!
//! A window has a constant size, so all reads from it are in bounds by type, and the verifier sees
//! one comparison with the end of the packet for each window.

pub trait Packet {
    fn len_bytes(&self) -> usize;

    /// The `N` bytes from `offset` on; `None` if the packet is too short.
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;
}

pub trait PacketMut: Packet {
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;
}

impl Packet for [u8] {
    #[inline(always)]
    fn len_bytes(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }
}

impl PacketMut for [u8] {
    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.get_mut(offset..)?.first_chunk_mut()
    }
}

/// The packet of an XDP program: start and end address. The verifier requires each access to be
/// compared with the end.
#[cfg(target_arch = "bpf")]
pub struct XdpPacket {
    start: usize,
    end: usize,
}

#[cfg(target_arch = "bpf")]
impl XdpPacket {
    /// The packet of this program run. Must be created again after the packet is resized: the
    /// verifier rejects any use of the old one.
    #[inline(always)]
    pub fn new(ctx: &aya_ebpf::programs::XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        // Wrapping, because an overflow check would be one more branch to verify. Offsets are sums
        // of header lengths and cannot overflow.
        let start = self.start.wrapping_add(offset);
        if start.wrapping_add(N) > self.end {
            return None;
        }
        Some(start as *mut [u8; N])
    }
}

#[cfg(target_arch = "bpf")]
impl Packet for XdpPacket {
    #[inline(always)]
    fn len_bytes(&self) -> usize {
        self.end.wrapping_sub(self.start)
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let window = self.window::<N>(offset)?;
        #[expect(unsafe_code, reason = "packet memory is accessed by address")]
        // SAFETY: `window` compared its end with the packet's end, and the kernel keeps the packet
        // in place while the program runs; the verifier checks both.
        Some(unsafe { &*window })
    }
}

#[cfg(target_arch = "bpf")]
impl PacketMut for XdpPacket {
    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let window = self.window::<N>(offset)?;
        #[expect(unsafe_code, reason = "packet memory is accessed by address")]
        // SAFETY: as in `at`; `&mut self` is the only handle to this packet.
        Some(unsafe { &mut *window })
    }
}

/// Continues with the program at this index; returns only if there is none.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn tail_call<const N: usize>(
    ctx: &aya_ebpf::programs::XdpContext,
    table: &aya_ebpf::btf_maps::ProgramArray<N>,
    index: u32,
) {
    #[expect(unsafe_code, reason = "a tail call runs no destructors")]
    // SAFETY: the context is that of this run, and soundness depends on no destructor.
    unsafe {
        table.tail_call(ctx, index);
    }
}

/// `N` bytes of a window, from `AT` on, checked at compile time.
#[inline(always)]
pub(crate) fn part<const AT: usize, const N: usize, const M: usize>(window: &[u8; M]) -> [u8; N] {
    const { assert!(AT <= M && N <= M - AT, "the field lies in the window") };
    // The assertion makes the fallback unreachable, and the optimiser removes it.
    window
        .get(AT..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Writes `value` into a window, from `AT` on.
#[inline(always)]
pub(crate) fn put<const AT: usize, const N: usize, const M: usize>(
    window: &mut [u8; M],
    value: [u8; N],
) {
    const { assert!(AT <= M && N <= M - AT, "the field lies in the window") };
    if let Some(field) = window.get_mut(AT..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value;
    }
}
