//! Interim.

use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::hub::Join;
use super::place::Place;
use super::reader::READ_LIMITS;
use super::{FeedError, Shared};

/// What catching up gives.
pub(super) enum Caught {
    /// A batch that begins at or before the place and ends behind it.
    Page(Arc<Batch>),
    /// The ring can be joined, or holds another log: look there again.
    Look,
}

impl Shared {
    pub(super) async fn catch_up(&self, place: Arc<Place>) -> Result<Caught, FeedError> {
        let mut reader = self.log.open_reader(place.log, place.position.clone()).await?;
        let look = async {
            while self.hub.join(&place) == Join::Behind {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            biased;
            read = reader.next(READ_LIMITS) => {
                Ok(Caught::Page(Arc::new(Batch::new(Arc::clone(&place), read?))))
            }
            () = look => Ok(Caught::Look),
            () = self.closing.cancelled() => Ok(Caught::Look),
        }
    }
}
