//! Stored answers, judged by a list of judges and scored (paper, "Evaluation"): the one way to a score, of the command
//! `realign evaluate` and of a sweep. Another judge or metric reads the same answers; no model is asked.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use evaluation::{Answer, Evaluation, Judge, PromptKind, Provenance, SetScores, TaskScores, VerdictRecord};

use super::Report;
use super::ask::{Aim, Asked};
use super::judge::{ToJudge, judge_sets};

/// Stored answers, and who judges them.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The directory of the answers.
    pub answers: &'a Path,
    /// Which of them are measured.
    pub asked: &'a [Asked],
    /// The judges of the answers to prompts.
    pub judges: &'a [Judge],
    /// The directory for the verdicts, one file per judge and prompt set.
    pub verdicts: &'a Path,
}

/// Judges and scores answers. A judge of safety is not asked about harmless prompts, where the question is whether they
/// are refused.
///
/// # Errors
/// When a file is damaged, or a judge cannot run.
pub fn measure(
    stored: Stored<'_>,
    mut provenance: Provenance,
    device: &Device,
    report: &mut Report<'_>,
) -> Result<Evaluation> {
    let started = Instant::now();
    let mut sets: Vec<(&Asked, PromptKind, Vec<Answer>)> = Vec::new();
    let mut tasks = Vec::new();
    for asked in stored.asked {
        let answers = evaluation::read_answers(&stored.answers.join(asked.answers_name()))?;
        match &asked.aim {
            Aim::Prompts(kind) => sets.push((asked, *kind, answers)),
            Aim::Task(metrics) => tasks.push(TaskScores::new(&asked.name, metrics, &answers)?),
        }
    }
    let mut verdicts: Vec<Vec<(String, Vec<VerdictRecord>)>> = vec![Vec::new(); sets.len()];
    for judge in stored.judges {
        let able = |kind: PromptKind| kind == PromptKind::Harmful || judge.tells_refusals();
        let chosen: Vec<usize> = (0..sets.len()).filter(|&index| able(sets[index].1)).collect();
        let to_judge = |&index: &usize| {
            let (asked, _, answers) = &sets[index];
            ToJudge { answers, path: stored.verdicts.join(asked.verdicts_name(judge)) }
        };
        let to_judge: Vec<ToJudge<'_>> = chosen.iter().map(to_judge).collect();
        for (index, records) in chosen.iter().zip(judge_sets(judge, &to_judge, device, report)?) {
            verdicts[*index].push((judge.name().to_owned(), records));
        }
    }
    let scored = sets
        .iter()
        .zip(&verdicts)
        .map(|((asked, kind, answers), all)| SetScores::new(&asked.name, *kind, answers, all));
    let prompt_sets = scored.collect::<Result<_, _>>()?;
    provenance.seconds += started.elapsed().as_secs_f64();
    Ok(Evaluation { provenance, prompt_sets, tasks })
}
