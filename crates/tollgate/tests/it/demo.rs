//! The demo keeps its promises, as a process of its own and with nothing around it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// `tollgate demo`, with its temporary files below `folder` and nothing else of this machine's environment.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("demo").env_clear().env("TMPDIR", folder).stdin(Stdio::null());
    command
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_tour_ends_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path()).arg("--tour").output().unwrap();
    let (told, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("Everything went as promised."), "{told}");
    assert!(told.contains("let through       4 of 20"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    assert!(!told.contains('\x1b'), "colours though this is no terminal:\n{told}");
    assert_eq!(errors, "");
    assert!(entries(folder.path()).is_empty(), "{:?}", entries(folder.path()));
}

#[test]
fn a_kept_tour_leaves_its_files_and_an_audit_of_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let output = demo(folder.path()).args(["--tour", "--keep"]).arg(&kept).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(entries(folder.path()), ["kept"]);
    for name in ["audit.jsonl", "gateway.yaml", "managed-settings.json", "tollgate.db"] {
        assert!(entries(&kept).iter().any(|entry| entry == name), "no {name} among {:?}", entries(&kept));
    }
    let audit = std::fs::read_to_string(kept.join("audit.jsonl")).unwrap();
    let count = |event: &str| audit.lines().filter(|line| line.contains(&format!("\"evt\":\"{event}\""))).count();
    assert_eq!((count("session.mint"), count("spend.blocked")), (3, 16), "{audit}");
}

#[test]
fn a_demo_that_cannot_start_says_why_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = demo(folder.path()).args(["--tour", "--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(&format!("port {port} cannot be bound")), "{errors}");
    assert!(entries(folder.path()).is_empty(), "{:?}", entries(folder.path()));
}

#[test]
fn a_demo_that_is_told_to_end_does_so_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = demo(folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("Ctrl-C ends the demo.")));
    assert_eq!(entries(folder.path()).len(), 1);
    assert!(Command::new("kill").args(["-TERM", &running.id().to_string()]).status().unwrap().success());
    assert!(running.wait().unwrap().success());
    assert!(entries(folder.path()).is_empty(), "{:?}", entries(folder.path()));
}
