//! What it means for whoever set the machine up that the kernel says no.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::super::vfio_error::{DmaError, GroupError};

/// What opening the group's node at `path` failed of.
pub(super) fn of_node(path: &Path, error: std::io::Error) -> GroupError {
    let path = path.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => {
            let owner = owner(&path);
            GroupError::Access { path, owner }
        }
        Some(Errno::EBUSY) => GroupError::Busy { path },
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => GroupError::NoNode { path },
        _ => GroupError::Refused { what: path.display().to_string(), source: error.into() },
    }
}

fn owner(path: &Path) -> String {
    fs::metadata(path).map_or("owner unknown".to_owned(), |metadata| {
        let (uid, gid) = (metadata.uid(), metadata.gid());
        format!("owner {uid}, group {gid}, mode {:04o}", metadata.permissions().mode() & 0o7777)
    })
}

/// What mapping `bytes` at `iova` failed of, `reserved` being what the kernel keeps for itself.
pub(super) fn of_map(error: Errno, iova: u64, bytes: u64, reserved: Vec<String>) -> DmaError {
    match error {
        Errno::ENOMEM => DmaError::Memlock { needs: bytes, limit: memlock() },
        Errno::EINVAL => DmaError::Addresses { iova, bytes, reserved, source: error },
        _ => DmaError::Refused { iova, bytes, source: error.into() },
    }
}

fn memlock() -> String {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => "none".to_owned(),
        Ok((bytes, _)) => format!("{} MiB", bytes as f64 / f64::from(1 << 20)),
        Err(error) => format!("unknown: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_for_a_node_tells_who_owns_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = |errno: Errno| of_node(file.path(), errno.into()).to_string();
        let access = told(Errno::EACCES);
        assert!(access.contains("owner ") && access.contains("mode 0600"), "{access}");
        assert!(access.contains("99-circbuf-vfio.rules"), "{access}");
        assert!(told(Errno::EBUSY).contains("in use by another process"));
        assert!(told(Errno::ENOENT).contains("is missing"));
        assert!(told(Errno::EIO).starts_with("VFIO refuses"));
    }

    #[test]
    fn the_sentence_for_a_mapping_tells_the_mend() {
        let reserved = || vec!["0xfee00000-0xfeefffff (msi)".to_owned()];
        let told = |errno| of_map(errno, 0x1000, 19_791_872, reserved()).to_string();
        let memlock = told(Errno::ENOMEM);
        assert!(memlock.starts_with("the ring needs 19 MiB of locked memory"), "{memlock}");
        assert!(memlock.contains("ulimit -l"), "{memlock}");
        let addresses = told(Errno::EINVAL);
        assert!(addresses.ends_with("reserved are 0xfee00000-0xfeefffff (msi)"), "{addresses}");
        assert!(told(Errno::EEXIST).contains("at 0x1000"));
    }
}
