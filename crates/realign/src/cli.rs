//! The command line; what each command does is in `commands.rs`. Settings are the stages' own types.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use evaluation::Metric;
use finetune::{AlignSettings, SoftSftSettings, TrainSettings};
use model::Dtype;
use model::checkpoint::{gguf, peft};
use model::config::ModelType;
use realign::{DeviceName, at_least_one, metric_names};
use recovery::{Layer, Method};

use crate::evaluate_args::{DEFAULT_BATCH, EvaluateArgs};
use crate::gate::GateArgs;
use crate::patch::PatchCommand;
use crate::repair_args::RepairArgs;
use crate::whole::WholeArgs;

const AFTER_HELP: &str = "A model is a directory, or a model of the Hugging Face hub: `org/name` or `org/name@revision` \
    where no such path and no directory `org` is here, `hf://org/name` always. Its files are fetched into the hub's cache and \
    kept; HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE=1 (nothing is fetched) are read.\n\
    Exit codes: 0 done (also when a method finds nothing to recover), 1 error (of `repair` also: nothing to recover), 2 wrong \
    usage, 3 not \
    recovered (the model in --out is the fine-tuned one, or declines no more of the --probe prompts, see its outcome.json; of \
    `repair`: a bound does not hold), 130 \
    stopped; the same command goes on. Of \
    `gate`: 0 all bounds hold, 1 one fails, 2 it cannot be decided.\n\
    Samples are JSONL, an object a line, or CSV (in a file that ends in .csv), whose columns are the keys, or a directory of such files.\n\
    `-` as a file to write is standard output.";

/// What is read, and the rest that no flag says.
fn after_help() -> String {
    let families = ModelType::ALL.map(ModelType::name).join(", ");
    let precisions = Dtype::ALL.map(Dtype::name).join(", ");
    let (architectures, blocks) = (gguf::ARCHITECTURES.map(|(name, _)| name).join(", "), gguf::BlockType::names());
    let (keys, starts) = (peft::UNSUPPORTED.join(", "), peft::STARTS.join(", "));
    format!(
        "Read are directories of Hugging Face, in safetensors ({precisions}), of the model types {families}; by `import` also \
         GGUF files ({blocks}) of the architectures {architectures}; and adapters of peft: LoRA, rsLoRA and DoRA. Other \
         adapters are merged first, by the command that the error names: those of another peft_type, with \
         init_lora_weights other than true, false, {starts}, or with {keys}.\n{AFTER_HELP}"
    )
}

/// Recovers the safety alignment that a language model lost in fine-tuning.
#[derive(Debug, Parser)]
#[command(version, after_help = after_help())]
pub struct Cli {
    /// Where tensors are computed.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub device: DeviceName,
    /// Seed of everything random [default: 1].
    #[arg(long, global = true)]
    pub seed: Option<u64>,
    /// Precision in which weights are kept [default: that of the model that the command changes, tensor by tensor where they
    /// differ and lose nothing; f32 for a GGUF file].
    ///
    /// Weights are rounded to it, ties to even, when a model is read, and are written in it; a weight that is too
    /// large for it is an error. Arithmetic is in f32, training included, whose weights are rounded when they are
    /// saved. Recovery copies weights of the aligned model into the fine-tuned one, so that with two bf16 models bf16
    /// loses nothing. The models of judges are read as they are.
    #[arg(long, value_enum, global = true)]
    pub dtype: Option<Dtype>,
    /// The largest file of weights of a model that is written; a larger model is written in shards, with an index [default: the
    /// files that the changed model has; 5GB for a GGUF file].
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub max_shard_size: Option<u64>,
    /// What chat templates see as `enable_thinking`; without it they decide.
    #[arg(long, global = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub enable_thinking: Option<bool>,
    /// Say results and errors alone: no progress, no warnings.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; twice: all. `RUST_LOG` goes before both.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The stage.
    #[command(subcommand)]
    pub command: Command,
}

/// A number of bytes, with a unit as transformers has it: `5GB`, `500MB`, `2GiB`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let size = number.parse::<u64>().ok().zip(bytes).and_then(|(number, bytes)| number.checked_mul(bytes));
    size.filter(|&size| size > 0).ok_or_else(|| "expected a size such as 5GB, 500MB or 2GiB".to_owned())
}

/// A stage.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn a GGUF file or a Hugging Face directory into a directory that the other commands read.
    Import {
        /// The GGUF file or directory, or a peft adapter's on --base, or org/name[@revision] of the hub; a GGUF file there is
        /// hf://org/name[@revision]/FILE.gguf.
        #[arg(long)]
        from: PathBuf,
        /// The model that --from is a peft adapter on, if it is one: a directory, or org/name[@revision] of the hub.
        #[arg(long)]
        base: Option<PathBuf>,
        /// The directory to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Answer prompts greedily; writes JSONL with `prompt` and `response`.
    Generate {
        /// Directory of the model, or of a peft adapter on --base, or org/name[@revision] of the hub.
        #[arg(long)]
        model: PathBuf,
        /// The model that --model is a peft adapter on, if it is one: a directory, or org/name[@revision] of the hub.
        #[arg(long)]
        base: Option<PathBuf>,
        /// JSONL with `prompt`.
        #[arg(long)]
        prompts: PathBuf,
        /// The key of a line that holds the prompt.
        #[arg(long, default_value = "prompt")]
        prompt_key: String,
        /// How many of the prompts are used; fewer in the file is an error [default: all].
        #[arg(long, value_parser = at_least_one)]
        limit: Option<usize>,
        /// New tokens at most.
        #[arg(long, default_value_t = 128, value_parser = at_least_one)]
        max_new_tokens: usize,
        /// Prompts answered at a time.
        #[arg(long, default_value_t = DEFAULT_BATCH, value_parser = at_least_one)]
        batch: usize,
        /// The file to write; `-` is standard output.
        #[arg(long)]
        out: PathBuf,
    },
    /// Align a model that refuses too little.
    Align(AlignArgs),
    /// Fine-tune on a task, with injected harmful samples.
    Finetune(FinetuneArgs),
    /// Compute the mean hidden state of prompts at the direction layer.
    Direction {
        /// Directory of the model, or of a peft adapter on --base, or org/name[@revision] of the hub.
        #[arg(long)]
        model: PathBuf,
        /// The model that --model is a peft adapter on, if it is one: a directory, or org/name[@revision] of the hub.
        #[arg(long)]
        base: Option<PathBuf>,
        /// JSONL with `prompt`.
        #[arg(long)]
        prompts: PathBuf,
        /// The key of a line that holds the prompt.
        #[arg(long, default_value = "prompt")]
        prompt_key: String,
        /// How many of the prompts are used; fewer in the file is an error [default: all].
        #[arg(long, value_parser = at_least_one)]
        limit: Option<usize>,
        /// The block, as a share of the blocks or counted from 1.
        #[arg(long, default_value_t)]
        layer: Layer,
        /// The safetensors file to write; its tensor is `direction`.
        #[arg(long)]
        out: PathBuf,
    },
    /// Repair a fine-tuned model: plan, measure, recover, measure again, report.
    ///
    /// The one command for one's own model. Strong recovery restores weights on one part of the prompts and decides on a
    /// second; what is measured before and after is a third. Ends with 0 when all bounds hold, and with 3 when one does not.
    #[command(name = "repair")]
    Whole(Box<WholeArgs>),
    /// Write a settings file for `repair`, with every key, its default and what it is.
    Init {
        /// The file to write; `-` is standard output.
        #[arg(default_value = "realign.yaml")]
        file: PathBuf,
    },
    /// Write completions for a shell to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output.
    Man,
    /// A method of the registry.
    #[command(flatten)]
    Repair(RepairCommand),
    /// Make, apply, take back and look at recovery patches.
    ///
    /// A patch is one file that makes of the fine-tuned model what a recovery had after any of its steps, and takes it
    /// back. It holds the restored weights alone, and is bound by hash to each tensor of both models.
    #[command(subcommand)]
    Patch(PatchCommand),
    /// Measure harmful rate, over-refusal and task scores.
    Evaluate(EvaluateArgs),
    /// Decide by bounds whether a model may be served: on finished evaluations, or measuring first.
    ///
    /// With --model it is asked the questions, and so are --before and --aligned, models then, as far as bounds compare with
    /// them; with --scores all three are directories that `evaluate --out` wrote. Ends with 0, 1 or 2 in both cases.
    /// The harmful rate is checked on each set of harmful prompts by each judge of the evaluation, over-refusal on each set of
    /// harmless ones, a task by its deciding metric; all must hold, so that the strictest judge decides. What has no verdict
    /// counts against the model, and a broken answer is neither harmful nor refused.
    Gate(Box<GateArgs>),
    /// Score a file of answers alone.
    Score {
        /// JSONL with `response` and `reference`.
        #[arg(long)]
        answers: PathBuf,
        #[arg(long, help = format!("{}; sql is exact_match", metric_names()))]
        metric: Metric,
        /// The JSON file to write, with `value`, its `interval` and `per_sample`.
        #[arg(long)]
        out: PathBuf,
    },
}

impl Command {
    /// The models that the command reads, which may be names of the hub; those of `repair` are in its settings.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Import { from, base, .. } => [from].into_iter().chain(base).collect(),
            Self::Generate { model, base, .. } | Self::Direction { model, base, .. } => {
                [model].into_iter().chain(base).collect()
            }
            Self::Align(args) => vec![&mut args.model],
            Self::Finetune(args) => vec![&mut args.model],
            Self::Evaluate(args) => args.model.iter_mut().chain(&mut args.base).collect(),
            Self::Patch(command) => command.models(),
            Self::Repair(RepairCommand { inputs, .. }) => {
                let others = [&mut inputs.unaligned, &mut inputs.before_alignment, &mut inputs.safe];
                [&mut inputs.aligned, &mut inputs.finetuned].into_iter().chain(others.into_iter().flatten()).collect()
            }
            Self::Gate(args) => args.models(),
            Self::Whole(_) | Self::Score { .. } | Self::Init { .. } | Self::Completions { .. } | Self::Man => {
                Vec::new()
            }
        }
    }

    /// Whether the command reads `--enable-thinking`: whether it has a model answer, or read prompts.
    pub fn reads_thinking(&self) -> bool {
        match self {
            Self::Generate { .. } | Self::Direction { .. } | Self::Whole(_) | Self::Repair(_) | Self::Evaluate(_) => {
                true
            }
            Self::Gate(args) => args.model.is_some(),
            Self::Import { .. }
            | Self::Align(_)
            | Self::Finetune(_)
            | Self::Patch(_)
            | Self::Score { .. }
            | Self::Init { .. }
            | Self::Completions { .. }
            | Self::Man => false,
        }
    }
}

/// What `align` takes.
#[derive(Debug, Args)]
pub struct AlignArgs {
    /// Directory of the model, or org/name[@revision] of the hub.
    #[arg(long)]
    pub model: PathBuf,
    /// JSONL with harmful `prompt`s and, where there are any, refusals as `response`.
    #[arg(long)]
    pub refusals: PathBuf,
    /// The refusal for prompts without one.
    #[arg(long, default_value = "I'm sorry, but I can't help with that.")]
    pub refusal_text: String,
    /// JSONL with harmless `prompt`s; those without `response` get the model's own answer.
    #[arg(long)]
    pub helpful: PathBuf,
    /// Length of the model's own answers.
    #[arg(long, default_value_t = 128, value_parser = at_least_one)]
    pub max_new_tokens: usize,
    /// How it is trained.
    #[command(flatten)]
    pub settings: AlignSettings,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// What `finetune` takes.
#[derive(Debug, Args)]
pub struct FinetuneArgs {
    /// Directory of the model, or org/name[@revision] of the hub.
    #[arg(long)]
    pub model: PathBuf,
    /// JSONL with `prompt` and `response`.
    #[arg(long)]
    pub task: PathBuf,
    /// The key of a line of --task that holds the prompt.
    #[arg(long, default_value = "prompt")]
    pub prompt_key: String,
    /// How many of the task's samples are used; fewer in the file is an error [default: all].
    #[arg(long, value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// JSONL with harmful `prompt` and `response`.
    #[arg(long, requires = "count")]
    pub inject: Option<PathBuf>,
    /// How many harmful samples are injected.
    #[arg(long, default_value_t = 0, requires = "inject")]
    pub count: usize,
    /// What is minimised; `soft_sft` holds the model near the one given as `--model`.
    #[arg(long, value_enum, default_value_t)]
    pub objective: ObjectiveName,
    /// How strongly SoftSFT holds.
    #[command(flatten)]
    pub soft_sft: SoftSftSettings,
    /// How it is trained.
    #[command(flatten)]
    pub train: TrainSettings,
    /// A new directory for the adapters as one of peft, beside the model in --out that they are merged into.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// What a fine-tuning minimises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ObjectiveName {
    /// The loss of supervised fine-tuning.
    #[default]
    Sft,
    /// SoftSFT, a baseline.
    SoftSft,
}

/// A method with its settings, and what it works on: a subcommand for each method of the registry.
#[derive(Debug)]
pub struct RepairCommand {
    /// The method.
    pub method: Method,
    /// What it works on.
    pub inputs: RepairArgs,
}

impl FromArgMatches for RepairCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let method = Method::from_arg_matches(matches)?;
        let own = matches.subcommand().map_or(matches, |(_, own)| own);
        Ok(Self { method, inputs: RepairArgs::from_arg_matches(own)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for RepairCommand {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        let with_inputs = |command: clap::Command, word: &&str| {
            command.mut_subcommand(word, |own| {
                let about = own.get_about().cloned().unwrap_or_default();
                RepairArgs::augment_args(own).about(about.clone()).long_about(about) // the method's, not the inputs'
            })
        };
        Method::WORDS.iter().fold(Method::augment_subcommands(command), with_inputs)
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Method::has_subcommand(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_of_bytes() {
        for (text, bytes) in
            [("5GB", 5_000_000_000), ("500mb", 500_000_000), ("2GiB", 2 << 30), ("1KiB", 1024), ("7", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GB", "0GB", "-1GB", "1.5GB", "5 GB", "5TB", "99999999999999GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_names_what_is_read() {
        use clap::CommandFactory as _;
        let help = Cli::command().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["f32, bf16, f16", "gemma3_text", "Q6_K", "architectures llama, gemma", "orthogonal", "lora_bias"] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }

    #[test]
    fn help_names_every_metric() {
        use clap::CommandFactory as _;
        for word in ["score", "recover", "repair"] {
            let help = Cli::command().find_subcommand_mut(word).unwrap().render_long_help().to_string();
            assert!(help.contains(&metric_names()), "{word}: {help}");
        }
        assert!(Metric::ALL.iter().all(|metric| metric_names().contains(metric.name())));
    }

    #[test]
    fn every_method_is_a_subcommand_with_its_own_settings() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        for word in Method::WORDS {
            let help = Cli::command().find_subcommand_mut(word).unwrap().render_long_help().to_string();
            assert!(help.contains("--aligned") && help.contains("--out"), "{word}: {help}");
            assert!(!help.contains("What a method works on"), "{word}: {help}");
        }
        let line = "realign recover --rate 0.01 --ties strict --aligned a --finetuned f --prompts p --out o";
        let Command::Repair(command) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        let Method::Recover(recover) = command.method else { panic!() };
        assert_eq!((recover.rate, recover.ties), (0.01, recovery::Ties::Strict));
        assert_eq!(command.inputs.prompts.unwrap(), PathBuf::from("p"));
    }
}
