//! Processes: started with an empty environment and ended with their parent; their CPU time and memory as Linux counts them.
//! Knows /proc; knows nothing of what the processes are.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks per second in /proc/PID/stat: the ABI's USER_HZ, 100 on every Linux that runs these gateways.
const TICKS_PER_SECOND: u64 = 100;

/// A process and all its descendants.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// What the report calls it.
    pub(crate) name: String,
    /// The process id at the root.
    pub(crate) root: u32,
}

impl Tree {
    /// Reads `NAME=PID`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (name, root) = text.split_once('=').context("write NAME=PID")?;
        Ok(Self { name: name.to_owned(), root: root.parse().context("the process id is no number")? })
    }

    /// CPU time of the tree so far, user and system, with that of children already gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in self.members()? {
            // One that ended since it was listed is counted by its parent from now on.
            if let Some(fields) = stat_fields(pid) {
                ticks += fields[11..15].iter().map(|field| field.parse().unwrap_or(0)).sum::<u64>();
            }
        }
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The highest resident memory of each member since `forget_peak`, summed. Shared pages count once per member.
    pub(crate) fn peak_rss_kib(&self) -> u64 {
        self.members().unwrap_or_default().into_iter().filter_map(|pid| status_kib(pid, "VmHWM:")).sum()
    }

    /// Starts the peak anew (needs the right to write /proc/PID/clear_refs; without it the peak is that of the whole life).
    pub(crate) fn forget_peak(&self) {
        for pid in self.members().unwrap_or_default() {
            drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
    }

    fn members(&self) -> Result<BTreeSet<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            if let Some(parent) = stat_fields(pid).and_then(|fields| fields[1].parse::<u32>().ok()) {
                parents.push((pid, parent));
            }
        }
        if !parents.iter().any(|(pid, _)| *pid == self.root) {
            bail!("{} (process {}) is gone", self.name, self.root);
        }
        let mut members = BTreeSet::from([self.root]);
        loop {
            let found: Vec<u32> =
                parents.iter().filter(|(_, parent)| members.contains(parent)).map(|(pid, _)| *pid).collect();
            let before = members.len();
            members.extend(found);
            if members.len() == before {
                return Ok(members);
            }
        }
    }
}

/// The fields of /proc/PID/stat after the command name, which may hold anything: state, parent, ... utime at 11.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
    (fields.len() > 15).then_some(fields)
}

fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// A command that starts with an empty environment, no standard input, and is told to end when the harness dies.
pub(crate) fn command(program: impl AsRef<OsStr>, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command.args(["--pdeathsig", "TERM"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Runs a command to its end; its output is the error when it fails, else what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!("{} failed ({}): {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(said)
}

/// A running process, ended when dropped.
pub(crate) struct Running {
    child: Child,
    stop: &'static str,
}

impl Running {
    /// Starts a command with its output in a file. `stop` is the signal that asks it to end.
    pub(crate) fn start(command: &mut Command, log: &Path, stop: &'static str) -> Result<Self> {
        let log = File::create(log)?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { child, stop })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended, with the end of its log.
    pub(crate) fn check(&mut self, log: &Path) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!("ended at once ({status}):\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut kill = Command::new("kill");
        // It may be gone already; then there is nothing to say.
        drop(kill.args(["-s", self.stop, &self.child.id().to_string()]).stderr(Stdio::null()).status());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
