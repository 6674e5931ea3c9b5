//! Latencies in a report: an HDR histogram of nanoseconds, V2 with deflate, base64.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

/// Three significant digits: an error of at most 0.1 %.
const DIGITS: u8 = 3;

/// Resizes automatically.
pub fn empty() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("the number of digits is one that HDR histograms have")
}

/// The sum of several.
pub(super) fn merged(parts: &[&Histogram<u64>]) -> Histogram<u64> {
    let mut all = empty();
    for part in parts {
        all.add(*part).expect("the histogram grows");
    }
    all
}

/// Encodes it for a report.
pub fn encode(latency: &Histogram<u64>) -> io::Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(latency, &mut bytes)
        .map_err(io::Error::other)?;
    Ok(STANDARD.encode(bytes))
}

/// Decodes it from a report.
pub fn decode(text: &str) -> io::Result<Histogram<u64>> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| io::Error::other(format!("not base64: {error}")))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| io::Error::other(format!("not an HDR histogram: {error}")))
}

/// For `serde`.
pub(super) mod field {
    use hdrhistogram::Histogram;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de, ser};

    #[expect(clippy::ref_option, reason = "serde hands it over so")]
    pub(in super::super) fn serialize<S: Serializer>(
        latency: &Option<Histogram<u64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = latency.as_ref().map(super::encode).transpose();
        text.map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Histogram<u64>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let latency = text.as_deref().map(super::decode).transpose();
        latency.map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_comes_back_as_it_went() {
        let mut latency = empty();
        for nanoseconds in [1, 900, 48_211, 48_211, 3_000_000, 60_000_000_000] {
            latency.record(nanoseconds).expect("it grows");
        }
        let back = decode(&encode(&latency).expect("encodes")).expect("decodes");
        assert_eq!(back, latency);
        assert_eq!(back.len(), 6);
        assert_eq!(back.value_at_quantile(0.5), latency.value_at_quantile(0.5));
    }

    #[test]
    fn bytes_that_are_no_histogram_are_an_error() {
        assert!(decode("%").is_err());
        assert!(decode("").is_err());
        let good = encode(&merged(&[&empty()])).expect("encodes");
        // The last bytes are a checksum, which is not verified.
        for cut in (4..good.len() / 2).step_by(4) {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn merging_keeps_every_latency() {
        let (mut a, mut b) = (empty(), empty());
        a.record(10).expect("it grows");
        b.record_n(1_000_000_000, 3).expect("it grows");
        let all = merged(&[&a, &b]);
        assert_eq!((all.len(), all.min()), (4, 10));
    }
}
