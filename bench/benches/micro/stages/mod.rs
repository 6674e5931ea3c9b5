//! The pure stages of a request, in order. The same calls are timed (`main.rs`) and have their
//! instructions counted (`count.rs`).

/// From frame to endpoints and GET.
mod parse;
/// From frame to verdict.
mod decide;
/// Validates the cookie.
mod cookie;
/// From a chunk's id to its slot.
mod index;
/// From a steered packet to its reply.
mod answer;
/// From a want set to the parts of sends.
mod gather;

/// The packets that the stages read.
mod packets;
/// A store with many chunks in little memory.
mod stored;

/// What to do with a stage: time its calls, or make them under a counter.
pub(crate) trait Meter {
    /// Maximum number of chunks in a store.
    fn resident_max(&self) -> u32;

    /// Takes one case of a stage. `set_up` is called only if the case is selected.
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
