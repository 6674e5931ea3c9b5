//! Slow links with short and long queues.

use std::thread;

use crate::daemon::{Edged, settings};
use crate::objects::Object;
use crate::testbed::{Testbed, tc};

/// A full datagram, and what of it is content.
const FRAME_BYTES: f64 = 1274.0;
const SEGMENT_BYTES: f64 = 1216.0;
/// How long a fetch takes at best: long enough for every window and timeout to settle.
const SECONDS: u64 = 8;

/// Every cell of rate and queue, all at a time: they wait more than they work.
#[test]
fn a_slow_link_is_filled_and_not_flooded_with_repairs() {
    thread::scope(|scope| {
        for kilobits in [64, 128, 256, 512] {
            for queue_bytes in [16_384, 65_536] {
                scope.spawn(move || fetch_over(kilobits, queue_bytes));
            }
        }
    });
}

fn fetch_over(kilobits: u64, queue_bytes: u64) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let size_bytes = kilobits * 125 * SECONDS;
    let object = Object::seal(&testbed, "slow", usize::try_from(size_bytes).unwrap());
    let edged = Edged::start(&testbed, &settings(&testbed, "gso"));
    let (rate, limit) = (format!("{kilobits}kbit"), queue_bytes.to_string());
    let shaped = ["tbf", "rate", &rate, "burst", "4k", "limit", &limit];
    tc(&[
        &[
            "-n",
            &testbed.edge.namespace,
            "qdisc",
            "add",
            "dev",
            testbed.edge.link,
            "root",
        ],
        &shaped[..],
    ]
    .concat());

    let fetched = object.fetch_reported(&testbed, testbed.service_v4());
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let segments = (size_bytes as f64 / SEGMENT_BYTES).ceil();
    let bits_per_second = f64::from(u32::try_from(kilobits * 1000).unwrap());
    let ideal = segments * FRAME_BYTES * 8.0 / bits_per_second;
    let (seconds, again) = (
        fetched["seconds"].as_f64().unwrap(),
        fetched["retransmitted"].as_f64().unwrap(),
    );
    let row = format!(
        "{kilobits} kbit/s, {queue_bytes} bytes: {seconds:.1} s of {ideal:.1}, {again} of {segments}"
    );
    assert!(seconds < ideal * 1.6, "{row}");
    assert!(again < segments * 0.3, "{row}");
    edged.stop();
}
