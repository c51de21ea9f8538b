//! Formatting against the queries of the SQL task, whose texts stay in ../shared.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use evaluation::{metrics::normalize_sql, read_answers};

#[test]
#[ignore = "needs ../shared/data"]
fn nearly_all_queries_of_the_task_parse_and_forgive_formatting() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tasks/sql");
    let (mut all, mut forgiven) = (0, 0);
    for name in ["train.jsonl", "test.jsonl"] {
        for answer in read_answers(&folder.join(name)).unwrap() {
            let sql = answer.response;
            let normal = normalize_sql(&sql);
            assert_eq!(normalize_sql(&normal), normal, "printed SQL is printed alike: {}", answer.id);
            let other = format!("{} ;", sql.replacen("SELECT ", "select\n", 1).replacen(" FROM ", "  from ", 1));
            all += 1;
            match normalize_sql(&other) == normal {
                true => forgiven += 1,
                false => println!("{name}, line {} does not parse", answer.id),
            }
        }
    }
    println!("{forgiven} of {all}");
    assert!(forgiven * 100 >= all * 97, "{forgiven} of {all}");
}
