//! Which errors a call has: those that the comments of the schema name, as `CODE, REASON`, and
//! what is refused before there is a call.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::MethodDescriptor;

use super::comments;
use crate::http::{problem, schema};

/// What is sent is no message.
const ALWAYS: [(&str, &str); 1] = [("INVALID_ARGUMENT", "MESSAGE_MALFORMED")];

/// What is sent is not read.
const WITH_BODY: [(&str, &str); 3] = [
    ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"),
    ("INVALID_ARGUMENT", "CONTENT_TYPE_UNSUPPORTED"),
    ("UNIMPLEMENTED", "COMPRESSION_UNSUPPORTED"),
];

/// Reasons by HTTP's code.
pub(super) type Reasons = BTreeMap<u16, BTreeSet<String>>;

/// The errors of a call. What its comment refers to counts, and for an action what the service
/// says of all of them.
pub(super) fn of(method: &MethodDescriptor, has_body: bool) -> Reasons {
    let service = method.parent_service();
    let own = comments::of_method(method);
    let others = service.methods().filter(|other| own.contains(other.name()));
    let mut said: Vec<_> = others.map(|other| comments::of_method(&other)).collect();
    if !schema::only_reads(method) {
        said.push(comments::of_service(service));
    }
    said.push(own);

    let mut reasons = Reasons::new();
    let with_body = WITH_BODY.iter().filter(|_| has_body).copied();
    let said = said.iter().flat_map(|text| pairs(text));
    for (code, reason) in ALWAYS.into_iter().chain(with_body).chain(said) {
        if let Some(code) = problem::code_of(code, reason) {
            reasons.entry(code.as_u16()).or_default().insert(reason.to_owned());
        }
    }
    reasons
}

/// Each `CODE, REASON` in a comment.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = text.split_whitespace();
    words.clone().zip(words.skip(1)).filter_map(|(code, reason)| {
        let code = code.strip_suffix(',')?;
        let reason = reason.trim_end_matches([':', ';', ',', '.']);
        let is_name = |word: &str| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        (is_name(code) && is_name(reason)).then_some((code, reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Schema;

    fn reasons(method: &str, has_body: bool) -> Reasons {
        let schema = Schema::build(&[]).unwrap();
        of(&schema.method(&format!("/game.v1.{method}")).unwrap(), has_body)
    }

    #[test]
    fn an_action_has_the_errors_of_all_actions() {
        let found = reasons("GameService/PurchaseItem", true);
        let codes: Vec<_> = found.keys().copied().collect();
        assert_eq!(codes, [400, 409, 413, 415, 429, 503, 504]);
        let conflict: Vec<_> = found[&409].iter().collect();
        assert_eq!(conflict, ["REQUEST_ID_CONFLICT", "REQUEST_IN_PROGRESS"]);
    }

    #[test]
    fn a_question_has_its_own_and_those_that_it_refers_to() {
        let codes = |method: &str| reasons(method, false).into_keys().collect::<Vec<_>>();
        assert_eq!(codes("GameService/GetCatalog"), [400]);
        assert_eq!(codes("GameService/ListGuildMembers"), [400, 503]);
        assert_eq!(codes("GameService/GetPlayer"), [400, 404, 503, 504]);
        let poll = reasons("EventFeedService/PollEvents", false);
        assert!(poll[&400].contains("CURSOR_EXPIRED") && poll[&429].contains("SUBSCRIBER_LIMIT"));
    }
}
