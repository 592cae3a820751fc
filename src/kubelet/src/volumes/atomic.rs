//! Replaces all files of a volume at once: readers see the old set or the new one, never a mixture.
//!
//! The layout is the one that programs know: files are links into `..data`, which is a link to a directory with a
//! time in its name; an update makes a new directory and swaps the one link.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use super::{VolumeError, file_error};

/// The contents and mode of each file, by its path in the volume.
pub type Files = BTreeMap<String, (Vec<u8>, u32)>;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Whether a path stays in the volume and clear of the names that are used here.
pub fn is_safe(path: &str) -> bool {
    let p = Path::new(path);
    !path.is_empty()
        && !path.starts_with("..")
        && p.components().all(|c| matches!(c, Component::Normal(_)))
}

/// Makes `dir` hold exactly these files. Returns whether anything had to change.
///
/// # Errors
/// A path is not safe, or a file cannot be written.
pub fn write(dir: &Path, files: &Files) -> Result<bool, VolumeError> {
    if let Some(bad) = files.keys().find(|p| !is_safe(p)) {
        return Err(VolumeError::Refused(format!(
            "the path {bad:?} leads out of the volume"
        )));
    }
    fs::create_dir_all(dir).map_err(file_error("make", dir))?;
    let current = fs::read_link(dir.join(DATA)).ok();
    if current.is_some() && holds(&dir.join(DATA), files) {
        return Ok(false);
    }
    let now = jiff::Timestamp::now();
    let name = format!(
        "..{}.{}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    );
    let next = dir.join(&name);
    for (path, (content, mode)) in files {
        let file = next.join(path);
        let parent = file.parent().unwrap_or(&next);
        fs::create_dir_all(parent).map_err(file_error("make", parent))?;
        fs::write(&file, content).map_err(file_error("write", &file))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))
            .map_err(file_error("change the mode of", &file))?;
    }
    fs::create_dir_all(&next).map_err(file_error("make", &next))?;
    let link = dir.join(DATA_NEXT);
    // One is left behind only by a death in the middle of an update.
    let _ = fs::remove_file(&link);
    symlink(&name, &link).map_err(file_error("link", &link))?;
    fs::rename(&link, dir.join(DATA)).map_err(file_error("move into place", &link))?;
    link_names(dir, files)?;
    if let Some(old) = current {
        let old = dir.join(old);
        fs::remove_dir_all(&old).map_err(file_error("remove", &old))?;
    }
    Ok(true)
}

/// The first parts of the paths are links into `..data`; those of files that are gone are removed.
fn link_names(dir: &Path, files: &Files) -> Result<(), VolumeError> {
    let first = |p: &str| p.split('/').next().unwrap_or(p).to_owned();
    let wanted: std::collections::BTreeSet<String> = files.keys().map(|p| first(p)).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(file_error("link", &link))?;
        }
    }
    for e in fs::read_dir(dir)
        .map_err(file_error("read", dir))?
        .flatten()
    {
        let name = e.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(e.path()).map_err(file_error("remove", &e.path()))?;
        }
    }
    Ok(())
}

fn holds(dir: &Path, files: &Files) -> bool {
    let same = |(path, (content, mode)): (&String, &(Vec<u8>, u32))| {
        let file = dir.join(path);
        let mode_now = fs::metadata(&file).map(|m| m.permissions().mode() & 0o7777);
        // Bits that are added for a group do not count as a change.
        mode_now.is_ok_and(|m| m & mode == *mode) && fs::read(&file).is_ok_and(|c| c == *content)
    };
    files.iter().all(same) && count(dir) == files.len()
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| {
            if e.file_type().is_ok_and(|t| t.is_dir()) {
                count(&e.path())
            } else {
                1
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(of: &[(&str, &str)]) -> Files {
        of.iter()
            .map(|(p, c)| ((*p).to_owned(), (c.as_bytes().to_vec(), 0o644)))
            .collect()
    }

    #[test]
    fn an_update_replaces_all_files_through_one_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let d = dir.path();
        assert!(write(d, &files(&[("a", "1"), ("sub/b", "2")])).expect("written"));
        let before = fs::read_link(d.join(DATA)).expect("a link");
        assert!(
            !write(d, &files(&[("a", "1"), ("sub/b", "2")])).expect("same"),
            "nothing changed"
        );
        assert!(write(d, &files(&[("a", "9")])).expect("written"));
        assert_eq!(fs::read_to_string(d.join("a")).expect("there"), "9");
        assert!(!d.join("sub").exists() && !d.join(before).exists());
        let names = fs::read_dir(d).expect("readable").count();
        assert_eq!(names, 3, "the link, its directory, one name");
        assert!(write(d, &Files::new()).expect("emptied"));
        assert!(d.join(DATA).exists());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for bad in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &files(&[(bad, "")])).is_err(), "{bad:?}");
        }
    }
}
