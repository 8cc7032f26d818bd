//! A file that is made once, whole or not at all, and never written over.
//!
//! Its mark is a second name of the same file in the same folder, `.NAME.MARKER`: the file is made
//! under that name first and linked to its own in one step (link(2)), which fails if anything is
//! there. So it is ours if both names are one file, whatever the answer to the link was. What
//! somebody puts in its place later is another file, and never taken for ours. It is removed only
//! as it was written: what somebody has written into it since is his.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use onlyonce_core::Cause;
use onlyonce_failpoint::failpoint;

use super::{Call, Made, Seen, Undone};

/// Who may do what with it, if the plan does not say.
const MODE_USUAL: u32 = 0o644;

/// A file. What it is called and what is in it are its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File;

/// Where it goes.
struct Places {
    /// As the plan says, for people and as the id.
    shown: String,
    path: PathBuf,
    folder: PathBuf,
    mark: PathBuf,
    /// Where it is hidden before it is removed: no call removes a name only if it is still that
    /// of this file.
    hidden: PathBuf,
}

impl File {
    /// The inputs: where it goes,
    pub(crate) const PATH: &str = "path";
    /// what is in it,
    pub(crate) const CONTENT: &str = "content";
    /// and who may do what with it.
    pub(crate) const MODE: &str = "mode";

    /// What is wrong with inputs whose references are not known yet: in words for who wrote them.
    pub(crate) fn wrong(name: &str, value: &str) -> Option<String> {
        match name {
            Self::PATH if value.is_empty() || value.ends_with('/') => {
                Some("`path` must name a file, such as \"app.conf\"".into())
            }
            Self::MODE if mode(value).is_none() => {
                Some("`mode` is who may do what, in octal, such as \"0600\"".into())
            }
            _ => None,
        }
    }

    pub(super) fn check(self, call: &Call<'_>) -> Seen {
        let places = Places::of(call);
        let told = |path: &Path, error: &io::Error| {
            Seen::CannotTell(format!("{}: {error}", path.display()))
        };
        let there = match inode(&places.path) {
            Ok(there) => there,
            Err(error) => return told(&places.path, &error),
        };
        let mark = match inode(&places.mark) {
            Ok(mark) => mark,
            Err(error) => return told(&places.mark, &error),
        };
        match (there, mark) {
            (None, _) => Seen::Absent,
            (Some(there), Some(mark)) if there == mark => Seen::Ours(places.shown),
            (Some(_), _) => Seen::NotOurs(format!(
                "{}: there is a file, and {} is not the same one",
                places.path.display(),
                places.mark.display()
            )),
        }
    }

    /// What a look goes by: the place, wherever the plan is.
    pub(super) fn sight(self, call: &Call<'_>) -> Option<String> {
        Some(Places::of(call).path.display().to_string())
    }

    pub(super) fn destroy(self, call: &Call<'_>) -> Undone {
        let places = Places::of(call);
        let content = call.inputs.get(Self::CONTENT).map(String::as_str).unwrap_or_default();
        let refused =
            |path: &Path, text: &str| Undone::Refused(format!("{}: {text}", path.display()));
        // Held open, so that no other file can be taken for it.
        let mut ours = match fs::File::open(&places.mark) {
            Ok(ours) => ours,
            Err(error) => return refused(&places.mark, &error.to_string()),
        };
        if matches!(inode(&places.path), Ok(None)) {
            return Undone::Gone;
        }
        match why_not(&places.path, &mut ours, content) {
            Ok(None) => {}
            Ok(Some(why)) => return refused(&places.path, why),
            Err(error) => return refused(&places.path, &error.to_string()),
        }
        match fs::rename(&places.path, &places.hidden) {
            Ok(()) => {
                failpoint!("resource.hide.after", places.hidden);
                end(&places, &mut ours, content)
            }
            Err(error) => refused(&places.path, &error.to_string()),
        }
    }

    pub(super) fn create(self, call: &Call<'_>) -> Made {
        let places = Places::of(call);
        if let Err(error) = prepare(&places, call) {
            return Made::Refused(format!("{}: {error}", places.mark.display()));
        }
        let linked = fs::hard_link(&places.mark, &places.path);
        // The answer can be wrong, on a network file system; what stands there cannot.
        match (linked, self.check(call)) {
            (_, Seen::Ours(id)) => match sync(&places.folder) {
                Ok(()) => Made::Created(id),
                Err(error) => {
                    let text = format!("{}: it is there, and {error}", places.path.display());
                    Made::Unknown(Cause::Abandoned, text)
                }
            },
            (Err(_), Seen::NotOurs(text)) => Made::Taken(text),
            (Err(error), Seen::Absent) => {
                Made::Refused(format!("{}: {error}", places.path.display()))
            }
            (Ok(()), Seen::Absent | Seen::NotOurs(_)) => {
                let text = format!("{}: somebody took it away again", places.path.display());
                Made::Unknown(Cause::Abandoned, text)
            }
            (_, Seen::CannotTell(text)) => Made::Unknown(Cause::Abandoned, text),
            (_, Seen::Several(_)) => Made::Unknown(Cause::Abandoned, "not understood".into()),
        }
    }
}

impl Places {
    fn of(call: &Call<'_>) -> Self {
        let shown = call.inputs.get(File::PATH).cloned().unwrap_or_default();
        let path = call.folder.join(&shown);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().unwrap_or(call.folder).to_owned();
        let mark = folder.join(format!(".{name}.{}", call.identity.marker));
        let hidden = folder.join(format!(".{name}.{}.end", call.identity.marker));
        Self { shown, path, folder, mark, hidden }
    }
}

/// Why a file is left that is ours.
const EDITED: &str = "what is in it is not what was written: remove it by hand, and forget it";

/// Why what has this name is not to be removed; `None` if it is this file, as it was written.
fn why_not(path: &Path, ours: &mut fs::File, content: &str) -> io::Result<Option<&'static str>> {
    let about = ours.metadata()?;
    if inode(path)? != Some((about.dev(), about.ino())) {
        return Ok(Some("it is not the file that was made"));
    }
    let mut there = Vec::new();
    ours.rewind()?;
    let most = content.len() as u64 + 1;
    io::Read::take(&mut *ours, most).read_to_end(&mut there)?;
    let is_same = there == content.as_bytes();
    Ok((!is_same).then_some(EDITED))
}

/// Removes what was hidden, or brings it back if it is not ours as it was written: somebody may
/// have put another file in its place, or written into it, since it was looked at.
fn end(places: &Places, ours: &mut fs::File, content: &str) -> Undone {
    let (path, hidden) = (places.path.display(), places.hidden.display());
    let lost = |text: String| Undone::Unknown(Cause::Abandoned, text);
    let why = match why_not(&places.hidden, ours, content) {
        Ok(None) => {
            let removed =
                fs::remove_file(&places.hidden).and_then(|()| fs::remove_file(&places.mark));
            return match removed.and_then(|()| sync(&places.folder)) {
                Ok(()) => Undone::Gone,
                Err(error) => lost(format!("{path}: it was hidden as {hidden}, and {error}")),
            };
        }
        Ok(Some(why)) => why.to_owned(),
        Err(error) => error.to_string(),
    };
    // Never over what has that name by now.
    let back = fs::hard_link(&places.hidden, &places.path);
    match back.and_then(|()| fs::remove_file(&places.hidden)) {
        Ok(()) => Undone::Refused(format!("{path}: {why}")),
        Err(error) => lost(format!("{path}: {why}; it was hidden as {hidden}: {error}")),
    }
}

/// Writes all of it under the name of its mark, in one step too: a mark that is there has been
/// written whole, and one that an earlier attempt left may have other content.
fn prepare(places: &Places, call: &Call<'_>) -> io::Result<()> {
    let content = call.inputs.get(File::CONTENT).map(String::as_str).unwrap_or_default();
    let mode = call.inputs.get(File::MODE).map_or(Some(MODE_USUAL), |it| mode(it));
    let mut file = tempfile::NamedTempFile::new_in(&places.folder)?;
    file.write_all(content.as_bytes())?;
    let mode = fs::Permissions::from_mode(mode.unwrap_or(MODE_USUAL));
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(&places.mark).map_err(|error| error.error)?;
    sync(&places.folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777 && 3 <= text.len())
}

/// Which file has this name; a link to nowhere has it too.
fn inode(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::symlink_metadata(path) {
        Ok(about) => Ok(Some((about.dev(), about.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::identity::Identity;

    /// Somebody puts a file there after it was looked for and before it is made.
    #[test]
    fn a_file_that_comes_in_between_is_neither_taken_nor_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [(File::PATH, "a.conf"), (File::CONTENT, "ours")];
        let inputs: BTreeMap<_, _> =
            inputs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let identity = Identity::new("shop", "conf", 1);
        let (attempt, id, hold) = (None, None, None);
        let (identity, inputs, folder) = (&identity, &inputs, folder.path());
        let now = onlyonce_core::Timestamp::default();
        let call = Call { key: "conf", identity, inputs, folder, now, attempt, id, hold };
        assert_eq!(File.check(&call), Seen::Absent);
        fs::write(folder.join("a.conf"), "mine").unwrap();
        assert!(matches!(File.create(&call), Made::Taken(_)));
        assert_eq!(fs::read_to_string(folder.join("a.conf")).unwrap(), "mine");
        fs::remove_file(folder.join("a.conf")).unwrap();
        assert_eq!(File.create(&call), Made::Created("a.conf".into()));
        assert_eq!(fs::read_to_string(folder.join("a.conf")).unwrap(), "ours");
        // The answer to the first was lost.
        assert_eq!(File.check(&call), Seen::Ours("a.conf".into()));

        // Somebody does the same, or writes into it, after it was looked at and before it is
        // removed.
        let places = Places::of(&call);
        let mut ours = fs::File::open(&places.mark).unwrap();
        fs::write(&places.hidden, "ours").unwrap();
        fs::remove_file(&places.path).unwrap();
        assert!(matches!(end(&places, &mut ours, "ours"), Undone::Refused(_)));
        fs::rename(&places.path, &places.hidden).unwrap();
        fs::write(&places.path, "mine").unwrap();
        assert!(matches!(end(&places, &mut ours, "ours"), Undone::Unknown(..)));
        assert_eq!(fs::read_to_string(&places.path).unwrap(), "mine");
        assert_eq!(fs::read_to_string(&places.hidden).unwrap(), "ours");
        fs::rename(&places.hidden, &places.path).unwrap();
        fs::remove_file(&places.path).unwrap();
        fs::hard_link(&places.mark, &places.hidden).unwrap();
        fs::write(&places.hidden, "edited").unwrap();
        assert!(matches!(end(&places, &mut ours, "ours"), Undone::Refused(_)));
        assert_eq!(fs::read_to_string(&places.path).unwrap(), "edited");
    }
}
