//! An AF_XDP socket on one queue, in copy mode, with its own umem. It receives, and sends if it has
//! TX frames. Layouts and constants are those of `linux/if_xdp.h`.

use std::ffi::CString;
use std::io;
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use edge_ebpf::maps::Resident;
use memmap2::MmapOptions;

use super::bind_retry::bind_when_free;
use super::mapping::Mapping;
use super::ring::{Consuming, Producing, Ring};
use super::ring_memory::{Entry, RingMemory, RingOffsets};
use super::slab::{Block, Slab};
use super::socket::{SEND_BUFFER_BYTES, set_buffer, socklen};

#[expect(clippy::cast_possible_truncation, reason = "44")]
const AF_XDP: u16 = libc::AF_XDP as u16;

/// Sizes of one socket's umem and rings.
#[derive(Clone, Copy, Debug)]
pub struct XskSizes {
    pub frame_bytes: u32,
    pub rx_frames: u32,
    /// 0 for a socket that only receives.
    pub tx_frames: u32,
    pub fill_ring: u32,
    pub rx_ring: u32,
    pub tx_ring: u32,
    /// The kernel requires one even for a socket that only receives.
    pub completion_ring: u32,
}

impl XskSizes {
    pub const fn umem_bytes(&self) -> usize {
        self.frame_bytes as usize * (self.rx_frames as usize + self.tx_frames as usize)
    }
}

/// The user-space ends of one socket's rings.
#[derive(Debug)]
pub struct XskRings {
    pub fill: Ring<u64, Producing>,
    pub rx: Ring<libc::xdp_desc, Consuming>,
    /// TX and completion ring of a socket that sends.
    pub transmit: Option<(Ring<libc::xdp_desc, Producing>, Ring<u64, Consuming>)>,
}

/// A TX frame, owned by user space until it is sent or put back.
#[derive(Debug)]
#[must_use = "a dropped frame is leaked: send it or put it back"]
pub struct TxFrame(Block);

/// A received packet in an RX frame, owned by user space until it is recycled.
#[derive(Debug)]
#[must_use = "a dropped frame is leaked: recycle it"]
pub struct RxFrame {
    block: Block,
    start: usize,
    len_bytes: usize,
}

/// A descriptor that names no frame of the umem, or a frame that the kernel does not own.
#[derive(Debug)]
pub struct BadDescriptor;

/// The socket, its rings and its umem.
#[derive(Debug)]
pub struct Xsk {
    fd: Arc<OwnedFd>,
    fill: Ring<u64, Producing>,
    rx: Ring<libc::xdp_desc, Consuming>,
    umem: Slab,
    in_kernel: InKernel,
    /// RX frames to put into the fill ring.
    free: Vec<Block>,
    transmit: Option<Transmit>,
}

/// Tokens of the frames that the kernel owns.
#[derive(Debug)]
struct InKernel {
    by_frame: Vec<Option<Block>>,
    count: u32,
}

impl InKernel {
    fn none_of(frames: u32) -> Self {
        let mut by_frame = Vec::new();
        by_frame.resize_with(frames as usize, || None);
        Self { by_frame, count: 0 }
    }

    fn put(&mut self, block: Block) {
        let index = block.index() as usize;
        // I2
        debug_assert!(self.by_frame[index].is_none(), "a frame has one owner");
        self.by_frame[index] = Some(block);
        self.count += 1;
    }

    /// The frame that a descriptor or completion names, if the kernel owned it.
    fn take(&mut self, index: usize) -> Option<Block> {
        let block = self.by_frame.get_mut(index).and_then(Option::take)?;
        self.count -= 1;
        Some(block)
    }
}

/// The sending half.
#[derive(Debug)]
struct Transmit {
    ring: Ring<libc::xdp_desc, Producing>,
    completion: Ring<u64, Consuming>,
    free: Vec<Block>,
    /// Frames sent and not completed.
    in_flight: u32,
}

/// How often to wake the kernel for a free TX frame before dropping a datagram.
const TX_WAKE_ATTEMPTS: u32 = 2000;

/// The outcome of waking the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WakeOutcome {
    /// All queued frames were sent.
    Sent,
    /// Some may be left, and can be sent at once.
    Again,
    Failed,
}

/// How many frames of a copy-mode socket the kernel sends for one wake-up.
const FRAMES_PER_KICK: u32 = 32;

/// The kernel's counters of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct XskStatistics {
    pub rx_dropped: u64,
    pub rx_ring_full: u64,
    pub rx_invalid_descs: u64,
    pub rx_fill_ring_empty: u64,
}

impl Xsk {
    /// A socket that is not yet bound to a queue. `umem` has the length of `sizes.umem_bytes()`.
    pub fn new(umem: Mapping, sizes: XskSizes) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: newly created and not owned elsewhere.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();

        // SAFETY: plain data, for which zeros are valid.
        let mut region: libc::xdp_umem_reg = unsafe { zeroed() };
        region.addr = umem.address() as u64;
        region.len = sizes.umem_bytes() as u64;
        region.chunk_size = sizes.frame_bytes;
        set_option(raw, libc::XDP_UMEM_REG, &region)?;
        set_option(raw, libc::XDP_UMEM_FILL_RING, &sizes.fill_ring)?;
        let completion = libc::XDP_UMEM_COMPLETION_RING;
        set_option(raw, completion, &sizes.completion_ring)?;
        set_option(raw, libc::XDP_RX_RING, &sizes.rx_ring)?;
        if sizes.tx_frames > 0 {
            set_option(raw, libc::XDP_TX_RING, &sizes.tx_ring)?;
            // The kernel copies each frame into its own buffer, which by default has room for about
            // ninety.
            set_buffer(
                raw,
                libc::SO_SNDBUFFORCE,
                libc::SO_SNDBUF,
                SEND_BUFFER_BYTES,
            )?;
        }

        // SAFETY: plain data, for which zeros are valid.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { zeroed() };
        get_option(raw, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING;
        let rx_page = u64::try_from(libc::XDP_PGOFF_RX_RING).unwrap_or(0);
        let rings = XskRings {
            fill: map_ring(&fd, fill_page, &offsets.fr, sizes.fill_ring)?,
            rx: map_ring(&fd, rx_page, &offsets.rx, sizes.rx_ring)?,
            transmit: if sizes.tx_frames > 0 {
                let tx_page = u64::try_from(libc::XDP_PGOFF_TX_RING).unwrap_or(0);
                let done_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
                Some((
                    map_ring(&fd, tx_page, &offsets.tx, sizes.tx_ring)?,
                    map_ring(&fd, done_page, &offsets.cr, sizes.completion_ring)?,
                ))
            } else {
                None
            },
        };
        Ok(Self::over(fd, rings, umem, sizes))
    }

    /// A socket over mapped rings and a registered umem of these sizes. All RX frames go to the
    /// kernel.
    pub fn over(fd: OwnedFd, rings: XskRings, umem: Mapping, sizes: XskSizes) -> Self {
        let frame_count = sizes.rx_frames + sizes.tx_frames;
        let (umem, mut free) = Slab::partition(umem, sizes.frame_bytes as usize, frame_count);
        assert!(
            umem.block_count() == frame_count,
            "the umem holds every frame"
        );
        assert!(
            sizes.fill_ring >= 2 * sizes.rx_frames,
            "the fill ring can hold every frame twice: see `refill`"
        );
        assert!(
            sizes.tx_ring >= sizes.tx_frames && sizes.completion_ring >= sizes.tx_frames,
            "the TX ring and the completion ring can each hold every frame"
        );
        let tx_free = free.split_off(sizes.rx_frames as usize);
        let mut xsk = Self {
            fd: Arc::new(fd),
            fill: rings.fill,
            rx: rings.rx,
            umem,
            in_kernel: InKernel::none_of(frame_count),
            free,
            transmit: rings.transmit.map(|(ring, completion)| Transmit {
                ring,
                completion,
                free: tx_free,
                in_flight: 0,
            }),
        };
        xsk.refill();
        xsk
    }

    /// Binds to a queue in copy mode; retries for a while if it is in use.
    pub fn bind(&self, interface: &str, queue: u32) -> io::Result<()> {
        let name = CString::new(interface)?;
        // SAFETY: a zero-terminated string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let address = libc::sockaddr_xdp {
            sxdp_family: AF_XDP,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: address and length describe one live value.
        bind_when_free(|| unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                (&raw const address).cast(),
                socklen::<libc::sockaddr_xdp>(),
            )
        })
    }

    pub const fn hugepages(&self) -> bool {
        self.umem.mapping().hugepages()
    }

    /// For the program's socket map and for reading statistics.
    pub fn share_fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Takes at most `count_max` packets from the RX ring, in order.
    pub fn receive(&mut self, count_max: u32, batch: &mut Vec<Result<RxFrame, BadDescriptor>>) {
        let Self {
            rx,
            umem,
            in_kernel,
            ..
        } = self;
        rx.consume(count_max, |desc| batch.push(claim(umem, in_kernel, desc)));
    }

    pub fn bytes<'a>(&'a self, frame: &'a RxFrame) -> &'a [u8] {
        // `claim` checked start and length against the block.
        &self.umem.bytes(&frame.block)[frame.start..frame.start + frame.len_bytes]
    }

    /// The program's hint from the metadata in front of the packet. If the program wrote none,
    /// these are stale bytes, which the slot table does not confirm.
    pub fn hint(&self, frame: &RxFrame) -> Option<Resident> {
        let start = frame.start.checked_sub(Resident::METADATA_BYTES)?;
        let bytes = self.umem.bytes(&frame.block).get(start..frame.start)?;
        Some(Resident::from_metadata(bytes.try_into().ok()?))
    }

    /// A frame that the kernel owns, for simulating the kernel.
    pub fn kernels_frame(&mut self, address: u64) -> Option<&mut [u8]> {
        let index = usize::try_from(address / self.umem.block_bytes() as u64).ok()?;
        let block = self.in_kernel.by_frame.get_mut(index)?.as_mut()?;
        Some(self.umem.bytes_mut(block))
    }

    /// Returns a frame to the kernel with the next [`Self::refill`].
    pub fn recycle(&mut self, frame: RxFrame) {
        self.free.push(frame.block);
    }

    /// Puts all recycled frames into the fill ring.
    ///
    /// The kernel publishes received packets before it publishes that their frames have left the
    /// fill ring. A frame can be recycled in between, while its old entry still takes up space, so
    /// the ring has room for each frame twice.
    pub fn refill(&mut self) {
        let Self {
            fill,
            free,
            in_kernel,
            umem,
            ..
        } = self;
        let frame_bytes = umem.block_bytes() as u64;
        fill.produce(std::iter::from_fn(|| {
            let block = free.pop()?;
            let index = block.index();
            in_kernel.put(block);
            Some(u64::from(index) * frame_bytes)
        }));
        // I2
        assert!(free.is_empty(), "the fill ring holds every frame");
    }

    /// A free TX frame.
    ///
    /// If there is none, waits for a completion, for about a millisecond: queued frames leave at
    /// the speed of the link, and the next reply would need a frame too.
    pub fn take_tx(&mut self) -> Option<TxFrame> {
        for _ in 0..TX_WAKE_ATTEMPTS {
            if !self.transmit.as_ref()?.free.is_empty() {
                break;
            }
            let sent = self.wake();
            self.reap();
            if sent == WakeOutcome::Failed {
                break;
            }
        }
        self.transmit.as_mut()?.free.pop().map(TxFrame)
    }

    /// Returns an unsent frame.
    pub fn put_back_tx(&mut self, frame: TxFrame) {
        if let Some(transmit) = &mut self.transmit {
            transmit.free.push(frame.0);
        }
    }

    /// Takes completed frames back from the kernel.
    fn reap(&mut self) {
        let Self {
            transmit: Some(transmit),
            umem,
            in_kernel,
            ..
        } = self
        else {
            return;
        };
        let frame_bytes = umem.block_bytes() as u64;
        let Transmit {
            completion, free, ..
        } = transmit;
        let done = completion.consume(u32::MAX, |address| {
            let index = usize::try_from(address / frame_bytes).unwrap_or(usize::MAX);
            // Ignores an address that names no frame owned by the kernel.
            free.extend(in_kernel.take(index));
        });
        transmit.in_flight = transmit.in_flight.saturating_sub(done);
    }

    pub fn tx_bytes<'a>(&'a self, frame: &'a mut TxFrame) -> &'a mut [u8] {
        self.umem.bytes_mut(&mut frame.0)
    }

    /// Queues the frame's first `len_bytes`, to be sent by the next [`Self::kick`].
    pub fn send(&mut self, frame: TxFrame, len_bytes: usize) {
        let Some(transmit) = &mut self.transmit else {
            unreachable!("only a socket with TX frames hands them out")
        };
        let index = frame.0.index();
        let desc = libc::xdp_desc {
            addr: u64::from(index) * self.umem.block_bytes() as u64,
            len: u32::try_from(len_bytes).expect("a frame is a page"),
            options: 0,
        };
        self.in_kernel.put(frame.0);
        let queued = transmit.ring.produce(std::iter::once(desc));
        // I2
        assert!(queued == 1, "the TX ring holds every frame");
        transmit.in_flight += 1;
    }

    /// Makes the kernel send queued frames. It may lack memory for some, which the next call sends.
    ///
    /// Reaps at once, so that the frames used last are reused first, while they are in the cache.
    pub fn kick(&mut self) {
        let in_flight = self.transmit.as_ref().map_or(0, |queue| queue.in_flight);
        for _ in 0..in_flight.div_ceil(FRAMES_PER_KICK) {
            if self.wake() != WakeOutcome::Again {
                break;
            }
        }
        self.reap();
    }

    /// Makes the kernel send some of the queued frames.
    fn wake(&self) -> WakeOutcome {
        // SAFETY: no buffer and no address: the call only wakes the socket.
        let result = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        if result >= 0 {
            return WakeOutcome::Sent;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EBUSY | libc::EINTR) => WakeOutcome::Again,
            _ => WakeOutcome::Failed,
        }
    }

    /// Whether the kernel has not taken all queued frames.
    pub fn has_unsent(&self) -> bool {
        (self.transmit.as_ref()).is_some_and(|transmit| !transmit.ring.is_empty())
    }

    /// Frames without an owner (I2), provided that the caller holds none.
    pub fn frames_missing(&self) -> u32 {
        let to_send = (self.transmit.as_ref()).map_or(0, |transmit| transmit.free.len());
        let ours = u32::try_from(self.free.len() + to_send).unwrap_or(u32::MAX);
        (self.umem.block_count())
            .saturating_sub(self.in_kernel.count)
            .saturating_sub(ours)
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The only place where a kernel descriptor becomes a frame.
fn claim(
    umem: &Slab,
    in_kernel: &mut InKernel,
    desc: libc::xdp_desc,
) -> Result<RxFrame, BadDescriptor> {
    let frame_bytes = umem.block_bytes() as u64;
    let index = usize::try_from(desc.addr / frame_bytes).or(Err(BadDescriptor))?;
    let start = usize::try_from(desc.addr % frame_bytes).or(Err(BadDescriptor))?;
    let len_bytes = desc.len as usize;
    if start + len_bytes > umem.block_bytes() {
        return Err(BadDescriptor);
    }
    let block = in_kernel.take(index).ok_or(BadDescriptor)?;
    Ok(RxFrame {
        block,
        start,
        len_bytes,
    })
}

/// Reads the kernel's counters of a socket.
pub fn statistics(fd: BorrowedFd<'_>) -> io::Result<XskStatistics> {
    // SAFETY: plain data, for which zeros are valid.
    let mut raw: libc::xdp_statistics = unsafe { zeroed() };
    get_option(fd.as_raw_fd(), libc::XDP_STATISTICS, &mut raw)?;
    Ok(XskStatistics {
        rx_dropped: raw.rx_dropped,
        rx_ring_full: raw.rx_ring_full,
        rx_invalid_descs: raw.rx_invalid_descs,
        rx_fill_ring_empty: raw.rx_fill_ring_empty_descs,
    })
}

fn map_ring<T: Entry, Side>(
    fd: &OwnedFd,
    page: u64,
    offsets: &libc::xdp_ring_offset,
    len: u32,
) -> io::Result<Ring<T, Side>> {
    const _: () = assert!(offset_of!(libc::xdp_desc, len) == 8);
    let wide = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
    let offsets = RingOffsets {
        producer: wide(offsets.producer)?,
        consumer: wide(offsets.consumer)?,
        entries: wide(offsets.desc)?,
    };
    let len_bytes = offsets.entries + len as usize * size_of::<T>();
    // SAFETY: ring memory of our own socket, accessed as atomics and as entries between the
    // indices, see `ring`.
    let map = unsafe {
        MmapOptions::new()
            .offset(page)
            .len(len_bytes)
            .populate()
            .map_mut(fd)
    }?;
    Ok(Ring::new(RingMemory::new(map, offsets, len)))
}

fn set_option<T>(fd: RawFd, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: address and length describe one live value, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_XDP,
            name,
            std::ptr::from_ref(value).cast(),
            socklen::<T>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `T` must be plain data, for which any bytes are valid.
fn get_option<T>(fd: RawFd, name: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = socklen::<T>();
    // SAFETY: address and length describe one live value, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_XDP,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::ring_memory::RingMemory;
    use super::*;

    const FRAMES: u32 = 8;

    fn ring<T: Entry>(len: u32) -> (Ring<T, Producing>, Ring<T, Consuming>) {
        let (one, other) = RingMemory::pair(len).unwrap();
        (Ring::new(one), Ring::new(other))
    }

    #[test]
    fn a_frame_may_be_recycled_before_its_old_fill_entry_is_consumed() {
        let sizes = XskSizes {
            frame_bytes: 2048,
            rx_frames: FRAMES,
            tx_frames: 0,
            fill_ring: 2 * FRAMES,
            rx_ring: FRAMES,
            tx_ring: 0,
            completion_ring: 0,
        };
        // The consumer index of the fill ring lags, as between the kernel's two stores.
        let (fill, mut kernels_fill) = ring(sizes.fill_ring);
        let (mut kernels_rx, rx) = ring(sizes.rx_ring);
        let rings = XskRings {
            fill,
            rx,
            transmit: None,
        };
        let umem = Mapping::sparse(sizes.umem_bytes()).unwrap();
        let mut xsk = Xsk::over(File::open("/dev/null").unwrap().into(), rings, umem, sizes);

        let packets = (0..FRAMES).map(|index| libc::xdp_desc {
            addr: u64::from(index * sizes.frame_bytes),
            len: 64,
            options: 0,
        });
        assert_eq!(kernels_rx.produce(packets), FRAMES);
        let mut batch = Vec::new();
        xsk.receive(u32::MAX, &mut batch);
        for frame in batch {
            xsk.recycle(frame.unwrap());
        }
        xsk.refill();
        assert_eq!(xsk.frames_missing(), 0, "I2");
        let mut entries = 0;
        kernels_fill.consume(u32::MAX, |_| entries += 1);
        assert_eq!(entries, 2 * FRAMES, "each frame was given twice");
    }

    #[test]
    fn a_tx_frame_is_free_again_when_it_is_completed_or_put_back() {
        let sizes = XskSizes {
            frame_bytes: 2048,
            rx_frames: 1,
            tx_frames: FRAMES,
            fill_ring: 2,
            rx_ring: 1,
            tx_ring: FRAMES,
            completion_ring: FRAMES,
        };
        let (fill, _) = ring(sizes.fill_ring);
        let (_, rx) = ring(sizes.rx_ring);
        let (tx, _) = ring(sizes.tx_ring);
        let (mut kernels_done, done) = ring(sizes.completion_ring);
        let rings = XskRings {
            fill,
            rx,
            transmit: Some((tx, done)),
        };
        let umem = Mapping::sparse(sizes.umem_bytes()).unwrap();
        // Waking fails on this file, so that `take_tx` does not wait.
        let mut xsk = Xsk::over(File::open("/dev/null").unwrap().into(), rings, umem, sizes);
        for _ in 0..FRAMES {
            let frame = xsk.take_tx().unwrap();
            xsk.send(frame, 64);
        }
        assert!(xsk.take_tx().is_none());
        kernels_done.produce(std::iter::once(u64::from(sizes.frame_bytes)));
        let frame = xsk.take_tx().expect("one is completed");
        assert!(xsk.take_tx().is_none());
        xsk.put_back_tx(frame);
        assert_eq!(xsk.frames_missing(), 0, "I2");
        assert!(xsk.take_tx().is_some());
    }
}
