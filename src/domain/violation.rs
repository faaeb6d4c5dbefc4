//! What is wrong with a request, all of it at once.

use std::borrow::Cow;

use crate::proto;

/// The most violations that one answer lists. More help nobody, and the details of
/// an error have to fit into the trailers of a response.
pub const MAX_VIOLATIONS: usize = 20;

/// Collects violations in the order in which they are found. A description says
/// what is wrong and what would be right, and never repeats the value.
#[derive(Clone, Debug, Default)]
pub struct Violations(Vec<proto::Violation>);

impl Violations {
    /// Adds one, unless there are [`MAX_VIOLATIONS`] already.
    pub fn add(&mut self, field: &str, description: impl Into<Cow<'static, str>>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(proto::Violation {
                field: field.to_owned(),
                description: description.into().into_owned(),
            });
        }
    }

    /// Takes a value, or notes under `field` why there is none.
    pub fn take<T>(&mut self, field: &str, parsed: Result<T, Cow<'static, str>>) -> Option<T> {
        parsed.map_err(|description| self.add(field, description)).ok()
    }

    /// Adds others, up to [`MAX_VIOLATIONS`] in all.
    pub fn append(&mut self, others: Self) {
        let room = MAX_VIOLATIONS.saturating_sub(self.0.len());
        self.0.extend(others.0.into_iter().take(room));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The violations, as they are stored and sent.
    pub fn into_vec(self) -> Vec<proto::Violation> {
        self.0
    }
}
