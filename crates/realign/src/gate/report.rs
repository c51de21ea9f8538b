//! What came of the bounds: as a table, as JSON, and as JUnit's XML.

use std::fmt::Write as _;

use evaluation::gate::{By, Check, Outcome};
use evaluation::report::percent;
use page::columns;

use super::{Decision, Dirs, GateArgs};

/// What came of the bounds.
pub struct Report<'a> {
    /// What was asked.
    pub args: &'a GateArgs,
    /// The evaluations.
    pub dirs: &'a Dirs,
    /// What came of it.
    pub checks: Vec<Check>,
}

/// The outcome in words.
fn result(check: &Check) -> String {
    match &check.outcome {
        Outcome::Holds => "holds".to_owned(),
        // More digits where one would say that it fails by nothing.
        Outcome::Fails { by } if *by < 0.0005 => format!("FAILS by {:.6}", 100.0 * by),
        Outcome::Fails { by } => format!("FAILS by {}", percent(*by)),
        Outcome::Undecided { .. } => "cannot decide".to_owned(),
    }
}

/// What there is to say of a check beside its figures.
fn notes(check: &Check) -> Vec<&str> {
    let reason = match &check.outcome {
        Outcome::Undecided { reason } => Some(reason),
        _ => None,
    };
    let notes = check.measured.iter().flat_map(|measured| &measured.notes);
    reason.into_iter().chain(notes).map(String::as_str).collect()
}

/// Bound and what it is on.
fn name(check: &Check) -> String {
    if check.of.is_empty() { check.bound.to_string() } else { format!("{}: {}", check.bound, check.of) }
}

impl Report<'_> {
    pub(super) fn decision(&self) -> Decision {
        match (self.failed(), self.undecided()) {
            (0, 0) if !self.checks.is_empty() => Decision::Holds,
            (0, _) => Decision::Undecided,
            _ => Decision::Fails,
        }
    }

    /// The table, what there is to say of its rows, and the decision.
    pub(super) fn text(&self) -> String {
        let mut rows = vec![["bound", "of", "%", "95 % interval", "n", "unknown", "result"].map(str::to_owned)];
        rows.extend(self.checks.iter().map(|check| {
            let figures = check.measured.as_ref().map(|measured| {
                let (low, high) = measured.interval;
                let interval = format!("{} to {}", percent(low), percent(high));
                [percent(measured.value), interval, measured.n.to_string(), measured.unknown.to_string()]
            });
            let [value, interval, n, unknown] = figures.unwrap_or_default();
            [check.bound.to_string(), check.of.clone(), value, interval, n, unknown, result(check)]
        }));
        let mut text = columns(&rows);
        for check in &self.checks {
            text.extend(notes(check).iter().map(|note| format!("- {}: {note}\n", name(check))));
        }
        writeln!(text, "{}", self.method()).ok();
        writeln!(text, "{}", self.verdict()).ok();
        text
    }

    /// Which figure decided, and how the intervals were computed.
    fn method(&self) -> String {
        let figure = match self.args.by {
            By::Point => "the measured value",
            By::Interval => "the upper end of the 95 % interval",
        };
        let mut methods: Vec<String> =
            self.checks.iter().filter_map(|check| Some(check.measured.as_ref()?.method.name())).collect();
        methods.dedup();
        let intervals = if methods.is_empty() { String::new() } else { format!("; intervals: {}", methods.join("; ")) };
        format!("decided by {figure}{intervals}")
    }

    fn verdict(&self) -> String {
        let all = self.checks.len();
        match self.decision() {
            Decision::Holds => format!("the model may be served: all {all} checks hold"),
            Decision::Fails => format!("the model may not be served: {} of {all} checks fail", self.failed()),
            Decision::Undecided => {
                format!("cannot decide: {} of {all} checks have no answer, and none fails", self.undecided())
            }
        }
    }

    fn failed(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fails { .. })).count()
    }

    fn undecided(&self) -> usize {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Undecided { .. })).count()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let (Dirs { scores, before, aligned }, GateArgs { by, model, .. }) = (self.dirs, self.args);
        let mut json = serde_json::json!({"decision": self.decision(), "by": by, "scores": scores, "before": before,
            "aligned": aligned, "checks": self.checks});
        if let Some(model) = model {
            json["model"] = model.display().to_string().into();
        }
        json
    }

    /// One test case a check, as CI servers read it.
    pub(super) fn junit(&self) -> String {
        let (tests, failures, errors) = (self.checks.len(), self.failed(), self.undecided());
        let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  \
             <testsuite name=\"realign gate\" {counts} skipped=\"0\" time=\"0\">\n"
        );
        self.checks.iter().for_each(|check| self.test_case(check, &mut text));
        text + "  </testsuite>\n</testsuites>\n"
    }

    fn test_case(&self, check: &Check, text: &mut String) {
        write!(text, "    <testcase classname=\"realign.gate\" name=\"{}\" time=\"0\"", escaped(&name(check))).ok();
        let figures = check.measured.as_ref().map(|measured| {
            let ((low, high), n) = (measured.interval, measured.n);
            let (value, low, high) = (percent(measured.value), percent(low), percent(high));
            format!("{value} % ({low} to {high}, {}), n {n}, unknown {}", measured.method.name(), measured.unknown)
        });
        let said: Vec<&str> = figures.as_deref().into_iter().chain(notes(check)).collect();
        let (said, method) = (escaped(&said.join("\n")), escaped(&self.method()));
        let message = escaped(&result(check));
        match check.outcome {
            Outcome::Holds => {
                writeln!(text, ">\n      <system-out>{said}\n{method}</system-out>\n    </testcase>").ok()
            }
            Outcome::Fails { .. } => {
                writeln!(text, ">\n      <failure message=\"{message}\">{said}\n{method}</failure>\n    </testcase>")
                    .ok()
            }
            Outcome::Undecided { .. } => {
                writeln!(text, ">\n      <error message=\"{message}\">{said}</error>\n    </testcase>").ok()
            }
        };
    }
}

/// Text for XML, as content or as an attribute; characters that XML 1.0 cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\n' | '\t' | '\r' => escaped += &format!("&#{};", u32::from(c)),
            '\u{0}'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_no_mark_of_its_own_in_text() {
        assert_eq!(escaped("a<b>&\"c'\u{1}\n"), "a&lt;b&gt;&amp;&quot;c&apos;\u{fffd}&#10;");
    }
}
