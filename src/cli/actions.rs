//! `herald purchase`, `grant`, `consume`, `refund`, `join`, `leave`, `session`, `receipt` and
//! `catalog`.
//!
//! A write always carries a request id, made here when none is given, so that one whose
//! outcome is unknown is tried again without doing it twice: by itself for a while, and then
//! by whoever runs it again.

use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use uuid::Uuid;

use super::exit::Exit;
use super::output::Output;
use super::remote::Remote;
use super::{json, words};
use crate::client::{Backoff, Client, ClientError};
use crate::proto;

/// How long a write whose outcome is unknown is tried again: longer than a server takes to
/// start anew.
const RETRY_TIME: Duration = Duration::from_secs(30);

/// A write that failed, and the request id that makes a retry safe.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct WriteError {
    /// Why it failed.
    pub error: ClientError,
    /// What it was sent with.
    pub request_id: String,
}

/// What all writes have in common.
#[derive(Debug, Args)]
struct Write {
    /// Who acts.
    #[arg(long, value_name = "ID")]
    player: String,
    /// A UUID for this action, to be kept through retries; made when absent.
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    /// Check everything and write nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Write {
    /// Makes a call, and makes it again, with the same request id, as long as nobody knows what
    /// became of it.
    async fn call<T>(
        &self,
        output: &mut Output,
        call: impl AsyncFn(&Client, String) -> Result<T, ClientError>,
    ) -> anyhow::Result<T> {
        let client = self.remote.connect().await?;
        let request_id = self.request_id();
        let until = Instant::now() + RETRY_TIME;
        let mut backoff = Backoff::default();
        let mut doubt = None;
        loop {
            let error = match call(&client, request_id.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let unknown = error.outcome_unknown();
            // After a doubtful try, only an answer to the action itself is one.
            let goes_on = unknown || (doubt.is_some() && error.is_retryable());
            if doubt.is_none() && unknown {
                let id = words::printable(&request_id).into_owned();
                output.note(&format!("outcome unknown, trying again: request id {id}"));
            }
            let delay = backoff.next_delay().max(error.retry_delay().unwrap_or_default());
            if goes_on && Instant::now() + delay < until {
                if unknown {
                    doubt = Some(error);
                }
                tokio::time::sleep(delay).await;
                continue;
            }
            let error = if goes_on && !unknown { doubt.unwrap_or(error) } else { error };
            return Err(WriteError { error, request_id }.into());
        }
    }

    fn request_id(&self) -> String {
        self.request_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string())
    }

    /// Prints the answer: as JSON, or what was done and where the event is.
    fn report(
        &self,
        output: &mut Output,
        (name, response): (&str, &impl prost::Message),
        done: &str,
        receipt: Option<&proto::EventReceipt>,
    ) -> anyhow::Result<Exit> {
        let line = match receipt {
            _ if self.remote.json => json::canonical(name, response)?,
            Some(receipt) => format!("{done}  {}", words::receipt(receipt)),
            None => format!("valid, nothing was written: {done}"),
        };
        let shown = output.line(line).and_then(|()| output.flush());
        if let (Err(_), Some(receipt)) = (&shown, receipt) {
            // Whoever asks for it again would do it twice.
            let id = words::printable(&receipt.request_id).into_owned();
            output.note(&format!("it was written all the same: {done}, request id {id}"));
        }
        shown?;
        Ok(Exit::Done)
    }
}

/// Arguments of `herald purchase`.
#[derive(Debug, Args)]
pub struct Purchase {
    #[command(flatten)]
    write: Write,
    /// What to buy.
    #[arg(long, value_name = "ID")]
    item: String,
    /// How many; 1 when absent.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    quantity: Option<i32>,
}

impl Purchase {
    /// Buys.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, item, quantity } = self;
        let call = async |client: &Client, request_id| {
            let request = proto::PurchaseItemRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                item_id: item.clone(),
                quantity,
            };
            client.purchase_item(request).await
        };
        let response = write.call(output, call).await?;
        let what = response.purchase.as_ref().map_or_else(String::new, words::purchase);
        let done = format!("bought {what}");
        write.report(output, ("PurchaseItemResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald grant`.
#[derive(Debug, Args)]
pub struct Grant {
    #[command(flatten)]
    write: Write,
    /// What to give.
    #[arg(long, value_name = "ID")]
    item: String,
    /// How many; 1 when absent.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    quantity: Option<i32>,
    /// Why, for those who read the event.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

impl Grant {
    /// Gives.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, item, quantity, reason } = self;
        let done = format!("granted {}", words::items(quantity.unwrap_or(1), &item));
        let call = async |client: &Client, request_id| {
            let request = proto::GrantItemRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                item_id: item.clone(),
                quantity,
                reason: reason.clone(),
            };
            client.grant_item(request).await
        };
        let response = write.call(output, call).await?;
        write.report(output, ("GrantItemResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald consume`.
#[derive(Debug, Args)]
pub struct Consume {
    #[command(flatten)]
    write: Write,
    /// What to use up.
    #[arg(long, value_name = "ID")]
    item: String,
    /// How many; 1 when absent.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    quantity: Option<i32>,
}

impl Consume {
    /// Uses up.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, item, quantity } = self;
        let done = format!("used up {}", words::items(quantity.unwrap_or(1), &item));
        let call = async |client: &Client, request_id| {
            let request = proto::ConsumeItemRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                item_id: item.clone(),
                quantity,
            };
            client.consume_item(request).await
        };
        let response = write.call(output, call).await?;
        write.report(output, ("ConsumeItemResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald refund`.
#[derive(Debug, Args)]
pub struct Refund {
    #[command(flatten)]
    write: Write,
    /// The event id of the purchase, as its receipt has it.
    #[arg(long, value_name = "UUID")]
    purchase: String,
}

impl Refund {
    /// Takes a purchase back.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, purchase } = self;
        let call = async |client: &Client, request_id| {
            let request = proto::RefundPurchaseRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                purchase_event_id: purchase.clone(),
            };
            client.refund_purchase(request).await
        };
        let response = write.call(output, call).await?;
        let what = response.refund.as_ref().map_or_else(String::new, words::refund);
        let done = format!("gave back {what}");
        let receipt = response.receipt.as_ref();
        write.report(output, ("RefundPurchaseResponse", &response), &done, receipt)
    }
}

/// Arguments of `herald join`.
#[derive(Debug, Args)]
pub struct Join {
    #[command(flatten)]
    write: Write,
    /// Which guild.
    #[arg(long, value_name = "ID")]
    guild: String,
}

impl Join {
    /// Joins.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, guild } = self;
        let call = async |client: &Client, request_id| {
            let request = proto::JoinGuildRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                guild_id: guild.clone(),
            };
            client.join_guild(request).await
        };
        let response = write.call(output, call).await?;
        let done = format!("joined {}", words::name(&guild));
        write.report(output, ("JoinGuildResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald leave`.
#[derive(Debug, Args)]
pub struct Leave {
    #[command(flatten)]
    write: Write,
    /// Which guild.
    #[arg(long, value_name = "ID")]
    guild: String,
}

impl Leave {
    /// Leaves.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write, guild } = self;
        let done = format!("left {}", words::name(&guild));
        let call = async |client: &Client, request_id| {
            let request = proto::LeaveGuildRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
                guild_id: guild.clone(),
            };
            client.leave_guild(request).await
        };
        let response = write.call(output, call).await?;
        write.report(output, ("LeaveGuildResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald session`.
#[derive(Debug, Args)]
pub struct Session {
    #[command(flatten)]
    write: Write,
}

impl Session {
    /// Starts a session.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { write } = self;
        let call = async |client: &Client, request_id| {
            let request = proto::StartSessionRequest {
                request_id,
                player_id: write.player.clone(),
                validate_only: write.validate_only,
                client_context: None,
            };
            client.start_session(request).await
        };
        let response = write.call(output, call).await?;
        let done = match response.session_id.as_str() {
            "" => "started a session".to_owned(),
            id => format!("started session {}", words::name(id)),
        };
        write.report(output, ("StartSessionResponse", &response), &done, response.receipt.as_ref())
    }
}

/// Arguments of `herald receipt`.
#[derive(Debug, Args)]
pub struct Receipt {
    /// Who acted.
    #[arg(value_name = "PLAYER")]
    player: String,
    /// The request id of the action.
    #[arg(value_name = "REQUEST_ID")]
    request_id: String,
    #[command(flatten)]
    remote: Remote,
}

impl Receipt {
    /// Shows the receipt of an action.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { player, request_id, remote } = self;
        let request = proto::GetReceiptRequest { player_id: player, request_id };
        let response = remote.connect().await?.receipt(request).await?;
        let line = match &response.receipt {
            Some(receipt) if !remote.json => format!(
                "accepted {}  {}",
                words::time(receipt.accept_time.as_ref()),
                words::receipt(receipt)
            ),
            _ => json::canonical("GetReceiptResponse", &response)?,
        };
        output.line(line)?;
        Ok(Exit::Done)
    }
}

/// Arguments of `herald catalog`.
#[derive(Debug, Args)]
pub struct Catalog {
    #[command(flatten)]
    remote: Remote,
}

impl Catalog {
    /// Shows the catalogue.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let catalog = self.remote.connect().await?.catalog().await?;
        if self.remote.json {
            output.line(json::canonical("GetCatalogResponse", &catalog)?)?;
            return Ok(Exit::Done);
        }
        let rows = catalog.items.iter().map(|item| {
            let price = words::money(item.unit_price, &catalog.currency_code);
            (words::name(&item.item_id), price, words::catalog_item(item))
        });
        let rows: Vec<_> = rows.collect();
        let ids = rows.iter().map(|(id, ..)| id.chars().count()).max().unwrap_or(0);
        let prices = rows.iter().map(|(_, price, _)| price.chars().count()).max().unwrap_or(0);
        for (id, price, name) in rows {
            output.line(format_args!("{id:<ids$}  {price:>prices$}  {name}"))?;
        }
        if catalog.guilds_open {
            output.line("any guild can be joined")?;
        }
        for guild in &catalog.guild_ids {
            output.line(format_args!("guild {}", words::name(guild)))?;
        }
        Ok(Exit::Done)
    }
}
