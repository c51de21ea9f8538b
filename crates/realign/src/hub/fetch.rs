//! Fetching the files of a model that are read, into the hub's cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use hf_hub::Cache;
use indicatif::BinaryBytes;
use model::checkpoint;
use sha1::{Digest as _, Sha1};
use ureq::Body;
use ureq::http::Response;

use super::client::{Client, Failure, header};
use super::id::{HubId, is_commit, is_place, is_plain};
use super::wanted::wanted;
use crate::needs;
use crate::{Error, Job};

/// Bytes of the list of a model's files.
const LONGEST_LIST: u64 = 32 << 20;
/// Bytes of a file whose length the hub does not say; it does of large ones.
const LONGEST_UNSAID: u64 = 64 << 20;
/// Bytes between two reports.
const REPORTED: u64 = 1 << 20;
/// How long nothing comes before that is reported.
const SILENCE: Duration = Duration::from_millis(500);

/// A model of the hub at a commit.
struct Repository<'a> {
    client: &'a Client,
    cache: &'a Cache,
    id: &'a HubId,
    commit: String,
    /// Its directory in the cache.
    dir: PathBuf,
}

/// What the hub says of a file.
#[derive(Debug, Clone)]
struct Announced {
    /// The name of its content, which is its SHA-256 where it is large.
    etag: String,
    bytes: Option<u64>,
}

/// What was got of all files that are wanted.
struct Progress {
    done: u64,
    all: u64,
}

/// Fetches a model, or its one file that is meant, and gives back where it is.
pub(super) fn fetch(client: &Client, cache: &Cache, id: &HubId, job: &mut Job<'_>) -> Result<PathBuf, Failure> {
    let url = client.url(&format!("api/models/{}/revision/{}", id.name, id.revision.replace('/', "%2F")));
    let list = client.patiently(job, |_, _| json(client.get(&url, 0)?))?;
    let wrong = || Failure::Refused("the hub's list of its files is not as it should be".to_owned());
    let commit = list["sha"].as_str().filter(|commit| is_commit(commit)).ok_or_else(wrong)?.to_owned();
    let names = list["siblings"].as_array().ok_or_else(wrong)?;
    let there: BTreeSet<&str> = names.iter().filter_map(|file| file["rfilename"].as_str()).collect();
    let dir = cache.path().join(id.repo().folder_name());
    let repository = Repository { client, cache, id, commit, dir };
    match &id.file {
        Some(file) if there.contains(file.as_str()) => Ok(repository.fetch(vec![file.clone()], job)?.join(file)),
        Some(file) => Err(Failure::Refused(format!("has no file {file}"))),
        None => {
            let mut wanted = wanted(&there)?;
            if wanted.iter().any(|name| name == checkpoint::INDEX) {
                let index = repository.blobs(&[checkpoint::INDEX.to_owned()], job)?.remove(0).1;
                let shards = checkpoint::shards(&index)?;
                if let Some(shard) = shards.iter().find(|shard| !there.contains(shard.as_str()) || !is_place(shard)) {
                    return Err(Failure::Refused(format!("has no file {shard:?}, which its index names")));
                }
                wanted.splice(0..0, shards);
            }
            repository.fetch(wanted, job)
        }
    }
}

impl Repository<'_> {
    /// Fetches files and makes the directory of this commit; gives it back.
    fn fetch(&self, names: Vec<String>, job: &mut Job<'_>) -> Result<PathBuf, Failure> {
        let repo = self.cache.repo(self.id.repo());
        let snapshot = repo.pointer_path(&self.commit);
        for (name, blob) in self.blobs(&names, job)? {
            link(&blob, &snapshot, &name)?;
        }
        if !is_commit(&self.id.revision) {
            repo.create_ref(&self.commit).map_err(files::Error::io("write", &self.dir.join("refs")))?;
        }
        Ok(snapshot)
    }

    /// The contents of files, fetched where they are not there.
    fn blobs(&self, names: &[String], job: &mut Job<'_>) -> Result<Vec<(String, PathBuf)>, Failure> {
        let mut all = BTreeMap::new();
        for name in names {
            let announced = self.client.patiently(job, |_, _| self.ask(name))?;
            all.insert(name, announced);
        }
        let place = |one: &Announced| self.dir.join("blobs").join(&one.etag);
        let missing: Vec<_> = all.values().filter(|one| !is_whole(&place(one), one.bytes)).collect();
        let bytes = missing.iter().filter_map(|one| one.bytes).sum();
        if !missing.is_empty() {
            needs::check_disk(&self.dir, bytes, "set HF_HOME to a directory on another disk")?;
            let size = BinaryBytes(bytes);
            job.step(0, 1, &format!("fetching {} files of {}, {size}", missing.len(), self.id))?;
        }
        let mut progress = Progress { done: 0, all: bytes };
        let blobs = names.iter().map(|name| {
            let blob = place(&all[name]);
            self.blob(name, &all[name], &blob, &mut progress, job)?;
            Ok((name.clone(), blob))
        });
        blobs.collect()
    }

    fn url(&self, name: &str) -> String {
        self.client.url(&format!("{}/resolve/{}/{name}", self.id.name, self.commit))
    }

    /// What the hub says of a file.
    fn ask(&self, name: &str) -> Result<Announced, Failure> {
        let response = self.client.head(&self.url(name))?;
        let number = |name: &str| header(&response, name)?.trim().parse().ok();
        let is_answer = response.status().is_success(); // a redirect has a length of its own
        let etag = header(&response, "x-linked-etag").or(header(&response, "etag").filter(|_| is_answer));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_plain(etag));
        let Some(etag) = etag else {
            return Err(Failure::Refused(format!("{name}: the hub does not say which content it has (no ETag)")));
        };
        let bytes = number("x-linked-size").or_else(|| number("content-length").filter(|_| is_answer));
        Ok(Announced { etag: etag.to_owned(), bytes })
    }

    /// Fetches one content, unless it is there; what an earlier attempt got is gone on with.
    fn blob(
        &self,
        name: &str,
        announced: &Announced,
        blob: &Path,
        progress: &mut Progress,
        job: &mut Job<'_>,
    ) -> Result<(), Failure> {
        if is_whole(blob, announced.bytes) {
            return Ok(());
        }
        let _lock = self.lock(&announced.etag, job)?;
        if is_whole(blob, announced.bytes) {
            return Ok(()); // another process has fetched it meanwhile
        }
        files::create_dir(&self.dir.join("blobs"))?;
        let mut part = blob.to_owned().into_os_string();
        part.push(".incomplete");
        let (part, before) = (PathBuf::from(part), progress.done);
        self.client.patiently(job, |job, further| {
            let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
            let is_usable = announced.bytes.is_some_and(|bytes| size(&part) <= bytes);
            if !is_usable {
                files::remove(&part)?;
            }
            let start = size(&part);
            progress.done = before + start;
            if announced.bytes != Some(start) || start == 0 {
                self.append(name, (&part, announced.bytes), start, (progress, further), job)?;
            }
            match differs(&part, announced)? {
                None => Ok(()),
                Some(reason) => {
                    files::remove(&part)?;
                    *further = 0;
                    let reason = format!("{name} came {reason}");
                    // What was gone on with may have been damaged before.
                    Err(if start > 0 { Failure::Unreached(reason, None) } else { Failure::Refused(reason) })
                }
            }
        })?;
        Ok(files::rename(&part, blob)?)
    }

    /// Appends to a file what comes from byte `start` on, a byte more than was announced at most. What came before it broke
    /// off is kept.
    fn append(
        &self,
        name: &str,
        (part, announced): (&Path, Option<u64>),
        start: u64,
        (progress, further): (&mut Progress, &mut u64),
        job: &mut Job<'_>,
    ) -> Result<(), Failure> {
        let response = self.client.get(&self.url(name), start)?;
        let goes_on = start > 0 && continues(&response, start);
        let io = |what: &'static str| files::Error::io(what, part);
        let mut file = File::options().create(true).append(true).open(part).map_err(io("write"))?;
        if !goes_on {
            file.set_len(0).map_err(io("write"))?;
            progress.done -= start;
        }
        let most = announced.unwrap_or(LONGEST_UNSAID).saturating_sub(if goes_on { start } else { 0 });
        let chunks = chunks(response.into_body(), most.saturating_add(1));
        let (mut came, mut unreported) = (0, 0);
        loop {
            let broken = |error: io::Error| Failure::Unreached(format!("{name} broke off: {}", error.kind()), None);
            let chunk = match chunks.recv_timeout(SILENCE) {
                Ok(chunk) => chunk.map_err(broken)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.report(progress, job)?; // which may ask to stop
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            file.write_all(&chunk).map_err(io("write"))?;
            came += chunk.len() as u64;
            unreported += chunk.len() as u64;
            for sum in [&mut *further, &mut progress.done] {
                *sum += chunk.len() as u64;
            }
            if unreported >= REPORTED {
                unreported = 0;
                self.report(progress, job)?;
            }
        }
        if announced.is_none() && came > most {
            files::remove(part)?;
            let reason = format!("{name}: the hub does not say its length, and more than {LONGEST_UNSAID} bytes come");
            return Err(Failure::Refused(reason));
        }
        file.sync_all().map_err(io("write"))?;
        Ok(self.report(progress, job)?)
    }

    fn report(&self, progress: &Progress, job: &mut Job<'_>) -> Result<(), Error> {
        let [done, all] = [progress.done, progress.all].map(|bytes| bytes.div_ceil(1024) as usize);
        job.step(done, all.max(done), &format!("KiB of {}", self.id))
    }

    /// Keeps other processes from fetching the same content at the same time, as the Python library does.
    fn lock(&self, etag: &str, job: &mut Job<'_>) -> Result<File, Failure> {
        let dir = self.cache.path().join(".locks").join(self.id.repo().folder_name());
        files::create_dir(&dir)?;
        let path = dir.join(format!("{etag}.lock"));
        let io = || files::Error::io("lock", &path);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io())?;
        let mut is_said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if is_said => {}
                Err(TryLockError::WouldBlock) => {
                    tracing::warn!("another process fetches {} now; waiting for it", self.id);
                    is_said = true;
                }
                Err(TryLockError::Error(error)) => return Err(io()(error).into()),
            }
            job.step(1, 2, "waiting for another process")?;
            std::thread::sleep(SILENCE);
        }
    }
}

/// What a body brings, so many bytes at most, read on a thread of its own, which nobody waits for where nothing comes.
fn chunks(body: Body, most: u64) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(4);
    std::thread::spawn(move || {
        let mut body = body.into_reader().take(most);
        loop {
            let mut buffer = vec![0; 64 << 10];
            let read = body.read(&mut buffer);
            let is_last = !matches!(read, Ok(count) if count > 0);
            let chunk = read.map(|count| {
                buffer.truncate(count);
                buffer
            });
            if sender.send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// Whether an answer goes on from the byte that was asked for.
fn continues(response: &Response<Body>, start: u64) -> bool {
    let range = header(response, "content-range").and_then(|range| range.trim().strip_prefix("bytes "));
    response.status() == 206 && range.is_some_and(|range| range.split('-').next() == Some(&start.to_string()))
}

/// Whether a content is there, all of it as far as its length says.
fn is_whole(blob: &Path, bytes: Option<u64>) -> bool {
    fs::metadata(blob).is_ok_and(|data| data.is_file() && bytes.is_none_or(|bytes| bytes == data.len()))
}

/// How a content differs from what was announced.
fn differs(part: &Path, announced: &Announced) -> Result<Option<String>, Error> {
    let bytes = fs::metadata(part).map_err(files::Error::io("read", part))?.len();
    if let Some(wanted) = announced.bytes.filter(|&wanted| wanted != bytes) {
        return Ok(Some(format!("with {bytes} bytes, and the hub announced {wanted}")));
    }
    let wanted = announced.etag.to_lowercase();
    let (kind, found) = match wanted.len() {
        _ if !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) => return Ok(None),
        64 => ("SHA-256", files::hash_path(part)?),
        // Another endpoint than the hub's own may mean the content alone.
        40 if sha1(part, "").map_err(files::Error::io("read", part))? == wanted => return Ok(None),
        40 => ("the git hash", sha1(part, &format!("blob {bytes}\0")).map_err(files::Error::io("read", part))?),
        _ => return Ok(None),
    };
    Ok((found != wanted).then(|| format!("with {kind} {found}, and the hub announced {wanted}")))
}

/// The SHA-1 of a content behind some words: git calls a content so, and the hub a small file.
fn sha1(part: &Path, words: &str) -> io::Result<String> {
    let mut hash = Sha1::new_with_prefix(words);
    io::copy(&mut File::open(part)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// Puts a link to a content into the directory of a commit.
fn link(blob: &Path, snapshot: &Path, name: &str) -> Result<(), Error> {
    let place = snapshot.join(name);
    if let Some(dir) = place.parent() {
        files::create_dir(dir)?;
    }
    let Some(content) = blob.file_name() else { return Ok(()) };
    let up: PathBuf = (0..Path::new(name).components().count() + 1).map(|_| "..").collect();
    let target = up.join("blobs").join(content);
    if fs::read_link(&place).is_ok_and(|found| found == target) {
        return Ok(());
    }
    files::remove(&place)?;
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(&target, &place);
    #[cfg(not(unix))]
    let linked = fs::hard_link(blob, &place);
    Ok(linked.map_err(files::Error::io("link", &place))?)
}

fn json(mut response: Response<Body>) -> Result<serde_json::Value, Failure> {
    let body = response.body_mut().with_config().limit(LONGEST_LIST).read_to_vec();
    let body = body.map_err(|_| Failure::Unreached("the hub's list of files broke off".to_owned(), None))?;
    files::json_value(&body).map_err(|_| Failure::Refused("the hub's list of its files is no JSON".to_owned()))
}
