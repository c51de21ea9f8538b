//! The `experiments` command: runs the sweep that its YAML file describes, and shows what there is of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use experiments::cli::{Cli, Command, Jobs, RunArgs, SlurmArgs, SweepArgs};
use experiments::config::{Paths, Sweep, find};
use experiments::error::with_causes;
use experiments::graph::Graph;
use experiments::pipeline::graph;
use experiments::record::{self, Record};
use experiments::roots::{Roots, State};
use experiments::run::{self, Run};
use experiments::slurm::{self, Scripts};
use experiments::status::CellState;
use experiments::store::{Store, is_stopped};
use experiments::{data, held_out, plan, report, status};
use realign::interrupt::EXIT_STATUS;
use realign::needs::Machine;
use realign::{DeviceName, Interrupt};

/// Freed memory stays with the process for a while: a training step frees and asks again for
/// gigabytes, and getting them from the system each time costs a third of the step.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    realign::log::to_stderr();
    match act(Cli::parse_from(Cli::with_run(std::env::args_os()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_stopped(&error) => ExitCode::from(EXIT_STATUS),
        Err(error) => {
            complain(&format!("error: {}", with_causes(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Prints; a reader that is gone is no error.
fn say(text: &str) {
    let _ = write!(std::io::stdout(), "{}", files::printable(text));
}

/// Prints a line to standard error, likewise.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", files::printable(line));
}

/// A sweep, and where its results and its stages are.
struct Opened {
    sweep: Sweep,
    paths: Paths,
    roots: Roots,
}

impl Opened {
    fn new(args: &SweepArgs) -> Result<Self> {
        let sweep = Sweep::load(&find(&args.sweep)?)?;
        let paths = sweep.paths(args.out.as_deref());
        let roots = Roots::new(&paths.own, paths.base.as_deref());
        check_name(&sweep, &paths)?;
        Ok(Self { sweep, paths, roots })
    }

    /// Makes the directory of results and the files that scripts make, and checks what some cells are asked.
    fn prepare(&self, chosen: &BTreeSet<usize>) -> Result<()> {
        files::create_dir(&self.paths.results)?;
        write_name(&self.sweep, &self.paths)?;
        data::prepare(&self.sweep, chosen)?;
        held_out::check(&self.sweep)
    }

    fn cells(&self, graph: &Graph, states: &[State]) -> BTreeMap<usize, CellState> {
        status::cells(&self.sweep, graph, states, &self.paths.results)
    }

    /// The records of all cells that have some, in the order of the grid.
    fn records(&self) -> Result<Vec<Record>> {
        let cells: Vec<String> = self.sweep.cells().iter().map(|cell| cell.path()).collect();
        record::read_cells(&self.paths.results.join("records"), cells)
    }

    /// Tables and figures of the records that there are; a run that was stopped early has none yet.
    fn report(&self) -> Result<()> {
        let records = self.records()?;
        if records.is_empty() {
            return Ok(());
        }
        report::write(&records, &self.paths.results)?;
        say(&report::text(&records, &self.paths.results)?);
        Ok(())
    }

    /// Which cells have records that may be of earlier settings.
    fn outdated(&self) -> String {
        let all = graph(&self.sweep, &self.roots, &(0..self.sweep.cells().len()).collect());
        let cells = self.cells(&all, &status::states(&all, &self.roots));
        status::outdated(&self.sweep, &cells, &self.paths.results)
    }
}

fn act(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(args) => run(&args),
        Command::Plan(args) => {
            let opened = Opened::new(&args.sweep)?;
            let graph = graph(&opened.sweep, &opened.roots, &opened.sweep.choose(&args.cells)?);
            let states = status::states(&graph, &opened.roots);
            let cells = opened.cells(&graph, &states);
            say(&plan::plan(&opened.sweep, &graph, &states, &cells));
            check_none_failed(&cells)
        }
        Command::Status(args) => {
            let opened = Opened::new(&args)?;
            let graph = graph(&opened.sweep, &opened.roots, &opened.sweep.choose(&[])?);
            let cells = opened.cells(&graph, &status::states(&graph, &opened.roots));
            say(&status::text(&opened.sweep, &graph, &cells, &opened.paths.results));
            say(&slurm::status(&opened.paths.results));
            check_none_failed(&cells)
        }
        Command::Slurm(args) => submit(&args),
        Command::Cancel(args) => {
            say(&slurm::cancel(&Opened::new(&args)?.paths.results)?);
            Ok(())
        }
        Command::Tables(args) => {
            let opened = Opened::new(&args)?;
            let records = opened.records()?;
            report::write_tables(&records, &opened.paths.results)?;
            say(&report::text(&records, &opened.paths.results)?);
            Ok(())
        }
        Command::Figures(args) => {
            let opened = Opened::new(&args)?;
            let dir = opened.paths.results.join("figures");
            report::write_figures(&opened.records()?, &dir)?;
            say(&format!("figures: {}\n", dir.display()));
            Ok(())
        }
    }
}

/// That no cell failed when it was last run.
fn check_none_failed(cells: &BTreeMap<usize, CellState>) -> Result<()> {
    match cells.values().filter(|state| matches!(state, CellState::Failed(_))).count() {
        0 => Ok(()),
        failed => bail!("{failed} cells failed"),
    }
}

fn run(args: &RunArgs) -> Result<()> {
    let opened = Opened::new(&args.plan.sweep)?;
    let Opened { sweep, paths, roots } = &opened;
    let chosen = sweep.choose(&args.plan.cells)?;
    sweep.check_files(&chosen)?;
    let device = args.device.open()?;
    let store = match &args.submission {
        Some(submission) => Store::open_shared(roots, args.device.name(), submission)?,
        None => Store::open(roots, args.device.name())?,
    };
    let interrupt = Interrupt::listen().context("cannot listen to Ctrl-C")?;
    opened.prepare(&chosen)?;
    let graph = graph(sweep, roots, &chosen);
    let jobs = match args.jobs {
        Some(Jobs::Number(jobs)) => jobs,
        Some(Jobs::Auto) => {
            let threads = if args.device == DeviceName::Flex { rayon::current_num_threads() } else { 1 };
            let jobs = plan::jobs(sweep, &chosen, threads, Machine::here(&paths.results).free_memory);
            say(&format!("--jobs auto: {jobs}\n"));
            jobs
        }
        None => sweep.jobs.unwrap_or(1),
    };
    let run = Run {
        sweep,
        graph: &graph,
        store: &store,
        results: &paths.results,
        device: &device,
        jobs,
        interrupt: &interrupt,
    };
    let ended = match &args.stage {
        Some(stage) => run.stage(graph.find(stage)?)?,
        None => {
            say(&format!(
                "{}: {}\n",
                sweep.name,
                status::counts(&opened.cells(&graph, &status::states(&graph, roots)))
            ));
            run.run()?
        }
    };
    let reported = if args.submission.is_some() { Ok(()) } else { opened.report() };
    if chosen.len() < sweep.cells().len() && args.submission.is_none() {
        say(&opened.outdated());
    }
    say(&run::times(&ended));
    let ended = if interrupt.is_set() {
        say("stopped; the same command goes on from here\n");
        Err(realign::Error::Stopped.into())
    } else {
        failed(&ended.failed, &chosen)
    };
    if let (Err(_), Err(error)) = (&ended, &reported) {
        complain(&format!("no tables: {}", with_causes(error)));
    }
    ended.and(reported)
}

fn submit(args: &SlurmArgs) -> Result<()> {
    let opened = Opened::new(&args.plan.sweep)?;
    let Opened { sweep, paths, roots } = &opened;
    let chosen = sweep.choose(&args.plan.cells)?;
    sweep.check_files(&chosen)?;
    if !args.dry_run {
        opened.prepare(&chosen)?;
    }
    let graph = graph(sweep, roots, &chosen);
    let states = status::states(&graph, roots);
    let cells = opened.cells(&graph, &states);
    say(&format!("{}: {}\n", sweep.name, status::counts(&cells)));
    let scripts = Scripts::new(args, sweep, &paths.results, (&graph, &states, &cells))?;
    say(&if args.dry_run { scripts.text() } else { scripts.submit(&paths.results)? });
    Ok(())
}

fn failed(failed: &[String], chosen: &BTreeSet<usize>) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} cells failed: {}; `experiments status` shows the errors, and the same command tries again",
        failed.len(),
        chosen.len(),
        failed.join(", ")
    )
}

/// The file in the directory of results that says whose they are.
const NAME: &str = "sweep";

/// Where the sweep file is, whichever way leads there.
fn sweep_path(sweep: &Sweep) -> String {
    let file = std::fs::canonicalize(sweep.file()).unwrap_or_else(|_| sweep.file().to_owned());
    file.display().to_string()
}

/// That the results are those of this sweep: another sweep file of the same name would replace them, or show them as its own.
fn check_name(sweep: &Sweep, paths: &Paths) -> Result<()> {
    let (path, own) = (paths.results.join(NAME), sweep_path(sweep));
    match std::fs::read_to_string(&path) {
        Ok(other) if other != own => bail!(
            "{} holds the results of {other}, and {own} has the same name {:?}: give it another name, or another --out",
            paths.results.display(),
            sweep.name
        ),
        _ => Ok(()),
    }
}

/// Notes whose results a directory has.
fn write_name(sweep: &Sweep, paths: &Paths) -> Result<()> {
    Ok(files::write_whole(&paths.results.join(NAME), sweep_path(sweep).as_bytes())?)
}
