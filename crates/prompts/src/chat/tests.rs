use super::*;
use std::fs;

fn render(source: &str) -> Result<String> {
    let template = ChatTemplate::from_source(source.into(), Some("<s>".into()), None)?;
    template.render(&[Message::new(Role::User, "Hi")], true)
}

#[test]
fn an_unset_special_token_prints_as_nothing() {
    assert_eq!(render("{{ bos_token }}|{{ eos_token }}").unwrap(), "<s>|");
}

#[test]
fn values_are_told_apart_as_python_tells_them() {
    let is = |test: &str| {
        let values = ["none", "true", "1.5", "'a b'", "'A'", "''", "[1]", "{'a': 1}", "missing", "range(2)"];
        let holds = |value: &&str| render(&format!("{{{{ ({value}) is {test} }}}}")).is_ok_and(|text| text == "True");
        values.into_iter().filter(holds).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(is("iterable"), "'a b' 'A' '' [1] {'a': 1} missing range(2)");
    assert_eq!(is("sequence"), "'a b' 'A' '' [1] {'a': 1} missing range(2)");
    assert_eq!(is("number"), "true 1.5");
    assert_eq!((is("lower").as_str(), is("upper").as_str()), ("'a b'", "'A'"));
    assert_eq!(render("{{ missing | length }}").unwrap(), "0");
}

#[test]
fn what_only_python_can_print_is_refused() {
    for source in ["{{ messages }}", "{{ ['a'] }}", "{{ {'a': 1} }}"] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains("in Python's own form"), "{source}: {error}");
    }
    assert_eq!(render("{{ ['a', 1] | tojson }} {{ ['a', 1] | join(',') }}").unwrap(), "[\"a\", 1] a,1");
}

#[test]
fn what_a_template_raises_comes_with_its_line() {
    let error = render("{{ bos_token }}\n{{ raise_exception('no such role') }}").unwrap_err().to_string();
    assert_eq!(error, "chat template in memory, line 2: no such role");
}

#[test]
fn thinking_is_as_it_is_set() {
    let source = "{{ 'unset' if enable_thinking is not defined else enable_thinking }}";
    let mut template = ChatTemplate::from_source(source.into(), None, None).unwrap();
    for (thinking, text) in [(None, "unset"), (Some(true), "True"), (Some(false), "False")] {
        template.set_thinking(thinking).unwrap();
        assert_eq!(template.render(&[], true).unwrap(), text);
    }
}

#[test]
fn a_template_that_takes_too_long_is_an_error_where_it_is_read() {
    let template = ChatTemplate::from_source("{{ messages[0].content }}".into(), None, None).unwrap();
    template.template.exhaust();
    assert!(template.with_thinking(None).unwrap_err().to_string().contains("not tried again"));
}

#[test]
fn a_template_that_hides_what_is_asked_is_named() {
    let template = |source: &str| ChatTemplate::from_source(source.into(), None, None).unwrap();
    let turn = |role, text: &str| Message::new(role, text);
    let asked = [turn(Role::System, " be brief\n"), turn(Role::User, "where?")];
    let whole = template("{% for m in messages %}{{ m.content | trim }}|{% endfor %}");
    assert_eq!(whole.render_question(&asked).unwrap(), "be brief|where?|");
    for (source, what) in [
        ("[user] {{ message }}", "the user's turn"),
        ("{% for m in messages %}{{ m.text }}{% endfor %}", "the user's turn"),
        ("{{ messages[-1].content }}", "the system turn"),
    ] {
        let error = template(source).render_question(&asked).unwrap_err().to_string();
        assert!(error.contains("in memory") && error.contains(what), "{error}");
    }
    let error = template("{{ raise_exception('no') }}").render_question(&asked).unwrap_err().to_string();
    assert!(error.ends_with("line 1: no"), "its own error: {error}");
}

#[test]
fn a_head_that_opens_the_thinking_is_known() {
    let source = "{{ messages[0].content }}{% if add_generation_prompt %}|{% if enable_thinking is defined and not \
                  enable_thinking %}<think>\n\n</think>\n{% else %}<think>\n{% endif %}{% endif %}";
    let template = ChatTemplate::from_source(source.into(), None, None).unwrap();
    assert_eq!(template.opened_thinking(), "<think>\n");
    assert_eq!(template.clone().with_thinking(Some(true)).unwrap().opened_thinking(), "<think>\n");
    assert_eq!(template.with_thinking(Some(false)).unwrap().opened_thinking(), "");
    let plain = ChatTemplate::from_source("<think>{{ messages[0].content }}|".into(), None, None).unwrap();
    assert_eq!((plain.opened_thinking(), plain.dated().unwrap()), ("", None));
    let dated = "{{ strftime_now('%Y') }}{{ messages[0].content }}";
    let dated = ChatTemplate::from_source(dated.into(), None, None).unwrap().dated().unwrap();
    assert!(dated.unwrap().starts_with("20"));
}

#[test]
fn a_template_that_does_not_parse_is_an_error_with_its_line() {
    let error = render("a\nb\n{% if x %}").unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("syntax error"), "{error}");
}

#[test]
fn generation_marks_change_nothing() {
    let marked = "{% set a = 1 %}\n  {%- generation %}\n{% set a = 2 %}x{{ a }}\n{% endgeneration -%}\n {{ a }}";
    assert_eq!(render(marked).unwrap(), "x2\n1");
    assert_eq!(render("{% generation\n%}{% if true %}y{% endif %}{%endgeneration%}").unwrap(), "y");
    assert!(render("{% generation %}x").is_err());
}

#[test]
fn what_a_template_writes_is_bounded() {
    let nested = "{% set ns = namespace(a=['x']) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}";
    for source in [
        format!("{nested}{{{{ ns.a | tojson }}}}"),
        "{{ messages | tojson(indent=18446744073709551615) }}".into(),
        "{{ messages | tojson(indent=4611686018427387904) }}".into(),
        "{% set a = 'aaaaaaaa' %}".to_owned() + &"{% set a = a.replace('a', a) %}".repeat(9),
        "{% set a = 'aaaaaaaa' %}".to_owned() + &"{% set a = a.join([a, a, a]) %}".repeat(40),
        "{{ '{:99999999999}'.format(1) }}".into(),
        "{% set a = ' ' * 3000000 %}{{ a.split(' ') | length }}".into(),
        "{% set a = '\n' * 3000000 %}{{ a.splitlines() | length }}".into(),
        "{% set a = ' ' * 3000000 %}{{ a.split() | length }}".into(),
    ] {
        assert!(matches!(render(&source), Err(Error::Template { .. })), "{source}");
    }
    assert_eq!(render("{{ 'a-b'.replace('-', '+', 1) }}{{ ', '.join(['x', 'y']) }}").unwrap(), "a+bx, y");
    assert!(render("{{ messages | tojson(indent=4) }}").unwrap().contains("\n    {"));
}

#[test]
fn a_failing_expression_is_an_error_and_no_panic() {
    for source in ["{{ absent.key }}", "{{ messages[0].content.no() }}", "{{ strftime_now('%Q') }}", "{{ 1 // 0 }}"] {
        assert!(matches!(render(source), Err(Error::Template { line: 1, .. })), "{source}");
    }
}

#[test]
fn long_dates_and_messages_are_cut_short() {
    for source in ["{{ strftime_now('%c' * 5000000) | length }}", "{{ strftime_now('%c' * 200) }}"] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains("format of 256 bytes at most"), "{error}");
    }
    for source in ["{{ raise_exception('A' * 10000000) }}", "{{ raise_exception([messages, 'A' * 2000]) }}"] {
        assert!(render(source).unwrap_err().to_string().len() < 700);
    }
    let trimmed = "{% set a = 'ab' * 1000000 %}{{ a.strip(a) }}{{ a | trim(a) }}";
    assert!(render(trimmed).unwrap_err().to_string().contains("searches too much"));
    assert_eq!(render("{{ 'xax'.strip('x') }}{{ 'xbx' | trim('x') }}{{ [1] | trim }}").unwrap(), "ab[1]");
}

#[test]
fn today_is_written_in_the_asked_format() {
    let today = render("{{ strftime_now('%d %b %Y') }}").unwrap();
    assert!(chrono::NaiveDate::parse_from_str(&today, "%d %b %Y").is_ok(), "{today}");
}

#[test]
fn template_line_ends_are_read_as_jinja_reads_them() {
    assert_eq!(render("a\r\nb\rc\n").unwrap(), "a\nb\nc");
}

#[test]
fn a_directory_gives_the_jinja_file_before_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
    let render = || ChatTemplate::from_dir(dir.path()).and_then(|template| template.render(&[], false));
    assert!(render().unwrap_err().to_string().contains("no chat template in"));
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": [
        {"name": "rag", "template": "no"}, {"name": "default", "template": "list {{ bos_token }}{{ eos_token }}"}]}"#,
    );
    assert_eq!(render().unwrap(), "list <s></s>");
    write("tokenizer_config.json", r#"{"pad_token": "<p>", "chat_template": "plain {{ pad_token }}"}"#);
    assert_eq!(render().unwrap(), "plain <p>");
    write("chat_template.jinja", "file {{ pad_token }}\n");
    assert_eq!(render().unwrap(), "file <p>");
    write("tokenizer_config.json", "[]");
    assert!(render().unwrap_err().to_string().contains("tokenizer_config.json: expected a JSON object"));
}
