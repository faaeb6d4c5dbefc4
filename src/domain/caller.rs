//! Who calls.

/// Who makes a call. Anonymous until there is authentication; every handler passes
/// one on all the same, so that authorization will need no new way through the
/// house.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// Somebody who has shown nothing.
    Anonymous {
        /// Whether anonymous callers may read the private origin of events.
        may_read_origin: bool,
    },
}

impl Caller {
    /// Whether this caller may read the private origin of events.
    pub fn may_read_origin(&self) -> bool {
        match self {
            Self::Anonymous { may_read_origin } => *may_read_origin,
        }
    }
}
