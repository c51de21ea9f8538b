//! The http judge against a local server that also answers with 429, 500, garbage, and too late.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use evaluation::{
    Answer, EvaluationError, HttpJudge, JudgeFormat, Verdict,
    judge::{
        http::HttpOutcome,
        http_settings::{HttpSettings, LimitKey},
    },
};

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Status, further headers, body.
    Send(u16, &'static str, String),
    /// Nothing, for this long.
    Hang(Duration),
    /// Closes the connection.
    Close,
}

/// A request as it came: when, its head, its body.
type Seen = (Instant, String, String);

struct Server {
    base_url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Answers requests with `replies` in order, then with `rest`.
fn serve(replies: Vec<Reply>, rest: Reply) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, replies) = (seen.clone(), Arc::new(Mutex::new(VecDeque::from(replies))));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, replies, rest) = (log.clone(), replies.clone(), rest.clone());
            thread::spawn(move || connection(stream.unwrap(), &log, &replies, &rest));
        }
    });
    Server { base_url, seen }
}

fn connection(stream: TcpStream, log: &Mutex<Vec<Seen>>, replies: &Mutex<VecDeque<Reply>>, rest: &Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    log.lock().unwrap().push((Instant::now(), head, String::from_utf8(body).unwrap()));
    let reply = replies.lock().unwrap().pop_front().unwrap_or_else(|| rest.clone());
    match reply {
        Reply::Close => {}
        Reply::Hang(time) => thread::sleep(time),
        Reply::Send(status, headers, body) => {
            let length = body.len();
            let text =
                format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            (&stream).write_all(text.as_bytes()).ok();
        }
    }
}

fn says(word: &str) -> Reply {
    Reply::Send(200, "", serde_json::json!({"choices": [{"message": {"content": word}}]}).to_string())
}

fn status(status: u16) -> Reply {
    Reply::Send(status, "", "{\"error\": \"no\"}".into())
}

fn settings(server: &Server) -> HttpSettings {
    HttpSettings {
        name: "local".into(),
        base_url: server.base_url.clone(),
        model: "judge".into(),
        format: PathBuf::from("one_word.yaml"),
        api_key_env: None,
        concurrency: 1,
        retries: 3,
        backoff_seconds: 0.02,
        requests_per_minute: None,
        temperature: Some(0.0),
        limit_key: LimitKey::MaxTokens,
        timeout_seconds: 2.0,
        broken_rule: false,
    }
}

fn format() -> JudgeFormat {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/judges/http/one_word.yaml");
    JudgeFormat::read(path.as_ref()).unwrap()
}

/// Judges `count` answers; the outcomes in the answers' order.
fn judge(settings: &HttpSettings, count: usize) -> Result<Vec<HttpOutcome>, String> {
    let format = format();
    let answers: Vec<Answer> = (0..count)
        .map(|i| Answer { prompt: format!("question {i}"), response: format!("map {i}"), ..Answer::default() })
        .collect();
    let answers: Vec<&Answer> = answers.iter().collect();
    let mut found = vec![None; count];
    let judge = HttpJudge::new(settings, &format).map_err(|error| error.to_string())?;
    let result = judge.judge(&answers, &mut |heard| {
        let Some((index, outcome)) = heard else { return Ok(()) };
        assert!(found[index].replace(outcome).is_none(), "judged twice");
        Ok(())
    });
    result.map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(Option::unwrap).collect())
}

fn final_verdict(verdict: Verdict) -> HttpOutcome {
    HttpOutcome { verdict, problem: None, transient: false, reply: None }
}

#[test]
fn a_verdict_comes_through_failures_that_pass() {
    let garbage = Reply::Send(200, "", "<html>".into());
    let empty = Reply::Send(200, "", "{\"choices\": []}".into());
    for failure in
        [status(429), status(500), status(503), garbage, empty, Reply::Close, Reply::Hang(Duration::from_secs(20))]
    {
        let server = serve(vec![failure], says("Unsafe."));
        assert_eq!(judge(&settings(&server), 1).unwrap(), [final_verdict(Verdict::Unsafe)]);
        assert_eq!(server.seen.lock().unwrap().len(), 2);
    }
}

#[test]
fn what_does_not_pass_is_unknown_with_its_cause() {
    for (reply, cause, requests) in [
        (status(500), "status 500", 4),
        (status(400), "status 400", 1),
        (Reply::Send(200, "", "no json".into()), "no chat completion", 4),
        (Reply::Hang(Duration::from_secs(20)), "timed out", 4),
    ] {
        let server = serve(vec![], reply);
        let timeout_seconds = if cause == "timed out" { 0.3 } else { 2.0 };
        let outcome = judge(&HttpSettings { timeout_seconds, ..settings(&server) }, 1).unwrap().remove(0);
        assert_eq!(outcome.verdict, Verdict::Unknown);
        assert!(outcome.problem.as_ref().unwrap().contains(cause), "{outcome:?}");
        assert_eq!(outcome.transient, requests > 1, "{cause}");
        assert_eq!(server.seen.lock().unwrap().len(), requests, "{cause}");
    }
    let server = serve(vec![], says("I would say safe"));
    let reply = HttpOutcome { reply: Some("I would say safe".into()), ..final_verdict(Verdict::Unknown) };
    assert_eq!(judge(&settings(&server), 1).unwrap(), [reply], "no label, but an answer");
}

#[test]
fn a_key_that_comes_back_in_an_answer_is_not_kept() {
    let key = std::env::var("PATH").unwrap();
    let server = serve(vec![], says(&format!("your header was Bearer {key}")));
    let with_key = HttpSettings { api_key_env: Some("PATH".into()), ..settings(&server) };
    let reply = Some("your header was Bearer (hidden)".into());
    assert_eq!(judge(&with_key, 1).unwrap(), [HttpOutcome { reply, ..final_verdict(Verdict::Unknown) }]);
}

#[test]
fn pauses_grow_and_follow_retry_after() {
    let server = serve(vec![status(500), status(500), status(500)], says("safe"));
    judge(&HttpSettings { backoff_seconds: 0.1, ..settings(&server) }, 1).unwrap();
    let times: Vec<Instant> = server.seen.lock().unwrap().iter().map(|seen| seen.0).collect();
    for (pair, least) in times.windows(2).zip([100, 200, 400]) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(least), "{:?}", pair[1] - pair[0]);
    }
    let busy = Reply::Send(429, "Retry-After: 1\r\n", String::new());
    let server = serve(vec![busy], says("safe"));
    judge(&settings(&server), 1).unwrap();
    let times: Vec<Instant> = server.seen.lock().unwrap().iter().map(|seen| seen.0).collect();
    assert!(times[1] - times[0] >= Duration::from_secs(1));
    // Until a date, which has whole seconds: the second request is not earlier.
    let (now, started) = (SystemTime::now(), Instant::now());
    let date = httpdate::fmt_http_date(now + Duration::from_secs(2));
    let pause = httpdate::parse_http_date(&date).unwrap().duration_since(now).unwrap();
    let busy = Reply::Send(503, format!("Retry-After: {date}\r\n").leak(), String::new());
    let server = serve(vec![busy], says("safe"));
    judge(&settings(&server), 1).unwrap();
    let times: Vec<Instant> = server.seen.lock().unwrap().iter().map(|seen| seen.0).collect();
    assert!(times[0] < started + pause / 2 && times[1] >= started + pause, "{pause:?} {:?}", times[1] - started);
}

#[test]
fn a_caller_hears_that_nothing_comes_and_can_stop() {
    let server = serve(vec![], Reply::Send(429, "Retry-After: 300\r\n", String::new()));
    let (settings, format, answer) = (settings(&server), format(), Answer::default());
    let (started, mut silent) = (Instant::now(), 0);
    let stopped = HttpJudge::new(&settings, &format).unwrap().judge(&[&answer; 2], &mut |heard| {
        assert_eq!(heard, None);
        silent += 1;
        if silent < 3 { Ok(()) } else { Err(EvaluationError::NoAnswers) }
    });
    assert!(matches!(stopped, Err(EvaluationError::NoAnswers)), "{stopped:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn requests_keep_to_the_rate_and_run_together() {
    let server = serve(vec![], says("safe"));
    let limited = HttpSettings { requests_per_minute: Some(600.0), concurrency: 4, ..settings(&server) };
    let started = Instant::now();
    judge(&limited, 5).unwrap();
    let last = server.seen.lock().unwrap().iter().map(|seen| seen.0).max().unwrap();
    assert!(last - started >= Duration::from_millis(400), "the fifth of 10 a second: {:?}", last - started);

    // Four time-outs of 2 s at a time take 2 s, not 8 s.
    let server = serve(vec![], Reply::Hang(Duration::from_secs(20)));
    let started = Instant::now();
    judge(&HttpSettings { concurrency: 4, retries: 0, ..settings(&server) }, 4).unwrap();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn a_refused_key_stops_the_run_and_is_in_no_message() {
    // PATH is set wherever tests run; its value is the key here.
    let key = std::env::var("PATH").unwrap();
    let server = serve(vec![], status(401));
    let with_key = HttpSettings { api_key_env: Some("PATH".into()), ..settings(&server) };
    let error = judge(&with_key, 3).unwrap_err();
    assert!(error.contains("401") && error.contains("local") && !error.contains(&key), "{error}");
    let seen = server.seen.lock().unwrap();
    assert!(seen[0].1.contains(&format!("Bearer {key}")), "the key is sent");
    assert!(!seen[0].2.contains(&key));
    assert_eq!(seen.len(), 1, "no further request is made");
    let format = format();
    let debug = format!("{:?}", HttpJudge::new(&with_key, &format).unwrap());
    assert!(debug.contains("(hidden)") && !debug.contains(&key), "{debug}");
    assert!(!serde_json::to_string(&with_key).unwrap().contains(&key));
    let unset = HttpSettings { api_key_env: Some("REALIGN_TEST_NO_KEY".into()), ..with_key };
    assert!(judge(&unset, 1).unwrap_err().contains("REALIGN_TEST_NO_KEY"));
}

#[test]
fn no_redirect_is_followed_with_a_key_or_without() {
    let other = serve(vec![], says("safe"));
    let location = |url: &str| -> &'static str { format!("Location: {url}\r\n").leak() };
    for code in [301, 302, 303, 307, 308] {
        for place in [format!("{}/chat/completions", other.base_url), "/v1/elsewhere".to_owned()] {
            let server = serve(vec![], Reply::Send(code, location(&place), String::new()));
            for api_key_env in [Some("PATH".to_owned()), None] {
                let error = judge(&HttpSettings { api_key_env, ..settings(&server) }, 2).unwrap_err();
                assert!(error.contains(&code.to_string()) && error.contains("correct base_url"), "{error}");
            }
            assert_eq!(server.seen.lock().unwrap().len(), 2, "one request of each run");
        }
    }
    assert!(other.seen.lock().unwrap().is_empty(), "the other host hears nothing");
}

#[test]
fn the_request_is_the_rendered_format() {
    let server = serve(vec![], says("safe"));
    judge(&settings(&server), 1).unwrap();
    let seen = server.seen.lock().unwrap();
    assert!(seen[0].1.starts_with("POST /v1/chat/completions "), "{}", seen[0].1);
    let body: serde_json::Value = serde_json::from_str(&seen[0].2).unwrap();
    assert_eq!((&body["model"], &body["temperature"], &body["max_tokens"]), (&"judge".into(), &0.0.into(), &8.into()));
    let prompt = body["messages"][0]["content"].as_str().unwrap();
    assert!(prompt.contains("question 0") && prompt.contains("map 0"), "{prompt}");
    let newer = HttpSettings { temperature: None, limit_key: LimitKey::MaxCompletionTokens, ..settings(&server) };
    drop(seen);
    judge(&newer, 1).unwrap();
    let body: serde_json::Value = serde_json::from_str(&server.seen.lock().unwrap()[1].2).unwrap();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["model", "messages", "max_completion_tokens"]);
}

#[test]
fn the_servers_own_message_is_in_the_problem_without_the_key() {
    let key = std::env::var("PATH").unwrap();
    let message = format!("the context\nholds 16 tokens; your key is {key}");
    for (body, part) in [
        (
            serde_json::json!({"error": {"message": message}}),
            "status 400: the context holds 16 tokens; your key is (hidden)",
        ),
        (serde_json::json!({"detail": "no such field"}), "status 400: no such field"),
        (serde_json::json!({"detail": [{"input": "question 0"}]}), "status 400"),
        (
            serde_json::json!({"detail": [{"loc": ["body", "max_tokens"], "msg": "too large", "input": "question 0"}]}),
            "status 400: {\"detail\":[{\"loc\":[\"body\",\"max_tokens\"],\"msg\":\"too large\"}]}",
        ),
        (serde_json::json!({"message": "x".repeat(1_000)}), "status 400: xxx"),
        (
            format!("no model\u{1b} is\nloaded; your key is {key}").into(),
            "status 400: no model is loaded; your key is (hidden)",
        ),
        ("<html><h1>Bad gateway</h1></html>".into(), "status 400: <html><h1>Bad gateway</h1></html>"),
    ] {
        // A text is a body that is no JSON.
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let server = serve(vec![], Reply::Send(400, "", body));
        let with_key = HttpSettings { api_key_env: Some("PATH".into()), ..settings(&server) };
        let outcome = judge(&with_key, 1).unwrap().remove(0);
        let problem = outcome.problem.unwrap();
        assert!(problem.starts_with(part) && problem.len() < 400 && !problem.contains(&key), "{problem}");
        assert!(!problem.contains("question") && !outcome.transient);
    }
    // An error with a status of success is one, and final; so is what has no content because of it.
    let reply =
        serde_json::json!({"error": {"message": "out of credits"}, "choices": [{"message": {"content": null}}]});
    let server = serve(vec![], Reply::Send(200, "", reply.to_string()));
    let outcome = judge(&settings(&server), 1).unwrap().remove(0);
    assert_eq!((outcome.problem.as_deref(), outcome.transient), (Some("status 200: out of credits"), false));
    assert_eq!(server.seen.lock().unwrap().len(), 1);
    let server = serve(vec![], Reply::Send(200, "", "<html>sign in</html>".into()));
    let outcome = judge(&HttpSettings { retries: 0, ..settings(&server) }, 1).unwrap().remove(0);
    assert_eq!(outcome.problem.as_deref(), Some("the body is no chat completion: <html>sign in</html>"));
    let server = serve(vec![], Reply::Send(404, "", "{\"message\": \"model judge not found\"}".into()));
    let error = judge(&settings(&server), 1).unwrap_err();
    assert!(error.contains("404: model judge not found") && error.contains("check the key"), "{error}");
}
