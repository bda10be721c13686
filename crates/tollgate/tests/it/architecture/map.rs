//! ARCHITECTURE.md, read by machine: its tables are the rules.

use std::path::{Path, PathBuf};

/// A row of the table of rooms.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: String,
    /// Paths of ours that it may name; a prefix stands for all below it.
    pub(super) may_use: Vec<String>,
    /// Crates of others that it may not name.
    pub(super) never: Vec<String>,
}

/// A row of the table of fences.
#[derive(Debug)]
pub(super) struct Fence {
    /// Paths that are fenced in.
    pub(super) paths: Vec<String>,
    /// Files, and folders ending in `/`, where they may appear.
    pub(super) only_in: Vec<String>,
}

/// The workspace's root.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(super) fn rooms() -> Vec<Room> {
    let rows = table("| Room | May use | Never |").into_iter();
    rows.flat_map(|cells| {
        let [names, may_use, never] = cells.try_into().unwrap();
        names.into_iter().map(move |name| Room { name, may_use: may_use.clone(), never: never.clone() })
    })
    .collect()
}

pub(super) fn fences() -> Vec<Fence> {
    let rows = table("| What | Only in | Why |").into_iter();
    rows.map(|cells| {
        let [paths, only_in, _] = cells.try_into().unwrap();
        Fence { paths, only_in }
    })
    .collect()
}

/// Links of the page to files of ours.
pub(super) fn links() -> Vec<String> {
    let page = page();
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).map(str::to_owned).collect()
}

/// Per row and cell, what stands in code spans.
fn table(header: &str) -> Vec<Vec<Vec<String>>> {
    let page = page();
    let mut lines = page.lines().skip_while(|line| *line != header).skip(2).peekable();
    assert!(lines.peek().is_some(), "ARCHITECTURE.md has no table `{header}`");
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(spans).collect())
        .collect()
}

fn spans(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn page() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}
