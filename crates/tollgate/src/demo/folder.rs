//! The demo's folder: everything that it writes, taken away at its end.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::chance;

/// A folder that only this user can read. Dropping it removes it, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A folder of a new name below `parent`, gone at the end.
    pub(super) fn temporary(parent: &Path) -> anyhow::Result<Self> {
        let name = chance::token()?;
        // A name that exists already is refused below; this much of it is enough that none does.
        let path = parent.join(format!("tollgate-demo-{}", name.get(..8).unwrap_or(&name)));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { path, keep: false })
    }

    /// A folder that stays. It must not hold anything: an older demo's database would not fit the new keys.
    pub(super) fn kept(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("--keep: {} cannot be made", path.display());
        DirBuilder::new().mode(0o700).recursive(true).create(path).with_context(cannot)?;
        let path = path.canonicalize()?;
        let empty = fs::read_dir(&path)?.next().is_none();
        ensure!(empty, "--keep: {} is not empty; name a new folder", path.display());
        Ok(Self { path, keep: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// A new file that only this user can read.
    pub(super) fn create(&self, name: &str) -> anyhow::Result<fs::File> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.with_context(|| format!("{} cannot be written", path.display()))
    }

    /// A new file of this content; gives its path.
    pub(super) fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        self.create(name)?.write_all(content.as_bytes())?;
        Ok(self.path.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!("{} could not be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_takes_its_files_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::temporary(parent.path()).unwrap();
        let file = folder.write("file", "text").unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "text");
        drop(folder);
        assert!(fs::read_dir(parent.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_kept_folder_stays_and_is_not_used_twice() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/folder");
        let folder = Folder::kept(&path).unwrap();
        folder.write("file", "text").unwrap();
        drop(folder);
        assert!(path.join("file").exists());
        assert!(Folder::kept(&path).unwrap_err().to_string().contains("is not empty"));
    }
}
