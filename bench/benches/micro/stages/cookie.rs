//! Validates the cookie: the key of its epoch, then SipHash.

use std::hint::black_box;

use edge_ebpf::frame::{Address, Endpoint};
use edge_ebpf::golden::{self, EPOCH};
use edge_ebpf::maps::Cookies;
use edge_ebpf::wire::Cookie;

use super::Meter;

struct Claim {
    cookies: Cookies,
    client: Endpoint,
    cookie: Cookie,
}

/// A client with a valid cookie.
fn good() -> Claim {
    let cookies = golden::world().cookies;
    let client = Endpoint {
        address: Address::v4([192, 0, 2, 7]),
        port: 40_000,
    };
    let cookie = cookies.issue(&client).expect("the epoch has a key");
    Claim {
        cookies,
        client,
        cookie,
    }
}

/// The same with a cookie labelled as of this epoch.
fn of_epoch(epoch: u32) -> Claim {
    let mut claim = good();
    claim.cookie.epoch = epoch;
    claim
}

pub(super) fn all(meter: &mut impl Meter) {
    meter.measure("cookie", "made", good, |claim| {
        claim.cookies.issue(black_box(&claim.client))
    });
    let check = |claim: &mut Claim| {
        let cookie = black_box(&claim.cookie);
        claim.cookies.accepts(cookie, black_box(&claim.client))
    };
    meter.measure("cookie", "good", good, check);
    meter.measure("cookie", "wrong", || of_epoch(EPOCH + 1), check);
    meter.measure("cookie", "of an epoch past", || of_epoch(EPOCH - 2), check);
}
