//! Epoch-based reclamation: blocks are on loan to readers, and return to their owner once no reader
//! uses them (I6).
//!
//! Each withdrawal begins an epoch. A reader announces the epoch it has seen whenever neither it
//! nor the kernel on its behalf reads a block. A block withdrawn in epoch e may be written again
//! once every reader has announced e or later.
//!
//! This is sound because the owner ends the loan, fences, and loads the announcements, while a
//! reader announces, fences, and loads the loan: at least one of the two sees the other's store.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::slab::{Block, Slab, Span};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// The announcement of a reader that does not exist.
const VACANT: u64 = u64::MAX;
/// The announcement of a sleeping reader. Like [`VACANT`], later than any epoch.
const OFFLINE: u64 = VACANT - 1;

/// Loans of one slab's blocks, the current epoch, and the readers' announcements.
#[derive(Clone, Debug)]
pub struct Epochs(Arc<State>);

#[derive(Debug)]
struct State {
    slab: Arc<Slab>,
    /// By block: whether it is on loan. Written only with the block's token.
    lent: Box<[AtomicBool]>,
    /// By block: its owned loans.
    owners: Box<[AtomicU32]>,
    /// Owned loans of all blocks, and their maximum.
    owned: AtomicU32,
    owned_max: u32,
    current: CachePadded<AtomicU64>,
    readers: Box<[CachePadded<AtomicU64>]>,
}

/// The right to read blocks on loan, with an announcement of its own.
#[derive(Debug)]
pub struct Reader {
    state: Arc<State>,
    number: usize,
    online: bool,
    /// Sends of its loans in flight. Written only by [`Holds`].
    held: Arc<AtomicU32>,
    holds_given: bool,
}

/// A block being read. Its reader is not quiescent while this exists.
#[derive(Clone, Copy)]
pub struct Loan<'pin> {
    reader: &'pin Reader,
    index: u32,
}

/// A block being read beyond the reader's next quiescent state. The block is not reclaimed while
/// this exists.
#[derive(Debug)]
pub struct OwnedLoan {
    state: Arc<State>,
    index: u32,
}

/// Counts the sends in flight that read a reader's loans: the reader is not quiescent until they
/// are done. There is one for each reader.
#[derive(Debug)]
pub struct Holds {
    state: Arc<State>,
    held: Arc<AtomicU32>,
}

/// A block on loan: readable by readers and writable by no one.
#[derive(Debug)]
#[must_use = "a dropped block is leaked"]
pub struct Lent {
    block: Block,
    state: Arc<State>,
}

/// A block that no reader can begin to read, and that some may still be reading.
#[derive(Debug)]
#[must_use = "a dropped block is leaked"]
pub struct Withdrawn {
    block: Block,
    epoch: u64,
    state: Arc<State>,
}

/// Why a block cannot be reclaimed yet.
#[derive(Debug)]
pub enum InUse {
    /// A reader has not been quiescent since the withdrawal.
    Pinned(Withdrawn),
    /// There is an owned loan.
    Owned(Withdrawn),
}

impl Epochs {
    /// `owned_max` bounds the owned loans at any time. No block is on loan yet.
    pub fn new(slab: Arc<Slab>, readers: usize, owned_max: u32) -> Self {
        let lent = (0..slab.block_count()).map(|_| AtomicBool::new(false));
        let owners = (0..slab.block_count()).map(|_| AtomicU32::new(0));
        let vacant = || CachePadded::new(AtomicU64::new(VACANT));
        Self(Arc::new(State {
            lent: lent.collect(),
            owners: owners.collect(),
            owned: AtomicU32::new(0),
            owned_max,
            current: CachePadded::new(AtomicU64::new(0)),
            readers: (0..readers).map(|_| vacant()).collect(),
            slab,
        }))
    }

    pub fn slab(&self) -> &Slab {
        &self.0.slab
    }

    /// The reader with this number, initially offline. There is at most one at a time.
    pub fn reader(&self, number: usize) -> Reader {
        // Acquire: the reads of an earlier reader of this number happen before this one announces.
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
            held: Arc::new(AtomicU32::new(0)),
            holds_given: false,
        }
    }

    /// Puts the block on loan to all readers.
    pub fn lend(&self, block: Block) -> Lent {
        assert!(block.is_of(&self.0.slab), "the block is of this slab");
        // Release: a reader that sees the loan sees the bytes.
        self.0.lent[block.index() as usize].store(true, Ordering::Release);
        Lent {
            block,
            state: Arc::clone(&self.0),
        }
    }

    /// The block, if it is on loan. The reader must be online.
    #[inline]
    pub fn loan<'pin>(&self, pin: &'pin Reader, index: u32) -> Option<Loan<'pin>> {
        assert!(
            Arc::ptr_eq(&self.0, &pin.state),
            "the reader belongs to this slab"
        );
        assert!(pin.online, "a reader announces itself before it reads");
        // Acquire: the bytes are those of this loan or of a later one.
        let lent = self.0.lent.get(index as usize)?.load(Ordering::Acquire);
        lent.then_some(Loan { reader: pin, index })
    }
}

impl Lent {
    /// Ends the loan: no further reader can begin to read the block.
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
    /// Returns the block if every reader has been quiescent since it was withdrawn and there is no
    /// owned loan.
    pub fn reclaim(self) -> Result<Block, InUse> {
        // Orders the end of the loan before the loads below.
        fence(Ordering::SeqCst);
        // Acquire: a reader's reads before its announcement happen before this, and its owned loans
        // from before it are visible; later ones cannot be made.
        let passed = |reader: &CachePadded<AtomicU64>| reader.load(Ordering::Acquire) >= self.epoch;
        if !self.state.readers.iter().all(passed) {
            return Err(InUse::Pinned(self));
        }
        // Acquire: reads through owned loans happen before this.
        if self.state.owners[self.block.index() as usize].load(Ordering::Acquire) > 0 {
            return Err(InUse::Owned(self));
        }
        Ok(self.block)
    }
}

impl Reader {
    /// Announces a quiescent state, unless sends are in flight. The exclusive borrow guarantees
    /// that no loan exists.
    #[inline]
    pub fn quiescent(&mut self) {
        if self.is_held() {
            return;
        }
        let epoch = self.state.current.load(Ordering::Acquire);
        // Release: this reader's reads happen before.
        self.state.readers[self.number].store(epoch, Ordering::Release);
        self.online = true;
        // Orders the announcement before any load of a loan.
        fence(Ordering::SeqCst);
    }

    /// Stays quiescent until the next [`Self::quiescent`], for sleeping. Does nothing while sends
    /// are in flight.
    pub fn offline(&mut self) {
        if self.is_held() {
            return;
        }
        self.online = false;
        self.state.readers[self.number].store(OFFLINE, Ordering::Release);
    }

    /// Goes online if it was offline.
    #[inline]
    pub fn resume(&mut self) {
        if !self.online {
            self.quiescent();
        }
    }

    #[inline]
    fn is_held(&self) -> bool {
        // Acquire: the reads of completed sends happen before this.
        self.held.load(Ordering::Acquire) > 0
    }

    /// The counter for the sends of this reader's loans.
    pub fn holds(&mut self) -> Holds {
        assert!(
            !self.holds_given,
            "a reader's sends are counted in one place"
        );
        self.holds_given = true;
        Holds {
            state: Arc::clone(&self.state),
            held: Arc::clone(&self.held),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // If a send never ended, the blocks that it may read are never reclaimed.
        if !self.is_held() {
            self.state.readers[self.number].store(VACANT, Ordering::Release);
        }
    }
}

impl Holds {
    /// Counts a send that reads this loan.
    #[inline]
    pub fn hold(&mut self, loan: &Loan<'_>) {
        assert!(
            Arc::ptr_eq(&self.held, &loan.reader.held),
            "the loan belongs to the reader whose sends are counted here"
        );
        // Relaxed: only `self` writes, and the loan keeps the reader from becoming quiescent.
        let held = self.held.load(Ordering::Relaxed);
        self.held.store(held + 1, Ordering::Relaxed);
    }

    /// Counts the completion of a send.
    #[inline]
    pub fn release(&mut self) {
        let held = self.held.load(Ordering::Relaxed);
        assert!(held > 0, "a send was counted");
        // Release: the send's reads happen before.
        self.held.store(held - 1, Ordering::Release);
    }

    /// The slab that the sends read.
    pub fn slab(&self) -> &Arc<Slab> {
        &self.state.slab
    }
}

impl<'pin> Loan<'pin> {
    #[inline]
    pub fn bytes(&self) -> &'pin [u8] {
        // SAFETY: the loan was seen after the reader announced, so the block is not reclaimed
        // before it announces again (`Withdrawn::reclaim`), which it cannot do while `self` borrows
        // it; and a block cannot be written before it is reclaimed (`Lent`, `Withdrawn`).
        unsafe { self.reader.state.slab.lent_bytes(self.index) }
    }

    /// Part of the block, for the kernel to read under [`Holds`].
    #[inline]
    pub(in crate::sys) fn span(&self, part: Range<usize>) -> Span {
        self.reader.state.slab.span(self.index, part)
    }

    /// Prefetches part of the block into the CPU cache.
    #[inline]
    pub fn prefetch(&self, part: Range<usize>) {
        let slab = &self.reader.state.slab;
        slab.prefetch(self.span(part));
    }

    /// A loan that outlasts the pin; `None` if the maximum is reached.
    pub fn to_owned(&self) -> Option<OwnedLoan> {
        let state = &self.reader.state;
        let one_more = |owned| (owned < state.owned_max).then_some(owned + 1);
        (state.owned)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        // Visible to every reclaim that sees this reader's next announcement.
        state.owners[self.index as usize].fetch_add(1, Ordering::Relaxed);
        Some(OwnedLoan {
            state: Arc::clone(state),
            index: self.index,
        })
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Loan")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl OwnedLoan {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the block was on loan when this was made. It is not reclaimed while its count of
        // owned loans is above zero (`Withdrawn::reclaim`), which it is until `drop`; and it cannot
        // be written before it is reclaimed.
        unsafe { self.state.slab.lent_bytes(self.index) }
    }
}

impl Drop for OwnedLoan {
    fn drop(&mut self) {
        // Release: reads through this loan happen before.
        self.state.owners[self.index as usize].fetch_sub(1, Ordering::Release);
        self.state.owned.fetch_sub(1, Ordering::Relaxed);
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

    fn bytes<'pin>(epochs: &Epochs, reader: &'pin Reader, index: u32) -> Option<&'pin [u8]> {
        epochs.loan(reader, index).map(|loan| loan.bytes())
    }

    #[test]
    fn a_block_is_readable_while_on_loan_and_reclaimed_when_no_reader_uses_it() {
        // I6
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(Arc::clone(&slab), 1, 1);
        let mut reader = epochs.reader(0);
        reader.quiescent();
        let mut block = blocks.remove(0);
        slab.bytes_mut(&mut block).fill(7);
        assert_eq!(bytes(&epochs, &reader, 0), None, "its owner may write it");

        let lent = epochs.lend(block);
        assert_eq!(bytes(&epochs, &reader, 0), Some(&[7; 1000][..]));
        assert_eq!(bytes(&epochs, &reader, 1), None);
        assert_eq!(bytes(&epochs, &reader, 2), None, "there is no such block");

        let withdrawn = lent.withdraw();
        assert_eq!(bytes(&epochs, &reader, 0), None);
        let Err(InUse::Pinned(withdrawn)) = withdrawn.reclaim() else {
            panic!("the reader has not announced since")
        };
        reader.quiescent();
        let block = withdrawn.reclaim().unwrap();
        assert_eq!(bytes(&epochs, &reader, 0), None);

        let withdrawn = epochs.lend(block).withdraw();
        drop(reader);
        assert!(withdrawn.reclaim().is_ok());
    }

    #[test]
    #[should_panic(expected = "no two readers")]
    fn a_second_reader_cannot_announce_for_the_first() {
        let epochs = Epochs::new(slab().0, 1, 1);
        let _first = epochs.reader(0);
        let _second = epochs.reader(0);
    }

    #[test]
    #[should_panic(expected = "announces itself")]
    fn an_offline_reader_cannot_read() {
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(slab, 1, 1);
        let _lent = epochs.lend(blocks.remove(0));
        let mut reader = epochs.reader(0);
        reader.quiescent();
        reader.offline();
        epochs.loan(&reader, 0);
    }

    #[test]
    #[should_panic(expected = "of this slab")]
    fn a_block_of_another_slab_is_not_lent() {
        let (_other, mut blocks) = slab();
        let _lent = Epochs::new(slab().0, 1, 1).lend(blocks.remove(0));
    }

    #[test]
    fn a_reader_is_not_quiescent_while_a_send_of_its_loans_is_in_flight() {
        // I6
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(slab, 1, 1);
        let mut reader = epochs.reader(0);
        let mut holds = reader.holds();
        let lent = epochs.lend(blocks.remove(0));
        reader.quiescent();
        holds.hold(&epochs.loan(&reader, 0).unwrap());
        let mut withdrawn = lent.withdraw();
        for announce in [Reader::quiescent, Reader::offline] {
            announce(&mut reader);
            let Err(InUse::Pinned(still)) = withdrawn.reclaim() else {
                panic!("reclaimed during a send")
            };
            withdrawn = still;
        }
        holds.release();
        reader.quiescent();
        let lent = epochs.lend(withdrawn.reclaim().unwrap());
        // Nor is a reader that is dropped before its send is done.
        holds.hold(&epochs.loan(&reader, 0).unwrap());
        drop(reader);
        assert!(lent.withdraw().reclaim().is_err());
    }

    #[test]
    fn an_owned_loan_keeps_its_block_and_their_number_is_bounded() {
        // I6, I9
        let (slab, mut blocks) = slab();
        let epochs = Epochs::new(slab, 1, 2);
        let mut reader = epochs.reader(0);
        let lent = epochs.lend(blocks.remove(0));
        reader.quiescent();
        let loan = epochs.loan(&reader, 0).unwrap();
        let [one, other] = [0, 1].map(|_| loan.to_owned().unwrap());
        assert!(loan.to_owned().is_none());
        drop(one);
        let one = loan.to_owned().unwrap();
        reader.offline();
        let mut withdrawn = lent.withdraw();
        for owned in [one, other] {
            let Err(InUse::Owned(still)) = withdrawn.reclaim() else {
                panic!("reclaimed during an owned loan")
            };
            withdrawn = still;
            assert_eq!(owned.bytes().len(), 1000);
        }
        assert!(withdrawn.reclaim().is_ok());
    }
}
