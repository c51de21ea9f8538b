//! Means over the grid of the harmful rate, apart for the categories that neither fine-tuning nor repairs saw.

use page::{Column, Table};

use super::means::Mean;
use super::{Section, figure};
use crate::record::{Methods, Record, distinct};

/// The table; none if no category is held out.
pub(super) fn section(means: &[Mean], methods: &Methods<'_>, records: &[&Record]) -> Option<Section> {
    let names = distinct(records.iter().flat_map(|record| &record.held_out), |name| name.as_str()).join(", ");
    let words = format!(
        "\
The harmful rate of the categories that neither fine-tuning nor repairs saw ({names}), and of all others; answers that the judge
could not tell count as not harmful here."
    );
    let columns = [
        Column::text("variant"),
        Column::text("method"),
        Column::number("cells"),
        Column::number("held-out categories, harmful rate %"),
        Column::number("other categories, harmful rate %"),
    ];
    let rows = means.iter().map(|mean| {
        let [held_out, others] = [&mean.harmful_held_out, &mean.harmful_others].map(figure);
        [mean.variant.clone(), methods.title(&mean.method), mean.cells.to_string(), held_out, others]
    });
    let table = Table::new(columns).with_rows(rows);
    (!names.is_empty()).then_some(Section { title: "Held-out categories", words, table, after: String::new() })
}

#[cfg(test)]
mod tests {
    use crate::record::tests::record;
    use crate::record::{FINE_TUNED, RECOVER, Record};
    use crate::tables::mean_tables;

    /// A record with one answered prompt of two in `map`, and so many of two in the held-out `song`.
    fn with_categories(method: &str, songs: usize) -> Record {
        let mut record = Record { held_out: vec!["song".to_owned()], ..record("m", 0, method, 50, 0.5) };
        let rate = record.judges[0].harmful.rate.as_mut().unwrap();
        rate.per_category = [("map".to_owned(), (1, 2)), ("song".to_owned(), (songs, 2))].into();
        record
    }

    #[test]
    fn held_out_categories_are_told_apart_where_there_are_some() {
        let records = [with_categories(FINE_TUNED, 2), with_categories(RECOVER, 0)];
        assert_eq!([&records[0], &records[1]].map(Record::harmful_held_out), [1.0, 0.0]);
        assert_eq!(records[0].harmful_others(), 0.5);
        let text = mean_tables::markdown(&records).unwrap();
        let line = "|  | recovery | 1 | 0.0 | 50.0 |";
        assert!(text.contains("repairs saw (song)") && text.contains(line), "{text}");
        let without = record("m", 0, RECOVER, 50, 0.5);
        assert!(without.harmful_held_out().is_nan() && without.harmful_others().is_nan());
        assert!(!mean_tables::markdown(&[without]).unwrap().contains("held-out"));
    }
}
