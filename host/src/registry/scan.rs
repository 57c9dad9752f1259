//! Finds plugin folders and reads their files, never more of a file than its limit and never one outside its folder.
//!
//! Blocking: called off the runtime's threads.

use super::manifest;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How deep below `plugins.dir` a plugin's folder may be.
const DEPTH: usize = 2;
/// A file that changed this lately may change again without its times telling: file systems count in ticks. (What git
/// calls racily clean.)
const TICK: Duration = Duration::from_secs(2);

/// What is there now.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every folder with a `plugin.toml`, each once, in a stable order.
    pub(super) folders: Vec<Folder>,
    /// What could not be looked into: nothing is known about the folders there, and so nothing is gone.
    pub(super) unread: Vec<Unread>,
    /// Where a change may matter.
    pub(super) watch: Vec<PathBuf>,
    /// How near to one of the directories each was.
    seen: HashMap<PathBuf, usize>,
}

/// One folder with a `plugin.toml`.
#[derive(Debug)]
pub(super) struct Folder {
    /// Which of the directories it was found under.
    pub(super) root: usize,
    /// Its path without symbolic links.
    pub(super) path: PathBuf,
    /// The text of its `plugin.toml`.
    pub(super) manifest: Result<String, FileError>,
}

/// A directory that could not be read.
#[derive(Debug)]
pub(super) struct Unread {
    /// Which of the directories.
    pub(super) root: usize,
    /// The part of it; `None`: all of it.
    pub(super) under: Option<PathBuf>,
    /// Names the directory and the error.
    pub(super) cause: String,
}

/// Why a plugin's file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    #[error("{} is a link to {}, outside the plugin's folder: copy the file into the folder", path.display(), target.display())]
    Outside { path: PathBuf, target: PathBuf },
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    #[error("{} has {bytes} bytes; {setting} allows {limit}", path.display())]
    TooLarge { path: PathBuf, bytes: u64, limit: u64, setting: &'static str },
    #[error("{} is not UTF-8 at byte {at}", path.display())]
    NotText { path: PathBuf, at: usize },
    #[error("the name of {} is not UTF-8; rename the folder", .0.display())]
    NotNamed(PathBuf),
    #[error("{} is being written; it is read again when it is at rest", .0.display())]
    Changing(PathBuf),
    #[error("{} cannot be read: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    inode: (u64, i64, i64),
}

impl Stamp {
    fn new(path: &Path, metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Stamp {
            path: path.to_owned(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether an equal stamp later means equal content.
    pub(super) fn is_settled(&self) -> bool {
        let long_ago = |time: SystemTime| time.elapsed().is_ok_and(|age| age > TICK);
        #[cfg(unix)]
        {
            let changed = u64::try_from(self.inode.1).unwrap_or(0);
            if !long_ago(SystemTime::UNIX_EPOCH + Duration::from_secs(changed)) {
                return false;
            }
        }
        self.modified.is_some_and(long_ago)
    }
}

/// A file of a plugin that is there.
#[derive(Clone, Debug)]
pub(super) struct PluginFile {
    /// Without symbolic links.
    pub(super) path: PathBuf,
    /// As it was found.
    pub(super) stamp: Stamp,
}

/// Look below every directory.
pub(super) fn scan(dirs: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    for (root, dir) in dirs.iter().enumerate() {
        match dir.canonicalize() {
            Ok(path) => descend(&mut scan, root, &path, 0),
            Err(error) => {
                let cause = format!("{} cannot be read: {error}", dir.display());
                scan.unread.push(Unread { root, under: None, cause });
            }
        }
    }
    scan
}

fn descend(scan: &mut Scan, root: usize, path: &Path, depth: usize) {
    // Reached before, by a link or because one directory is within another, and from no nearer.
    let seen = scan.seen.insert(path.to_owned(), depth);
    if seen.is_some_and(|before| before <= depth) {
        scan.seen.extend(seen.map(|before| (path.to_owned(), before)));
        return;
    }
    let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        // Gone since its parent was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return,
        Err(error) => {
            let cause = format!("{} cannot be read: {error}", path.display());
            scan.unread.push(Unread { root, under: (depth > 0).then(|| path.to_owned()), cause });
            return;
        }
    };
    if seen.is_none() {
        scan.watch.push(path.to_owned());
    }
    let mut folders = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        if name == manifest::FILE && seen.is_none() {
            // Rows, other processes and the list of folders hold it as text.
            let named = path.to_str().map(|_| ()).ok_or_else(|| FileError::NotNamed(path.to_owned()));
            match named.and_then(|()| read_manifest(path)) {
                // Gone since the directory was read.
                Err(FileError::Missing(_)) => {}
                manifest => scan.folders.push(Folder { root, path: path.to_owned(), manifest }),
            }
        } else if depth < DEPTH && name != manifest::FILE && !name.as_encoded_bytes().starts_with(b".") {
            folders.push(entry.path());
        }
    }
    folders.sort();
    for folder in folders {
        if let Ok(folder) = folder.canonicalize()
            && folder.is_dir()
        {
            descend(scan, root, &folder, depth + 1);
        }
    }
}

/// The text of a folder's `plugin.toml`. The folder's path is without symbolic links.
pub(super) fn read_manifest(folder: &Path) -> Result<String, FileError> {
    let file = find(folder, Path::new(manifest::FILE))?;
    let bytes = read(&file, manifest::FILE_BYTES, "a plugin.toml")?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|e| FileError::NotText { path: file.path, at: e.utf8_error().valid_up_to() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Find a file of a plugin. The folder's path is without symbolic links; the file's has no `..`.
pub(super) fn find(folder: &Path, file: &Path) -> Result<PluginFile, FileError> {
    let path = folder.join(file);
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FileError::Missing(path)),
        Err(error) => return Err(FileError::Io { path, error }),
    };
    if !target.starts_with(folder) {
        return Err(FileError::Outside { path, target });
    }
    match target.metadata() {
        Ok(metadata) if metadata.is_file() => {
            let stamp = Stamp::new(&target, &metadata);
            Ok(PluginFile { path: target, stamp })
        }
        // Never opened: to open a pipe is to wait for its writer.
        Ok(_) => Err(FileError::NotAFile(path)),
        Err(error) => Err(FileError::Io { path, error }),
    }
}

/// All of a file, if that is at most `limit` bytes and it did not change meanwhile. `setting`: what the limit is called.
pub(super) fn read(file: &PluginFile, limit: u64, setting: &'static str) -> Result<Vec<u8>, FileError> {
    let PluginFile { path, stamp } = file;
    let io = |error| FileError::Io { path: path.clone(), error };
    let too_large = |bytes| FileError::TooLarge { path: path.clone(), bytes, limit, setting };
    if stamp.bytes > limit {
        return Err(too_large(stamp.bytes));
    }
    let mut open = File::open(path).map_err(io)?;
    let mut bytes = Vec::with_capacity(usize::try_from(stamp.bytes).unwrap_or_default());
    (&mut open).take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    let after = Stamp::new(path, &open.metadata().map_err(io)?);
    if after != *stamp || bytes.len() as u64 != stamp.bytes {
        return Err(FileError::Changing(path.clone()));
    }
    Ok(bytes)
}

/// What to do about a component that is not there.
pub(super) fn remedy(folder: &Path, name: &str) -> String {
    if folder.join("Cargo.toml").is_file() {
        format!("build it with `cargo xtask plugins --only {name}`")
    } else {
        "build it there, or name the right file as plugin.component in plugin.toml".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        (dir, path)
    }

    fn plugin(path: &Path) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("plugin.toml"), "manifest = 1").unwrap();
    }

    fn found(scan: &Scan, root: &Path) -> Vec<String> {
        scan.folders.iter().map(|f| f.path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn folders_are_found_at_most_two_levels_down_and_once() {
        let (_dir, root) = folder();
        for path in ["b", "a/one", "a/two", "a/one/deep", ".hidden"] {
            plugin(&root.join(path));
        }
        fs::create_dir(root.join("empty")).unwrap();
        let first = scan(&[root.clone(), root.join("a/two")]);
        assert_eq!(found(&first, &root), ["a/one", "a/two", "b"]);
        let nearer = scan(&[root.clone(), root.join("a")]);
        assert_eq!(found(&nearer, &root), ["a/one", "a/two", "b", "a/one/deep"]);
        assert!(first.unread.is_empty());
        assert!(first.watch.contains(&root.join("empty")), "a plugin.toml may appear there");
    }

    #[test]
    fn a_folder_whose_name_is_not_utf_8_is_reported_and_costs_no_other() {
        use std::os::unix::ffi::OsStrExt;
        let (_dir, root) = folder();
        plugin(&root.join(std::ffi::OsStr::from_bytes(b"odd\xff")));
        plugin(&root.join("even"));
        fs::write(root.join("even/plugin.toml"), "\u{feff}manifest = 1\r\n").unwrap();
        let scan = scan(std::slice::from_ref(&root));
        let [even, odd] = &scan.folders[..] else { panic!("{scan:?}") };
        assert_eq!(even.manifest.as_ref().unwrap(), "manifest = 1\r\n");
        assert!(odd.manifest.as_ref().unwrap_err().to_string().contains("rename the folder"));
    }

    #[cfg(unix)]
    #[test]
    fn a_loop_of_links_ends() {
        let (_dir, root) = folder();
        plugin(&root.join("a"));
        std::os::unix::fs::symlink(&root, root.join("a/loop")).unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("b")).unwrap();
        assert_eq!(found(&scan(std::slice::from_ref(&root)), &root), ["a"]);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_told_from_an_empty_one() {
        let (_dir, root) = folder();
        let scan = scan(&[root.join("none")]);
        assert!(scan.folders.is_empty());
        assert!(scan.unread[0].under.is_none());
        assert!(scan.unread[0].cause.contains("none cannot be read: "), "{}", scan.unread[0].cause);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let (_dir, root) = folder();
        fs::write(root.join("a.wasm"), [0; 10]).unwrap();
        let file = find(&root, Path::new("a.wasm")).unwrap();
        assert_eq!(read(&file, 10, "x").unwrap().len(), 10);
        let path = root.join("a.wasm");
        let error = read(&file, 9, "limits.max.component_mib").unwrap_err();
        assert_eq!(error.to_string(), format!("{} has 10 bytes; limits.max.component_mib allows 9", path.display()));
        fs::write(&path, [0; 11]).unwrap();
        let error = read(&file, 100, "x").unwrap_err();
        assert!(matches!(error, FileError::Changing(_)));
        let file = find(&root, Path::new("a.wasm")).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(matches!(read(&file, 100, "x"), Err(FileError::Changing(_))), "of the same length, and touched");
    }

    #[test]
    fn a_file_that_is_not_there_or_none_is_named() {
        let (_dir, root) = folder();
        let error = find(&root, Path::new("a.wasm")).unwrap_err().to_string();
        assert_eq!(error, format!("{} is missing", root.join("a.wasm").display()));
        let error = find(&root, Path::new("")).unwrap_err();
        assert!(matches!(error, FileError::NotAFile(_)));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused_and_one_within_is_followed() {
        let (_dir, root) = folder();
        let inside = root.join("plugin");
        fs::create_dir_all(inside.join("data")).unwrap();
        fs::write(root.join("secret"), "s").unwrap();
        fs::write(inside.join("data/a.wasm"), "a").unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("out.wasm")).unwrap();
        std::os::unix::fs::symlink("data/a.wasm", inside.join("in.wasm")).unwrap();
        let error = find(&inside, Path::new("out.wasm")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} is a link to {}, outside the plugin's folder: copy the file into the folder",
                inside.join("out.wasm").display(),
                root.join("secret").display()
            )
        );
        assert_eq!(read(&find(&inside, Path::new("in.wasm")).unwrap(), 9, "x").unwrap(), b"a");
    }

    #[test]
    fn a_fresh_file_is_not_settled() {
        let (_dir, root) = folder();
        fs::write(root.join("a.wasm"), "a").unwrap();
        let file = find(&root, Path::new("a.wasm")).unwrap();
        assert!(!file.stamp.is_settled());
        let old = Stamp {
            modified: Some(SystemTime::UNIX_EPOCH),
            #[cfg(unix)]
            inode: (1, 0, 0),
            ..file.stamp
        };
        assert!(old.is_settled());
    }

    #[test]
    fn the_remedy_for_a_missing_component_fits_the_folder() {
        let (_dir, root) = folder();
        assert!(remedy(&root, "word-count").starts_with("build it there"));
        fs::write(root.join("Cargo.toml"), "").unwrap();
        assert_eq!(remedy(&root, "word-count"), "build it with `cargo xtask plugins --only word-count`");
    }
}
