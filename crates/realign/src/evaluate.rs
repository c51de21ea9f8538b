//! What `realign evaluate` does: gather the questions, have them answered, judged and scored, say what came of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use evaluation::{Answer, Evaluation, Judge, Metric, PromptKind, PromptSet, Provenance, TaskSpec};
use files::Hashes;
use model::Dtype;
use prompts::Sample;
use realign::stage::{
    self, Aim, AnswerFile, Answered, Attack, Measured, ask, check_judged, first_problem, measure, read_answered,
    read_index, write_answered,
};
use realign::{
    Artifact, DeviceName, Error, Job, LazyModel, Pick, Result, Source, Within as _, check_judge, check_room, identity,
};

use crate::evaluate_args::{EvaluateArgs, QuestionArgs};
use crate::kind::Kind;
use crate::output::{Held, check_apart, check_base, check_no_model, is_stream, say};

/// How models are run, and what is drawn at random.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Where tensors are computed.
    pub device: DeviceName,
    /// In which precision weights are kept.
    pub dtype: Option<Dtype>,
    /// What templates see as `enable_thinking`.
    pub thinking: Option<bool>,
    /// The seed.
    pub seed: u64,
}

/// Runs the command.
///
/// # Errors
/// When a file is missing or damaged, or a judge cannot run.
pub fn run(args: &EvaluateArgs, setting: Setting, job: &mut Job<'_>) -> Result<()> {
    let model = args.model.as_deref().map(|model| (model, args.base.as_deref()));
    let attacks = args.attack.read(setting.seed, &Hashes::default())?;
    let files: Vec<&Path> = args.attack.files().map(|path| &**path).collect();
    let asked = Asked { model, questions: &args.questions, attacks: &attacks, files: &files, about: &|_| true };
    model.map_or(Ok(()), |model| check_own(&args.out, model))?;
    let evaluation = evaluation(&asked, args.redact, &args.out, setting, job)?;
    tell(&evaluation, &args.out);
    say(format!("wrote {}", args.out.join("report.md").display()));
    check_judged(&evaluation, &args.out)
}

/// What is evaluated.
pub struct Asked<'a> {
    /// A model, and what it is an adapter on; without one the answers that are there are judged again.
    pub model: Option<(&'a Path, Option<&'a Path>)>,
    /// What it is asked.
    pub questions: &'a QuestionArgs,
    /// Attacks on it.
    pub attacks: &'a [(String, Attack)],
    /// Files that the attacks read.
    pub files: &'a [&'a Path],
    /// Which of the questions are asked.
    pub about: &'a dyn Fn(&Aim) -> bool,
}

impl Asked<'_> {
    /// Has a model answer all that is asked, and writes which files hold that; the directory is held from then on.
    fn answer(
        &self,
        (model, base): (&Path, Option<&Path>),
        judges: &[Judge],
        out: &Path,
        setting: Setting,
        hashes: &Hashes,
        job: &mut Job<'_>,
    ) -> Result<Held> {
        let mut questions = questions(self.questions)?;
        questions.retain(|one| (self.about)(&one.asked.aim));
        if questions.is_empty() {
            return Err(Error::Invalid("nothing to ask the model: name --prompt-sets or --tasks".to_owned()));
        }
        let inputs: Vec<&Path> = [model].into_iter().chain(base).chain(self.files.iter().copied()).collect();
        check_base(&[model], base)?;
        check_out(
            out,
            &inputs,
            Written { args: self.questions, questions: &questions, attacks: self.attacks, judges },
        )?;
        judges.iter().try_for_each(check_judge)?;
        let held = Held::dir(out)?;
        let artifact = |path: &Path| Artifact::model(path, hashes);
        let (model, base, device) = (artifact(model)?, base.map(artifact).transpose()?, job.device);
        let open = || LazyModel::new(&model, setting.dtype, device).on(base.as_ref()).thinking(setting.thinking);
        let questions: Vec<(&AnswerFile, &[Sample], usize)> =
            questions.iter().map(|one| (&one.asked, one.samples.as_slice(), one.max_new_tokens)).collect();
        ask(&mut open(), &questions, out, job)?;
        let how = answered(&model, base.as_ref(), setting)?;
        let how = |max_new_tokens| Answered { max_new_tokens, ..how.clone() };
        let mut asked: Vec<(AnswerFile, Answered)> =
            questions.iter().map(|(asked, _, tokens)| ((*asked).clone(), how(*tokens))).collect();
        write_answered(out, &asked)?; // before the attacks, which take long
        for (set, samples, max_new_tokens) in &questions {
            for (name, attack, kind) in attacks_on(set, self.attacks) {
                let set = format!("{}-{name}", set.name);
                let prompts = stage::Asked { set: &set, kind, samples, max_new_tokens: *max_new_tokens };
                let files = attack.ask(open(), prompts, out, job)?;
                asked.extend(files.into_iter().map(|file| (file, how(*max_new_tokens))));
            }
        }
        write_answered(out, &asked)?;
        Ok(held)
    }
}

/// The attacks under which some questions are asked again, with the kind of the prompts: all on harmful ones, on others those that
/// change the model.
fn attacks_on<'a>(
    asked: &AnswerFile,
    attacks: &'a [(String, Attack)],
) -> impl Iterator<Item = (&'a str, &'a Attack, PromptKind)> {
    let kind = match asked.aim {
        Aim::Prompts(kind) => Some(kind),
        Aim::BestOf { .. } | Aim::Task(_) => None,
    };
    let on = move |(name, attack): &'a (String, Attack)| {
        let kind = kind.filter(|kind| *kind == PromptKind::Harmful || attack.changes_model())?;
        Some((name.as_str(), attack, kind))
    };
    attacks.iter().filter_map(on)
}

/// Checks that the answers in a directory are not another model's, which would be lost: one elsewhere, with other files.
fn check_own(out: &Path, (model, base): (&Path, Option<&Path>)) -> Result<()> {
    let Ok(answered) = read_answered(out) else { return Ok(()) }; // none, or damaged ones
    let place = place(model);
    let Some(other) = answered.into_values().find(|one| one.model != place) else { return Ok(()) };
    let hashes = Hashes::default();
    let artifact = |path: &Path| Artifact::model(path, &hashes);
    if other.key == key(&artifact(model)?, base.map(artifact).transpose()?.as_ref()) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{} holds the evaluation of {}, which that of {} would replace: name another --out, or remove it first",
        out.display(),
        other.model,
        model.display()
    )))
}

/// Where a model is, wherever it is named from.
fn place(model: &Path) -> String {
    std::path::absolute(model).unwrap_or_else(|_| model.to_owned()).display().to_string()
}

/// The hash of a model's files, and of what it is an adapter on.
fn key(model: &Artifact, base: Option<&Artifact>) -> String {
    base.map_or_else(|| model.key.clone(), |base| format!("{} on {}", model.key, base.key))
}

/// How a model answers, but for the length of an answer.
fn answered(model: &Artifact, base: Option<&Artifact>, setting: Setting) -> Result<Answered> {
    let own = Source::with_base(&model.path, base.map(|base| base.path.as_path()))?.dtype(None)?;
    let dtype = setting.dtype.filter(|&dtype| dtype != Dtype::F32).unwrap_or(own); // rounding to f32 changes nothing
    Ok(Answered {
        model: place(&model.path),
        key: key(model, base),
        max_new_tokens: 0,
        enable_thinking: setting.thinking,
        dtype,
        rounded: dtype != own,
    })
}

/// Has a model answer, be judged and scored, and writes what came of it into `out`.
///
/// # Errors
/// When a file is missing or damaged, there is nothing to ask, or a judge cannot run.
pub fn evaluation(
    asked: &Asked<'_>,
    redact: bool,
    out: &Path,
    setting: Setting,
    job: &mut Job<'_>,
) -> Result<Evaluation> {
    let started = Instant::now();
    if is_stream(out) {
        return Err(Error::Invalid(format!("--out {}: an evaluation is a directory; name one", out.display())));
    }
    let args = asked.questions;
    job.batch = args.batch;
    let hashes = Hashes::default();
    let judges = match &args.judges {
        Some(path) => Judge::read_list(path)?,
        None => Judge::packaged()?,
    };
    let held = asked.model.map(|model| asked.answer(model, &judges, out, setting, &hashes, job)).transpose()?;
    let found = read_index(out)?;
    let _held = held.map_or_else(|| Held::dir(out), Ok)?;
    let (path, base) = (asked.model.map(|(model, _)| model), asked.model.and_then(|(_, base)| base));
    let provenance = Provenance {
        settings: serde_json::json!({
            "model": path.map(Path::to_string_lossy), "base": base.map(Path::to_string_lossy), "enable_thinking": setting.thinking, "prompt_sets": args.prompt_sets,
            "tasks": args.tasks, "attacks": asked.attacks, "judges": identities(&judges, &hashes)?, "answers": contents(&found, out)?,
            "answered": read_answered(out)?,
            "dtype": setting.dtype.map(Dtype::name)}),
        seed: setting.seed,
        git_revision: option_env!("GIT_REVISION").map(str::to_owned), // set by who builds
        device: setting.device.name().into(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let stored = Measured { answers: out, asked: &found, judges: &judges, verdicts: out, hashes: &hashes };
    let evaluation = measure(stored, provenance, job)?;
    let shown = found.iter().filter(|asked| !redact && matches!(asked.aim, Aim::Prompts(_)));
    let shown: Vec<_> = shown.map(|asked| (asked.name.as_str(), out.join(asked.answers_name()))).collect();
    evaluation.write(out, &shown)?;
    Ok(evaluation)
}

/// By the judges' names: hashes of what decides their verdicts.
fn identities(judges: &[Judge], hashes: &Hashes) -> Result<BTreeMap<String, String>> {
    let entry = |judge: &Judge| {
        let identity = identity(judge, hashes).within(|| format!("judge {}", judge.name()))?;
        Ok((judge.name().to_owned(), files::hash_bytes(identity.as_bytes())))
    };
    judges.iter().map(entry).collect()
}

/// By the names of prompt sets and tasks: hashes of the files of answers that are scored.
fn contents(asked: &[AnswerFile], dir: &Path) -> Result<BTreeMap<String, String>> {
    asked.iter().map(|one| Ok((one.name.clone(), files::hash_path(&dir.join(one.answers_name()))?))).collect()
}

/// What decides the files of an evaluation.
struct Written<'a> {
    args: &'a QuestionArgs,
    questions: &'a [Question],
    attacks: &'a [(String, Attack)],
    judges: &'a [Judge],
}

/// Checks that no file that is written is one that is read, or of another kind than an evaluation's.
fn check_out(out: &Path, inputs: &[&Path], written: Written<'_>) -> Result<()> {
    let Written { args, questions, attacks, judges } = written;
    let guards = judges.iter().filter_map(|judge| match judge {
        Judge::Guard(settings, _) => Some(&*settings.model),
        _ => None,
    });
    let inputs: Vec<&Path> = args.files().chain(inputs.iter().copied()).chain(guards).collect();
    let attacked = |set: &AnswerFile| -> Vec<AnswerFile> {
        let files = attacks_on(set, attacks)
            .flat_map(|(name, attack, kind)| attack.answer_files(&format!("{}-{name}", set.name), kind));
        files.map(|(file, _)| file).collect()
    };
    let asked: Vec<AnswerFile> =
        questions.iter().flat_map(|one| [vec![one.asked.clone()], attacked(&one.asked)].concat()).collect();
    check_apart(out, &inputs)?;
    let plain = |name: &str| questions.iter().filter(|one| one.asked.name == name).count();
    let is_twice = |name: &str| asked.iter().filter(|one| one.name == name).count() > plain(name).max(1);
    check_no_model(out)?;
    if let Some(AnswerFile { name, .. }) = asked.iter().find(|one| is_twice(&one.name)) {
        return Err(Error::Invalid(format!(
            "{name} would be answered twice, into one file: name each attack once, and no prompt set as an attack on another"
        )));
    }
    for one in &asked {
        let answers = out.join(one.answers_name());
        check_apart(&answers, &inputs)?;
        Kind::Answers.check(&answers)?;
        judges.iter().try_for_each(|judge| check_apart(&out.join(one.verdicts_name(judge)), &inputs))?;
    }
    for name in ["asked.json", "scores.json", "report.md"] {
        let place = out.join(name);
        check_apart(&place, &inputs)?;
        if place.exists() && !out.join("asked.json").is_file() {
            let text =
                format!("{} is there and is of no evaluation: name another --out, or move it away", place.display());
            return Err(Error::Invalid(text));
        }
    }
    check_room(&out.join("asked.json"))
}

/// A prompt set or a task with its samples.
struct Question {
    asked: AnswerFile,
    samples: Vec<Sample>,
    max_new_tokens: usize,
}

impl Question {
    /// Checks that its metrics can read the references, before anything is answered.
    fn check(&self) -> Result<()> {
        let Aim::Task(metrics) = &self.asked.aim else { return Ok(()) };
        let silent = |sample: &Sample| Answer {
            id: sample.id.clone().unwrap_or_default(),
            reference: sample.response.clone(),
            ..Answer::default()
        };
        let silent: Vec<Answer> = self.samples.iter().map(silent).collect();
        let score = |metric: &Metric| metric.score(&silent).map(drop);
        metrics.iter().try_for_each(score).within(|| format!("task {}", self.asked.name))
    }
}

/// All that is asked.
fn questions(args: &QuestionArgs) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    for file in &args.prompt_sets {
        let set = PromptSet::read(file)?;
        let samples = set.samples(&args.data)?;
        let asked = AnswerFile { name: set.name, aim: Aim::Prompts(set.kind) };
        questions.push(Question { asked, samples, max_new_tokens: set.max_new_tokens });
    }
    for file in &args.tasks {
        let task = TaskSpec::read(file)?;
        let samples = task.test_samples(&args.data)?;
        let asked = AnswerFile { aim: Aim::Task(task.metrics()), name: task.name };
        questions.push(Question { asked, samples, max_new_tokens: task.max_new_tokens });
    }
    let plain = |name: &str, path: &Path, aim: Aim| -> Result<Question> {
        let mut samples = Pick::by(&args.prompt_key, args.limit, matches!(aim, Aim::Task(_))).read(path)?;
        for (index, sample) in samples.iter_mut().enumerate() {
            sample.id.get_or_insert_with(|| (index + 1).to_string());
        }
        let asked = AnswerFile { name: name.into(), aim };
        Ok(Question { asked, samples, max_new_tokens: args.max_new_tokens })
    };
    let kinds = [
        ("harmful", &args.harmful, Aim::Prompts(PromptKind::Harmful)),
        ("harmless", &args.harmless, Aim::Prompts(PromptKind::Harmless)),
        ("task", &args.task, Aim::Task(vec![Metric::ExactMatch])),
    ];
    for (name, path, aim) in kinds {
        if let Some(path) = path {
            questions.push(plain(name, path, aim)?);
        }
    }
    questions.iter().try_for_each(Question::check)?;
    Ok(questions)
}

/// Says what came of it; the verdicts are in `out`.
fn tell(evaluation: &Evaluation, out: &Path) {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    for set in &evaluation.prompt_sets {
        for judge in &set.judges {
            let rate = judge.rate.as_ref().map_or("unknown".to_owned(), |rate| {
                let (low, high) = rate.interval;
                format!("{} % [{}, {}]", percent(rate.rate), percent(low), percent(high))
            });
            let (kind, name, judge_name) = (set.kind.rate_name(), &set.name, &judge.judge);
            say(format!("{kind}, {name}, {judge_name}: {rate}, n {}, unknown {}", judge.n, judge.unknown));
            if judge.failed > 0 {
                let first =
                    first_problem(out, name, judge_name).map_or(String::new(), |first| format!("; the first: {first}"));
                let lasting = judge.failed - judge.transient;
                let again = match (judge.transient, lasting) {
                    (_, 0) => "run again to judge these".to_owned(),
                    (0, _) => LASTING.to_owned(),
                    (again, lasting) => format!("{again} of them may do when it is run again; of {lasting}: {LASTING}"),
                };
                say(format!("{judge_name} failed on {} answers of {name}; {again}{first}", judge.failed));
            }
        }
        for pair in &set.agreement {
            let kappa = pair.agreement.kappa.map_or("undefined".to_owned(), |kappa| format!("{kappa:.3}"));
            say(format!(
                "agreement, {}, {} and {}: {} %, kappa {kappa}, {} differ",
                set.name,
                pair.left,
                pair.right,
                percent(pair.agreement.observed),
                pair.differ.len()
            ));
        }
    }
    for task in &evaluation.tasks {
        for score in &task.scores {
            let (low, high) = score.interval;
            say(format!(
                "task score, {}, {}: {} % [{}, {}], n {}",
                task.name,
                score.metric.name(),
                percent(score.value),
                percent(low),
                percent(high),
                score.n
            ));
        }
    }
}

/// What to do about requests that are refused for good.
const LASTING: &str = "that does not change by itself: correct the judge's settings or its server, and run again";

/// What a model would be asked about.
///
/// # Errors
/// When a file is missing or damaged.
pub fn aims(args: &QuestionArgs) -> Result<Vec<Aim>> {
    Ok(questions(args)?.into_iter().map(|one| one.asked.aim).collect())
}
