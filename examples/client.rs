//! Buys, joins a guild, is refused, and follows the guilds of all players from where the last run
//! ended.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::PathBuf;

use clap::Parser;
use futures_util::StreamExt as _;
use herald::client::tail::{News, Tail};
use herald::client::{Client, ClientError, ConnectOptions, CursorFile, Retry};
use herald::proto::game_event::Payload;
use herald::proto::stream_events_request::Start;
use herald::proto::{
    EventFilter, JoinGuildRequest, PurchaseItemRequest, StartPosition, StreamEventsRequest,
};

#[derive(Parser)]
struct Options {
    /// Where Herald is.
    #[arg(long, env = "HERALD_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    /// Who acts.
    #[arg(long, default_value = "ann")]
    player: String,
    /// End after so many events; 0: never.
    #[arg(long, default_value_t = 0)]
    events: i64,
    /// Where the place in the feed is kept.
    #[arg(long, default_value = "example.cursor")]
    cursor_file: PathBuf,
}

async fn act(client: &Client, player: &str) -> Result<(), ClientError> {
    let request = PurchaseItemRequest {
        player_id: player.to_owned(),
        item_id: "sword".to_owned(),
        quantity: Some(2),
        ..Default::default()
    };
    let bought = Retry::default().call(request, |request| client.purchase_item(request)).await?;
    let what = bought.purchase.unwrap_or_default();
    println!(
        "bought {} {} for {} {}",
        what.quantity, what.item_id, what.total_price, what.currency_code
    );

    let request = JoinGuildRequest {
        player_id: player.to_owned(),
        guild_id: "owls".to_owned(),
        ..Default::default()
    };
    Retry::default().call(request, |request| client.join_guild(request)).await?;
    println!("joined owls");

    let request = PurchaseItemRequest {
        player_id: player.to_owned(),
        item_id: "dragon".to_owned(),
        ..Default::default()
    };
    if let Err(error) =
        Retry::default().call(request, |request| client.purchase_item(request)).await
    {
        println!("refused, {}:", error.reason().unwrap_or("without a reason"));
        for violation in error.violations() {
            println!("  {}: {}", violation.field, violation.description);
        }
    }
    Ok(())
}

async fn follow(client: Client, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let file = CursorFile::open(&options.cursor_file)?;
    let start = match file.read()? {
        Some(cursor) => Start::AfterCursor(cursor),
        None => Start::StartPosition(StartPosition::Earliest.into()),
    };
    let filter = EventFilter { event_types: vec!["guild_joined".to_owned()], ..Default::default() };
    let request = StreamEventsRequest {
        start: Some(start),
        filter: Some(filter),
        max_events: options.events,
        ..Default::default()
    };
    let mut tail = Tail::new(client, request);
    while let Some(item) = tail.next().await {
        let item = item?;
        if let News::Event(delivered) = item.news
            && let Some(event) = delivered.event
            && let Some(Payload::GuildJoined(joined)) = event.payload
        {
            println!("{} is now in {}", event.player_id, joined.guild_id);
        }
        // Behind what was dealt with. A crash in between brings it again.
        if let Some(cursor) = item.cursor {
            file.write(&cursor)?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let client = Client::connect(&options.server, ConnectOptions::default()).await?;
    act(&client, &options.player).await?;
    follow(client, &options).await
}
