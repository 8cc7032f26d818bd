//! A file that is made once, whole or not at all, and never written over.
//!
//! Its mark is a second name of the same file in the same folder, `.NAME.MARKER`: the file is made
//! under that name first and linked to its own in one step (link(2)), which fails if anything is
//! there. So it is ours if both names are one file, whatever the answer to the link was. What
//! somebody puts in its place later is another file, and never taken for ours. It is removed only
//! as it was written: what somebody has written into it since is his. That is gone says only a look
//! into the very folder where it was seen.

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
            (None, _) if call.id.is_some() => is_gone(&places, content(call)),
            (None, _) => Seen::Absent,
            (Some(there), Some(mark)) if there == mark => Seen::Ours(places.shown),
            (Some(_), _) => Seen::NotOurs(format!(
                "{}: there is a file, and {} is not the same one",
                places.path.display(),
                places.mark.display()
            )),
        }
    }

    /// What a look goes by: the name, and which folder of which machine that is in. A path alone
    /// leads elsewhere on another machine, or where another file system is mounted. A machine has
    /// this id until it is started again; after that the numbers of folders may be others'.
    pub(super) fn sight(self, call: &Call<'_>) -> Option<String> {
        let places = Places::of(call);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let boot = Some(boot.trim()).filter(|it| !it.is_empty())?;
        let about = fs::metadata(&places.folder).ok()?;
        let (device, number) = (about.dev(), about.ino());
        Some(format!("{boot} {device} {number} {}", places.path.display()))
    }

    pub(super) fn destroy(self, call: &Call<'_>) -> Undone {
        let (places, content) = (Places::of(call), content(call));
        // Held open, so that no other file can be taken for it.
        let mut ours = match fs::File::open(&places.mark) {
            Ok(ours) => ours,
            Err(error) => return refused(&places.mark, &error.to_string()),
        };
        match inode(&places.hidden) {
            Ok(None) => {}
            Ok(Some(_)) => return refused(&places.hidden, LEFT),
            Err(error) => return refused(&places.hidden, &error.to_string()),
        }
        if matches!(inode(&places.path), Ok(None)) {
            // Somebody was faster.
            return unmark(&places);
        }
        match why_not(&places.path, &mut ours, content) {
            Ok(None) => {}
            Ok(Some(why)) => return refused(&places.path, why),
            Err(error) => return refused(&places.path, &error.to_string()),
        }
        let renamed = fs::rename(&places.path, &places.hidden);
        hidden(&places, &mut ours, content, renamed)
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

/// Why nothing is hidden or said to be gone.
const LEFT: &str = "an earlier attempt has left this: look at it, and move it away";

/// Whether this file has this name.
fn is_same(path: &Path, file: &fs::File) -> io::Result<bool> {
    let about = file.metadata()?;
    Ok(inode(path)? == Some((about.dev(), about.ino())))
}

/// Why what has this name is not to be removed; `None` if it is this file, as it was written.
fn why_not(path: &Path, ours: &mut fs::File, content: &str) -> io::Result<Option<&'static str>> {
    if !is_same(path, ours)? {
        return Ok(Some("it is not the file that was made"));
    }
    let mut there = Vec::new();
    ours.rewind()?;
    let most = content.len() as u64 + 1;
    io::Read::take(&mut *ours, most).read_to_end(&mut there)?;
    let is_unchanged = there == content.as_bytes();
    Ok((!is_unchanged).then_some(EDITED))
}

fn refused(path: &Path, text: &str) -> Undone {
    Undone::Refused(format!("{}: {text}", path.display()))
}

fn lost(path: &Path, text: &str) -> Undone {
    Undone::Unknown(Cause::Abandoned, format!("{}: {text}", path.display()))
}

/// Goes on once it was to be hidden. An error can be wrong, on a network file system; what has
/// which name cannot.
fn hidden(places: &Places, ours: &mut fs::File, content: &str, renamed: io::Result<()>) -> Undone {
    let Err(error) = renamed else {
        failpoint!("resource.hide.after", places.hidden);
        return end(places, ours, content);
    };
    let is_ours = |path| is_same(path, ours).unwrap_or(false);
    if is_ours(&places.hidden) {
        return end(places, ours, content);
    }
    match is_ours(&places.path) {
        true => refused(&places.path, &error.to_string()),
        false => lost(&places.path, &error.to_string()),
    }
}

/// Takes away the mark, which has all that was in it, of what has gone.
fn unmark(places: &Places) -> Undone {
    match fs::remove_file(&places.mark).and_then(|()| sync(&places.folder)) {
        Ok(()) => Undone::Gone,
        Err(error) => lost(&places.mark, &format!("it is gone, and {error}")),
    }
}

/// Whether what has no name any more is gone for good. What was hidden and is not ours as it was
/// written was to be brought back.
fn is_gone(places: &Places, content: &str) -> Seen {
    let cannot = |path: &Path, why: &str| Seen::CannotTell(format!("{}: {why}", path.display()));
    let left = match inode(&places.hidden) {
        Ok(None) => Ok(None),
        Ok(Some(_)) => fs::File::open(&places.mark)
            .and_then(|mut ours| why_not(&places.hidden, &mut ours, content)),
        Err(error) => Err(error),
    };
    match left {
        Ok(None) => {}
        Ok(Some(_)) => return cannot(&places.hidden, LEFT),
        Err(error) => return cannot(&places.hidden, &format!("{LEFT} ({error})")),
    }
    // What has removed it may have been killed before that was durable.
    match sync(&places.folder) {
        Ok(()) => Seen::Absent,
        Err(error) => cannot(&places.folder, &error.to_string()),
    }
}

/// Removes what was hidden, or brings it back if it is not ours as it was written: somebody may
/// have put another file in its place, or written into it, since it was looked at.
fn end(places: &Places, ours: &mut fs::File, content: &str) -> Undone {
    let (path, hidden) = (places.path.display(), places.hidden.display());
    let lost = |text: String| Undone::Unknown(Cause::Abandoned, text);
    let why = match why_not(&places.hidden, ours, content) {
        Ok(None) => {
            return match fs::remove_file(&places.hidden) {
                Ok(()) => unmark(places),
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
    let mode = call.inputs.get(File::MODE).map_or(Some(MODE_USUAL), |it| mode(it));
    let mut file = tempfile::NamedTempFile::new_in(&places.folder)?;
    file.write_all(content(call).as_bytes())?;
    let mode = fs::Permissions::from_mode(mode.unwrap_or(MODE_USUAL));
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(&places.mark).map_err(|error| error.error)?;
    sync(&places.folder)
}

fn content<'a>(call: &Call<'a>) -> &'a str {
    call.inputs.get(File::CONTENT).map(String::as_str).unwrap_or_default()
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

    /// A file of a plan in a folder of its own.
    struct Conf {
        folder: tempfile::TempDir,
        identity: Identity,
        inputs: BTreeMap<String, String>,
    }

    impl Conf {
        fn new() -> Self {
            let inputs = [(File::PATH, "a.conf"), (File::CONTENT, "ours")];
            let inputs = inputs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let identity = Identity::new("shop", "conf", 1);
            Self { folder: tempfile::tempdir().unwrap(), identity, inputs: inputs.into() }
        }

        fn call<'a>(&'a self, id: Option<&'a str>) -> Call<'a> {
            let (identity, inputs, folder) = (&self.identity, &self.inputs, self.folder.path());
            let (attempt, hold) = (None, None);
            let now = onlyonce_core::Timestamp::default();
            Call { key: "conf", identity, inputs, folder, now, attempt, id, hold }
        }

        /// The same, made and recorded.
        fn made() -> Self {
            let conf = Self::new();
            assert_eq!(File.create(&conf.call(None)), Made::Created("a.conf".into()));
            conf
        }

        fn is_empty(&self) -> bool {
            fs::read_dir(self.folder.path()).unwrap().count() == 0
        }
    }

    /// Somebody puts a file there after it was looked for and before it is made.
    #[test]
    fn a_file_that_comes_in_between_is_neither_taken_nor_written_over() {
        let conf = Conf::new();
        let (call, folder) = (conf.call(None), conf.folder.path());
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

    /// A network file system may call an error what has taken effect.
    #[test]
    fn what_an_error_of_hiding_means_is_seen_and_not_believed() {
        let conf = Conf::made();
        let places = Places::of(&conf.call(None));
        let mut ours = fs::File::open(&places.mark).unwrap();
        let mut told = || hidden(&places, &mut ours, "ours", Err(io::ErrorKind::NotFound.into()));
        assert!(matches!(told(), Undone::Refused(_)), "it has its name");
        let elsewhere = conf.folder.path().join("elsewhere");
        fs::rename(&places.path, &elsewhere).unwrap();
        assert!(matches!(told(), Undone::Unknown(..)), "nobody knows");
        fs::rename(&elsewhere, &places.hidden).unwrap();
        assert_eq!(told(), Undone::Gone);
        assert!(conf.is_empty());
    }

    #[test]
    fn what_lies_where_a_file_is_hidden_is_left_and_the_file_is_not_called_gone() {
        let conf = Conf::made();
        let (call, places) = (conf.call(Some("a.conf")), Places::of(&conf.call(None)));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        fs::write(&places.hidden, "mine").unwrap();
        assert!(matches!(File.destroy(&call), Undone::Refused(why) if why.contains("move it")));
        assert_eq!((read(&places.path), read(&places.hidden)), ("ours".into(), "mine".into()));
        fs::remove_file(&places.path).unwrap();
        assert!(matches!(File.check(&call), Seen::CannotTell(why) if why.contains("move it")));
        // The file itself, under both names: to give it the other one does nothing (rename(2)).
        fs::remove_file(&places.hidden).unwrap();
        fs::hard_link(&places.mark, &places.path).unwrap();
        fs::hard_link(&places.mark, &places.hidden).unwrap();
        assert!(matches!(File.destroy(&call), Undone::Refused(_)));
        assert_eq!(File.check(&call), Seen::Ours("a.conf".into()));
        // Whoever was to remove it was killed just before that.
        fs::remove_file(&places.path).unwrap();
        assert_eq!(File.check(&call), Seen::Absent);
        fs::remove_file(&places.mark).unwrap();
        assert!(matches!(File.check(&call), Seen::CannotTell(_)), "nobody knows whose it is");
    }

    #[test]
    fn a_file_that_somebody_has_removed_leaves_nothing_and_one_without_its_mark_stays() {
        let conf = Conf::made();
        let (call, places) = (conf.call(Some("a.conf")), Places::of(&conf.call(None)));
        fs::remove_file(&places.path).unwrap();
        assert_eq!(File.destroy(&call), Undone::Gone);
        assert!(conf.is_empty());
        let conf = Conf::made();
        let (call, places) = (conf.call(Some("a.conf")), Places::of(&conf.call(None)));
        fs::remove_file(&places.mark).unwrap();
        assert!(matches!(File.destroy(&call), Undone::Refused(_)));
        assert_eq!(fs::read_to_string(&places.path).unwrap(), "ours");
    }

    #[test]
    fn a_look_is_one_into_this_folder_of_this_machine() {
        let (one, other) = (Conf::made(), Conf::made());
        let sight = |conf: &Conf| File.sight(&conf.call(None)).unwrap();
        assert_eq!(sight(&one), sight(&one));
        assert_ne!(sight(&one), sight(&other));
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(sight(&one).starts_with(boot.trim()), "{}", sight(&one));
        let nowhere = Conf::new();
        let folder = nowhere.folder.path().to_owned();
        let gone = Call { folder: &folder.join("none"), ..nowhere.call(None) };
        assert_eq!(File.sight(&gone), None);
    }
}
