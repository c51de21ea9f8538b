//! Where a command writes: nothing that is read is written over, a model appears whole, a failed command leaves nothing
//! but what it can go on from.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use model::checkpoint::{self, Contents};
use prompts::rows::is_read;
use realign::stage::{MODEL, OUTCOME};
use realign::{Artifact, Error, Job, Result, Source, Stage, check_new, check_room};

use crate::kind::Kind;

/// Why a line could not be printed.
static UNSAID: OnceLock<String> = OnceLock::new();

/// Prints a line that may hold text of files; a reader that is gone is no error, any other failure is kept for [`unsaid`].
pub fn say(line: impl AsRef<str>) {
    match writeln!(std::io::stdout(), "{}", files::printable(line.as_ref())) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => drop(UNSAID.set(error.to_string())),
        _ => {}
    }
}

/// Why a line could not be printed, such as a disk that is full; empty while all were.
pub fn unsaid() -> Option<&'static str> {
    UNSAID.get().map(String::as_str)
}

/// The same beside an output: on standard error when the output itself is on standard output.
pub fn say_beside(out: &Path, line: impl AsRef<str>) {
    match is_stdout(out) {
        true => drop(writeln!(std::io::stderr(), "{}", files::printable(line.as_ref()))),
        false => say(line),
    }
}

/// Whether an output is standard output.
pub fn is_stdout(out: &Path) -> bool {
    ["-", "/dev/stdout"].iter().any(|name| out == Path::new(name))
}

/// Whether an output cannot be gone on from, because it is no regular file.
pub fn is_stream(out: &Path) -> bool {
    is_stdout(out) || files::is_stream(out)
}

/// Writes a file; `-` is standard output, whose reader may be gone.
///
/// # Errors
/// When it cannot be written.
pub fn write(out: &Path, bytes: &[u8]) -> Result<()> {
    if !is_stdout(out) {
        return Ok(files::write_whole(out, bytes)?);
    }
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(files::Error::io("write", out)(error).into())
        }
        _ => Ok(()),
    }
}

/// Checks that an output, or the place beside it where it is worked on, is none of the inputs, also through links and `..`, and
/// no file that a model or a directory of samples among them is read from.
///
/// # Errors
/// Names the input.
pub fn check_apart(out: &Path, inputs: &[&Path]) -> Result<()> {
    let out_is = files::followed(out);
    let mut partial = out_is.clone().into_os_string();
    partial.push(".partial");
    let partial = files::followed(Path::new(&partial));
    let is_hit = |input: &Path| input == out_is || input.starts_with(&partial) || is_part(&out_is, input);
    let is_sample = |input: &Path| dir_of(&out_is) == input && !holds_model(input) && is_read(&out_is);
    if let Some(input) = inputs.iter().find(|input| is_sample(&files::followed(input))) {
        return Err(Error::Invalid(format!(
            "{} would be written into {}, of which the command reads every such file; choose another place",
            out.display(),
            input.display()
        )));
    }
    match inputs.iter().find(|input| is_hit(&files::followed(input))) {
        Some(input) => Err(Error::Invalid(format!(
            "{} would be written over {}, which the command reads; choose another place",
            out.display(),
            input.display()
        ))),
        None => Ok(()),
    }
}

/// Whether a place is one of a file of the model in a directory.
fn is_part(place: &Path, model: &Path) -> bool {
    holds_model(model) && dir_of(place) == model && Artifact::is_read(place)
}

/// The directory that a place is in, through links.
fn dir_of(place: &Path) -> PathBuf {
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty());
    files::followed(dir.unwrap_or(Path::new(".")))
}

/// Whether a directory is that of a model or an adapter.
fn holds_model(dir: &Path) -> bool {
    checkpoint::contents(dir) != Contents::Neither
}

/// Checks that a directory that files are written into is none of a model, which would be another one with them.
///
/// # Errors
/// Names it.
pub fn check_no_model(dir: &Path) -> Result<()> {
    match holds_model(dir) {
        true => Err(Error::Invalid(format!("{} holds a model; name another directory", dir.display()))),
        false => Ok(()),
    }
}

/// Checks that a base is named for an adapter alone.
///
/// # Errors
/// When none of the models is one.
pub fn check_base(models: &[&Path], base: Option<&Path>) -> Result<()> {
    let Some(base) = base else { return Ok(()) };
    for model in models {
        if model.is_dir() && Source::with_base(model, Some(base))?.is_adapter() {
            return Ok(());
        }
    }
    let names: Vec<String> = models.iter().map(|model| model.display().to_string()).collect();
    Err(Error::Invalid(format!(
        "--base {}: {} is no adapter of peft but a whole model, which has no base; leave --base out",
        base.display(),
        names.join(", ")
    )))
}

/// Checks that no two outputs are one, and standard output is one at most.
///
/// # Errors
/// Names two that are.
pub fn check_distinct(outs: &[&Path]) -> Result<()> {
    if outs.iter().filter(|out| is_stdout(out)).count() > 1 {
        let text = "two outputs are standard output, which would mix them: name a file for one of them";
        return Err(Error::Invalid(text.to_owned()));
    }
    let places: Vec<PathBuf> = outs.iter().map(|out| files::followed(out)).collect();
    for (at, one) in places.iter().enumerate() {
        if let Some(other) = (0..at).find(|&other| places[other] == *one && !is_stream(one)) {
            let (one, other) = (outs[at].display(), outs[other].display());
            return Err(Error::Invalid(format!("{one} and {other} would be written to one place; name another")));
        }
    }
    Ok(())
}

/// Checks that a file beside a model is none of its files: those of the inputs, and its own weights and notes.
fn check_beside(place: &Path, out: &Path, inputs: &[&Path]) -> Result<()> {
    let name = Path::new(place.file_name().unwrap_or_default());
    let is_own = name.to_string_lossy().starts_with("model") || name == "README.md" || name == OUTCOME;
    let is_copied = || inputs.iter().any(|input| input.is_dir() && input.join(name).is_file());
    if files::followed(place).parent() == Some(out) && (is_own || is_copied()) {
        let text = format!("{} is a file of the model in {}; name another", place.display(), out.display());
        return Err(Error::Invalid(text));
    }
    Ok(())
}

/// The directory `OUT.partial`, in which a model is made.
pub struct Work {
    /// The directory.
    pub dir: PathBuf,
    /// Is locked while the command works in it.
    _held: fs::File,
    /// Those above it that were not there before, the innermost first.
    new_dirs: Vec<PathBuf>,
}

impl Work {
    /// Makes the directory for work of a key. What other work left there is removed.
    ///
    /// # Errors
    /// When `out` is a file or is there already, what is at the directory's place is not of a stopped command, or another
    /// command works there.
    pub fn begin(out: &Path, key: impl FnOnce() -> Result<String>) -> Result<Self> {
        if is_stream(out) {
            return Err(Error::Invalid(format!("--out {}: a model needs a directory; name a new one", out.display())));
        }
        check_new("--out", out)?;
        let dir = work_dir(out)?;
        let new_dirs = dir.parent().map_or_else(Vec::new, missing);
        let held = held(&dir)?;
        check_own(&dir)?;
        let (key_file, key) = (dir.join("key"), key()?);
        if fs::read_to_string(&key_file).ok().as_deref() != Some(&key) {
            for entry in fs::read_dir(&dir).map_err(files::Error::io("read", &dir))? {
                files::remove(&entry.map_err(files::Error::io("read", &dir))?.path())?;
            }
            files::write_whole(&key_file, key.as_bytes())?;
        }
        Ok(Self { dir, _held: held, new_dirs })
    }

    /// Removes what a failed command cannot go on from.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn fail(&self) -> Result<()> {
        if !can_go_on(&self.dir) {
            files::remove(&self.dir)?;
            self.new_dirs.iter().for_each(|dir| drop(fs::remove_dir(dir))); // they are empty
        }
        Ok(())
    }
}

/// Something that a stage makes beside its model, and the place that it is moved to.
pub struct Also<'a> {
    /// Its name in the stage's directory.
    pub name: &'a str,
    /// The kind of the file; none of a directory.
    pub kind: Option<Kind>,
    /// The flag that names the place.
    pub flag: &'a str,
    /// The place.
    pub place: &'a Path,
}

impl Also<'_> {
    /// Checks the place, before anything is read.
    fn check(&self, out: &Path, inputs: &[&Path]) -> Result<()> {
        check_apart(self.place, inputs)?;
        let Some(kind) = self.kind else {
            check_outside(self.place, out)?;
            return check_new(self.flag, self.place);
        };
        check_beside(self.place, out, inputs)?;
        check_writable(self.place, kind)
    }

    /// Moves it from a stage's directory to its place.
    fn deliver(&self, work: &Path) -> Result<()> {
        let made = work.join(self.name);
        if self.kind.is_none() {
            return Ok(files::move_dir(&made, &files::followed(self.place))?);
        }
        write(self.place, &fs::read(&made).map_err(files::Error::io("read", &made))?)
    }
}

/// Checks that a place is not within a directory that the command makes, nor this within it.
///
/// # Errors
/// Names both.
pub fn check_outside(place: &Path, dir: &Path) -> Result<()> {
    match is_stream(place) || !files::overlap(place, dir) {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "{} and {}, which the command makes, lie within each other; name a place beside it",
            place.display(),
            dir.display()
        ))),
    }
}

/// Runs a stage that makes a model in `OUT.partial`, and moves the model to `out` when it is whole; then what `also` names.
///
/// # Errors
/// Those of the stage; when `out` is an input or is there already, before anything is read.
pub fn make<S: Stage>(
    stage: &S,
    out: &Path,
    inputs: &[&Path],
    also: &[Also<'_>],
    job: &mut Job<'_>,
) -> Result<S::Summary> {
    check_apart(out, inputs)?;
    let out = &files::followed(out);
    also.iter().try_for_each(|also| also.check(out, inputs))?;
    check_distinct(&[out.as_path()].into_iter().chain(also.iter().map(|also| also.place)).collect::<Vec<_>>())?;
    let dir = work_dir(out)?;
    also.iter().try_for_each(|also| check_outside(also.place, &dir))?;
    let work = Work::begin(out, || stage.key())?;
    let summary = match stage.run(&work.dir, job) {
        Ok(summary) => summary,
        Err(error) => {
            work.fail()?;
            return Err(error);
        }
    };
    files::move_dir(&work.dir.join(MODEL), out)?;
    also.iter().try_for_each(|also| also.deliver(&work.dir))?;
    files::remove(&work.dir)?;
    Ok(summary)
}

/// Makes a directory, unless it is there, and locks it where the file system has locks.
fn held(dir: &Path) -> Result<fs::File> {
    if dir.exists() && !dir.is_dir() {
        check_own(dir)?;
    }
    fs::create_dir_all(dir).map_err(files::Error::io("create", dir))?;
    let held = fs::File::open(dir).map_err(files::Error::io("open", dir))?;
    locked(held, dir)
}

fn locked(file: fs::File, place: &Path) -> Result<fs::File> {
    match files::try_lock(&file, false) {
        Err(fs::TryLockError::WouldBlock) => {
            let text = format!("another command works in {}: wait for it, or name another --out", place.display());
            Err(Error::Invalid(text))
        }
        _ => Ok(file),
    }
}

/// An output that no other command adds to until this is dropped.
pub struct Held {
    _lock: fs::File,
    /// What was not there before, the innermost first; it goes again while it is empty.
    made: Vec<PathBuf>,
}

impl Held {
    /// A directory, which is made.
    ///
    /// # Errors
    /// When it cannot be made, or another command works in it.
    pub fn dir(dir: &Path) -> Result<Self> {
        let made = missing(dir);
        Ok(Self { _lock: held(dir)?, made })
    }

    /// A file, by the partial one beside it that records are added to.
    ///
    /// # Errors
    /// When it cannot be made, or another command adds to it.
    pub fn file(file: &Path) -> Result<Self> {
        let partial = work_dir(file)?;
        let made = missing(&partial);
        if let Some(dir) = partial.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            files::create_dir(dir)?;
        }
        let open = fs::File::options().create(true).append(true).open(&partial);
        Ok(Self { _lock: locked(open.map_err(files::Error::io("write", &partial))?, file)?, made })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for place in &self.made {
            let _ = match fs::symlink_metadata(place) {
                Ok(data) if data.is_dir() => fs::remove_dir(place), // which fails unless it is empty
                Ok(data) if data.len() == 0 => fs::remove_file(place),
                _ => Ok(()),
            };
        }
    }
}

/// A place and those above it, as far as they are not there, the innermost first.
fn missing(place: &Path) -> Vec<PathBuf> {
    let is_new = |place: &&Path| **place != *Path::new("") && !place.exists();
    place.ancestors().take_while(is_new).map(Path::to_owned).collect()
}

/// Checks that what is at the place of the work in progress is of a command that was stopped, and not a file of the user.
fn check_own(work: &Path) -> Result<()> {
    let is_empty = || fs::read_dir(work).is_ok_and(|mut entries| entries.next().is_none());
    let is_own = work.join("key").is_file() || is_empty();
    let text = format!("{} is not of a stopped command: move it away, or name another --out", work.display());
    if is_own { Ok(()) } else { Err(Error::Invalid(text)) }
}

/// Whether a stopped stage left something that the next attempt goes on from.
fn can_go_on(work: &Path) -> bool {
    let is_kept = |name: &str| name.ends_with(".checkpoint") || name.ends_with(".jsonl");
    files::list(work).is_ok_and(|files| files.keys().any(|name| is_kept(name)))
}

/// The directory beside `out` in which a stage works; `out/` and `out` are one.
///
/// # Errors
/// When `out` has no name.
pub fn work_dir(out: &Path) -> Result<PathBuf> {
    let name =
        out.file_name().ok_or_else(|| Error::Invalid(format!("--out {}: name a new directory", out.display())))?;
    let mut name = name.to_owned();
    name.push(".partial");
    Ok(out.with_file_name(name))
}

/// Checks that a file of a kind can be written, before hours of work: that there is room for it, and that it replaces nothing
/// but a file of its kind.
///
/// # Errors
/// When it cannot.
pub fn check_writable(path: &Path, kind: Kind) -> Result<()> {
    if is_stream(path) {
        return Ok(());
    }
    if path.is_dir() {
        return Err(Error::Invalid(format!("{} is a directory; name a file", path.display())));
    }
    let place = files::followed(path);
    let model = dir_of(&place);
    if is_part(&place, &model) {
        let text = format!("{} would be a file of the model in {}; name another", path.display(), model.display());
        return Err(Error::Invalid(text));
    }
    kind.check(path)?;
    check_room(path)
}
