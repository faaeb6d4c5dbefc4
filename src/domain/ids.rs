//! Identifiers, each a type that only its own `parse` can make.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

/// The most bytes of a player id and of the free texts of a client context.
pub const MAX_TEXT_BYTES: usize = 128;

/// The most bytes of an item or guild id.
pub const MAX_ENTITY_BYTES: usize = 64;

/// What is neither white space nor a control character nor a line separator. White space is
/// listed, as not all engines mean the same by `\s`.
macro_rules! visible {
    () => {
        r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
    };
}

/// What the characters of a text that is not empty have to be, from the first to the last, as a
/// regular expression of ECMA-262: what `check_text` asks, for those who describe it to others.
pub const TEXT_PATTERN: &str =
    concat!(visible!(), r"([^\x00-\x1f\x7f-\x9f\u2028\u2029]*", visible!(), ")?");

/// Why a text is no identifier, as the description of a violation.
type Reason = Cow<'static, str>;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks a text; the error says what is wrong with it.
            pub fn parse(text: String) -> Result<Self, Reason> {
                if text.is_empty() {
                    return Err("missing".into());
                }
                check_text(&text, $max)?;
                Ok(Self(text))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text itself.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Who acts: 1 to 128 bytes.
    PlayerId,
    MAX_TEXT_BYTES
);
text_id!(
    /// What can be bought: 1 to 64 bytes.
    ItemId,
    MAX_ENTITY_BYTES
);
text_id!(
    /// What can be joined: 1 to 64 bytes.
    GuildId,
    MAX_ENTITY_BYTES
);

/// Checks what holds for every text that a caller chooses: not too long, nothing
/// that would break a line or hide in one, no white space at the ends.
pub(super) fn check_text(text: &str, max_bytes: usize) -> Result<(), Reason> {
    if text.len() > max_bytes {
        return Err(format!("longer than {max_bytes} bytes").into());
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err("contains a control character or a line separator".into());
    }
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err("begins or ends with white space".into());
    }
    Ok(())
}

/// A caller's own name for one action: any UUID but the nil one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Reads any usual form of a UUID (hyphenated or not, upper or lower case).
    pub fn parse(text: &str) -> Result<Self, Reason> {
        match Uuid::try_parse(text) {
            Ok(id) if id.is_nil() => Err("the nil UUID names no request; make a random one".into()),
            Ok(id) => Ok(Self(id)),
            Err(_) => Err("not a UUID such as 6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f".into()),
        }
    }

    /// One for a caller that gave none.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

/// The canonical form: lower case, with hyphens.
/// The text of an id as it is written into events and answers. The same as `to_string`, at half
/// the cost: a call needs four.
pub fn uuid_text(id: Uuid) -> String {
    id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_id_is_what_people_and_machines_use_as_names() {
        for good in ["alice", "Игрок-7", "a b", "🗡️", "0", &"x".repeat(128)] {
            assert!(PlayerId::parse(good.to_owned()).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn what_would_break_a_line_or_hide_in_one_is_no_id() {
        for (bad, reason) in [
            ("", "missing"),
            (" alice", "white space"),
            ("alice\u{a0}", "white space"),
            ("al\nice", "control"),
            ("al\0ice", "control"),
            ("\u{1b}[31m", "control"),
            ("a\u{85}b", "control"),
            ("a\u{2028}b", "line separator"),
            (&"x".repeat(129), "longer than 128 bytes"),
            (&"é".repeat(65), "longer than 128 bytes"),
        ] {
            let error = PlayerId::parse(bad.to_owned()).unwrap_err();
            assert!(error.contains(reason), "{bad:?}: {error}");
        }
        assert!(ItemId::parse("x".repeat(65)).is_err());
    }

    #[test]
    fn the_pattern_of_a_text_is_what_is_checked() {
        let pattern = regex::Regex::new(&format!("^({TEXT_PATTERN})$")).unwrap();
        // Beyond these there is no white space; what is no letter either is tried all the same.
        let rest = ['\u{feff}', '\u{e000}', '\u{fffe}', '\u{1f5e1}', '\u{10ffff}'];
        for c in ('\0'..'\u{3100}').chain(rest) {
            for text in [format!("{c}"), format!("{c}a"), format!("a{c}"), format!("a{c}{c}a")] {
                let fits = PlayerId::parse(text.clone()).is_ok();
                assert_eq!(pattern.is_match(&text), fits, "{text:?}");
            }
        }
        assert!(!pattern.is_match(""));
    }

    #[test]
    fn a_request_id_has_one_canonical_form() {
        let canonical = "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";
        for form in
            [canonical, "6F1C1D2E-8A3B-4C5D-9E0F-1A2B3C4D5E6F", "6f1c1d2e8a3b4c5d9e0f1a2b3c4d5e6f"]
        {
            assert_eq!(RequestId::parse(form).unwrap().to_string(), canonical);
        }
        for bad in ["", "sword", "00000000-0000-0000-0000-000000000000", "6f1c1d2e"] {
            assert!(RequestId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
