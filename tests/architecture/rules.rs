//! The rules, over one source file at a time.

use crate::source::{self, Path, Token};

/// The rooms, each with its floor. Arrows point downward only.
pub const FLOORS: &[(u8, &[&str])] = &[
    (6, &["main", "cli"]),
    (5, &["config", "server"]),
    (4, &["grpc", "http", "export"]),
    (3, &["commands"]),
    (2, &["feed", "history", "players"]),
    (1, &["domain", "event_log", "client"]),
    (0, &["proto", "error", "clock", "durable", "tasks", "telemetry"]),
];

/// Arrows between rooms of one floor: the first may use the second.
const BESIDE: &[(&str, &str)] =
    &[("main", "cli"), ("server", "config"), ("feed", "history"), ("players", "history")];

/// Crates that stay in the places named here; a name that ends in `*` stands for
/// all crates that begin with it.
const CONFINED: &[(&str, &[&str])] = &[
    ("rdkafka*", &["event_log/kafka", "cli/bench"]),
    ("rusqlite", &["event_log/local"]),
    ("tonic*", &["grpc", "client", "server", "cli/bench"]),
    ("axum*", &["server"]),
    ("arrow*", &["export"]),
    ("parquet*", &["export"]),
    ("object_store*", &["export"]),
    ("hdfs_native*", &["export"]),
];

/// What reads a clock or does I/O, which the domain does not.
const IMPURE: &[&[&str]] = &[
    &["crate", "clock", "Clock"],
    &["crate", "clock", "*"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "time", "*"],
    &["std", "fs"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "*"],
    &["std", "process"],
    &["std", "thread"],
    &["tokio"],
];

/// The files that may say `unsafe`.
const UNSAFE: &[&str] = &["event_log/kafka/ffi.rs"];

/// A source file: its path below `src/`, with forward slashes, and its text.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    /// The names of the modules down to this one; `lib.rs` is the root.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }

    /// The room, and nothing for the root.
    fn room(&self) -> Option<&str> {
        self.module().first().copied()
    }

    /// Whether this is `place` (`event_log/local`) or lies in it.
    fn is_in(&self, place: &str) -> bool {
        let place: Vec<&str> = place.split('/').collect();
        self.module().starts_with(&place)
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(_, rooms)| rooms.contains(&room)).map(|(floor, _)| *floor)
}

/// A file as it was read: all of it, and what is left without tests.
struct Scanned<'a> {
    file: &'a File,
    all: Vec<Token>,
    shipped: Vec<Token>,
    test_modules: Vec<String>,
}

/// Everything in `files` that breaks a rule, one line each.
pub fn violations(files: &[File]) -> Vec<String> {
    let scanned: Vec<Scanned<'_>> = files
        .iter()
        .map(|file| {
            let all = source::tokens(&file.text);
            let (shipped, test_modules) = source::without_tests(&all);
            Scanned { file, all, shipped, test_modules }
        })
        .collect();
    let test_files: Vec<String> = scanned
        .iter()
        .flat_map(|Scanned { file, test_modules, .. }| {
            let place = |name: &String| [&file.module()[..], &[name.as_str()]].concat().join("/");
            test_modules.iter().map(place)
        })
        .collect();

    let mut found = Vec::new();
    for Scanned { file, all, shipped, .. } in &scanned {
        let mut say = |line: usize, what: String| {
            found.push(format!("src/{}:{line}: {what}", file.path));
        };
        if let Some(room) = file.room()
            && floor(room).is_none()
        {
            say(1, format!("room `{room}` is not in the table of floors"));
        }
        if !UNSAFE.contains(&file.path.as_str()) {
            for token in all.iter().filter(|token| token.text == "unsafe") {
                say(token.line, "`unsafe` outside the files that are allowed it".into());
            }
        }
        if test_files.iter().any(|place| file.is_in(place)) {
            continue;
        }
        let module = file.module();
        for path in source::paths(shipped, &module) {
            for what in path_violations(file, &path) {
                say(path.line, what);
            }
        }
        let printing = ["print", "println", "eprint", "eprintln", "dbg"];
        for pair in shipped.windows(2) {
            if pair[1].text == "!"
                && printing.contains(&pair[0].text.as_str())
                && file.room().and_then(floor) != Some(6)
            {
                say(pair[0].line, format!("`{}!` below floor 6", pair[0].text));
            }
        }
    }
    found
}

fn path_violations(file: &File, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let written = path.segments.join("::");
    let first = path.segments[0].as_str();
    let is_path = path.imported || path.segments.len() > 1;
    // The root only declares the rooms.
    let Some(room) = file.room() else { return found };
    let Some(own_floor) = floor(room) else { return found };

    // The binary is a crate of its own, which sees the library by its name.
    let binary = own_floor == 6;
    if first == "herald" && is_path && !binary {
        found.push(format!("`{written}`: inside the library write `crate`"));
    }
    if (first == "crate" || (first == "herald" && binary)) && path.segments.len() > 1 {
        let other = path.segments[1].as_str();
        match floor(other) {
            None => found.push(format!("`{written}` names no room of the table of floors")),
            Some(0) => {}
            Some(below) if below < own_floor => {}
            Some(_) if other == room || BESIDE.contains(&(room, other)) => {}
            Some(there) => found.push(format!(
                "`{written}`: `{room}` is on floor {own_floor} and may not use floor {there}"
            )),
        }
    }
    for (name, places) in CONFINED {
        let matches = match name.strip_suffix('*') {
            Some(prefix) => first.starts_with(prefix),
            None => first == *name,
        };
        if matches && is_path && !places.iter().any(|place| file.is_in(place)) {
            found.push(format!("`{written}`: `{first}` belongs in {} only", places.join(", ")));
        }
    }
    if path.starts_with(&["std", "env"]) && own_floor < 5 {
        found.push(format!("`{written}`: the environment is read on floor 5 and above only"));
    }
    if room == "domain" {
        let tells_time =
            is_path && path.segments.last().is_some_and(|s| s == "now" || s.starts_with("now_"));
        if tells_time || IMPURE.iter().any(|impure| path.starts_with(impure) && is_path) {
            found.push(format!("`{written}`: the domain does no I/O and reads no clock"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations_of(path: &str, text: &str) -> Vec<String> {
        violations(&[File { path: path.into(), text: text.into() }])
    }

    fn refused(path: &str, text: &str, because: &str) {
        let found = violations_of(path, text);
        assert!(
            found.len() == 1 && found[0].contains(because),
            "{path}: {text}\nexpected one finding about {because:?}, got {found:#?}"
        );
    }

    fn accepted(path: &str, text: &str) {
        assert_eq!(violations_of(path, text), [""; 0], "{path}: {text}");
    }

    #[test]
    fn arrows_point_downward() {
        accepted("grpc/mod.rs", "use crate::{commands::Commands, feed, tasks::Tasks};");
        accepted("feed/hub.rs", "use super::ring::Ring; use crate::feed::Feed;");
        accepted("server/mod.rs", "use crate::config::Config;");
        accepted("main.rs", "fn main() { herald::cli::run() }");
        refused("feed/mod.rs", "use crate::commands::Commands;", "may not use floor 3");
        refused("feed/mod.rs", "fn f(x: crate::commands::Commands) {}", "may not use floor 3");
        refused("feed/mod.rs", "use super::commands::Commands;", "may not use floor 3");
        refused("tasks.rs", "use crate::{clock::Clock, domain::PlayerId};", "may not use floor 1");
    }

    #[test]
    fn rooms_of_one_floor_do_not_know_each_other() {
        refused("players/mod.rs", "use crate::feed::Hub;", "may not use floor 2");
        refused("domain/mod.rs", "use crate::event_log::Position;", "may not use floor 1");
        refused("config.rs", "use crate::server::Server;", "may not use floor 5");
        accepted("telemetry.rs", "use crate::clock::Clock;");
    }

    #[test]
    fn every_room_is_named() {
        refused("attic/mod.rs", "", "`attic` is not in the table");
        refused("attic.rs", "", "`attic` is not in the table");
        refused("feed/mod.rs", "use crate::attic::Box;", "names no room");
        refused("feed/mod.rs", "use crate::*;", "names no room");
        refused("feed/mod.rs", "use herald::domain::PlayerId;", "write `crate`");
        accepted("lib.rs", "pub mod attic; pub use attic::Box;");
    }

    #[test]
    fn crates_stay_where_they_belong() {
        accepted("event_log/local/writer.rs", "use rusqlite::Connection;");
        accepted("event_log/kafka.rs", "use rdkafka::Message;");
        accepted("cli/bench/echo.rs", "use tonic::Request;");
        accepted("cli/bench.rs", "tonic::include_proto!(\"echo\");");
        refused("event_log/mod.rs", "use rusqlite::Connection;", "event_log/local only");
        refused(
            "event_log/kafkaesque.rs",
            "use rdkafka::Message;",
            "event_log/kafka, cli/bench only",
        );
        refused("commands/mod.rs", "fn f() -> Result<(), tonic::Status> {}", "`tonic` belongs");
        refused("cli/tail.rs", "use tonic_types::ErrorDetails;", "`tonic_types` belongs");
        refused("grpc/mod.rs", "use axum;", "`axum` belongs");
        accepted("domain/mod.rs", "// use axum::Router;\nconst S: &str = \"tonic::Status\";");
        accepted("domain/mod.rs", "fn f(axum: u8) -> u8 { axum }");
    }

    #[test]
    fn the_environment_and_the_screen_belong_upstairs() {
        accepted("config.rs", "use std::env;");
        accepted("proto.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"));");
        accepted("cli/output.rs", "fn f() { println!(\"{}\", 1) }");
        refused("grpc/mod.rs", "use std::{env, fs};", "environment");
        refused("feed/mod.rs", "fn f() { let _ = std::env::args(); }", "environment");
        refused("server/mod.rs", "fn f() { eprintln!(\"ready\") }", "`eprintln!` below floor 6");
    }

    #[test]
    fn unsafe_is_in_one_file() {
        accepted("event_log/kafka/ffi.rs", "fn f() { unsafe { g() } }");
        refused("feed/mod.rs", "fn f() { unsafe { g() } }", "`unsafe`");
        refused("feed/mod.rs", "#[cfg(test)] mod tests { unsafe fn f() {} }", "`unsafe`");
        accepted("lib.rs", "#![deny(unsafe_code)] // unsafe");
    }

    #[test]
    fn the_domain_is_pure() {
        accepted("domain/mod.rs", "use crate::clock::Timestamp; use std::net::IpAddr;");
        for source in [
            "use crate::clock::{Clock};",
            "use crate::clock::*;",
            "fn f(at: std::time::Instant) {}",
            "fn f() { let _ = std::fs::read(\"x\"); }",
            "use std::net::TcpStream;",
            "use tokio::sync::watch;",
            "fn f() { Uuid::now_v7(); }",
            "fn f() { Timestamp::now(); }",
        ] {
            refused("domain/mod.rs", source, "reads no clock");
        }
    }

    #[test]
    fn tests_may_use_what_they_like() {
        accepted("domain/mod.rs", "#[cfg(test)] mod tests { use crate::feed::Hub; }");
        let files = [("mod.rs", "#[cfg(test)] mod suite;"), ("suite.rs", "use crate::feed::Hub;")];
        let files =
            files.map(|(name, text)| File { path: format!("event_log/{name}"), text: text.into() });
        assert_eq!(violations(&files), [""; 0]);
        assert_eq!(violations(&files[1..]).len(), 1);
    }
}
