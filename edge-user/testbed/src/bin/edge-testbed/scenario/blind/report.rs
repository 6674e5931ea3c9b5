//! Whether the edge is blind.

use serde::Serialize;
use serde_json::Value;

use super::scan::{Place, RUNS, Scan, What};
use super::secrets::Form;
use crate::testbed::{Outcome, Promise};

/// Where ciphertext must be found, or the search does not work.
pub(super) const ARENA: &str = "arena";
pub(super) const ORIGIN: &str = "origin";
/// Names of memory that the kernel shows to no process: its clock and its calls.
const KERNELS_OWN: &str = "[v";
/// An object of at least this size must have all its search strings.
const LARGE_BYTES: u64 = 64 << 10;

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) scan: Scan,
    /// Where plaintext must be found.
    #[serde(skip)]
    pub(super) plain: Place,
    /// Where keys must be found.
    #[serde(skip)]
    pub(super) tickets: Place,
    /// Texts that contain the client's address.
    pub(super) client_in: Vec<String>,
    pub(super) seed: u64,
    /// Objects fetched during the searches.
    pub(super) fetches: u64,
    pub(super) seconds: f64,
    pub(super) mode: Value,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<Promise> {
        let Self { scan, plain, .. } = self;
        let keys = self.where_found(|what| matches!(what, What::Key(_)));
        let plaintext = self.where_found(|what| what == What::Plaintext);
        let key = |what| what == What::Key(Form::Base64);
        let found = |object| {
            scan.of(object, key)
                .any(|n| self.tickets.found.contains(&n))
        };
        let missed = [ARENA, ORIGIN].into_iter().filter(|name| {
            let mut places = scan.places.iter();
            let place = places.find(|place| place.name == *name);
            place.is_none_or(|place| !self.has_all(place, What::Ciphertext))
        });
        let missed = missed.collect::<Vec<_>>();
        let none = |name: &str, places: Vec<&str>| (places.is_empty(), listed(name, &places));
        vec![
            none("keys found", keys),
            none("plaintext found", plaintext),
            none(
                "the client's address found",
                self.client_in.iter().map(String::as_str).collect(),
            ),
            none("ciphertext not found by the search", missed),
            (
                self.has_all(plain, What::Plaintext),
                String::from("the search finds all plaintext runs in the files as published"),
            ),
            (
                (0..scan.objects.len()).all(found),
                String::from("the search finds each key in its ticket"),
            ),
            self.enough_runs(),
            none("memory that could not be read", self.unread()),
            (
                self.fetches > 0,
                format!(
                    "{} files were received intact during the search",
                    self.fetches
                ),
            ),
        ]
    }

    fn story(&self) -> String {
        let scan = &self.scan;
        let objects = scan.objects.iter().enumerate().map(|(number, object)| {
            let count = |what| scan.of(number, |one| one == what).count();
            format!(
                "  {} ({} bytes): {} plaintext runs of {} distinct values or more, {} ciphertext runs\n",
                object.name,
                object.size,
                count(What::Plaintext),
                object.distinct,
                count(What::Ciphertext),
            )
        });
        let places = scan.places.iter().map(|place| {
            let count = |wanted: fn(What) -> bool| {
                let found = place.found.iter();
                found
                    .filter(|number| wanted(scan.needles[**number].what))
                    .count()
            };
            format!(
                "  {:24} {:>13} {:>6} {:>11} {:>12}\n",
                place.name,
                place.bytes,
                count(|what| matches!(what, What::Key(_))),
                count(|what| what == What::Plaintext),
                count(|what| what == What::Ciphertext),
            )
        });
        format!(
            "
Is the edge blind?
An edge serves files that it must not be able to read. These were encrypted, and
fetched through it repeatedly. Meanwhile everything it has was searched for their
keys (raw, hex, base64) and for runs of 64 bytes of their plaintext. Runs of
ciphertext, chosen the same way, must be found, or the search would prove nothing.

{}
  searched                         bytes   keys   plaintext   ciphertext
{}
It took {:.1} s. The runs were chosen by seed {}.",
            objects.collect::<String>(),
            places.collect::<String>(),
            self.seconds,
            self.seed
        )
    }
}

impl Report {
    fn enough_runs(&self) -> Promise {
        let scan = &self.scan;
        let poor = scan.objects.iter().enumerate().filter(|(number, object)| {
            let few = |kind| scan.of(*number, |what| what == kind).count() < RUNS;
            object.size >= LARGE_BYTES && (few(What::Plaintext) || few(What::Ciphertext))
        });
        let poor: Vec<&str> = poor.map(|(_, object)| object.name.as_str()).collect();
        let mut needles = scan.needles.iter();
        let some = needles.any(|one| one.what == What::Plaintext);
        let text = if poor.is_empty() {
            format!("{RUNS} runs of each kind in every file of 64 KiB or more")
        } else {
            listed("too few runs", &poor)
        };
        (poor.is_empty() && some, text)
    }

    fn unread(&self) -> Vec<&str> {
        let names = self.scan.unread.keys().map(String::as_str);
        let names = names.filter(|name| !name.starts_with(KERNELS_OWN));
        names
            .map(|name| if name.is_empty() { "nameless" } else { name })
            .collect()
    }

    /// Whether all of this kind were found in a place.
    fn has_all(&self, place: &Place, what: What) -> bool {
        let mut needles = self.scan.needles.iter().enumerate();
        needles.all(|(number, needle)| needle.what != what || place.found.contains(&number))
    }

    /// Names of the places where something of a kind was found.
    fn where_found(&self, wanted: impl Fn(What) -> bool) -> Vec<&str> {
        let has = |place: &&Place| {
            let mut found = place.found.iter();
            found.any(|number| wanted(self.scan.needles[*number].what))
        };
        let places = self.scan.places.iter().filter(has);
        places.map(|place| place.name.as_str()).collect()
    }
}

fn listed(what: &str, names: &[&str]) -> String {
    if names.is_empty() {
        format!("{what}: nowhere")
    } else {
        format!("{what}: in {}", names.join(", "))
    }
}
