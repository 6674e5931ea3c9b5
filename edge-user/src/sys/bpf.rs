//! The program's map types, wrapped to implement aya's `Pod`.

use aya::Pod;
use edge_ebpf::frame::Address;
use edge_ebpf::maps::{Cookies, InterfaceSettings, Resident, Tally};
use edge_ebpf::wire::ChunkId;

macro_rules! pod {
    ($($name:ident($inner:ty),)+) => {
        $(
            #[doc = concat!("[`", stringify!($inner), "`], for aya.")]
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug)]
            pub struct $name(pub $inner);

            // SAFETY: `repr(C)` integers and arrays of them, without padding: `edge_ebpf::maps`
            // asserts their sizes.
            unsafe impl Pod for $name {}
        )+
    };
}

pod! {
    InterfaceSettingsValue(InterfaceSettings),
    CookiesValue(Cookies),
    ResidentValue(Resident),
    TallyValue(Tally),
    ChunkIdKey(ChunkId),
    AddressKey(Address),
}
