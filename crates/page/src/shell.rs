//! A page around a template: head, styles and the parts that templates share.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Why a page cannot be made: its template is wrong, or does not fit its data.
#[derive(Debug, thiserror::Error)]
#[error("the page cannot be made of its template: {0:#}")]
pub struct Error(#[from] minijinja::Error);

/// A result of making a page.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a template may build on: `shell.html.jinja` is extended, `parts.html.jinja` is imported, the others are included.
const SHARED: [(&str, &str); 4] = [
    ("shell.html.jinja", include_str!("shell.html.jinja")),
    ("parts.html.jinja", include_str!("parts.html.jinja")),
    ("page.css", include_str!("page.css")),
    ("table.js", include_str!("table.js")),
];

/// A page by a template, which extends `shell.html.jinja`. All of `data` is escaped where the template does not say `safe`.
///
/// # Errors
/// When the template is wrong, or names what `data` has not.
pub fn render(template: &str, data: impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("percent", percent);
    SHARED.iter().try_for_each(|(name, text)| environment.add_template(name, text))?;
    Ok(environment.template_from_str(template)?.render(data)?)
}

/// A share in percent.
fn percent(share: Option<f64>) -> String {
    share.map_or("unknown".to_owned(), |share| format!("{:.1}", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::{Column, Table};

    const TEMPLATE: &str = "{% extends 'shell.html.jinja' %}{% import 'parts.html.jinja' as parts %}\
        {% block title %}{{ name }}{% endblock %}{% block main %}{{ parts.table(table, name) }}{% endblock %}";

    #[derive(Serialize)]
    struct Data {
        name: String,
        table: Table,
    }

    #[test]
    fn whatever_a_page_is_given_is_escaped_and_nothing_is_fetched() {
        let name = "<script>alert(1)</script>".to_owned();
        let table = Table::new([Column::text("<b>")]).with_rows([["\"><img src=x onerror=y>".to_owned()]]);
        let page = render(TEMPLATE, Data { name, table }).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        for raw in ["<script", "<b>", "<img", "http:", "https:", "url(", "@import", "src="] {
            assert!(!page.replace("&lt;img src=", "").contains(raw), "{raw}");
        }
    }

    #[test]
    fn a_template_that_names_what_is_not_there_is_an_error() {
        assert!(render("{{ nothing }}", ()).unwrap_err().to_string().contains("undefined"));
    }
}
