//! Keeps the shape of the house: which room may use which, which crate stays
//! where, and that every dependency has its reason. The rules are in `rules`;
//! what they mean is in `docs/architecture.md`.

mod rules;
mod source;

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use rules::File;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All Rust files below `folder`, their paths relative to `root`.
fn rust_files(root: &Path, folder: &Path, found: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("it was found below the root");
            found.push(File {
                path: name.to_string_lossy().replace('\\', "/"),
                text: fs::read_to_string(&path)?,
            });
        }
    }
    Ok(())
}

#[test]
fn the_rooms_keep_the_rules() {
    let root = repository().join("src");
    let mut files = Vec::new();
    rust_files(&root, &root, &mut files).expect("the sources can be read");
    assert!(files.iter().any(|file| file.path == "lib.rs"), "no sources in {}", root.display());
    let found = rules::violations(&files);
    assert!(found.is_empty(), "see docs/architecture.md, \"Rooms\":\n{}", found.join("\n"));
}

#[test]
fn the_architecture_page_names_every_room() {
    let page = read("docs/architecture.md");
    for room in rules::FLOORS.iter().flat_map(|(_, rooms)| *rooms) {
        let named = [format!("`{room}`"), format!("`{room}/`"), format!("`{room}.rs`")]
            .iter()
            .any(|name| page.contains(name));
        assert!(named, "docs/architecture.md does not name the room `{room}`");
    }
}

/// The names that the lines of a list below `heading` begin with: "- `name`: …".
fn listed(page: &str, heading: &str) -> BTreeSet<String> {
    page.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .filter(|(_, reason)| !reason.trim().is_empty())
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_dependency_has_its_reason_and_no_reason_is_stale() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let page = read("docs/dependencies.md");
    for (table, heading) in [
        ("dependencies", "## In the binary"),
        ("build-dependencies", "## For the build"),
        ("dev-dependencies", "## For the tests"),
    ] {
        let wanted: BTreeSet<String> = manifest
            .get(table)
            .and_then(toml::Value::as_table)
            .map(|table| table.keys().cloned().collect())
            .unwrap_or_default();
        let listed = listed(&page, heading);
        let missing: Vec<_> = wanted.difference(&listed).collect();
        let stale: Vec<_> = listed.difference(&wanted).collect();
        assert!(
            missing.is_empty() && stale.is_empty(),
            "docs/dependencies.md, {heading}: without a reason {missing:?}, no longer used {stale:?}"
        );
    }
}
