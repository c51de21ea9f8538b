//! The `experiments` command: runs the sweep that its YAML file describes, and shows what there is of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use experiments::cli::{Cli, Command, SweepArgs};
use experiments::interrupt::{self, Stopped};
use experiments::stages::SweepJudge;
use experiments::store::{Roots, Store};
use experiments::survey::Survey;
use experiments::sweep::{Sweep, find};
use experiments::{estimate, figures, place, report, run, survey, tables};

/// Freed memory stays with the process for a while: a training step frees and asks again for
/// gigabytes, and getting them from the system each time costs a third of the step.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    realign::log::to_stderr();
    match act(Cli::parse_from(Cli::with_run(std::env::args_os()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Stopped>() => ExitCode::from(interrupt::EXIT_STATUS),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A sweep, and where its results and its kept stages are.
struct Place {
    file: PathBuf,
    sweep: Sweep,
    results: PathBuf,
    stages: Roots,
}

impl Place {
    fn open(args: &SweepArgs) -> anyhow::Result<Self> {
        let file = find(&args.sweep)?;
        let sweep = Sweep::load(&file)?;
        let (results, stages) = place::of(&sweep, args.out.as_deref());
        Ok(Self { file, sweep, results, stages })
    }

    /// The cells that the command line's patterns choose, else the sweep's.
    fn cells(&self, given: &[String]) -> anyhow::Result<BTreeSet<usize>> {
        let own: Vec<String> = self.sweep.cells.iter().cloned().collect();
        self.sweep.choose(if given.is_empty() { &own } else { given })
    }

    fn survey(&self) -> Survey {
        Survey::of(&self.sweep, &self.stages, &self.results)
    }
}

fn act(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(args) => {
            let place = Place::open(&args.plan.sweep)?;
            let cells = place.cells(&args.plan.cells)?;
            place.sweep.check_files(&place.file, &cells)?;
            let device = args.device.open()?;
            let store = Store::open(place.stages.clone(), args.device.name())?;
            std::fs::create_dir_all(&place.results)?;
            interrupt::listen()?;
            let options = run::Options { cells, jobs: args.jobs.or(place.sweep.jobs).unwrap_or(1) };
            run::run(&place.sweep, &store, &place.results, &device, &options)
        }
        Command::Plan(args) => {
            let place = Place::open(&args.sweep)?;
            let (cells, survey) = (place.cells(&args.cells)?, place.survey());
            print!("{}", estimate::plan(&place.sweep, &survey, &survey.select(&cells)));
            Ok(())
        }
        Command::Status(args) => {
            let place = Place::open(&args)?;
            let cells = place.cells(&[])?;
            print!("{}", survey::status(&place.sweep, &place.survey().select(&cells)));
            Ok(())
        }
        Command::Tables(args) => {
            let place = Place::open(&args)?;
            let (rows, judges) = (tables::read(&place.results)?, SweepJudge::all(&place.sweep));
            tables::differences::check_judge(&rows, judges.first(), &place.stages)?;
            report::write_tables(&rows, &judges, &place.stages, &place.results)?;
            report::print(&rows, &place.results)?;
            Ok(())
        }
        Command::Figures(args) => {
            let place = Place::open(&args)?;
            let dir = place.results.join("figures");
            figures::write(&tables::read(&place.results)?, &dir)?;
            println!("figures: {}", dir.display());
            Ok(())
        }
    }
}
