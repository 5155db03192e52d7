//! Disks that are set back in time: the one fault that no cluster can survive, to see that it is found.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Nemesis, storage};
use crate::chaos::fabric::Fabric;
use crate::chaos::tool;

/// What every disk held at one time.
#[derive(Debug)]
pub(super) struct Earlier {
    copies: TempDir,
}

impl Earlier {
    fn of(&self, id: u32) -> PathBuf {
        self.copies.path().join(id.to_string())
    }
}

impl Nemesis {
    /// Copies the disks of all brokers, which are stopped for it.
    pub(super) async fn copy_disks(&mut self, fabric: &mut dyn Fabric, ids: &[u32]) -> Result<Earlier> {
        let earlier = Earlier { copies: tempfile::tempdir().context("making a folder for copies")? };
        self.end(fabric, ids).await?;
        for id in ids {
            copy(&fabric.data_dir(*id)?, &earlier.of(*id))?;
        }
        self.bring_up(fabric, ids).await?;
        Ok(earlier)
    }

    /// Puts the copies back in the place of what was written since.
    pub(super) async fn set_back(&mut self, fabric: &mut dyn Fabric, earlier: &Earlier) -> Result<String> {
        let ids: Vec<u32> = (1..=self.brokers).collect();
        self.end(fabric, &ids).await?;
        for id in &ids {
            let data = fabric.data_dir(*id)?;
            storage::empty(&data)?;
            copy(&earlier.of(*id), &data)?;
        }
        self.bring_up(fabric, &ids).await
    }

    async fn end(&mut self, fabric: &mut dyn Fabric, ids: &[u32]) -> Result<()> {
        self.down.extend(ids);
        for id in ids {
            fabric.kill(*id).await?;
        }
        Ok(())
    }
}

/// Copies what is in a folder into another one, which is made if it is not there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let contents = format!("{}/.", from.display());
    tool::run("cp", &["-a", "--sparse=always", &contents, &to.to_string_lossy()], "").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_holds_what_the_folder_held_and_can_go_back() {
        let (data, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(data.path().join("wal")).unwrap();
        std::fs::write(data.path().join("wal/1"), "early").unwrap();
        let earlier = Earlier { copies };
        copy(data.path(), &earlier.of(2)).unwrap();
        std::fs::write(data.path().join("wal/1"), "late").unwrap();
        std::fs::write(data.path().join("wal/2"), "late").unwrap();
        storage::empty(data.path()).unwrap();
        copy(&earlier.of(2), data.path()).unwrap();
        assert_eq!(std::fs::read(data.path().join("wal/1")).unwrap(), b"early");
        assert!(!data.path().join("wal/2").exists());
    }
}
