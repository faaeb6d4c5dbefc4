//! What players have: asked of the real server, and after it was stopped or killed.

use herald::proto::{
    GetPlayerRequest, JoinGuildRequest, ListGuildMembersRequest, Player, StartSessionRequest,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::{TestServer, fields, purchase, reason};
use crate::process::Process;

async fn player(
    server: &TestServer,
    player: &str,
    at_least_cursor: &str,
) -> Result<(Player, String), Status> {
    let (player_id, at_least_cursor) = (player.to_owned(), at_least_cursor.to_owned());
    let request = GetPlayerRequest { player_id, at_least_cursor };
    let answer = server.game().await.get_player(request).await?.into_inner();
    Ok((answer.player.unwrap(), answer.cursor))
}

fn join(player: &str, guild: &str) -> JoinGuildRequest {
    let (player_id, guild_id) = (player.to_owned(), guild.to_owned());
    JoinGuildRequest { player_id, guild_id, ..Default::default() }
}

#[tokio::test]
async fn a_client_reads_what_it_has_written() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    let mut game = server.game().await;
    for count in 1..=20 {
        let bought = game.purchase_item(purchase("alice", "sword")).await.unwrap().into_inner();
        let receipt = bought.receipt.unwrap();
        let (alice, cursor) = player(&server, "alice", &receipt.cursor).await.unwrap();
        assert_eq!(alice.inventory[0].quantity, count);
        assert_eq!(alice.last_seen_time, receipt.accept_time);
        // The answer's own cursor is as good.
        player(&server, "alice", &cursor).await.unwrap();
    }
    let start = StartSessionRequest { player_id: "alice".to_owned(), ..Default::default() };
    let session = game.start_session(start).await.unwrap().into_inner();
    let joined = game.join_guild(join("alice", "owls")).await.unwrap().into_inner();
    let cursor = joined.receipt.unwrap().cursor;
    let (alice, _) = player(&server, "alice", &cursor).await.unwrap();
    assert_eq!((alice.session_count, alice.last_session_id), (1, session.session_id));
    assert_eq!((alice.guild_id.as_str(), alice.history_start_time), ("owls", None));
    let members = ListGuildMembersRequest { guild_id: "owls".to_owned(), ..Default::default() };
    let members = game.list_guild_members(members).await.unwrap().into_inner();
    assert_eq!((members.player_ids, members.total_size), (vec!["alice".to_owned()], 1));
}

#[tokio::test]
async fn what_cannot_be_answered_is_told_why() {
    let server = TestServer::start(&[]).await;
    let other = TestServer::start(&[]).await;
    let bought = server.game().await.purchase_item(purchase("alice", "sword")).await.unwrap();
    let receipt = bought.into_inner().receipt.unwrap();
    player(&server, "alice", &receipt.cursor).await.unwrap();

    let unknown = player(&server, "bob", "").await.unwrap_err();
    assert_eq!((unknown.code(), &*reason(&unknown)), (Code::NotFound, "PLAYER_UNKNOWN"));
    let invalid = player(&server, "", "").await.unwrap_err();
    assert_eq!(
        (invalid.code(), fields(&invalid)),
        (Code::InvalidArgument, vec!["player_id".into()])
    );
    let malformed = player(&server, "alice", "x").await.unwrap_err();
    assert_eq!(reason(&malformed), "CURSOR_MALFORMED");
    let foreign = player(&other, "alice", &receipt.cursor).await.unwrap_err();
    assert_eq!(reason(&foreign), "FEED_EPOCH_CHANGED");

    let mut behind = herald::event_log::Cursor::decode(&receipt.cursor).unwrap();
    behind.position.set(0, 100);
    let (player_id, at_least_cursor) = ("alice".to_owned(), behind.encode());
    let mut request = tonic::Request::new(GetPlayerRequest { player_id, at_least_cursor });
    // The server answers a tenth of it earlier, which a busy machine needs.
    request.set_timeout(std::time::Duration::from_secs(3));
    let behind = server.game().await.get_player(request).await.unwrap_err();
    assert_eq!((behind.code(), &*reason(&behind)), (Code::DeadlineExceeded, "STATE_BEHIND"));
}

/// What the command says of a player and of a guild, once the server has read the log.
fn seen(server: &Process, player: &str, guild: &str) -> (Value, Value) {
    let json = |args: &[&str]| loop {
        let output = server.herald(args);
        match output.status.code() {
            Some(0) => return serde_json::from_slice::<Value>(&output.stdout).unwrap(),
            // Not read yet.
            Some(3) => {}
            _ => panic!("{output:?}"),
        }
    };
    let player = json(&["player", player, "--json"])["player"].clone();
    (player, json(&["guild", guild, "--json"]))
}

fn buy(server: &Process, player: &str, count: usize) {
    for _ in 0..count {
        let bought = server.herald(&["purchase", "--player", player, "--item", "sword"]);
        assert!(bought.status.success(), "{bought:?}");
    }
}

#[test]
fn the_answers_are_the_same_after_a_stop_and_after_a_kill_with_and_without_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("data/players.snapshot");
    let flags = ["--snapshot-interval=20ms", "--key-partitions=3"];
    let server = Process::start(dir.path(), &flags);
    buy(&server, "alice", 3);
    assert!(server.herald(&["join", "--player", "alice", "--guild", "owls"]).status.success());
    while !snapshot.exists() {
        std::thread::yield_now();
    }
    // What comes now may be in the snapshot or not.
    buy(&server, "alice", 2);
    assert!(server.herald(&["join", "--player", "bob", "--guild", "owls"]).status.success());
    let (code, _) = server.end("-KILL");
    assert_eq!(code, None);

    let server = Process::start(dir.path(), &flags[1..]);
    let after_kill = seen(&server, "alice", "owls");
    assert_eq!(after_kill.0["inventory"][0]["quantity"], "5");
    assert_eq!(after_kill.1["playerIds"], serde_json::json!(["alice", "bob"]));
    let (_, lines) = server.end("-TERM");
    assert!(lines.contains("the snapshot is read"), "{lines}");

    std::fs::remove_file(&snapshot).unwrap();
    let server = Process::start(dir.path(), &flags[1..]);
    assert_eq!(seen(&server, "alice", "owls"), after_kill);
    let (_, lines) = server.end("-TERM");
    assert!(lines.contains("the snapshot is written") && !lines.contains("WARN"), "{lines}");
    assert!(snapshot.exists(), "a stop in order writes it down");

    let mut damaged = std::fs::read(&snapshot).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, damaged).unwrap();
    let server = Process::start(dir.path(), &flags[1..]);
    assert_eq!(seen(&server, "alice", "owls"), after_kill);
    let (_, lines) = server.end("-TERM");
    assert_eq!(lines.matches("the snapshot of players is not used").count(), 1, "{lines}");
}

#[test]
fn the_command_shows_a_player_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    buy(&server, "alice", 1);
    seen(&server, "alice", "owls");
    let shown = server.herald(&["player", "alice"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("player      alice\nguild       none\nsessions    0\n"), "{shown}");
    assert!(shown.ends_with("\n          1 sword\n"), "{shown}");
    let unknown = server.herald(&["player", "bob"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let wrong = server.herald(&["player", "alice", "--at-least", "x"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}
