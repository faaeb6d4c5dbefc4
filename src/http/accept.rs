//! What a caller would like to read.

use http::HeaderMap;
use http::header::ACCEPT;

/// The ranges of types that a caller takes, in lower case and without parameters, each with its
/// quality: 1 unless it is said, 0 where it is none.
pub(super) fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (String, f32)> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|range| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
        let quality = quality.map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        (name.trim().to_ascii_lowercase(), quality)
    })
}

/// Which of some types a caller would like best; of several that it likes alike, the first. None
/// when it takes none of them. Who says nothing takes any.
/// Source: <https://www.rfc-editor.org/rfc/rfc9110#name-accept>.
pub(super) fn best<'a>(types: &[&'a str], headers: &HeaderMap) -> Option<&'a str> {
    let ranges: Vec<_> = ranges(headers).filter(|(name, _)| !name.is_empty()).collect();
    let quality_of = |of: &str| {
        let group = of.split_once('/').map_or(of, |(group, _)| group);
        // What fits most closely counts.
        let fitting = [of.to_owned(), format!("{group}/*"), "*/*".to_owned()];
        let quality = |name: &String| {
            let named = ranges.iter().filter(|(range, _)| range == name);
            named.map(|(_, quality)| *quality).reduce(f32::max)
        };
        if ranges.is_empty() { 1.0 } else { fitting.iter().find_map(quality).unwrap_or(0.0) }
    };
    let mut best = (None, 0.0);
    for one in types {
        let quality = quality_of(one);
        if quality > best.1 {
            best = (Some(*one), quality);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_type_is_the_one_that_is_liked_most_and_comes_first() {
        for (accept, expected) in [
            ("", Some("text/event-stream")),
            ("*/*", Some("text/event-stream")),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some("text/event-stream")),
            ("text/event-stream", Some("text/event-stream")),
            ("Text/Event-Stream;q=0.1", Some("text/event-stream")),
            ("application/jsonl", Some("application/jsonl")),
            ("application/*", Some("application/x-ndjson")),
            ("application/jsonl, application/x-ndjson", Some("application/x-ndjson")),
            ("text/*;q=0.5, application/jsonl;q=0.6", Some("application/jsonl")),
            ("text/event-stream;q=0, */*", Some("application/x-ndjson")),
            ("application/json", None),
            ("text/plain, application/jsonl;q=0", None),
            ("*/*;q=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let types = ["text/event-stream", "application/x-ndjson", "application/jsonl"];
            assert_eq!(best(&types, &headers), expected, "{accept}");
        }
        assert_eq!(best(&["text/plain"], &HeaderMap::new()), Some("text/plain"));
    }
}
