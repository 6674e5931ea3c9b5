//! What a demo measured, whether that is good, and the two ways to tell it.

use std::fmt::Write as _;

use edge_testbed::objects::files::Object;
use serde_json::{Value, json};

use crate::stage::Outcome;

/// One object, and the hash of what came back; the last wrong one if any was wrong.
pub(crate) struct Fetched {
    pub(crate) object: Object,
    pub(crate) sha256_out: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cold {
    pub(crate) origin_fetches: u64,
    pub(crate) distinct_chunks: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hot {
    pub(crate) gets_xdp: u64,
    pub(crate) gets_kernel: u64,
    pub(crate) origin_fetches: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
}

pub(crate) struct Report {
    pub(crate) objects: Vec<Fetched>,
    pub(crate) cold: Cold,
    pub(crate) hot: Hot,
    pub(crate) mode: Value,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<(bool, String)> {
        let Self {
            objects,
            cold,
            hot,
            mode: _,
        } = self;
        let same = objects
            .iter()
            .filter(|fetched| fetched.object.sha256 == fetched.sha256_out)
            .count();
        vec![
            (
                same == objects.len(),
                format!(
                    "{same} of {} files came back with the same SHA-256",
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
                    "hot: {} GETs taken by the XDP path, {} left to the kernel",
                    hot.gets_xdp, hot.gets_kernel
                ),
            ),
            (
                hot.origin_fetches == 0,
                format!("hot: {} fetches from the origin", hot.origin_fetches),
            ),
        ]
    }

    fn to_json(&self) -> Value {
        let objects: Vec<Value> = self
            .objects
            .iter()
            .map(|Fetched { object, sha256_out }| {
                json!({
                    "name": object.name,
                    "size": object.size,
                    "sha256_in": object.sha256,
                    "sha256_out": sha256_out,
                })
            })
            .collect();
        let Self {
            objects: _,
            cold,
            hot,
            mode,
        } = self;
        json!({
            "ok": self.ok(),
            "objects": objects,
            "cold": {
                "origin_fetches": cold.origin_fetches,
                "distinct_chunks": cold.distinct_chunks,
                "seconds": cold.seconds,
                "bytes": cold.bytes,
            },
            "hot": {
                "gets_xdp": hot.gets_xdp,
                "gets_kernel": hot.gets_kernel,
                "origin_fetches": hot.origin_fetches,
                "seconds": hot.seconds,
                "bytes": hot.bytes,
            },
            "mode": {
                "xdp": mode["xdp"],
                "bind": mode["bind"],
                "hugepages": mode["hugepages"],
                "sender": mode["sender"],
            },
        })
    }

    /// For somebody who sees this project for the first time.
    fn story(&self) -> String {
        let mut story = String::from(
            "
What happened
",
        );
        let mut say = |text: &str| writeln!(story, "{text}").expect("a String grows");
        for Fetched { object, .. } in &self.objects {
            say(&format!("  {} ({})", object.name, size(object.size)));
        }
        say(&format!(
            "Each file was encrypted and cut into chunks named by their own hash: {} chunks.
\
             The key went into a ticket that only the reader got. The edge saw chunk names and
\
             ciphertext, never a key.
",
            self.cold.distinct_chunks
        ));
        say(&format!(
            "Cold, over IPv4: the edge had nothing. It fetched {} chunks from the origin, checked
\
             the hash of each, kept them as ready-made packets in hugepages, and answered.
\
             {} in {:.2} s ({}).
",
            self.cold.origin_fetches,
            size(self.cold.bytes),
            self.cold.seconds,
            speed(self.cold.bytes, self.cold.seconds),
        ));
        say(&format!(
            "Hot, once over IPv4 and once over IPv6: of {} requests the XDP program handed {}
\
             straight to a worker, past the kernel's network stack; {} went through the kernel
\
             and {} chunks came from the origin.
\
             {} in {:.2} s ({}). Speeds are for information: both sides share this machine.
",
            self.hot.gets_xdp + self.hot.gets_kernel,
            self.hot.gets_xdp,
            self.hot.gets_kernel,
            self.hot.origin_fetches,
            size(self.hot.bytes),
            self.hot.seconds,
            speed(self.hot.bytes, self.hot.seconds),
        ));
        say(&format!(
            "Mode in use: XDP {}, AF_XDP {}, hugepages {}, sender {}.
",
            word(&self.mode["xdp"]),
            word(&self.mode["bind"]),
            word(&self.mode["hugepages"]),
            word(&self.mode["sender"]),
        ));
        for (kept, promise) in self.promises() {
            say(&format!(
                "  {}  {promise}",
                if kept { "ok   " } else { "WRONG" }
            ));
        }
        story
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
                sha256_out: "same".into(),
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
            |report| report.objects[0].sha256_out = "other".into(),
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
        assert_eq!(object["objects"][0]["sha256_in"], "same");
        assert_eq!(object["hot"]["gets_xdp"], 100);
        assert_eq!(object["mode"]["hugepages"], true);
    }

    #[test]
    fn the_story_names_numbers_and_promises() {
        let story = report().story();
        assert!(story.contains("100 GETs taken by the XDP path"), "{story}");
        assert!(!story.contains("WRONG"), "{story}");
    }
}
