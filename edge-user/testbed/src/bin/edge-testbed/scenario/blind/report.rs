//! Whether the edge is blind, and the two ways to tell it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use edge_testbed::objects::files::Object;
use serde_json::{Map, Value, json};

use super::hunt::{Hunt, Place, RUNS, What};
use super::secrets::Form;
use crate::stage::Outcome;

/// Where ciphertext must be found, or the search itself is blind.
pub(super) const ARENA: &str = "arena";
pub(super) const ORIGIN: &str = "origin";
/// Memory that the kernel shows to nobody, under these names: its clock and its calls.
const KERNELS_OWN: &str = "[v";
/// An object at least so large must have all its runs.
const LARGE_BYTES: u64 = 64 << 10;

pub(super) struct Report {
    pub(super) objects: Vec<Object>,
    pub(super) hunt: Hunt,
    /// Where plaintext must be found.
    pub(super) plain: Place,
    /// Where keys must be found.
    pub(super) tickets: Place,
    /// Texts that name the client's address.
    pub(super) client_in: Vec<String>,
    pub(super) seed: u64,
    /// Objects fetched during the searches.
    pub(super) fetches: u64,
    pub(super) seconds: f64,
    pub(super) mode: Value,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<(bool, String)> {
        let keys = self.where_met(|what| matches!(what, What::Key(_)));
        let plaintext = self.where_met(|what| what == What::Plaintext);
        vec![
            (keys.is_empty(), format!("keys found: {}", listed(&keys))),
            (
                plaintext.is_empty(),
                format!("plaintext found: {}", listed(&plaintext)),
            ),
            (
                self.client_in.is_empty(),
                format!("the client's address found: {}", listed(&self.client_in)),
            ),
            self.search_sees_ciphertext(),
            (
                self.misses(&self.plain, |what| what == What::Plaintext) == 0,
                String::from("the search finds all plaintext runs in the files as published"),
            ),
            (
                (0..self.objects.len()).all(|object| {
                    let key = |what| what == What::Key(Form::Base64);
                    self.hunt
                        .of(object, key)
                        .any(|n| self.tickets.found.contains(&n))
                }),
                String::from("the search finds each key in its ticket"),
            ),
            self.enough_runs(),
            self.all_was_read(),
            (
                self.fetches > 0,
                format!("{} files came back whole during the search", self.fetches),
            ),
        ]
    }

    fn to_json(&self) -> Value {
        let objects = self.objects.iter().enumerate();
        let searched = self.hunt.places.iter().map(|place| {
            let count = |wanted: fn(What) -> bool| {
                let found = place.found.iter();
                found
                    .filter(|number| wanted(self.hunt.quarries[**number].what))
                    .count()
            };
            json!({
                "place": place.name,
                "bytes": place.bytes,
                "keys": count(|what| matches!(what, What::Key(_))),
                "plaintext": count(|what| what == What::Plaintext),
                "ciphertext": count(|what| what == What::Ciphertext),
            })
        });
        let promises = self.promises().into_iter();
        json!({
            "ok": self.ok(),
            "objects": objects.map(|(n, object)| self.object_json(n, object)).collect::<Vec<_>>(),
            "searched": searched.collect::<Vec<_>>(),
            "unread": self.hunt.unread,
            "client_address_in": self.client_in,
            "wrong": promises.filter(|(kept, _)| !kept).map(|(_, told)| told).collect::<Vec<_>>(),
            "fetches": self.fetches,
            "seed": self.seed,
            "seconds": self.seconds,
            "mode": self.mode,
        })
    }

    /// For somebody who sees this project for the first time.
    fn story(&self) -> String {
        let mut story = String::from("\nIs the edge blind?\n");
        let mut say = |text: &str| writeln!(story, "{text}").expect("a String grows");
        say("An edge hands out files it must not be able to read. These were encrypted, given to");
        say("it, and fetched through it again and again. Meanwhile everything it has was searched");
        say("for their keys (raw, hex, base64) and for runs of 64 bytes of their plaintext. Runs");
        say(
            "of ciphertext, chosen the same way, must be found, or the search would prove nothing.\n",
        );
        for (number, object) in self.objects.iter().enumerate() {
            let count = |what| self.hunt.of(number, |one| one == what).count();
            say(&format!(
                "  {} ({} bytes): {} plaintext runs of {} distinct values or more, {} ciphertext runs",
                object.name,
                object.size,
                count(What::Plaintext),
                self.hunt.distinct[number],
                count(What::Ciphertext),
            ));
        }
        say("\n  searched                         bytes   keys   plaintext   ciphertext");
        for place in &self.hunt.places {
            let count = |wanted: &dyn Fn(What) -> bool| {
                let found = place.found.iter();
                found
                    .filter(|number| wanted(self.hunt.quarries[**number].what))
                    .count()
            };
            say(&format!(
                "  {:24} {:>13} {:>6} {:>11} {:>12}",
                place.name,
                place.bytes,
                count(&|what| matches!(what, What::Key(_))),
                count(&|what| what == What::Plaintext),
                count(&|what| what == What::Ciphertext),
            ));
        }
        say(&format!(
            "\nIt took {:.1} s. The places were chosen by seed {}.",
            self.seconds, self.seed
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

impl Report {
    fn search_sees_ciphertext(&self) -> (bool, String) {
        let ciphertext = |what| what == What::Ciphertext;
        let missed: usize = [ARENA, ORIGIN]
            .iter()
            .map(|name| match self.place(name) {
                Some(place) => self.misses(place, ciphertext),
                None => usize::MAX / 2,
            })
            .sum();
        let told = if missed == 0 {
            "the search finds all ciphertext runs in the arena and at the origin"
        } else {
            "the search is blind itself: ciphertext that must be in the arena and at the origin \
             was not found"
        };
        (missed == 0, told.to_owned())
    }

    fn enough_runs(&self) -> (bool, String) {
        let poor: Vec<&str> = self
            .objects
            .iter()
            .enumerate()
            .filter(|(object, what)| {
                let count = |kind| self.hunt.of(*object, |what| what == kind).count();
                what.size >= LARGE_BYTES
                    && (count(What::Plaintext) < RUNS || count(What::Ciphertext) < RUNS)
            })
            .map(|(_, object)| object.name.as_str())
            .collect();
        let some = self
            .hunt
            .quarries
            .iter()
            .any(|one| one.what == What::Plaintext);
        let told = if poor.is_empty() {
            format!("{RUNS} runs of each kind in every file of 64 KiB or more")
        } else {
            format!(
                "too few runs that could be searched for: {}",
                poor.join(", ")
            )
        };
        (poor.is_empty() && some, told)
    }

    fn all_was_read(&self) -> (bool, String) {
        let unread: Vec<String> = self
            .hunt
            .unread
            .keys()
            .filter(|name| !name.starts_with(KERNELS_OWN))
            .map(|name| if name.is_empty() { "nameless" } else { name }.to_owned())
            .collect();
        (
            unread.is_empty(),
            format!("memory that could not be read: {}", listed(&unread)),
        )
    }

    fn place(&self, name: &str) -> Option<&Place> {
        self.hunt.places.iter().find(|place| place.name == name)
    }

    /// How many of a kind a place does not have.
    fn misses(&self, place: &Place, wanted: impl Fn(What) -> bool) -> usize {
        let quarries = self.hunt.quarries.iter().enumerate();
        quarries
            .filter(|(number, quarry)| wanted(quarry.what) && !place.found.contains(number))
            .count()
    }

    /// Names of the places that have something of a kind.
    fn where_met(&self, wanted: impl Fn(What) -> bool) -> Vec<String> {
        let met = |place: &&Place| {
            let mut found = place.found.iter();
            found.any(|number| wanted(self.hunt.quarries[*number].what))
        };
        let places = self.hunt.places.iter().filter(met);
        places.map(|place| place.name.clone()).collect()
    }

    /// How many strings of an object were met in any place.
    fn met(&self, object: usize, what: What) -> usize {
        let everywhere: BTreeSet<&usize> = self
            .hunt
            .places
            .iter()
            .flat_map(|place| &place.found)
            .collect();
        self.hunt
            .of(object, |one| one == what)
            .filter(|number| everywhere.contains(number))
            .count()
    }

    fn met_in(&self, object: usize, what: What, name: &str) -> usize {
        let Some(place) = self.place(name) else {
            return 0;
        };
        self.hunt
            .of(object, |one| one == what)
            .filter(|number| place.found.contains(number))
            .count()
    }

    fn object_json(&self, number: usize, object: &Object) -> Value {
        let keys: Map<String, Value> = Form::ALL
            .iter()
            .map(|form| {
                let found = self.met(number, What::Key(*form)) > 0;
                (form.name().to_owned(), found.into())
            })
            .collect();
        let count = |what| self.hunt.of(number, |one| one == what).count();
        let in_arena = self.met_in(number, What::Ciphertext, ARENA);
        let at_origin = self.met_in(number, What::Ciphertext, ORIGIN);
        json!({
            "name": object.name,
            "size": object.size,
            "key_found": keys,
            "plaintext_runs": count(What::Plaintext),
            "plaintext_distinct_values": self.hunt.distinct[number],
            "plaintext_found": self.met(number, What::Plaintext),
            "ciphertext_runs": count(What::Ciphertext),
            "ciphertext_found": {"arena": in_arena, "origin": at_origin},
        })
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        String::from("nowhere")
    } else {
        format!("in {}", names.join(", "))
    }
}
