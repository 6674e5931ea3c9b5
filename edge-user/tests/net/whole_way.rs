//! From sealed file to opened file.

use std::net::SocketAddr;

use crate::daemon::{Edged, Settings, gets, settings};
use crate::objects::{Object, chunk_files};
use crate::testbed::{Testbed, offload};

with_each_sender!(
    a_file_goes_the_whole_way_past_the_kernel_with_the_native_program,
    a_file_goes_the_whole_way_past_the_kernel_with_the_generic_program
);

fn a_file_goes_the_whole_way_past_the_kernel_with_the_native_program(sender: &'static str) {
    a_file_goes_the_whole_way("native", sender);
}

fn a_file_goes_the_whole_way_past_the_kernel_with_the_generic_program(sender: &'static str) {
    a_file_goes_the_whole_way("generic", sender);
}

#[test]
fn a_file_goes_the_whole_way_through_the_kernel_without_a_program() {
    a_file_goes_the_whole_way("off", "gso");
}

/// Cold, then hot, over IPv4 and IPv6, with the checksum offload of the reader's sends on and off.
fn a_file_goes_the_whole_way(xdp: &'static str, sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let rows = [
        ("on4", "on", testbed.service_v4()),
        ("on6", "on", testbed.service_v6()),
        ("off4", "off", testbed.service_v4()),
        ("off6", "off", testbed.service_v6()),
    ];
    let objects = rows.map(|(name, ..)| Object::seal(&testbed, name, 6_000_000));
    let setup = Settings {
        xdp: xdp.to_owned(),
        ..settings(&testbed, sender)
    };
    let edged = Edged::start(&testbed, &setup);
    let mode = edged.stat().mode;
    assert_eq!((mode.xdp.as_str(), mode.sender.as_str()), (xdp, sender));
    assert_eq!(mode.bind, if xdp == "off" { "none" } else { "copy" });
    assert_eq!(testbed.has_program(), xdp != "off");

    for ((name, state, edge), object) in rows.iter().zip(&objects) {
        offload(&testbed.reader, state);
        cold_and_hot(&testbed, &edged, object, *edge, xdp, name);
    }
    let distinct_chunks = chunk_files(setup.origin()).len() as u64;
    assert_eq!(edged.settled().origin.fetches_total, distinct_chunks);
    edged.stop();
}

fn cold_and_hot(
    testbed: &Testbed,
    edged: &Edged,
    object: &Object,
    edge: SocketAddr,
    xdp: &str,
    name: &str,
) {
    let start = edged.settled();
    object.fetch(testbed, edge);
    let cold = edged.settled();
    object.fetch(testbed, edge);
    let hot = edged.settled();

    let fetched = cold.origin.fetches_total - start.origin.fetches_total;
    assert_eq!(
        fetched,
        object.chunks.len() as u64,
        "{name}: each chunk is fetched once"
    );
    assert_eq!(
        hot.origin.fetches_total, cold.origin.fetches_total,
        "{name}: hot is hot"
    );
    let (before, now) = (gets(&cold), gets(&hot));
    let (steered, to_kernel) = (now.0 - before.0, now.1 - before.1);
    if xdp == "off" {
        assert_eq!(now, (0, 0), "{name}: there is no program");
        assert!(hot.socket.sends.bytes > cold.socket.sends.bytes, "{name}");
    } else {
        assert!(
            steered >= object.chunks.len() as u64,
            "{name}: {steered} steered"
        );
        assert!(
            to_kernel * 100 <= steered,
            "{name}: {to_kernel} to the kernel of {steered}"
        );
    }
}
