//! Blocks on loan: others read them, and their owner gets them back once nobody does (I6).
//!
//! Time is counted in epochs, one for each withdrawal. A reader announces the epoch it has seen
//! whenever it reads nothing. A block withdrawn in epoch e may be written again once every reader
//! has announced e or later.
//!
//! The order that makes it sound: the owner ends the loan, fences, and reads the announcements; a
//! reader announces, fences, and looks for the loan. One of the two sees the other.

use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::slab::{Block, Slab};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};

/// What is announced for a reader that does not exist.
const VACANT: u64 = u64::MAX;
/// What a reader announces while it sleeps. Like [`VACANT`], later than any epoch.
const OFFLINE: u64 = VACANT - 1;

/// The blocks of one slab that are on loan, the epoch, and what each reader has announced.
#[derive(Clone, Debug)]
pub struct Epochs(Arc<State>);

#[derive(Debug)]
struct State {
    slab: Arc<Slab>,
    /// By block: whether a reader may begin to read it. Written only with the block's token.
    lent: Box<[AtomicBool]>,
    current: CachePadded<AtomicU64>,
    readers: Box<[CachePadded<AtomicU64>]>,
}

/// The right to read blocks on loan. It has its announcement to itself.
#[derive(Debug)]
pub struct Reader {
    state: Arc<State>,
    number: usize,
    online: bool,
}

/// A block that readers may read, and nobody may write.
#[derive(Debug)]
#[must_use = "a block let go is memory leaked for good"]
pub struct Lent {
    block: Block,
    state: Arc<State>,
}

/// A block that no reader begins to read, and some may still be reading.
#[derive(Debug)]
#[must_use = "a block let go is memory leaked for good"]
pub struct Withdrawn {
    block: Block,
    epoch: u64,
    state: Arc<State>,
}

impl Epochs {
    /// For so many readers. Nothing is on loan yet.
    pub fn new(slab: Arc<Slab>, readers: usize) -> Self {
        let lent = (0..slab.block_count()).map(|_| AtomicBool::new(false));
        let vacant = || CachePadded::new(AtomicU64::new(VACANT));
        Self(Arc::new(State {
            lent: lent.collect(),
            current: CachePadded::new(AtomicU64::new(0)),
            readers: (0..readers).map(|_| vacant()).collect(),
            slab,
        }))
    }

    /// The reader with this number, asleep. There is at most one at a time.
    pub fn reader(&self, number: usize) -> Reader {
        // Acquire: what an earlier reader of this number read, it read before this one announces.
        let taken = self.0.readers[number].compare_exchange(
            VACANT,
            OFFLINE,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        assert!(taken.is_ok(), "no two readers share an announcement");
        Reader {
            state: Arc::clone(&self.0),
            number,
            online: false,
        }
    }

    /// Lets readers read the block.
    pub fn lend(&self, block: Block) -> Lent {
        assert!(block.is_of(&self.0.slab), "the block is of this slab");
        // Release: a reader that sees the loan sees the bytes.
        self.0.lent[block.index() as usize].store(true, Ordering::Release);
        Lent {
            block,
            state: Arc::clone(&self.0),
        }
    }
}

impl Lent {
    /// Ends the loan for everybody who does not read the block yet.
    pub fn withdraw(self) -> Withdrawn {
        let Self { block, state } = self;
        state.lent[block.index() as usize].store(false, Ordering::Release);
        let epoch = state.current.fetch_add(1, Ordering::SeqCst) + 1;
        Withdrawn {
            block,
            epoch,
            state,
        }
    }
}

impl Withdrawn {
    /// The block, if every reader has been quiescent since it was withdrawn.
    pub fn reclaim(self) -> Result<Block, Self> {
        // After the end of the loan.
        fence(Ordering::SeqCst);
        // Acquire: what a reader read before it announced, it read before this.
        let passed = |reader: &CachePadded<AtomicU64>| reader.load(Ordering::Acquire) >= self.epoch;
        if self.state.readers.iter().all(passed) {
            Ok(self.block)
        } else {
            Err(self)
        }
    }
}

impl Reader {
    /// Reads nothing, and has no send under way.
    #[inline]
    pub fn quiescent(&mut self) {
        let epoch = self.state.current.load(Ordering::Acquire);
        // Release: what this reader read, it read before.
        self.state.readers[self.number].store(epoch, Ordering::Release);
        self.online = true;
        // Before any look at a loan.
        fence(Ordering::SeqCst);
    }

    /// Reads nothing until the next [`Self::quiescent`]: before sleeping, and at the end.
    pub fn offline(&mut self) {
        self.online = false;
        self.state.readers[self.number].store(OFFLINE, Ordering::Release);
    }

    /// The bytes of a block, if it is on loan. They cannot outlast the next quiescent state, which
    /// borrows the reader mutably.
    #[inline]
    pub fn bytes(&self, index: u32) -> Option<&[u8]> {
        assert!(self.online, "a reader announces itself before it reads");
        // Acquire: the bytes are those of this loan, or of a later one.
        let lent = self.state.lent.get(index as usize)?.load(Ordering::Acquire);
        // SAFETY: the loan was seen after this reader announced, so the block is not reclaimed
        // before it announces again (`Withdrawn::reclaim`), which it cannot do while the result
        // borrows it; and nobody can write a block that was not reclaimed (`Lent`, `Withdrawn`).
        lent.then(|| unsafe { self.state.slab.lent_bytes(index) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.state.readers[self.number].store(VACANT, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;

    fn slab() -> (Arc<Slab>, Vec<Block>) {
        let (slab, blocks) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 2);
        (Arc::new(slab), blocks)
    }

    #[test]
    fn only_a_piece_on_loan_is_read_and_only_one_that_nobody_reads_comes_back() {
        // I6
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(Arc::clone(&slab), 1);
        let mut reader = epochs.reader(0);
        reader.quiescent();
        let mut block = blocks.remove(0);
        slab.bytes_mut(&mut block).fill(7);
        assert_eq!(reader.bytes(0), None, "its owner may write it");

        let lent = epochs.lend(block);
        assert_eq!(reader.bytes(0), Some(&[7; 1000][..]));
        assert_eq!(reader.bytes(1), None);
        assert_eq!(reader.bytes(2), None, "there is no such block");

        let withdrawn = lent.withdraw();
        assert_eq!(reader.bytes(0), None);
        let withdrawn = withdrawn.reclaim().unwrap_err();
        reader.quiescent();
        let block = withdrawn.reclaim().unwrap();
        assert_eq!(reader.bytes(0), None);

        let withdrawn = epochs.lend(block).withdraw();
        drop(reader);
        assert!(withdrawn.reclaim().is_ok());
    }

    #[test]
    #[should_panic(expected = "no two readers")]
    fn a_second_reader_cannot_announce_for_the_first() {
        let epochs = Epochs::new(slab().0, 1);
        let _first = epochs.reader(0);
        let _second = epochs.reader(0);
    }

    #[test]
    #[should_panic(expected = "announces itself")]
    fn a_reader_that_sleeps_reads_nothing() {
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(slab, 1);
        let _lent = epochs.lend(blocks.remove(0));
        let mut reader = epochs.reader(0);
        reader.quiescent();
        reader.offline();
        reader.bytes(0);
    }

    #[test]
    #[should_panic(expected = "of this slab")]
    fn a_piece_of_another_slab_is_not_lent() {
        let (_other, mut blocks) = slab();
        let _lent = Epochs::new(slab().0, 1).lend(blocks.remove(0));
    }
}
