//! The file of `--svg`. It is opened before a load is sent, so that a path that cannot be written costs no run.

use super::super::{Failed, escape};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An open file for a picture. Dropped before it was written: as it was before.
pub struct Picture {
    path: PathBuf,
    file: File,
    /// It did not exist.
    new: bool,
}

impl Picture {
    /// Opens it, without a change to a file that is there.
    pub fn open(path: &Path) -> Result<Picture, Failed> {
        if path == Path::new("-") {
            return Err(Failed::usage("--svg takes the name of a file"));
        }
        // Opening a pipe without a reader would wait for one, deaf to signals.
        let at_once = OFlags::NONBLOCK.bits().cast_signed();
        let opened = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => Ok((file, true)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).custom_flags(at_once).open(path).and_then(|file| {
                    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
                    Ok((file, false))
                })
            }
            Err(error) => Err(error),
        };
        let (file, new) = opened.map_err(|error| failed(path, &error))?;
        Ok(Picture { path: path.to_owned(), file, new })
    }

    /// Replaces what is in the file.
    pub fn write(mut self, text: &str) -> Result<(), Failed> {
        let mut write = || {
            // A device or a pipe has no length.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error| failed(&self.path, &error))?;
        self.new = false;
        Ok(())
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        if self.new {
            // An empty file is left where this fails, and harms nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failed {
    let path = escape::line(&path.to_string_lossy());
    Failed::usage(format!("failed to write {path} (--svg): {error}; name a file that can be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_changed_only_by_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.svg");
        drop(Picture::open(&path).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "a longer text").unwrap();
        drop(Picture::open(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a longer text");
        Picture::open(&path).unwrap().write("short").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        for bad in [folder.path().to_owned(), folder.path().join("no/such.svg"), pipe, "-".into()] {
            let error = Picture::open(&bad).err().unwrap();
            assert!(error.code == 2 && error.message.contains("--svg"), "{error:?}");
        }
    }
}
