//! Calls that are made again with the same request id.

use std::future::Future;

use uuid::Uuid;

use super::{Backoff, ClientError};
use crate::proto;

/// How often a call is made.
///
/// A call that failed is made again when that can help ([`ClientError::is_retryable`]), after a
/// wait of 250 ms, doubled with each attempt up to 15 s and shortened by chance to between half and
/// all of it; or as long as the server asks for, up to 5 minutes. The deadline of each attempt is
/// that of the client: [`Client::with_call_timeout`](super::Client::with_call_timeout).
///
/// # Examples
///
/// ```no_run
/// use herald::client::{Client, ConnectOptions, Retry};
/// use herald::proto::PurchaseItemRequest;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("http://127.0.0.1:50051", ConnectOptions::default()).await?;
/// let request = PurchaseItemRequest {
///     player_id: "ann".to_owned(),
///     item_id: "sword".to_owned(),
///     ..Default::default()
/// };
/// let bought = Retry::default().call(request, |request| client.purchase_item(request)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The attempts in all; there is one at least.
    pub attempts: u32,
}

impl Default for Retry {
    /// Five attempts: some four seconds of waits, in which a server starts anew.
    fn default() -> Self {
        Self { attempts: 5 }
    }
}

impl Retry {
    /// Makes a call, and makes it again while that can help and attempts are left. An action
    /// without a request id gets one; all attempts have the same.
    ///
    /// # Errors
    ///
    /// What the last attempt failed with, with the request id of the action.
    pub async fn call<Q, A, C, F>(self, mut request: Q, call: C) -> Result<A, ClientError>
    where
        Q: Retryable,
        C: Fn(Q) -> F,
        F: Future<Output = Result<A, ClientError>>,
    {
        let request_id = request.request_id().map(|request_id| {
            if request_id.is_empty() {
                *request_id = Uuid::new_v4().to_string();
            }
            request_id.clone()
        });
        let mut backoff = Backoff::default();
        let mut in_doubt = false;
        let mut attempt = 1;
        loop {
            let mut error = match call(request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(request_id) = &request_id {
                error = error.of_action(request_id, in_doubt);
                in_doubt = error.outcome_unknown();
            }
            if attempt >= self.attempts || !error.is_retryable() {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(backoff.next_delay_after(error.retry_delay())).await;
        }
    }
}

/// A request that [`Retry`] can send several times.
pub trait Retryable: Clone {
    /// The request id of an action, empty where the caller gave none; none for what is no action.
    fn request_id(&mut self) -> Option<&mut String> {
        None
    }
}

macro_rules! actions {
    ($($request:ident),+) => {$(
        impl Retryable for proto::$request {
            fn request_id(&mut self) -> Option<&mut String> {
                Some(&mut self.request_id)
            }
        }
    )+};
}

actions!(
    StartSessionRequest,
    PurchaseItemRequest,
    JoinGuildRequest,
    LeaveGuildRequest,
    GrantItemRequest,
    ConsumeItemRequest,
    RefundPurchaseRequest
);

impl Retryable for proto::GetPlayerRequest {}
impl Retryable for proto::ListGuildMembersRequest {}
/// Its request id is what it asks for.
impl Retryable for proto::GetReceiptRequest {}
/// For calls without a message, such as [`Client::catalog`](super::Client::catalog).
impl Retryable for () {}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::time::Duration;

    use tokio::time::Instant;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::client::error::tests::herald;
    use crate::client::reason;
    use crate::proto::PurchaseItemRequest;

    /// Fails as it is told, then succeeds; keeps the request ids, and when they came.
    struct Server {
        failures: RefCell<VecDeque<ClientError>>,
        calls: RefCell<Vec<(String, Duration)>>,
        started: Instant,
    }

    impl Server {
        fn failing(failures: impl IntoIterator<Item = ClientError>) -> Self {
            Self {
                failures: RefCell::new(failures.into_iter().collect()),
                calls: RefCell::default(),
                started: Instant::now(),
            }
        }

        async fn buy(&self, request: PurchaseItemRequest) -> Result<(), ClientError> {
            self.calls.borrow_mut().push((request.request_id, self.started.elapsed()));
            match self.failures.borrow_mut().pop_front() {
                Some(error) => Err(error),
                None => Ok(()),
            }
        }

        async fn call(&self, attempts: u32) -> Result<(), ClientError> {
            Retry { attempts }
                .call(PurchaseItemRequest::default(), |request| self.buy(request))
                .await
        }

        fn times(&self) -> Vec<Duration> {
            self.calls.borrow().iter().map(|(_, time)| *time).collect()
        }
    }

    fn unknown() -> ClientError {
        herald(Code::DeadlineExceeded, reason::WRITE_OUTCOME_UNKNOWN)
    }

    fn not_written() -> ClientError {
        herald(Code::Unavailable, reason::LOG_UNAVAILABLE)
    }

    fn unreached() -> ClientError {
        ClientError::unreached("http://host", &std::io::Error::other("connection refused"))
    }

    fn refused() -> ClientError {
        herald(Code::InvalidArgument, reason::VALIDATION_FAILED)
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_help_is_tried_again_with_the_same_request_id_and_longer_waits() {
        let proxy = ClientError::from(Status::internal("a proxy"));
        let server = Server::failing([unknown(), not_written(), proxy, unknown()]);
        server.call(5).await.unwrap();
        let ids: Vec<_> = server.calls.borrow().iter().map(|(id, _)| id.clone()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(Uuid::parse_str(&ids[0]).unwrap().get_version_num(), 4);
        let mut full = Duration::from_millis(250);
        for pair in server.times().windows(2) {
            let wait = pair[1] - pair[0];
            // Timers are late by a millisecond.
            assert!(wait >= full / 2 && wait <= full + Duration::from_millis(2), "{wait:?}");
            full *= 2;
        }
        assert_eq!(ids.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_attempts_as_were_asked_for() {
        for (attempts, made) in [(0, 1), (1, 1), (3, 3)] {
            let server = Server::failing(std::iter::repeat_n(not_written(), 9));
            let error = server.call(attempts).await.unwrap_err();
            assert_eq!(server.calls.borrow().len(), made);
            assert_eq!(error.request_id(), Some(&*server.calls.borrow()[0].0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_an_error_at_once() {
        let server = Server::failing([refused()]);
        assert!(!server.call(5).await.unwrap_err().is_retryable());
        assert_eq!(server.calls.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_says_how_long_to_wait() {
        let asked = Duration::from_secs(30);
        let mut details = ErrorDetails::with_retry_info(Some(asked));
        details.set_error_info("LATER", "herald", [] as [(String, String); 0]);
        let later = Status::with_error_details(Code::ResourceExhausted, "busy", details);
        let server = Server::failing([later.into()]);
        server.call(5).await.unwrap();
        assert!(server.times()[1] >= asked);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_says_whether_the_action_may_have_been_carried_out() {
        for (failures, maybe) in [
            (vec![unknown()], true),
            (vec![not_written()], false),
            // The second answer is about the second attempt only.
            (vec![unknown(), not_written()], true),
            (vec![unknown(), refused()], true),
            (vec![unknown(), ClientError::from(Status::unimplemented("an older server"))], true),
            (vec![unknown(), unreached()], true),
        ] {
            let attempts = u32::try_from(failures.len()).unwrap();
            let error = Server::failing(failures).call(attempts).await.unwrap_err();
            assert_eq!(error.outcome_unknown(), maybe, "{error}");
            assert_eq!(error.is_unavailable(), !maybe, "{error}");
            let again = format!("try again with request id {}", error.request_id().unwrap());
            assert_eq!(error.to_string().contains(&again), maybe, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_id_of_the_callers_own_is_kept_and_what_is_no_action_has_none() {
        let own = PurchaseItemRequest { request_id: "own".to_owned(), ..Default::default() };
        let server = Server::failing([not_written()]);
        Retry::default().call(own, |request| server.buy(request)).await.unwrap();
        assert!(server.calls.borrow().iter().all(|(id, _)| id == "own"));
        let asks = proto::GetReceiptRequest::default();
        let receipt = async |request: proto::GetReceiptRequest| {
            assert_eq!(request.request_id, "");
            Err::<(), _>(refused())
        };
        let error = Retry::default().call(asks, receipt).await.unwrap_err();
        assert_eq!(error.request_id(), None);
    }
}
