use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;

/// The most that is read of one file, in bytes.
pub(super) const LARGEST: u64 = 256 << 20;

/// The most entries a folder may have.
const ENTRIES: usize = 100_000;

/// A folder inside a snapshot. Names are single components; what is a
/// symbolic link, or neither file nor folder, is refused.
pub(super) struct Folder {
    path: PathBuf,
    /// The path from the snapshot folder, for errors and provenance.
    shown: String,
}

/// A name as it may be printed: control characters escaped.
fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

impl Folder {
    /// The snapshot folder itself.
    pub fn root(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let found = fs::metadata(path).map_err(|source| Error::Io { path: printable(&shown), source })?;
        if !found.is_dir() {
            return Err(Error::Refused { path: printable(&shown), why: "not a folder".into() });
        }
        Ok(Folder { path: path.to_owned(), shown: String::new() })
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let full = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        full.file_name().map_or_else(String::new, |n| printable(&n.to_string_lossy()))
    }

    /// The path of an entry, from the snapshot folder.
    pub fn shown(&self, name: &str) -> String {
        let name = printable(name);
        if self.shown.is_empty() {
            name
        } else {
            format!("{}/{name}", self.shown)
        }
    }

    fn refused(&self, name: &str, why: &str) -> Error {
        Error::Refused { path: self.shown(name), why: why.to_owned() }
    }

    fn io(&self, name: &str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.shown(name);
        move |source| Error::Io { path, source }
    }

    /// What an entry is: none if it is not there.
    fn look(&self, name: &str) -> Result<Option<fs::Metadata>, Error> {
        match fs::symlink_metadata(self.path.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(name)(error)),
            Ok(found) if found.is_symlink() => {
                Err(self.refused(name, "a symbolic link; snapshots are read without following any"))
            }
            Ok(found) => Ok(Some(found)),
        }
    }

    /// A folder in this one; none if there is none.
    pub fn folder(&self, name: &str) -> Result<Option<Folder>, Error> {
        match self.look(name)? {
            None => Ok(None),
            Some(found) if !found.is_dir() => Err(self.refused(name, "not a folder")),
            Some(_) => Ok(Some(Folder { path: self.path.join(name), shown: self.shown(name) })),
        }
    }

    /// The names in the folder, sorted.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(self.io("."))? {
            let name = entry.map_err(self.io("."))?.file_name();
            let Some(name) = name.to_str() else {
                return Err(self.refused(&name.to_string_lossy(), "the name is not UTF-8"));
            };
            names.push(name.to_owned());
            if names.len() > ENTRIES {
                return Err(self.refused(".", "too many entries"));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The names of the folders in this one, sorted. A name with control
    /// characters is refused: it would end up on terminals.
    pub fn folders(&self) -> Result<Vec<String>, Error> {
        let mut folders = Vec::new();
        for name in self.names()? {
            if name.chars().any(char::is_control) {
                return Err(self.refused(&name, "control characters in the name"));
            }
            if self.look(&name)?.is_some_and(|found| found.is_dir()) {
                folders.push(name);
            }
        }
        Ok(folders)
    }

    /// A file's text; none if there is none.
    pub fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(found) = self.look(name)? else { return Ok(None) };
        if !found.is_file() {
            return Err(self.refused(name, "not a plain file"));
        }
        if found.len() > LARGEST {
            let why = format!("{} bytes, at most {LARGEST} are read", found.len());
            return Err(self.refused(name, &why));
        }
        let file = File::open(self.path.join(name)).map_err(self.io(name))?;
        let mut bytes = Vec::with_capacity(found.len() as usize + 1);
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(self.io(name))?;
        text_of(bytes, &self.shown(name)).map(Some)
    }
}

/// Bytes as text.
pub(super) fn text_of(bytes: Vec<u8>, shown: &str) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        let kind = crate::formats::ErrorKind::Syntax("not UTF-8".into());
        crate::formats::Error::new(shown, line, "", kind).into()
    })
}
