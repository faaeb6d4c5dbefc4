//! The README's table of settings is the one that the flags make.

use clap::Args as _;
use herald::config::Settings;

const MARKS: (&str, &str) = ("<!-- configuration -->\n", "<!-- /configuration -->");

fn table() -> String {
    let command = Settings::augment_args(clap::Command::new("serve"));
    let mut table =
        "| flag | environment | default | what it does |\n|---|---|---|---|\n".to_owned();
    for arg in command.get_arguments() {
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
        let takes_value = arg.get_action().takes_values();
        let default = arg.get_default_values().iter().map(|value| value.to_string_lossy());
        let default = default.filter(|_| takes_value).collect::<Vec<_>>().join(",");
        table.push_str(&format!(
            "| `--{}` | {} | {} | {} |\n",
            arg.get_long().unwrap(),
            code(&env),
            code(&default),
            arg.get_help().unwrap()
        ));
    }
    table
}

#[test]
fn the_readme_lists_every_setting() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once(MARKS.0).expect("the mark before the table");
    let (found, _) = rest.split_once(MARKS.1).expect("the mark behind the table");
    let expected = table();
    assert!(found == expected, "the table in README.md has to be:\n{expected}");
}

#[test]
fn the_readmes_catalogue_is_one() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("the catalogue");
    let (text, _) = rest.split_once("```").expect("its end");
    let catalog = herald::domain::Catalog::parse(text).unwrap().to_response();
    assert_eq!((catalog.items.len(), catalog.guild_ids.len()), (3, 2));
}
