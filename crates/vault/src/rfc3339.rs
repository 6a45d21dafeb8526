//! Moments in JSON that people read: RFC 3339, in UTC, to the microsecond.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de};
use tidegate_model::Micros;

/// The moment as text; the latest that there is a text for, when it lies beyond.
pub(crate) fn text(moment: Micros) -> String {
    let micros = i64::try_from(moment.0).ok();
    let timestamp = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    timestamp.unwrap_or(Timestamp::MAX).to_string()
}

/// For `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(moment: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*moment))
}

/// For `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Micros, D::Error> {
    let text = String::deserialize(deserializer)?;
    let timestamp: Timestamp = text.parse().map_err(de::Error::custom)?;
    let micros = u64::try_from(timestamp.as_microsecond());
    micros.map(Micros).map_err(|_| de::Error::custom("a moment before 1970 can't be meant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize, Deserialize)]
    struct Moment(#[serde(with = "super")] Micros);

    #[test]
    fn a_moment_reads_back_and_nonsense_is_refused() {
        let json = serde_json::to_string(&Moment(Micros(1_767_225_600_000_001))).unwrap();
        assert_eq!(json, "\"2026-01-01T00:00:00.000001Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&json).unwrap().0, Micros(1_767_225_600_000_001));
        for json in ["\"yesterday\"", "\"1969-12-31T23:59:59Z\"", "5", "\"\""] {
            assert!(serde_json::from_str::<Moment>(json).is_err(), "{json}");
        }
        assert!(text(Micros(u64::MAX)).starts_with("9999-"));
    }
}
