//! Results of a demo, and whether they are as promised.

use edge_testbed::objects::files::Object;
use serde::Serialize;
use serde_json::Value;

use crate::testbed::{Outcome, Promise};

/// An object, and whether it was intact each time.
#[derive(Serialize)]
pub(crate) struct Fetched {
    #[serde(flatten)]
    pub(crate) object: Object,
    pub(crate) whole: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cold {
    pub(crate) origin_fetches: u64,
    pub(crate) distinct_chunks: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Hot {
    pub(crate) gets_xdp: u64,
    pub(crate) gets_kernel: u64,
    pub(crate) origin_fetches: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) objects: Vec<Fetched>,
    pub(crate) cold: Cold,
    pub(crate) hot: Hot,
    pub(crate) mode: Value,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<Promise> {
        let Self {
            objects,
            cold,
            hot,
            mode: _,
        } = self;
        let same = objects.iter().filter(|fetched| fetched.whole).count();
        vec![
            (
                same == objects.len(),
                format!(
                    "{same} of {} files were received with the same SHA-256",
                    objects.len()
                ),
            ),
            (
                cold.origin_fetches == cold.distinct_chunks,
                format!(
                    "cold: {} chunks exist, {} fetches from the origin",
                    cold.distinct_chunks, cold.origin_fetches
                ),
            ),
            (
                hot.gets_kernel * 100 <= hot.gets_xdp && hot.gets_xdp > 0,
                format!(
                    "hot: {} GETs by the XDP path, {} by the kernel",
                    hot.gets_xdp, hot.gets_kernel
                ),
            ),
            (
                hot.origin_fetches == 0,
                format!("hot: {} fetches from the origin", hot.origin_fetches),
            ),
        ]
    }

    fn story(&self) -> String {
        let Self {
            objects,
            cold,
            hot,
            mode,
        } = self;
        let objects = objects
            .iter()
            .map(|Fetched { object, .. }| format!("  {} ({})\n", object.name, size(object.size)));
        format!(
            "
What happened
{}Each file was encrypted and cut into chunks named by their own hash: {} chunks.
The key is in a ticket that only the reader has. The edge had chunk names and
ciphertext, but no key.

Cold, over IPv4: the edge's store was empty. It fetched {} chunks from the origin,
verified the hash of each, stored them as prepared packets in hugepages, and replied.
{} in {:.2} s ({}).

Hot, once over IPv4 and once over IPv6: of {} requests the XDP program passed {}
directly to a worker, bypassing the kernel's network stack; {} went through the
kernel, and {} chunks were fetched from the origin.
{} in {:.2} s ({}). Speeds are for information: both sides share this host.

Mode in use: XDP {}, AF_XDP {}, hugepages {}, sender {}.
",
            objects.collect::<String>(),
            cold.distinct_chunks,
            cold.origin_fetches,
            size(cold.bytes),
            cold.seconds,
            speed(cold.bytes, cold.seconds),
            hot.gets_xdp + hot.gets_kernel,
            hot.gets_xdp,
            hot.gets_kernel,
            hot.origin_fetches,
            size(hot.bytes),
            hot.seconds,
            speed(hot.bytes, hot.seconds),
            word(&mode["xdp"]),
            word(&mode["bind"]),
            word(&mode["hugepages"]),
            word(&mode["sender"]),
        )
    }
}

fn word(value: &Value) -> String {
    if let Some(yes) = value.as_bool() {
        return if yes { "yes" } else { "no" }.to_owned();
    }
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => String::from("empty"),
        1..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} KB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a speed in words needs three digits"
)]
fn speed(bytes: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return String::from("too fast to tell");
    }
    format!("{:.0} MB/s", bytes as f64 / seconds / 1e6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report() -> Report {
        let object = Object {
            name: "a".into(),
            path: "/a".into(),
            size: 3,
            sha256: String::from("same"),
        };
        Report {
            objects: vec![Fetched {
                object,
                whole: true,
            }],
            cold: Cold {
                origin_fetches: 2,
                distinct_chunks: 2,
                seconds: 1.0,
                bytes: 3,
            },
            hot: Hot {
                gets_xdp: 100,
                gets_kernel: 1,
                origin_fetches: 0,
                seconds: 1.0,
                bytes: 6,
            },
            mode: json!({"xdp": "native", "bind": "copy", "hugepages": true, "sender": "gso"}),
        }
    }

    #[test]
    fn a_demo_is_good_only_when_every_promise_is_kept() {
        assert!(report().ok());
        let broken: [fn(&mut Report); 5] = [
            |report| report.objects[0].whole = false,
            |report| report.cold.origin_fetches = 3,
            |report| report.hot.gets_kernel = 2,
            |report| report.hot.gets_xdp = 0,
            |report| report.hot.origin_fetches = 1,
        ];
        for break_it in broken {
            let mut report = report();
            break_it(&mut report);
            assert!(!report.ok());
            assert_eq!(report.to_json()["ok"], false);
        }
    }

    #[test]
    fn the_object_on_standard_output_has_the_promised_fields() {
        let object = report().to_json();
        assert_eq!(object["objects"][0]["sha256"], "same");
        assert_eq!(object["hot"]["gets_xdp"], 100);
        assert_eq!(object["mode"]["hugepages"], true);
    }

    #[test]
    fn the_story_names_numbers_and_promises() {
        let story = report().to_text();
        assert!(story.contains("100 GETs by the XDP path"), "{story}");
        assert!(!story.contains("WRONG"), "{story}");
    }
}
