//! The catalogue changes under a running server.

use std::path::Path;
use std::time::Duration;

use herald::proto::game_event::Payload;
use herald::proto::{GetCatalogRequest, GetCatalogResponse};

use crate::harness::{TestServer, fields, get, purchase};
use crate::process::Process;

/// A catalogue with a hat at this price.
fn hat(price: i64) -> String {
    format!("currency = 'gems'\n[[items]]\nid = 'hat'\nname = 'Hat'\nprice = {price}\n")
}

/// Replaces a file as editors and deployments do: nobody sees half of it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

async fn catalog(server: &TestServer) -> GetCatalogResponse {
    server.game().await.get_catalog(GetCatalogRequest {}).await.unwrap().into_inner()
}

/// Waits until what the admin address tells has this in it.
async fn metrics_with(server: &TestServer, part: &str) -> String {
    loop {
        let (_, metrics) = get(server.admin, "/metrics").await;
        if metrics.contains(part) {
            return metrics;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_change_of_the_file_is_taken_in_and_a_bad_one_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalogue.toml");
    std::fs::write(&file, hat(7)).unwrap();
    let server = TestServer::start(&[&format!("--catalog={}", file.display())]).await;
    let mut game = server.game().await;
    game.purchase_item(purchase("alice", "hat")).await.unwrap();
    let old = catalog(&server).await;

    replace(&file, &format!("{}[[items]]\nid = 'cap'\nname = 'Cap'\nprice = -1\n", hat(8)));
    metrics_with(&server, "herald_catalog_reloads_total{result=\"refused\"} 1").await;
    assert_eq!(catalog(&server).await, old);
    assert_eq!(
        fields(&game.purchase_item(purchase("alice", "cap")).await.unwrap_err()),
        ["item_id"]
    );

    replace(&file, &hat(9));
    let metrics = metrics_with(&server, "herald_catalog_reloads_total{result=\"changed\"} 1").await;
    let new = catalog(&server).await;
    assert_eq!(new.items[0].unit_price, 9);
    let in_force = format!("herald_catalog_info{{version=\"{}\"}} 1", new.catalog_version);
    assert!(metrics.contains(&in_force), "{metrics}");
    game.purchase_item(purchase("alice", "hat")).await.unwrap();

    let events = server.events().await;
    let bought: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event.event?.payload? {
            Payload::ItemPurchased(bought) => Some((bought.unit_price, bought.catalog_version)),
            _ => None,
        })
        .collect();
    assert_eq!(bought, [(7, old.catalog_version), (9, new.catalog_version)]);
}

#[test]
fn a_hangup_has_the_catalogue_read_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalogue.toml");
    std::fs::write(&file, hat(7)).unwrap();
    let flag = format!("--catalog={}", file.display());
    let mut server = Process::start(dir.path(), &[&flag, "--log-format=json"]);
    let shown = |server: &Process| String::from_utf8(server.herald(&["catalog"]).stdout).unwrap();
    assert!(shown(&server).contains("7 gems"));

    // What is wrong is told in one line, all of it.
    replace(&file, "currency = ''\n[[items]]\nid = 'hat'\nname = 'Hat'\nprice = -1\n");
    server.signal("-HUP");
    let told = server.line_with("refused");
    assert!(told.contains("currency: missing") && told.contains("items[0].price"), "{told}");
    assert!(shown(&server).contains("7 gems"));

    replace(&file, &hat(9));
    server.signal("-HUP");
    let told = server.line_with("the catalogue has changed");
    assert!(told.contains("\"from\":") && told.contains("\"to\":"), "{told}");
    assert!(shown(&server).contains("9 gems"));
}

#[test]
fn without_a_file_a_hangup_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (code, lines) = Process::start(dir.path(), &[]).end("-HUP");
    assert_eq!(code, Some(0), "{lines}");
    assert!(lines.contains("\"stopped\""), "{lines}");
}
