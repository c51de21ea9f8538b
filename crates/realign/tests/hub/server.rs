//! A hub with one model, `org/name`, and the host of its large files.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use safetensors::SafeTensors;
use serde_json::json;
use sha1::{Digest as _, Sha1};

/// The commit of every revision.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that opens a private model.
pub const TOKEN: &str = "hf_secretSecretSecret";

/// What goes wrong with the next request of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A large file ends after so many bytes.
    Break(usize),
    /// A large file stands still after so many bytes.
    Hang(usize),
    /// A large file comes whole, whatever was asked for.
    Whole,
    /// A byte of a large file is another one.
    Damage,
    /// A byte of a small file is another one.
    DamageSmall,
    /// A large file goes on behind its end.
    TooLong,
    /// Any request: too many, come back in a second.
    Busy,
    /// The name of a large file's content.
    Etag(&'static str),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether the hub got it, or the other host.
    pub at_hub: bool,
    /// Its line and headers.
    pub head: String,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: VecDeque<Fault>,
    seen: Vec<Request>,
    private: bool,
    other: String,
}

/// The server.
pub struct Server {
    /// Its address.
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Has the files of a model, and some that nobody reads.
    pub fn new(model: &Path) -> Self {
        let mut state = State::default();
        for entry in fs::read_dir(model).unwrap() {
            let path = entry.unwrap().path();
            state.files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
        }
        for unread in ["pytorch_model.bin", "README.md", "../evil"] {
            state.files.insert(unread.to_owned(), b"unread".to_vec());
        }
        let [hub, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        (state.other, state.private) = (url(&other), false);
        let (url, state) = (url(&hub), Arc::new(Mutex::new(state)));
        for (listener, at_hub) in [(hub, true), (other, false)] {
            let state = state.clone();
            thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), at_hub, &state)));
        }
        Self { url, state }
    }

    /// Makes two shards and an index of the weights.
    pub fn split_weights(&self) {
        let mut state = self.state.lock().unwrap();
        let whole = state.files.remove("model.safetensors").unwrap();
        let tensors = SafeTensors::deserialize(&whole).unwrap();
        let mut names = tensors.names();
        names.sort();
        let mut map = BTreeMap::new();
        for (index, names) in [&names[..3], &names[3..]].into_iter().enumerate() {
            let file = format!("model-0000{}-of-00002.safetensors", index + 1);
            map.extend(names.iter().map(|name| (name.to_string(), file.clone())));
            let views = names.iter().map(|name| (name.to_string(), tensors.tensor(name).unwrap()));
            state.files.insert(file, safetensors::serialize(views, None).unwrap());
        }
        let index = json!({"metadata": {}, "weight_map": map}).to_string().into_bytes();
        state.files.insert("model.safetensors.index.json".to_owned(), index);
    }

    /// Puts a file there.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.state.lock().unwrap().files.insert(name.to_owned(), bytes.to_vec());
    }

    /// Takes a file away.
    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().files.remove(name);
    }

    /// What goes wrong next, in order.
    pub fn fault(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults.iter().cloned());
    }

    /// Asks for the token from now on.
    pub fn make_private(&self) {
        self.state.lock().unwrap().private = true;
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The range of each request for a large file.
    pub fn ranges(&self) -> Vec<String> {
        let other = self.seen().into_iter().filter(|request| !request.at_hub);
        other.map(|request| header(&request.head, "range").unwrap_or_default()).collect()
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn answer(mut stream: TcpStream, at_hub: bool, state: &Mutex<State>) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let mut state = state.lock().unwrap();
    state.seen.push(Request { at_hub, head: head.clone() });
    let hangs = !at_hub && matches!(state.faults.front(), Some(Fault::Hang(_)));
    let (status, headers, body, sent) = reply(&head, at_hub, &mut state);
    drop(state);
    let body = if head.starts_with("HEAD") { Vec::new() } else { body };
    let length =
        if headers.contains("Content-Length") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let reply = format!("HTTP/1.1 {status} x\r\n{length}{headers}Connection: close\r\n\r\n");
    let _ = stream.write_all(reply.as_bytes());
    let _ = stream.write_all(&body[..sent.unwrap_or(body.len()).min(body.len())]);
    if hangs {
        let _ = reader.read_line(&mut String::new()); // until the client goes away
    }
}

type Reply = (u16, String, Vec<u8>, Option<usize>);

fn reply(head: &str, at_hub: bool, state: &mut State) -> Reply {
    let plain = |status: u16, headers: &str| (status, headers.to_owned(), b"no".to_vec(), None);
    if state.faults.front() == Some(&Fault::Busy) {
        state.faults.pop_front();
        return plain(429, "Retry-After: 1\r\n");
    }
    let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap();
    if !at_hub {
        return large(head, path.trim_start_matches('/'), state);
    }
    let token = header(head, "authorization");
    if state.private && token.as_deref() != Some(&format!("Bearer {TOKEN}")) {
        let sent = token.unwrap_or_default().replace("Bearer ", "");
        return plain(401, &format!("X-Error-Message: Invalid {sent}\r\n"));
    }
    if path.starts_with("/api/models/org/name/revision/") {
        let files: Vec<_> = state.files.keys().map(|name| json!({"rfilename": name})).collect();
        return (200, String::new(), json!({"sha": COMMIT, "siblings": files}).to_string().into_bytes(), None);
    }
    let small = format!("/api/resolve-cache/{COMMIT}/");
    let name =
        [format!("/org/name/resolve/{COMMIT}/"), small.clone()].iter().find_map(|prefix| path.strip_prefix(prefix));
    let Some((name, bytes)) = name.and_then(|name| Some((name, state.files.get(name)?.clone()))) else {
        return plain(404, "X-Error-Code: RepoNotFound\r\n");
    };
    if name.ends_with(".safetensors") || name.ends_with(".gguf") {
        let fault = state.faults.pop_front_if(|fault| matches!(fault, Fault::Etag(_)));
        let etag = match fault {
            Some(Fault::Etag(etag)) => etag.to_owned(),
            _ => files::hash_bytes(&bytes),
        };
        let (size, other) = (bytes.len(), &state.other);
        return plain(
            302,
            &format!(
                "X-Repo-Commit: {COMMIT}\r\nX-Linked-Size: {size}\r\nX-Linked-Etag: \"{etag}\"\r\nETag: \"other\"\r\n\
                 Location: {other}/{name}?Signature=s\r\n"
            ),
        );
    }
    if !path.starts_with(&small) {
        return plain(307, &format!("Location: {small}{name}\r\n"));
    }
    // As git names it.
    let etag = Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(&bytes).finalize();
    let headers = format!("ETag: W/\"{etag:x}\"\r\nContent-Length: {}\r\n", bytes.len());
    let mut bytes = bytes;
    if head.starts_with("GET") && state.faults.pop_front_if(|fault| *fault == Fault::DamageSmall).is_some() {
        bytes[9] ^= 1;
    }
    (200, headers, bytes, None)
}

/// A large file, or a part of it.
fn large(head: &str, name: &str, state: &mut State) -> Reply {
    let mut bytes = state.files[name].clone();
    let fault = state.faults.pop_front();
    let start = header(head, "range").filter(|_| fault != Some(Fault::Whole));
    let start: Option<usize> = start.map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    if fault == Some(Fault::Damage) {
        bytes[99] ^= 1;
    }
    let sent = if let Some(Fault::Break(sent) | Fault::Hang(sent)) = fault { Some(sent) } else { None };
    let all = bytes.len();
    if fault == Some(Fault::TooLong) {
        bytes.resize(all + (1 << 20), 0);
        return (200, "Content-Length: 999999999999\r\n".into(), bytes, None);
    }
    match start {
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{all}\r\n", all - 1);
            (206, range, bytes[start..].to_vec(), sent)
        }
        None => (200, String::new(), bytes, sent),
    }
}
