//! What a budget refuses, and that it changes nothing else.

use super::*;

fn render(source: &str) -> std::result::Result<String, TemplateError> {
    Template::new(environment(), source)?.render(Value::from_iter([("x", "abc")]))
}

fn refused(source: &str) -> String {
    match render(source) {
        Ok(text) => panic!("{} bytes of text from {}", text.len(), &source[..source.len().min(200)]),
        Err(error) => error.to_string(),
    }
}

#[test]
fn operators_are_what_they_are_in_jinja() {
    for (source, wanted) in [
        ("{{ x ~ 1 ~ [2] }}", "abc1[2]"),
        ("{{ x + 'd' }} {{ 1 + 2 }} {{ 1.5 + 2 }} {{ [1] + [2] }}", "abcd 3 3.5 [1, 2]"),
        ("{{ 'ab' * 2 }} {{ 3 * 4 }} {{ 2 * 'c' }}", "abab 12 cc"),
        ("{{ x[1:] }} {{ x[::-1] }} {{ x[:-1] }} {{ [1, 2, 3][1:] }}", "bc cba ab [2, 3]"),
        ("{{ [1, 'b', none] | join('-') }} {{ x | replace('b', 'xx') }}", "1-b-None axxc"),
        ("{{ range(3) | list | string }}{{ x | upper | indent(2, true) }}", "[0, 1, 2]  ABC"),
        ("{{ '%03d' | format(7) }} {{ [3, 1] | sort }}", "007 [1, 3]"),
        ("{% set ns = namespace(a='') %}{% for i in [1, 2] %}{% set ns.a = ns.a ~ i %}{% endfor %}{{ ns.a }}", "12"),
    ] {
        assert_eq!(render(source).unwrap(), wanted, "{source}");
    }
    assert!(refused("{{ x + 1 }}").contains("line 1: tried to use + operator"));
    let mut strict = environment();
    strict.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    for source in ["{{ y }}", "{{ y ~ 'a' }}", "{{ y + 'a' }}"] {
        let error = Template::new(strict.clone(), source).unwrap().render(Value::from_iter([("x", 1)])).unwrap_err();
        assert!(error.to_string().contains("undefined"), "{source}: {error}");
    }
}

#[test]
fn loops_and_texts_without_bound_are_errors() {
    let doubled = |by: &str| {
        format!("{{% set a = 'abcdefgh' %}}{}{{{{ a | length }}}}", format!("{{% set a = {by} %}}").repeat(40))
    };
    let nested = |by: &str| {
        let start = "{% set ns = namespace(a=['x']) %}{% for i in range(40) %}";
        format!("{start}{{% set ns.a = {by} %}}{{% endfor %}}")
    };
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        format!("{{% for a in range(100000) %}}{}{{% endfor %}}", "plain ".repeat(5000)),
        doubled("a ~ a"),
        doubled("a + a"),
        doubled("[a, a] | join"),
        doubled("a | replace('a', a)"),
        doubled("'%s%s' | format(a, a)").replace("| format", "|format"),
        "{{ x * 100000000 }}".into(),
        format!("{{% set a = [{}] %}}", "'a' * 100000000, ".repeat(5)),
        "{{ ''|indent(4611686018427387904) }}{{ ''|indent(width=18446744073709551615) }}".into(),
        "{{ 'a'|indent(width=17) }}".into(),
        "{{ '%9999999999d'|format(1) }}".into(),
        "{{ '%*d'|format(99999999, 1) }}".into(),
        "{{ [1]|batch(1000000000000) }}".into(),
        format!("{}{{{{ ns.a }}}}", nested("[ns.a, ns.a]")),
        format!("{}{{{{ ns.a | string }}}}", nested("[ns.a, ns.a]")),
        format!("{}{{{{ ns.a | list | length }}}}", nested("ns.a + ns.a")),
        format!("{}{{{{ ns.a | list | length }}}}", nested("ns.a * 2")),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
        "a".repeat(SOURCE + 1),
    ] {
        let error = refused(&source);
        assert!(error.len() < 300, "{error}");
    }
}

#[test]
fn nothing_is_nested_too_deep_for_the_stack() {
    let chain = |link: &str| format!("{{{{ x{} }}}}", link.repeat(60_000 / link.len()));
    let before = |link: &str| format!("{{{{ {} x }}}}", link.repeat(60_000 / link.len()));
    let elif = format!("{{% if x == 'y' %}}{}{{% endif %}}", "{% elif x == 'y' %}".repeat(3000));
    for source in
        [chain("|list"), chain(".a"), chain("+'a'"), chain("[1:]"), before("not "), before("- "), before("("), elif]
    {
        let result = render(&source);
        assert!(result.is_ok() || !result.unwrap_err().message.contains("seconds"), "{}", &source[..40]);
    }
    let deep = "{% set ns = namespace(a=[]) %}{% for i in range(20000) %}{% set ns.a = [ns.a] %}{% endfor %}";
    assert!(render(deep).is_ok());
    assert!(render(&format!("{deep}{{{{ ns.a }}}}")).is_ok());
    let _ = render(&format!("{deep}{{{{ ns.a.b.c() }}}}"));
}
