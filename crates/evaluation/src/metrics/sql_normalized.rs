//! Exact match of SQL that ignores formatting (beside the paper's exact match, section "Evaluation metrics"). Both
//! texts are parsed and printed again; nothing is run, and queries that mean the same in other words differ.

use sqlparser::{
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::{Token, Tokenizer},
};

use super::{Answers, Score, each};
use crate::Result;

/// A longer text is no query and is compared as it is: a parsed chain is a tree as deep as the chain is long.
const MOST_TOKENS: usize = 2_000;
/// As [`MOST_TOKENS`], in bytes.
const LONGEST: usize = 64 << 10;

/// The share of answers equal to their reference once both are normalised by [`normalize_sql`].
pub(super) fn score(answers: Answers<'_>) -> Result<Score> {
    let equal = |reference: &str, response: &str| f64::from(normalize_sql(response) == normalize_sql(reference));
    Ok(Score::mean_of(each(answers, equal)?))
}

/// SQL as `sqlparser` prints it: the case of keywords and function names, white space, comments, semicolons at the end
/// and the quoting of strings are gone; the case of names and of strings stays. Text that does not parse is stripped.
///
/// sql-create-context quotes its strings with `"`, so that a text in double quotes is a string here, not a name.
pub fn normalize_sql(text: &str) -> String {
    let text = text.trim();
    match printed(text) {
        Some(sql) if !sql.is_empty() => sql,
        _ => text.to_owned(),
    }
}

fn printed(text: &str) -> Option<String> {
    if text.len() > LONGEST {
        return None;
    }
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, text).tokenize().ok()?;
    if tokens.len() > MOST_TOKENS {
        return None;
    }
    let mut before_parenthesis = false; // white space between a function's name and its arguments does not count
    for token in tokens.iter_mut().rev() {
        match token {
            Token::Word(word) if word.quote_style == Some('"') => {
                *token = Token::SingleQuotedString(std::mem::take(&mut word.value));
            }
            Token::Word(word) if word.quote_style.is_none() && before_parenthesis => {
                word.value = word.value.to_uppercase();
            }
            _ => {}
        }
        before_parenthesis = match token {
            Token::LParen => true,
            Token::Whitespace(_) => before_parenthesis,
            _ => false,
        };
    }
    let statements = Parser::new(&dialect).with_tokens(tokens).parse_statements().ok()?;
    let printed: Vec<String> = statements.iter().map(ToString::to_string).collect();
    Some(printed.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    fn same(left: &str, right: &str) -> bool {
        let answer = |response: &str, reference: &str| Answer {
            response: response.into(),
            reference: Some(reference.into()),
            ..Answer::default()
        };
        let score = score(&mut [answer(left, right), answer(right, left)].into_iter().map(Ok)).unwrap();
        assert_eq!(score.per_sample[0], score.per_sample[1], "{left} | {right}");
        score.value == 1.0
    }

    #[test]
    fn formatting_does_not_count() {
        let plain = "SELECT MAX(size) FROM store WHERE colour = 'red' AND size > 2 ORDER BY size DESC LIMIT 1";
        for other in [
            "select max(size) from store where colour = 'red' and size > 2 order by size desc limit 1",
            "SELECT MAX( size )\n  FROM store\tWHERE colour='red' AND size>2 ORDER BY size DESC LIMIT 1 ;",
            "SELECT max (size) FROM store WHERE colour = \"red\" AND size > 2 ORDER BY size DESC LIMIT 1;;",
            "-- the largest\nSELECT MAX(size) FROM store WHERE colour = 'red' AND size > 2 ORDER BY size DESC LIMIT 1",
        ] {
            assert!(same(plain, other), "{other}\n{}", normalize_sql(other));
        }
        assert!(same("SELECT a FROM t WHERE b = \"it's 3\"", "SELECT a FROM t WHERE b = 'it''s 3'"));
        assert!(same("SELECT a FROM t WHERE b = 'a \"b\"'", "SELECT a FROM t WHERE b = \"a \"\"b\"\"\""));
        assert!(same("SELECT a FROM t JOIN u ON t.c = u.c", "select a from t\njoin u on t.c=u.c"));
    }

    #[test]
    fn what_is_asked_for_counts() {
        let plain = "SELECT size FROM store WHERE colour = 'red' AND size > 2";
        for other in [
            "SELECT size FROM store WHERE colour = 'Red' AND size > 2",
            "SELECT size FROM store WHERE colour = 'red ' AND size > 2",
            "SELECT Size FROM store WHERE colour = 'red' AND size > 2",
            "SELECT size FROM store WHERE size > 2 AND colour = 'red'",
            "SELECT size FROM store WHERE colour = red AND size > 2",
            "SELECT size FROM store WHERE colour = 'red' AND size > 2.0",
            "SELECT size FROM store WHERE colour = 'red' AND size > 2; SELECT 1",
            "SELECT DISTINCT size FROM store WHERE colour = 'red' AND size > 2",
        ] {
            assert!(!same(plain, other), "{other}");
        }
    }

    #[test]
    fn text_that_does_not_parse_is_compared_stripped() {
        assert!(same(" the red box\n", "the red box"));
        assert!(!same("the red box", "The red box"));
        assert!(!same("SELECT FROM WHERE 'open", "select from where 'open"));
        assert!(same("", "  "));
        assert!(!same(";", ""));
        assert!(!same("", "SELECT 1"));
    }

    #[test]
    fn a_very_long_chain_or_deep_nest_neither_overflows_nor_differs_from_itself() {
        let chain = |terms: usize| format!("SELECT a FROM t WHERE a = 1{}", " AND a = 1".repeat(terms));
        let nest = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
        for text in [chain(200), chain(100_000), nest(30), nest(100_000)] {
            assert!(same(&text, &format!("{text} ")));
        }
        assert!(same(&chain(200), &chain(200).to_lowercase()));
    }
}
