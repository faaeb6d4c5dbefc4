//! The query of a request: names and values.

use percent_encoding::percent_decode_str;

use super::Status;

/// The pairs of a query, decoded, in their order. Their number is bounded with the bytes of
/// the headers.
///
/// # Errors
///
/// Something in it is not UTF-8.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Status> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decoded(name)
                .ok_or_else(|| Status::malformed("the name of a query parameter is not UTF-8"))?;
            let value = decoded(value)
                .ok_or_else(|| Status::malformed_field(&name, "the value is not UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

/// A plus is a space, as in forms.
fn decoded(text: &str) -> Option<String> {
    unescaped(&text.replace('+', " "))
}

/// A part of a path, decoded; none when it is not UTF-8.
pub(super) fn unescaped(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let read = pairs(Some("a=1&b=x%20y+z%2B&&c&d==&%C3%A9=%26")).unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(read, [("a", "1"), ("b", "x y z+"), ("c", ""), ("d", "="), ("é", "&")]);
        assert!(pairs(None).unwrap().is_empty());
        assert!(pairs(Some("item_id=%ff")).unwrap_err().message.contains("item_id"));
        assert!(pairs(Some("%ff=1")).is_err());
    }
}
