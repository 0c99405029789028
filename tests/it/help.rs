//! The output of `--help` and `-h`, and the README's list of commands and options.

use crate::support::{command, repository};

const COMMANDS: [&str; 8] = [
    "serve",
    "dev",
    "emulate",
    "doctor",
    "config",
    "openapi",
    "completions",
    "healthcheck",
];

/// Returns the output for a terminal of this width, without colours.
async fn output_of(arguments: &[&str], columns: &str) -> String {
    let mut command = command(arguments);
    let output = command.env("COLUMNS", columns).output().await;
    let output = output.expect("the binary was built");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(!text.contains('\u{1b}'), "colours are for terminals");
    text
}

fn matches_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("help");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[tokio::test]
async fn help_matches_its_snapshots() {
    matches_snapshot("entra-redis", &output_of(&["--help"], "80").await);
    for name in COMMANDS {
        let page = output_of(&[name, "--help"], "80").await;
        assert_eq!(page, output_of(&["help", name], "80").await, "{name}");
        matches_snapshot(name, &page);
    }
}

#[tokio::test]
async fn help_fits_its_terminal_and_is_short_with_h() {
    let pages: Vec<Vec<&str>> = [vec![]]
        .into_iter()
        .chain(COMMANDS.map(|name| vec![name]))
        .collect();
    for page in pages {
        let long = [&page[..], &["--help"]].concat();
        for (columns, limit) in [("80", 80), ("100", 100), ("300", 100)] {
            let text = output_of(&long, columns).await;
            let widest = text.lines().max_by_key(|line| line.chars().count());
            let widest = widest.expect("a line");
            assert!(widest.chars().count() <= limit, "{long:?}: {widest}");
        }
        // The pages are written for 80 columns: no line of them is wrapped.
        let (wide, long) = (output_of(&long, "300").await, output_of(&long, "80").await);
        let page_of = |text: &str| {
            text.split_once("\nExamples:\n")
                .map(|(_, page)| page.to_owned())
        };
        assert_eq!(page_of(&long), page_of(&wide));
        let short = output_of(&[&page[..], &["-h"]].concat(), "80").await;
        assert!(long.contains("\nExamples:\n"), "{long}");
        assert!(!short.contains("Examples:"), "{short}");
        assert!(short.lines().count() < long.lines().count(), "{short}");
    }
}

#[tokio::test]
async fn every_command_and_every_option_is_in_the_readme() {
    let help = output_of(&["--help"], "80").await;
    let (_, listed) = help.split_once("Commands:\n").expect("a list of commands");
    let listed = listed.split("\n\n").next().expect("a list");
    let listed: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert_eq!(listed, COMMANDS);

    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is one");
    let (_, section) = readme.split_once("## Commands\n").expect("there is one");
    let section = section.split("\n## ").next().expect("a section");
    for name in COMMANDS {
        assert!(
            section.contains(&format!("`entra-redis {name}")),
            "the README's table has no {name}"
        );
        let page = output_of(&[name, "--help"], "80").await;
        let (_, options) = page.split_once("\nOptions:\n").expect("at least --help");
        let options = options.split("\nExamples:").next().expect("a list");
        let options = options
            .lines()
            .filter(|line| line.trim_start().starts_with("--"));
        for option in options.filter_map(|line| line.split_whitespace().next()) {
            assert!(
                section.contains(&format!("`{option}")),
                "the README has no {option} of {name}"
            );
        }
    }
}
