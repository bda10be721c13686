//! The map is true: ARCHITECTURE.md says who may use whom, and these tests hold every source file to it.

mod map;
mod source;

use std::collections::HashSet;
use std::path::Path;

use map::Room;

/// Names that say nothing of what a file is for.
const NAMELESS: [&str; 9] = ["mod", "util", "utils", "helper", "helpers", "common", "manager", "service", "services"];

/// One source file of a crate.
struct File {
    /// From the workspace's root.
    path: String,
    /// `control::policy::permit`.
    module: Vec<String>,
    text: String,
}

/// The sources of our crates, without their tests.
fn files() -> Vec<File> {
    let root = map::root();
    let mut files = Vec::new();
    for krate in ["wire", "control", "proxy", "tollgate"] {
        let src = root.join("crates").join(krate).join("src");
        collect(&src, &mut |path| {
            let inner = path.strip_prefix(&src).unwrap().with_extension("");
            let mut module = vec![krate.to_owned()];
            module.extend(inner.iter().map(|part| part.to_str().unwrap().to_owned()));
            module.pop_if(|last| last == "lib");
            let path_text = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            files.push(File { path: path_text, module, text: std::fs::read_to_string(path).unwrap() });
        });
    }
    files.retain(|file| !file.module.iter().any(|part| part == "tests"));
    files
}

fn collect(folder: &Path, found: &mut impl FnMut(&Path)) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found(&entry);
        }
    }
}

/// Every path that the file names, from the crate down, with its line.
fn named<'a>(file: &'a File, modules: &HashSet<Vec<String>>) -> impl Iterator<Item = (String, usize)> + use<'a> {
    let modules = modules.clone();
    source::references(&file.text).into_iter().map(move |found| {
        let mut here = file.module.clone();
        here.extend(found.inside);
        (absolute(&found.path, here, &modules).join("::"), found.line)
    })
}

fn absolute(path: &[String], mut here: Vec<String>, modules: &HashSet<Vec<String>>) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    match path[0].as_str() {
        "crate" => [&here[..1], &path[1..]].concat(),
        "self" => [&here[..], &path[1..]].concat(),
        "super" => {
            here.truncate(here.len().saturating_sub(supers));
            [&here[..], &path[supers..]].concat()
        }
        // A child module may be called like one of our crates.
        _ if modules.contains(&[&here[..], &path[..1]].concat()) => [&here[..], path].concat(),
        _ => path.to_vec(),
    }
}

fn below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn room_of<'a>(rooms: &'a [Room], path: &str) -> Option<&'a Room> {
    rooms.iter().filter(|room| below(path, &room.name)).max_by_key(|room| room.name.len())
}

fn modules(files: &[File]) -> HashSet<Vec<String>> {
    files.iter().map(|file| file.module.clone()).collect()
}

#[test]
fn every_file_belongs_to_a_room_on_the_map() {
    let (rooms, files) = (map::rooms(), files());
    let homeless: Vec<_> = files
        .iter()
        .filter(|file| file.module.len() > 1 && room_of(&rooms, &file.module.join("::")).is_none())
        .map(|file| &file.path)
        .collect();
    assert!(homeless.is_empty(), "no row of the table in ARCHITECTURE.md is about {homeless:#?}");
}

#[test]
fn nobody_uses_a_room_that_the_map_does_not_allow() {
    let (rooms, files) = (map::rooms(), files());
    let modules = modules(&files);
    let mut wrong = Vec::new();
    for file in &files {
        let Some(room) = room_of(&rooms, &file.module.join("::")) else { continue };
        for (path, line) in named(file, &modules).filter(|(path, _)| path.contains("::")) {
            let of_ours = modules.contains(&[path.split("::").next().unwrap().to_owned()][..]);
            let home = room_of(&rooms, &path).is_some_and(|other| other.name == room.name);
            let allowed = home || room.may_use.iter().any(|allowed| below(&path, allowed));
            let never = room.never.iter().any(|never| below(&path, never));
            if (of_ours && !allowed) || never {
                wrong.push(format!("{}:{line}: `{}` may not use `{path}`", file.path, room.name));
            }
        }
    }
    assert!(wrong.is_empty(), "ask the room through its own words, or change the table:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_fenced_in_stays_behind_its_fence() {
    let files = files();
    let modules = modules(&files);
    let mut wrong = Vec::new();
    for fence in map::fences() {
        let inside = |file: &File| {
            fence.only_in.iter().any(|place| match place.strip_suffix('/') {
                Some(_) => file.path.starts_with(place.as_str()),
                None => file.path.ends_with(&format!("/{place}")) || file.path == *place,
            })
        };
        for file in files.iter().filter(|file| !inside(file)) {
            let named = named(file, &modules).filter(|(path, _)| path.contains("::"));
            let found = named.filter(|(path, _)| fence.paths.iter().any(|fenced| names(path, fenced)));
            wrong.extend(found.map(|(path, line)| format!("{}:{line}: `{path}`", file.path)));
        }
    }
    assert!(wrong.is_empty(), "outside their fence:\n{}", wrong.join("\n"));
}

/// `Type::method` is found behind any path to the type; anything else is a path from its crate down.
fn names(path: &str, fenced: &str) -> bool {
    let method = fenced.starts_with(char::is_uppercase) && path.ends_with(fenced);
    below(path, fenced) || (method && path[..path.len() - fenced.len()].ends_with("::"))
}

#[test]
fn every_file_and_folder_is_named_after_a_thing_we_have() {
    let mut wrong: Vec<String> = Vec::new();
    for krate in ["wire", "control", "proxy", "tollgate"] {
        collect(&map::root().join("crates").join(krate), &mut |path| {
            let inner = path.strip_prefix(map::root()).unwrap().with_extension("");
            if inner.iter().any(|part| NAMELESS.contains(&part.to_str().unwrap())) {
                wrong.push(path.display().to_string());
            }
        });
    }
    assert!(wrong.is_empty(), "say what it is for: {wrong:#?}");
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<_> =
        files().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert!(silent.is_empty(), "these do not begin with `//!`: {silent:#?}");
}

#[test]
fn every_folder_of_modules_stands_beside_the_file_that_declares_it() {
    let files = files();
    let modules = modules(&files);
    let orphans: Vec<_> = files
        .iter()
        .filter(|file| file.module.len() > 2 && !modules.contains(&file.module[..file.module.len() - 1]))
        .map(|file| &file.path)
        .collect();
    assert!(orphans.is_empty(), "`noun/` without `noun.rs`: {orphans:#?}");
}

#[test]
fn every_link_of_the_map_leads_somewhere() {
    let dead: Vec<_> = map::links().into_iter().filter(|link| !map::root().join(link).exists()).collect();
    assert!(dead.is_empty(), "{dead:#?}");
}
