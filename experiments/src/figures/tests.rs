//! The figures' claims: every series is named, every record is drawn, and the picture is a picture.

use super::*;
use crate::record::tests::record;
use crate::record::{ALIGNED, FINE_TUNED, STRONG};
use crate::tables::golden;

/// Made-up records, in the manner of a sweep's.
fn records(models: &[&str], counts: &[usize]) -> Vec<Record> {
    let cells = models
        .iter()
        .enumerate()
        .flat_map(|(i, model)| counts.iter().map(move |count| (i as f64 * 0.06, *model, *count)));
    let of_cell = |(shift, model, count): (f64, &str, usize)| {
        let of = |method, harmful, score| record(model, count, method, harmful, score);
        [of(ALIGNED, 2, 0.02), of(FINE_TUNED, 20 + count / 5, 0.22 + shift), of(RECOVER, 2 + count / 100, 0.20 + shift)]
    };
    cells.flat_map(of_cell).collect()
}

/// The places of the drawn discs, which are the recovered models.
fn discs(svg: &str) -> Vec<(i32, i32)> {
    let number = |line: &str, name: &str| line.split_once(name)?.1.split('"').next()?.parse().ok();
    let of = |line| Some((number(line, "cx=\"")?, number(line, "cy=\"")?));
    svg.lines().filter(|line| line.contains("<circle") && line.contains("#0072B2")).filter_map(of).collect()
}

fn assert_names(svg: &str, names: &[&str]) {
    names.iter().for_each(|name| assert!(svg.contains(name), "{name} is not in the figure"));
}

#[test]
fn every_series_and_panel_is_named_and_every_record_has_its_marker() {
    let mut records = records(&["small", "large"], &[0, 300]);
    let shared = ["aligned", "fine-tuned", "recovery", "harmful rate (%)", "over-refusal", "sql"];
    let (rates, before) = (harmful_rate(&records).unwrap(), tradeoff(&records).unwrap());
    assert_names(&rates, &[&shared[..], &["small", "large", "injected harmful samples"]].concat());
    assert_names(&before, &shared);
    // One for each record and one in the legend; the trade-off has the over-refusal too, which is the same for both counts.
    assert_eq!((discs(&rates).len(), discs(&before).len()), (4 + 1, 4 + 2 + 1));
    records.extend([2, 3].map(|seed| Record { seed, ..records[0].clone() }));
    assert_eq!(tradeoff(&records).unwrap(), before, "a model that several records are about has one mark");
    let shared = |name: &str| Record { label: "interpolation".to_owned(), ..record("small", 300, name, 50, 0.2) };
    records.extend([shared("interpolation_20"), shared("interpolation_40")]);
    let svg = time(&records).unwrap();
    assert_names(&svg, &["aligned", "fine-tuned", "recovery", "interpolation 40", "making the model", "evaluating it"]);
    assert_eq!(svg.matches("1.0 + 2.0 s").count(), 5);
}

#[test]
fn a_method_with_a_knob_is_a_curve_in_both_panels() {
    let mut records = records(&["small"], &[0]);
    assert!(figures(&records).unwrap().iter().all(|figure| figure.name != "knobs"));
    let stop = |harmful, cost| recovery::Standing { harmful, harmless: cost, task: cost / 10.0, merit: harmful };
    records[2].curve = vec![(0.5, stop(4.0, 0.0)), (1.0, stop(0.1, 0.5))];
    let svg = &figures(&records).unwrap().into_iter().find(|figure| figure.name == "knobs").unwrap().svg;
    assert_names(svg, &["recovery", "KL on harmless prompts", "on the task", "KL to the aligned model"]);
    assert_eq!(discs(svg).len(), 2 * 2 + 1, "two points in each panel, and the legend");
    assert!(!svg.contains("fine-tuned<"), "it has no knob");
}

#[test]
fn a_lower_harmful_rate_is_drawn_higher_up_in_the_tradeoff_and_equal_marks_in_one_place_the_recoveries_last() {
    let at = |method, harmful| record("m", 0, method, harmful, 0.2);
    let of = |n| tradeoff(&[at(ALIGNED, 0), at(FINE_TUNED, 50), at(RECOVER, n), at(STRONG, 50)]).unwrap();
    let [low, high, near, equal] = [4, 97, 49, 50].map(|n| discs(&of(n)));
    assert!(low[1].1 < high[1].1);
    assert_eq!(near[1].0, equal[1].0, "moved along the scores");
    let last = |colour: &str| of(50).rfind(colour);
    assert!(last("#0072B2") < last("#BEAA00") && last("#D55E00") < last("#0072B2"), "strong recovery is on top");
}

#[test]
fn the_tradeoff_has_a_panel_per_cell_of_one_model_and_per_task_of_several() {
    let mut one = records(&["small"], &[0, 300]);
    one.push(record("small", 100, ALIGNED, 1, 0.2)); // a cell that has not been run
    let svg = tradeoff(&one).unwrap();
    assert_names(&svg, &["sql, 0 injected", "sql, 300 injected"]);
    assert!(!svg.contains("sql, 100 injected"));
    for whole in [&records(&["small", "large"], &[0, 300])[..], &[record("small", 0, ALIGNED, 1, 0.2)]] {
        let svg = tradeoff(whole).unwrap();
        assert!(svg.contains("sql") && !svg.contains("injected"));
    }
}

#[test]
fn figures_are_written_as_svg_and_png_and_variants_take_the_place_of_figure_three() {
    let mut records = records(&["small"], &[0, 300]);
    let mut alone = record("m", 0, "soft_sft", 10, 0.5);
    alone.judges[0].over_refusal = None;
    let written = |records: &[Record]| {
        let dir = tempfile::tempdir().unwrap();
        write(&figures(records).unwrap(), dir.path()).unwrap();
        let names = ["harmful_rate", "tradeoff", "time", "variants"];
        names
            .into_iter()
            .filter(|name| {
                let Ok(png) = std::fs::read(dir.path().join(format!("{name}.png"))) else { return false };
                let svg = std::fs::read_to_string(dir.path().join(format!("{name}.svg"))).unwrap();
                assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
                let picture = tiny_skia::Pixmap::decode_png(&png).unwrap();
                let inked = picture.pixels().iter().filter(|pixel| pixel.red() < 128).count();
                picture.width() >= 1000 && inked > 2000
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(written(&records), ["harmful_rate", "tradeoff", "time"]);
    assert_eq!(written(&[alone]), ["tradeoff", "time"], "baselines alone, without over-refusal");
    records.drain(..3);
    let recovered = records.pop().unwrap();
    records.extend(["2/6", "4/6"].map(|name| Record { variant: name.to_owned(), ..recovered.clone() }));
    let titles =
        ["harmful rate (%)", "over-refusal (%)", "task score, % of fine-tuned", "seconds of a recovery", "2/6", "4/6"];
    assert_names(&variants(&records).unwrap(), &titles);
    assert_eq!(written(&records), ["tradeoff", "time", "variants"]);
    // Names that have no room side by side are whole, upwards.
    let long = (0..8).map(|i| Record { variant: format!("an attack of number {i}"), ..recovered.clone() });
    let upwards: Vec<Record> = records.iter().filter(|one| one.variant.is_empty()).cloned().chain(long).collect();
    assert_names(&variants(&upwards).unwrap(), &["an attack of number 0", "an attack of number 7", "rotate(270"]);
    assert!(figures(&[]).is_err());
}

#[test]
#[ignore = "draws earlier results into target/figures, to look at"]
fn figures_to_look_at() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/figures");
    for sweep in ["earlier/lab-125", "smollm2", "smollm2-gate"] {
        write(&figures(&golden::records(sweep)).unwrap(), &dir.join(sweep)).unwrap();
    }
}
