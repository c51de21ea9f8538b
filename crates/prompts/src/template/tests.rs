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
        ("{{ [x, '<'] | tojson }}", "[\"abc\",\"\\u003c\"]"),
        ("{{ 'é1' | length }}{{ range(3) | count }} {{ '7' | int + 1 }} {{ '1.5' | float }}", "23 8 1.5"),
        (
            "{{ range(4)[1:] | last }}{{ x | first }}{{ [1, 2][::-1] | first }} {{ [x, 1] * 2 }}",
            "3a2 [\"abc\", 1, \"abc\", 1]",
        ),
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
        format!("{{% set a = [] %}}{}", "{% set a = a + [[1, 2, 3]] * 100000 %}".repeat(4)),
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
    let deep = |levels: usize| {
        let set = "{% set ns = namespace(a=[]) %}{% for i in range(";
        format!("{set}{levels}) %}}{{% set ns.a = [ns.a] %}}{{% endfor %}}{{{{ ns.a }}}}{{{{ ns.a == [] }}}}")
    };
    assert!(render(&deep(900)).unwrap().ends_with("]False"));
    assert!(refused(&deep(20_000)).contains("deep within each other"));
    let by_macro = "{% macro m(a, n) %}{% if n > 0 %}{{ m([a], n - 1) }}{% else %}{{ a }}{% endif %}{% endmacro %}";
    assert!(render(&format!("{by_macro}{{{{ m(1, 20) }}}}")).unwrap().contains("[[[1"));
    let holds = "{% set ns = namespace(a=1) %}{% set m = namespace(a=1) %}";
    for source in ["{% set ns.a = ns %}{{ ns }}", "{% set m.a = [{'b': ns}] %}{% set ns.a = [m] %}{{ ns == m }}"] {
        assert!(refused(&format!("{holds}{source}")).contains("a namespace cannot hold a namespace"), "{source}");
    }
    assert!(refused("{% for a in [1] %}{{ loop.changed(loop) }}{% endfor %}").contains("not supported"));
}

#[test]
fn counting_changes_no_way_through_a_template() {
    let long = "plain ".repeat(50);
    for (source, wanted) in [
        ("{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 1 < 3 in [3] }}{{ 3 > 2 not in [1] }}", "TrueFalseTrueTrue"),
        ("{{ 3 is eq(3) }}{{ 'b' is in(['a']) }}{{ y is defined }}{{ x is string }}", "TrueFalseFalseTrue"),
        (
            "{% for i in [1, 2, 3] if i != 2 %}a{{ i }}{% else %}none{% endfor %}|{% for i in [] %}{% else %}b{% endfor %}",
            "a1a3|b",
        ),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% macro m(a, b=2) %}<{{ a }}{{ b }}{{ caller() if caller }}>{% endmacro %}{{ m(1) }}{% call m(b=1, a=0) %}c{% endcall %}",
            "<12><01c>",
        ),
        ("{% for i in [[1, [2]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}", "12"),
        (
            "{% set a %}b{{ x }}{% endset %}{{ a == 'babc' and a or 'no' }}{{ 'yes' if 'abc' in a else 'no' }}",
            "babcyes",
        ),
        (
            "{% set d = {'a': 1, x: [2]} %}{{ d.a }}{{ d['abc'][0] }}{{ x[1] }}{{ range(5)[2] }}{{ d.b is undefined }}",
            "12b2True",
        ),
        ("{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1, 2], **{'c': 3}) }}", "123"),
        (
            "{% block b %}in{{ x }}{% endblock %}{% with a = 1 %}{{ a }}{% endwith %}{% raw %}{{ x }}{% endraw %}",
            "inabc1{{ x }}",
        ),
        (
            "{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'equalto', 2) | map(attribute='a') | list }}{{ [3, 1] | max }}",
            "[2]3",
        ),
        ("{{ '<' | e }}{{ ['a'] | upper }}{{ ['b', 'a', 'b'] | unique | sort | join }}", "&lt;[\"A\"]ab"),
    ] {
        assert_eq!(render(source).unwrap_or_else(|error| panic!("{source}: {error}")), wanted, "{source}");
    }
    assert_eq!(render(&format!("{{% for i in [1, 2] %}}{long}{{% endfor %}}")).unwrap(), long.repeat(2));
    assert_eq!(refused("a\n{% if x == 'abc' %}b\n{{ x + 1 }}{% endif %}").split(':').next().unwrap(), "line 3");
    let mut strict = environment();
    strict.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let strictly = |source| Template::new(strict.clone(), source).unwrap().render(Value::from_iter([("x", 1)]));
    assert_eq!(strictly("{{ y is defined }}{{ y | default('d') }}").unwrap(), "Falsed");
    assert!(strictly("{{ y == 1 }}").is_err() && strictly("{{ 1 in y }}").is_err());
}

#[test]
fn plain_text_counts() {
    let text = "x".repeat(64_000);
    for source in [
        format!("{{% for a in range(900) %}}{text}{{% endfor %}}"),
        format!("{{% set b %}}{{% for a in range(900) %}}{text}{{% endfor %}}{{% endset %}}"),
        format!("{{% macro m() %}}{text}{{% endmacro %}}{{% for a in range(900) %}}{{% set b = m() %}}{{% endfor %}}"),
    ] {
        assert!(refused(&source).contains("makes too much text"));
    }
    assert_eq!(render(&format!("{{% for a in range(200) %}}{text}{{% endfor %}}")).unwrap().len(), 12_800_000);
}

#[test]
fn comparisons_and_searches_count() {
    let start = std::time::Instant::now();
    let nested = "{% set ns = namespace(a=[1],b=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, \
                  ns.b] %}{% endfor %}";
    let large = "{% set f = 'a' * 5000000 %}{% for i in range(20000) %}";
    for source in [
        "{{ ns.a == ns.b }}",
        "{{ 1 < 2 and ns.a < ns.b < 3 }}",
        "{{ ns.a in [ns.b] }}",
        "{{ ns.a is eq(ns.b) }}{{ [ns.a] | select('eq', ns.b) | list }}",
        "{{ {ns.a: 1} }}",
        "{{ {}[ns.a] }}",
        "{{ [ns.a] | unique | length }}",
        "{{ [ns.a, ns.b] | sort | length }}{{ [ns.a, ns.b] | max }}",
        "{{ ns.a | upper }}",
        "{{ ns.a | trim }}",
        "{{ ns.a | replace('a', 'b') }}",
        "{{ '%s' | format(ns.a) }}",
        "{{ ns.a | tojson }}",
        "{{ [1] | tojson(indent=4611686018427387904) }}",
    ] {
        let error = refused(&format!("{nested}{source}"));
        assert!(!error.contains("seconds"), "{source}: {error}");
    }
    let (digits, numbers) = (large.replace("'a'", "'1'"), "{% for i in range(20000) %}");
    for start in [
        format!("{large}{{% set b = f | length %}}"),
        format!("{large}{{% set b = f | count %}}"),
        format!("{digits}{{% set b = f | int %}}"),
        format!("{digits}{{% set b = f | float %}}"),
        format!("{numbers}{{% set b = range(100000) | last %}}"),
        format!("{{% set ns = namespace(a=[1]) %}}{numbers}{{% set ns.a = ns.a[0:] %}}{{% set b = ns.a %}}"),
        format!("{{% set ns = namespace(a=[1]) %}}{numbers}{{% set ns.a = ns.a * 1 %}}{{% set b = ns.a %}}"),
    ] {
        let error = refused(&format!("{start}{{% endfor %}}{{{{ none }}}}"));
        assert!(!error.contains("seconds"), "{start}: {error}");
    }
    for body in [
        "{% if 'b' in f %}{% endif %}",
        "{{ f[i] }}",
        "{% if f == f ~ '' %}{% endif %}",
        "{% if f is lower %}{% endif %}",
    ] {
        let error = refused(&format!("{large}{body}{{% endfor %}}"));
        assert!(!error.contains("seconds"), "{body}: {error}");
    }
    let unpacked = format!("{{% set r = range(100000) %}}{{{{ namespace({}) }}}}", ["*r"; 3].join(","));
    assert!(refused(&unpacked).contains("makes too much"));
    assert!(start.elapsed().as_secs() < 60, "each ends by itself");
}

#[test]
fn a_template_that_took_too_long_is_not_tried_again() {
    let template = Template::new(environment(), "{{ x }}").unwrap();
    let context = || Value::from_iter([("x", 1)]);
    template.exhaust();
    assert!(template.clone().render(context()).unwrap_err().message.contains("not tried again"));
    assert!(Template::new(environment(), "{{ x }}").unwrap().render(context()).is_ok(), "another one is");
}

#[test]
fn a_long_message_is_cut() {
    let error = refused("{{ x | nofilter }}".replace("nofilter", &"é".repeat(3000)).as_str());
    assert!(error.len() < 2 * MESSAGE, "{}", error.len());
}
