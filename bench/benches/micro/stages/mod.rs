//! The pure stages of a request, in the order it meets them. The same calls are timed (`main.rs`)
//! and have their instructions counted (`count.rs`).

/// From frame to endpoints and GET.
mod parse;
/// From frame to verdict.
mod decide;
/// The proof of the sender's address.
mod cookie;
/// From a chunk's id to its slot.
mod index;
/// From a steered packet to what is sent.
mod answer;
/// From a want set to the parts of sends.
mod gather;

/// Packets that the stages read.
mod packets;
/// A store with many chunks in little memory.
mod stored;

/// What is done with a stage: its calls are timed, or made under a counter.
pub(crate) trait Meter {
    /// Most chunks that are worth being put into a store.
    fn resident_max(&self) -> u32;

    /// Takes one case of a stage. `set_up` is called only if the case is wanted.
    fn measure<S, R>(
        &mut self,
        stage: &str,
        case: &str,
        set_up: impl Fn() -> S,
        call: impl FnMut(&mut S) -> R,
    );
}

pub(crate) fn all(meter: &mut impl Meter) {
    parse::all(meter);
    decide::all(meter);
    cookie::all(meter);
    index::all(meter);
    answer::all(meter);
    gather::all(meter);
}
